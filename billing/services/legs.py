"""Every write to requests and legs, in batches: open (with the hold), refuse, checkpoint, settle.

Each function takes one or many, runs in one short transaction and answers in the order asked. All is
or nothing is written; a repeat gives the first result. Callers hold no transaction open while they
talk to a provider: open, commit, call, settle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction

from billing import pricing
from billing.errors import AmountOutOfRange, InsufficientCredits, LegUnknown, WalletFrozen
from billing.leg_records import Closing, LegRow, LockedLeg, Opened, Opening, Refusal, Settled, Settlement
from billing.pricing import Usage
from billing.routing import PLATFORM_CREDITS
from billing.services import ledger, leg_statements, prices
from insighto.lib.errors import DomainError

__all__ = [
    "Opened",
    "Opening",
    "Refusal",
    "Settled",
    "Settlement",
    "checkpoint_many",
    "open_many",
    "refuse_many",
    "settle_many",
]


CHECKPOINT_LEASE_S = 60  # a leg that shows it is alive is not swept for this long
NO_CREDITS_STATUS = 402  # every refusal of a hold


@transaction.atomic
def open_many(openings: Sequence[Opening]) -> list[Opened | DomainError]:
    """Make each leg durable, with its hold where credits pay; the caller sends it right after.

    A hold that cannot be had answers with its `DomainError` (`InsufficientCredits`, `WalletFrozen`), and
    the refused request is recorded instead. Opening what was opened before changes nothing.
    """
    for opening in openings:
        assert not opening.decision.is_refused, "a refused decision is recorded by refuse_many"
    known = leg_statements.known(list({opening.leg_id for opening in openings}))
    fresh = {opening.leg_id: opening for opening in openings if opening.leg_id not in known}
    funded = [_hold(opening) for opening in fresh.values() if _pays_with_credits(opening)]
    held = dict(zip((hold.id for hold in funded), ledger.hold_many(funded), strict=True)) if funded else {}
    refused = {leg_id: answer for leg_id, answer in held.items() if isinstance(answer, DomainError)}
    _insert(
        [
            LegRow(opening, "refused", refused[leg_id].code, NO_CREDITS_STATUS)
            if leg_id in refused
            else LegRow(opening, "dispatched")
            for leg_id, opening in fresh.items()
        ]
    )
    answers: list[Opened | DomainError] = []
    seen: set[UUID] = set(known)
    for opening in openings:
        if opening.leg_id in known:
            answers.append(_first_answer(opening.leg_id, *known[opening.leg_id]))
        elif opening.leg_id in refused:
            answers.append(refused[opening.leg_id])
        else:
            hold_id = opening.leg_id if opening.leg_id in held else None
            answers.append(Opened(opening.leg_id, hold_id, is_repeat=opening.leg_id in seen))
        seen.add(opening.leg_id)
    return answers


@transaction.atomic
def refuse_many(refusals: Sequence[Refusal]) -> list[None]:
    """Record requests whose leg was not sent. Nothing is held and nothing charged."""
    rows = {each.opening.leg_id: LegRow(each.opening, "refused", each.code, each.http_status) for each in refusals}
    known = leg_statements.known(list(rows))
    _insert([row for leg_id, row in rows.items() if leg_id not in known])
    return [None] * len(refusals)


@transaction.atomic
def checkpoint_many(checkpoints: Sequence[tuple[UUID, Usage]]) -> list[None]:
    """Note what running legs have used so far: all that can be charged should we die. Never goes back."""
    latest = {leg_id: usage for leg_id, usage in checkpoints if usage.is_sane}
    leg_statements.checkpoint(latest, lease_s=CHECKPOINT_LEASE_S)
    return [None] * len(checkpoints)


@transaction.atomic
def settle_many(settlements: Sequence[Settlement]) -> list[Settled | DomainError]:
    """End each leg once and charge what it used; the first settlement of a leg is what a repeat gets.

    The price is the one the leg started with. Above the hold the rest is taken from the balance as far as
    it reaches, and what is left is written off. Usage that cannot be true is charged as the last checkpoint
    and flagged.
    """
    once = {settlement.leg_id: settlement for settlement in reversed(settlements)}
    legs = leg_statements.lock(list(once))
    ended = end([(legs[leg_id], settlement) for leg_id, settlement in once.items() if leg_id in legs])
    answers: list[Settled | DomainError] = []
    for settlement in settlements:
        leg = legs.get(settlement.leg_id)
        fresh = ended.get(settlement.leg_id)
        if leg is None:
            answers.append(LegUnknown())
        elif fresh is None:
            answers.append(Settled(leg.cost_micros, leg.estimate_micros, is_repeat=True))
        else:
            answers.append(fresh)
            ended[settlement.leg_id] = Settled(fresh.cost_micros, fresh.estimate_micros, is_repeat=True)
    return answers


def end(pairs: Sequence[tuple[LockedLeg, Settlement]], *, by_sweeper: bool = False) -> dict[UUID, Settled]:
    """Resolve, charge and close the legs among these that are still open. The caller has locked them."""
    open_pairs = [(leg, settlement) for leg, settlement in pairs if leg.state == "dispatched"]
    costs = {leg.id: _cost(leg, settlement) for leg, settlement in open_pairs}
    resolutions = [
        ledger.Resolution(leg.hold_id, *_resolution(leg, settlement, costs[leg.id], by_sweeper=by_sweeper))
        for leg, settlement in open_pairs
        if leg.hold_id is not None
    ]
    resolved = dict(zip((each.hold_id for each in resolutions), ledger.resolve_many(resolutions), strict=True))
    closings: list[Closing] = []
    settled: dict[UUID, Settled] = {}
    for leg, settlement in open_pairs:
        cost = costs[leg.id]
        taken, estimate = 0, cost.micros if leg.price_id is not None else None
        if leg.hold_id is not None:
            outcome = resolved[leg.hold_id]
            assert isinstance(outcome, ledger.Resolved), "a leg names a hold that does not exist"
            assert not outcome.is_repeat, "a hold ended without its leg"
            taken, estimate = outcome.amount_micros, None
            if cost.micros > leg.hold_micros and not by_sweeper:
                assert leg.payer_id is not None
                taken += ledger.charge_beyond_hold(
                    owner_id=leg.payer_id,
                    amount_micros=cost.micros - leg.hold_micros,
                    reference=str(leg.id),
                    price_id=leg.price_id,
                )
        settled[leg.id] = Settled(taken, estimate)
        state = "expired" if by_sweeper else settlement.outcome
        closings.append(Closing(leg, settlement, state, cost.usage, taken, estimate, cost.is_doubtful))
    if closings:
        leg_statements.close(closings)
    return settled


@dataclass(frozen=True, slots=True)
class _Cost:
    micros: int
    usage: Usage
    is_doubtful: bool = False


def _cost(leg: LockedLeg, settlement: Settlement) -> _Cost:
    """What a leg comes to by the price it started with."""
    usage = settlement.usage if settlement.usage.is_sane else leg.checkpoint
    doubtful = usage is not settlement.usage
    if settlement.outcome == "void" or leg.price_id is None:
        return _Cost(0, usage, doubtful)
    price = prices.by_id(leg.price_id)
    try:
        return _Cost(pricing.cost_micros(price, usage), usage, doubtful)
    except AmountOutOfRange:
        return _Cost(pricing.cost_micros(price, leg.checkpoint), leg.checkpoint, is_doubtful=True)


def _resolution(leg: LockedLeg, settlement: Settlement, cost: _Cost, *, by_sweeper: bool) -> tuple[str, int]:
    if by_sweeper and not cost.micros:
        return "expire", 0
    if settlement.outcome == "void":
        return "void", 0
    return "settle", min(cost.micros, leg.hold_micros)


def _pays_with_credits(opening: Opening) -> bool:
    return opening.decision.funding_source == PLATFORM_CREDITS


def _hold(opening: Opening) -> ledger.Hold:
    """The hold shares the leg's id: whoever repeats the leg repeats the hold."""
    assert opening.price is not None, "credits need a price"
    assert opening.decision.payer_id is not None, "credits need a payer"
    return ledger.Hold(
        id=opening.leg_id,
        owner_id=opening.decision.payer_id,
        amount_micros=opening.hold_micros,
        price_id=opening.price.id,
        reference=str(opening.leg_id),
    )


def _first_answer(leg_id: UUID, state: str, reason: str, hold_id: UUID | None) -> Opened | DomainError:
    if state == "refused":
        return WalletFrozen() if reason == WalletFrozen.code else InsufficientCredits()
    return Opened(leg_id, hold_id, is_repeat=True)


def _insert(rows: Sequence[LegRow]) -> None:
    if rows:
        leg_statements.insert(rows)
