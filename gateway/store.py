"""The one narrow door from the event loop to the database.

Every function queues its ask; one thread per kind of work runs everything queued as one batch (group commit).
Nothing else in the hot path may touch the ORM. A store lives as long as its event loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from django.db import connection, transaction

from accounts import selectors as accounts
from accounts.selectors import Caller
from billing import selectors as billing
from billing.leg_records import Opened, Opening, Refusal, Settled, Settlement
from billing.pricing import PriceRow, Usage
from billing.selectors import RouteFacts
from billing.services import legs
from insighto.lib.batcher import Batcher
from insighto.lib.errors import DomainError
from provider_keys.classify import Outcome
from provider_keys.services import checks

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """Who may do what: an API key's digest, or an account already known; a provider and a priced model."""

    provider: str = ""  # empty: only who is asking
    price_model: str = ""
    digest: bytes | None = None
    account_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer: who asks, and the facts and the price a leg starts with."""

    account_id: UUID
    api_key_id: UUID | None
    facts: RouteFacts | None
    price: PriceRow | None


@dataclass(frozen=True, slots=True)
class Evidence:
    connection_id: UUID
    secret_version: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class _Write:
    run: Callable[[list[Any]], Sequence[Any]]
    ask: Any


class Store:
    def __init__(self) -> None:
        self._admit: Batcher[Ask, Admission | None] = Batcher(_admit, "admit")
        self._open: Batcher[_Write, Any] = Batcher(_write, "open")
        # On SQLite one connection writes at a time anyway: a second thread would only wait in the database's own,
        # coarser, queue. On PostgreSQL openings and settlements commit side by side.
        is_single = connection.vendor == "sqlite"
        self._settle: Batcher[_Write, Any] = self._open if is_single else Batcher(_write, "settle")
        self._read: Batcher[Callable[[], Any], Any] = Batcher(_read, "read", max_batch=8)

    async def admit(self, ask: Ask) -> Admission | None:
        """None: no such API key, or no longer."""
        return await self._admit.submit(ask)

    async def open(self, opening: Opening) -> Opened:
        """Durable, with its hold. Raises the ledger's refusal, which is recorded then."""
        answer: Opened | DomainError = await self._open.submit(_Write(legs.open_many, opening))
        if isinstance(answer, DomainError):
            raise answer
        return answer

    async def refuse(self, refusal: Refusal) -> None:
        await self._settle.submit(_Write(legs.refuse_many, refusal))

    async def settle(self, settlement: Settlement) -> Settled | None:
        """What was charged; None when the leg is not there."""
        answer: Settled | DomainError = await self._settle.submit(_Write(legs.settle_many, settlement))
        return answer if isinstance(answer, Settled) else None

    async def checkpoint(self, leg_id: UUID, usage: Usage) -> None:
        await self._settle.submit(_Write(_checkpoint, (leg_id, usage)))

    async def learn(self, evidence: Evidence) -> None:
        await self._settle.submit(_Write(_learn, evidence))

    async def read(self, question: Callable[[], T]) -> T:
        """Any other read, off the hot path."""
        answer: T = await self._read.submit(question)
        return answer

    def close(self) -> None:
        for batcher in (self._admit, self._open, self._settle, self._read):
            batcher.close()


def _admit(asks: list[Ask]) -> list[Admission | None]:
    digests = [ask.digest for ask in asks if ask.digest is not None]
    callers: dict[bytes, Caller] = accounts.callers(digests) if digests else {}
    found: list[tuple[UUID, UUID | None] | None] = []
    for ask in asks:
        caller = callers.get(ask.digest) if ask.digest is not None else None
        if caller is not None:
            found.append((caller.account_id, caller.api_key_id))
        else:
            found.append((ask.account_id, None) if ask.account_id is not None and ask.digest is None else None)
    wanted = [
        (place, (who[0], ask.provider))
        for place, (ask, who) in enumerate(zip(asks, found, strict=True))
        if who is not None and ask.provider
    ]
    facts = dict(zip((place for place, _ in wanted), billing.standings([pair for _, pair in wanted]), strict=True))
    return [
        None
        if who is None
        else Admission(
            who[0],
            who[1],
            facts.get(place),
            billing.price_for(ask.provider, ask.price_model) if ask.price_model else None,
        )
        for place, (ask, who) in enumerate(zip(asks, found, strict=True))
    ]


def _write(writes: list[_Write]) -> list[Any]:
    """Each kind of write together, in one short transaction of its own."""
    kinds: dict[Callable[[list[Any]], Sequence[Any]], list[int]] = {}
    for place, write in enumerate(writes):
        kinds.setdefault(write.run, []).append(place)
    answers: list[Any] = [None] * len(writes)
    for run, places in kinds.items():
        for place, answer in zip(places, run([writes[place].ask for place in places]), strict=True):
            answers[place] = answer
    return answers


def _checkpoint(asks: list[tuple[UUID, Usage]]) -> list[None]:
    legs.checkpoint_many(asks)
    return [None] * len(asks)


def _learn(evidence: list[Evidence]) -> list[None]:
    with transaction.atomic():
        for each in evidence:
            checks.record_evidence(
                connection_id=each.connection_id, secret_version=each.secret_version, outcome=each.outcome
            )
    return [None] * len(evidence)


def _read(questions: list[Callable[[], Any]]) -> list[Any]:
    return [question() for question in questions]
