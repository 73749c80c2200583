"""The ledger's only writer: transfers, and the running sums of wallets in the same transaction.

One transfer row is both entries. A wallet is judged and changed against its locked row, in the
statement that inserts the transfer; the platform's books have no running sums and no lock. Locks are
taken in the order of wallet ids, so that batches never wait for each other in a circle.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction
from django.db.models import F

from accounts.models import Account, User
from billing import money
from billing.errors import HoldNotOpen, IdempotencyConflict, InsufficientCredits, WalletFrozen
from billing.models import LedgerAccount, LedgerAccountQuerySet, Transfer
from billing.services import statements
from insighto.lib import ids, postgres
from insighto.lib.errors import DomainError

Kind = Transfer.Kind

FUNDING_ID = ids.derived("billing.ledger_account", LedgerAccount.Kind.FUNDING)
REVENUE_ID = ids.derived("billing.ledger_account", LedgerAccount.Kind.REVENUE)
WRITEOFF_ID = ids.derived("billing.ledger_account", LedgerAccount.Kind.WRITEOFF)
_BOOKS = {
    LedgerAccount.Kind.FUNDING: FUNDING_ID,
    LedgerAccount.Kind.REVENUE: REVENUE_ID,
    LedgerAccount.Kind.WRITEOFF: WRITEOFF_ID,
}


@dataclass(frozen=True, slots=True)
class Hold:
    """Credits to set aside. The id was made by the caller; it is what makes a repeat a repeat."""

    id: UUID
    owner_id: UUID
    amount_micros: int
    price_id: UUID | None = None
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    hold_id: UUID
    is_repeat: bool = False


@dataclass(frozen=True, slots=True)
class Resolution:
    """How a hold ends: `settle` takes `amount_micros` of it (never more than was held), `void` and `expire` nothing."""

    hold_id: UUID
    kind: str
    amount_micros: int = 0


@dataclass(frozen=True, slots=True)
class Resolved:
    kind: str
    amount_micros: int
    is_repeat: bool = False


# --- Wallets ------------------------------------------------------------------------------------------------


def open_wallets(owner_ids: Iterable[UUID]) -> None:
    """Give each account a wallet, and the platform its books, where missing. A repeat changes nothing."""
    missing = [LedgerAccount(id=book, kind=kind, owner=None, floor_zero=False) for kind, book in _BOOKS.items()]
    missing += [LedgerAccount(owner_id=owner_id, kind=LedgerAccount.Kind.WALLET) for owner_id in sorted(set(owner_ids))]
    LedgerAccount.objects.bulk_create(missing, ignore_conflicts=True)


def wallet(account: Account) -> LedgerAccount:
    """The account's wallet, opened on first use."""
    found = _wallets().of(account).first()
    if found is None:
        open_wallets([account.pk])
        found = _wallets().of(account).get()
    return found


def balance(account: Account) -> int:
    """What the account may still spend, in micros."""
    found = _wallets().of(account).first()
    return found.balance_micros if found else 0


def _wallets() -> LedgerAccountQuerySet:
    return LedgerAccount.objects.filter(kind=LedgerAccount.Kind.WALLET)


# --- Credits in and out ---------------------------------------------------------------------------------------


def grant(*, account: Account, amount_micros: int, reason: str, actor: User | None, idempotency_key: str) -> Transfer:
    """Give the account credits. The same key again gives the first transfer; for anything else it is a conflict."""
    return _post(
        kind=Kind.GRANT,
        owner=account,
        debit_id=FUNDING_ID,
        credit_id=wallet(account).pk,
        amount_micros=amount_micros,
        idempotency_key=idempotency_key,
        actor=actor,
        reason=reason,
    )


def adjust(*, account: Account, amount_micros: int, reason: str, actor: User | None, idempotency_key: str) -> Transfer:
    """Correct a balance, up or (negative) down; raises `InsufficientCredits` rather than go below zero."""
    own = wallet(account).pk
    debit_id, credit_id = (FUNDING_ID, own) if amount_micros >= 0 else (own, FUNDING_ID)
    return _post(
        kind=Kind.ADJUST,
        owner=account,
        debit_id=debit_id,
        credit_id=credit_id,
        amount_micros=abs(amount_micros),
        idempotency_key=idempotency_key,
        actor=actor,
        reason=reason,
    )


def move(
    *, source: Account, target: Account, amount_micros: int, reason: str, actor: User | None, idempotency_key: str
) -> Transfer:
    """Send credits from one account's wallet to another's; raises `InsufficientCredits` or `WalletFrozen`."""
    return _post(
        kind=Kind.MOVE,
        owner=source,
        debit_id=wallet(source).pk,
        credit_id=wallet(target).pk,
        amount_micros=amount_micros,
        idempotency_key=idempotency_key,
        actor=actor,
        reason=reason,
    )


@transaction.atomic
def charge_beyond_hold(*, owner_id: UUID, amount_micros: int, reference: str, price_id: UUID | None) -> int:
    """Take what a leg cost above its hold, as far as the wallet reaches; the rest is written off.

    Returns what was taken. Repeating it for the same `reference` takes nothing more.
    """
    money.checked(amount_micros)
    own = LedgerAccount.objects.select_for_update(no_key=True).get(owner_id=owner_id, kind=LedgerAccount.Kind.WALLET)
    key = f"beyond:{reference}"
    taken_before = Transfer.objects.filter(owner_id=owner_id, idempotency_key=key).first()
    if taken_before is not None:
        return taken_before.amount_micros
    taken = min(max(own.balance_micros, 0), amount_micros)
    entries = [(Kind.ADJUST, own.pk, taken, key), (Kind.WRITEOFF, WRITEOFF_ID, amount_micros - taken, f"{key}:rest")]
    for kind, debit_id, amount, entry_key in entries:
        if kind == Kind.WRITEOFF and not amount:
            continue
        Transfer.objects.create(
            kind=kind,
            owner_id=owner_id,
            debit_id=debit_id,
            credit_id=REVENUE_ID,
            amount_micros=amount,
            idempotency_key=entry_key,
            price_id=price_id,
            reference=reference,
            reason="Final price above the hold",
        )
    _take(own.pk, taken)
    return taken


@transaction.atomic
def _post(
    *,
    kind: str,
    owner: Account,
    debit_id: UUID,
    credit_id: UUID,
    amount_micros: int,
    idempotency_key: str,
    actor: User | None,
    reason: str,
) -> Transfer:
    money.checked(amount_micros)
    wallets = list(
        LedgerAccount.objects.select_for_update(no_key=True)
        .filter(pk__in=[debit_id, credit_id], kind=LedgerAccount.Kind.WALLET)
        .order_by("pk")
    )
    first = Transfer.objects.filter(owner=owner, idempotency_key=idempotency_key).first()
    if first is not None:
        asked = (kind, debit_id, credit_id, amount_micros, reason)
        if asked != (first.kind, first.debit_id, first.credit_id, first.amount_micros, first.reason):
            raise IdempotencyConflict
        return first
    for own in wallets:
        if own.pk == debit_id:
            if kind == Kind.MOVE and own.frozen_at is not None:
                raise WalletFrozen
            _take(own.pk, amount_micros)
        else:
            money.checked(own.credits_posted + amount_micros)
            LedgerAccount.objects.filter(pk=own.pk).update(credits_posted=F("credits_posted") + amount_micros)
    return Transfer.objects.create(
        kind=kind,
        owner=owner,
        debit_id=debit_id,
        credit_id=credit_id,
        amount_micros=amount_micros,
        idempotency_key=idempotency_key,
        actor=actor,
        reason=reason,
    )


def _take(wallet_id: UUID, amount_micros: int) -> None:
    """Check and act in one statement: the balance is never judged by a value read earlier."""
    changed = LedgerAccount.objects.filter(
        pk=wallet_id, credits_posted__gte=F("debits_posted") + F("debits_pending") + amount_micros
    ).update(debits_posted=F("debits_posted") + amount_micros)
    if not changed:
        raise InsufficientCredits


# --- Holds ----------------------------------------------------------------------------------------------------


@transaction.atomic
def hold_many(holds: Sequence[Hold]) -> list[Held | DomainError]:
    """Set credits aside for each hold in turn, as if they came one after another: a later one may fit where
    an earlier did not. Answers `InsufficientCredits`, `WalletFrozen` or `IdempotencyConflict` in the place of
    a hold that was not made; the same hold again gives the first result.
    """
    for hold in holds:
        money.checked(hold.amount_micros)
    owners = {hold.owner_id for hold in holds}
    if statements.lock_wallets_of(owners) < len(owners):
        open_wallets(owners)
        statements.lock_wallets_of(owners)
    made = _hold_in_turn(holds)
    left = [hold for hold in holds if hold.id not in made]
    refused = _explain_refusals(left) if left else {}
    answers: list[Held | DomainError] = []
    for hold in holds:
        answers.append(refused.get(hold.id) or Held(hold.id))
    return answers


def _hold_in_turn(holds: Sequence[Hold]) -> set[UUID]:
    """Each pass admits the longest prefix that fits of what could fit at all; repeated while any was admitted,
    this is the same as judging one hold after another, and one pass is enough unless credits run out.
    """
    insert = statements.insert_holds if postgres.is_used() else statements.insert_holds_one_by_one
    made: set[UUID] = set()
    left = list({hold.id: hold for hold in holds}.values())
    while left:
        admitted = insert(left, REVENUE_ID)
        made |= admitted
        left = [hold for hold in left if hold.id not in made]
        if not admitted or not postgres.is_used():
            break
    return made


def _explain_refusals(holds: Sequence[Hold]) -> dict[UUID, Held | DomainError]:
    known = Transfer.objects.in_bulk([hold.id for hold in holds])
    frozen = set(
        LedgerAccount.objects.filter(
            owner_id__in={hold.owner_id for hold in holds}, kind=LedgerAccount.Kind.WALLET, frozen_at__isnull=False
        ).values_list("owner_id", flat=True)
    )
    reasons: dict[UUID, Held | DomainError] = {}
    for hold in holds:
        first = known.get(hold.id)
        if first is not None:
            same = (first.kind, first.owner_id, first.amount_micros) == (Kind.HOLD, hold.owner_id, hold.amount_micros)
            reasons[hold.id] = Held(hold.id, is_repeat=True) if same else IdempotencyConflict()
        else:
            reasons[hold.id] = WalletFrozen() if hold.owner_id in frozen else InsufficientCredits()
    return reasons


@transaction.atomic
def resolve_many(resolutions: Sequence[Resolution]) -> list[Resolved | DomainError]:
    """End each hold once. The first resolution of a hold is what a repeat gets, whatever the repeat asked.

    Answers `HoldNotOpen` for a hold that does not exist. A settlement above the hold takes the hold.
    """
    for resolution in resolutions:
        money.checked(resolution.amount_micros)
    once = list({resolution.hold_id: resolution for resolution in reversed(resolutions)}.values())
    statements.lock_wallets_behind([resolution.hold_id for resolution in once])
    insert = statements.insert_resolutions if postgres.is_used() else statements.insert_resolutions_one_by_one
    fresh = insert(once)
    if len(fresh) < len(resolutions):
        earlier = {
            row.hold_id: Resolved(row.kind, row.amount_micros, is_repeat=True)
            for row in Transfer.objects.filter(hold_id__in=[each.hold_id for each in resolutions])
        }
    else:
        earlier = {}
    answers: list[Resolved | DomainError] = []
    for resolution in resolutions:
        first = fresh.pop(resolution.hold_id, None)
        if first is not None:
            answers.append(Resolved(*first))
        else:
            answers.append(earlier.get(resolution.hold_id) or HoldNotOpen())
    return answers


def settle(*, hold_id: UUID, amount_micros: int) -> Resolved:
    """Take `amount_micros` of the hold and give the rest back."""
    return _resolve(Resolution(hold_id, Kind.SETTLE, amount_micros))


def void(*, hold_id: UUID) -> Resolved:
    """Give the whole hold back: nothing was delivered."""
    return _resolve(Resolution(hold_id, Kind.VOID))


def expire(*, hold_id: UUID) -> Resolved:
    """Give the whole hold back: nobody came for it."""
    return _resolve(Resolution(hold_id, Kind.EXPIRE))


def _resolve(resolution: Resolution) -> Resolved:
    [answer] = resolve_many([resolution])
    if isinstance(answer, DomainError):
        raise answer
    return answer
