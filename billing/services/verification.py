"""Proves the books: every wallet recomputed from its transfers, every leg held against its hold.

A mismatch freezes that one wallet, and with it the account's paid traffic; nothing is repaired here.
History is the truth and corrections are transfers; only running sums may be restored from it.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import F, OuterRef, Q, Subquery, Sum
from django.db.models.functions import Coalesce, Now

from accounts.models import Account
from billing.models import LedgerAccount, Leg, Request, Transfer

logger = logging.getLogger(__name__)

GRACE = timedelta(minutes=5)  # the sweeper has had its chance
_ENDED = [Leg.State.SETTLED, Leg.State.VOID, Leg.State.EXPIRED]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that is not as it must be."""

    owner_id: UUID
    code: str
    detail: str


def verify(account: Account | None = None) -> list[Mismatch]:
    """Check one account's books, or everybody's; wallets that do not add up are frozen."""
    wallets = LedgerAccount.objects.filter(kind=LedgerAccount.Kind.WALLET).order_by("pk")
    if account is not None:
        wallets = wallets.of(account)
    found: list[Mismatch] = []
    for wallet_id in list(wallets.values_list("pk", flat=True)):
        found += _verify_wallet(wallet_id)
    return found


@transaction.atomic
def release(account: Account) -> list[Mismatch]:
    """Let paid traffic flow again, if the books are right now."""
    found = verify(account)
    if not found:
        LedgerAccount.objects.of(account).update(frozen_at=None)
    return found


@transaction.atomic
def restore_sums(account: Account) -> None:
    """Set the wallet's running sums to what its transfers say. The transfers are never touched."""
    wallet = LedgerAccount.objects.of(account).select_for_update(no_key=True).get(kind=LedgerAccount.Kind.WALLET)
    LedgerAccount.objects.filter(pk=wallet.pk).update(**_sums(wallet.pk))


@transaction.atomic
def _verify_wallet(wallet_id: UUID) -> list[Mismatch]:
    """Under the wallet's lock, so that no transfer of this account is half there."""
    wallet = LedgerAccount.objects.select_for_update(no_key=True).get(pk=wallet_id)
    assert wallet.owner_id is not None, "a wallet belongs to an account"
    found = [Mismatch(wallet.owner_id, code, detail) for code, detail in _mismatches(wallet, wallet.owner_id)]
    if found:
        LedgerAccount.objects.filter(pk=wallet_id, frozen_at=None).update(frozen_at=Now())
        for mismatch in found:
            logger.error("ledger_mismatch %s %s %s", mismatch.owner_id, mismatch.code, mismatch.detail)
    return found


def _mismatches(wallet: LedgerAccount, owner_id: UUID) -> Iterator[tuple[str, str]]:
    for name, expected in _sums(wallet.pk).items():
        if getattr(wallet, name) != expected:
            yield "wallet_sum", f"{name} is {getattr(wallet, name)}, its transfers say {expected}"
    if wallet.balance_micros < 0:
        yield "negative_balance", str(wallet.balance_micros)

    legs = Leg.objects.filter(payer_id=owner_id)
    unresolved = legs.filter(state__in=_ENDED, hold__isnull=False, hold__resolution=None)
    for leg_id in unresolved.values_list("pk", flat=True):
        yield "leg_without_settlement", str(leg_id)
    unheld = legs.filter(funding_source="platform_credits", hold=None).exclude(state=Leg.State.REFUSED)
    for leg_id in unheld.values_list("pk", flat=True):
        yield "leg_without_hold", str(leg_id)
    for leg_id in (
        Leg.objects.filter(account_id=owner_id)
        .exclude(funding_source="platform_credits")
        .filter(~Q(cost_micros=0) | Q(hold__isnull=False))
        .values_list("pk", flat=True)
    ):
        yield "own_key_leg_charged", str(leg_id)

    beyond = Transfer.objects.filter(
        owner_id=owner_id, kind=Transfer.Kind.ADJUST, debit=wallet, hold=None, price_id__isnull=False
    )
    extra = {row["reference"]: row["total"] for row in beyond.values("reference").annotate(total=Sum("amount_micros"))}
    charged = legs.filter(state__in=_ENDED, hold__resolution__isnull=False).annotate(
        taken=F("hold__resolution__amount_micros")
    )
    differing = charged.exclude(cost_micros=F("taken"))
    for leg_id, cost, taken in differing.values_list("pk", "cost_micros", "taken"):
        if cost != taken + extra.get(str(leg_id), 0):
            yield "leg_cost", f"{leg_id} says {cost}, its transfers {taken + extra.get(str(leg_id), 0)}"

    holds = Transfer.objects.filter(debit=wallet, kind=Transfer.Kind.HOLD)
    without_leg = holds.exclude(reference="").annotate(
        leg_id=Subquery(Leg.objects.filter(hold_id=OuterRef("pk")).values("pk")[:1])
    )
    for hold_id in without_leg.filter(leg_id=None).values_list("pk", flat=True):
        yield "hold_without_leg", str(hold_id)
    open_legs = legs.filter(state=Leg.State.DISPATCHED)
    for leg_id in open_legs.filter(deadline_at__lt=Now() - GRACE).values_list("pk", flat=True):
        yield "hold_past_deadline", str(leg_id)
    early = open_legs.filter(hold__resolution__isnull=False)
    for leg_id in early.values_list("pk", flat=True):
        yield "settled_while_open", str(leg_id)
    stuck = Request.objects.filter(account_id=owner_id).exclude(state=Request.State.RUNNING)
    for request_id in stuck.filter(legs__state=Leg.State.DISPATCHED, finished_at__lt=Now() - GRACE).values_list(
        "pk", flat=True
    ):
        yield "request_ended_leg_open", str(request_id)


def _sums(wallet_id: UUID) -> dict[str, int]:
    """What the running sums of a wallet must be, from its transfers alone."""
    posted = Transfer.objects.exclude(kind=Transfer.Kind.HOLD)
    pending = Transfer.objects.filter(kind=Transfer.Kind.HOLD, resolution=None)
    total = Coalesce(Sum("amount_micros"), 0)
    return {
        "debits_posted": posted.filter(debit_id=wallet_id).aggregate(total=total)["total"],
        "credits_posted": posted.filter(credit_id=wallet_id).aggregate(total=total)["total"],
        "debits_pending": pending.filter(debit_id=wallet_id).aggregate(total=total)["total"],
        "credits_pending": pending.filter(credit_id=wallet_id).aggregate(total=total)["total"],
    }
