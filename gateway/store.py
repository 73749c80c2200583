"""The one narrow door from the event loop to the database.

Every function queues its ask, and everything queued runs as one batch (group commit). On PostgreSQL the usual
case takes a lane: one statement, sent and answered in the event loop. What a lane leaves, and everything on
SQLite, runs on one thread per kind of work, through the services. Nothing else in the hot path may touch
the ORM. A store lives as long as its event loop.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from django.db import connection, transaction

from billing import selectors as billing
from billing.leg_records import Opened, Opening, Refusal, Settled, Settlement
from billing.pricing import PriceRow, Usage
from billing.selectors import Asking, Known, RouteFacts
from billing.services import leg_batches, legs
from insighto.lib.batcher import Batcher
from insighto.lib.errors import DomainError
from insighto.lib.lane import LEFT, Lane
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


class _Lanes:
    """The usual case of the three things every request asks, each with a connection of its own."""

    def __init__(self) -> None:
        self.known: Lane[Asking, Known | None] = Lane("known", billing.KNOWN, billing.known_ask, billing.known_read)
        self.open: Lane[Opening, Opened] = Lane("open", leg_batches.OPEN, leg_batches.open_ask, leg_batches.open_read)
        self.settle: Lane[Settlement, Settled] = Lane(
            "settle", leg_batches.SETTLE, leg_batches.settle_ask, leg_batches.settle_read
        )

    async def close(self) -> None:
        for lane in (self.known, self.open, self.settle):
            await lane.close()


class Store:
    def __init__(self) -> None:
        # On SQLite one connection writes at a time anyway: a second thread would only wait in the database's own,
        # coarser, queue. On PostgreSQL openings and settlements commit side by side.
        is_single = connection.vendor == "sqlite"
        self._lanes = None if is_single else _Lanes()
        self._known: Batcher[Asking, Known | None] = Batcher(billing.known, "known")
        self._open: Batcher[_Write, Any] = Batcher(_write, "open")
        self._settle: Batcher[_Write, Any] = self._open if is_single else Batcher(_write, "settle")
        self._read: Batcher[Callable[[], Any], Any] = Batcher(_read, "read", max_batch=8)

    async def admit(self, ask: Ask) -> Admission | None:
        """None: no such API key, or no longer."""
        asking = Asking(ask.provider, ask.digest, ask.account_id)
        known = LEFT if self._lanes is None else await self._lanes.known.submit(asking)
        if known is LEFT:
            known = await self._known.submit(asking)
        if known is None:
            return None
        price: PriceRow | None = None
        if ask.price_model:
            remembered = billing.remembered_price(ask.provider, ask.price_model)
            if remembered is None:
                price = await self.read(lambda: billing.price_for(ask.provider, ask.price_model))
            else:
                price = remembered.price
        return Admission(known.account_id, known.api_key_id, known.facts, price)

    async def open(self, opening: Opening) -> Opened:
        """Durable, with its hold. Raises the ledger's refusal, which is recorded then."""
        if self._lanes is not None:
            opened = await self._lanes.open.submit(opening)
            if opened is not LEFT:
                return opened
        answer: Opened | DomainError = await self._open.submit(_Write(legs.open_many, opening))
        if isinstance(answer, DomainError):
            raise answer
        return answer

    async def refuse(self, refusal: Refusal) -> None:
        await self._settle.submit(_Write(legs.refuse_many, refusal))

    async def settle(self, settlement: Settlement) -> Settled | None:
        """What was charged; None when the leg is not there."""
        if self._lanes is not None:
            settled = await self._lanes.settle.submit(settlement)
            if settled is not LEFT:
                return settled
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

    async def close(self) -> None:
        if self._lanes is not None:
            await self._lanes.close()
        await asyncio.to_thread(self._close_threads)

    def _close_threads(self) -> None:
        for batcher in (self._known, self._open, self._settle, self._read):
            batcher.close()


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
