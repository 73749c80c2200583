"""The work list: rows written in the transaction that makes the work due; Celery only rings.

A worker claims a row (the attempt is counted and the lease taken before any work), does the
work, finishes the row. A killed worker's lease runs out and the poller rings again; after
five attempts the row is dead and operators see it. Work must be safe to run twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.models import Account, OutboxEntry
from insighto.lib import queue

logger = structlog.get_logger(__name__)

RINGS_PER_SWEEP: Final = 200
BACKOFF: Final = (timedelta(seconds=2), timedelta(seconds=10), timedelta(seconds=30), timedelta(minutes=2))


@dataclass(frozen=True, slots=True)
class Kind:
    """How work of one kind is done: the task that gets the entry's id, and what to do when it is given up."""

    task: str
    lease: timedelta
    on_dead: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on one entry until the lease runs out."""

    entry_id: UUID
    subject: str
    version: int
    attempt: int


_kinds: dict[str, Kind] = {}


def register(name: str, *, task: str, lease: timedelta, on_dead: Callable[[str], None] = lambda _: None) -> None:
    """Make a kind known. Tasks modules register theirs when they are imported."""
    _kinds[name] = Kind(task, lease, on_dead)


@transaction.atomic
def add(
    *, kind: str, subject: str, account: Account | None = None, available_at: datetime | None = None
) -> OutboxEntry:
    """Owe the work, in the caller's transaction, and ring when it is due now.

    One open entry exists per kind and subject: adding again moves it forward, and makes a run
    that is under way run once more, because it may have read its facts before ours.
    """
    now = timezone.now()
    due = available_at or now
    entry, created = OutboxEntry.objects.select_for_update().get_or_create(
        kind=kind,
        subject=subject,
        done_at=None,
        dead_at=None,
        defaults={"account": account, "available_at": due},
    )
    if not created:
        entry.version += 1
        # A run under way has used up the old time; only a time set since it began still counts.
        is_used_up = entry.locked_until is not None and entry.available_at <= entry.locked_until - _lease(kind)
        entry.available_at = due if is_used_up else min(entry.available_at, due)
        entry.save(update_fields=["version", "available_at"])
    if due <= now:
        _ring(entry)
    return entry


@transaction.atomic
def claim(kind: str, entry_id: UUID) -> Claim | None:
    """Take the lease and count the attempt; None when there is nothing to do: not due, leased, done, dead, unknown."""
    entry = _due(timezone.now()).filter(pk=entry_id, kind=kind).first()
    if entry is None:
        return None
    if entry.attempts >= OutboxEntry.MAX_ATTEMPTS:
        _bury(entry)
        return None
    entry.attempts += 1
    entry.locked_until = timezone.now() + _lease(kind)
    entry.save(update_fields=["attempts", "locked_until"])
    return Claim(entry.pk, entry.subject, entry.version, entry.attempts)


@transaction.atomic
def finish(held: Claim) -> bool:
    """The work is done. False when more was added meanwhile: the entry is due again, from its first attempt."""
    entry = OutboxEntry.objects.select_for_update().filter(pk=held.entry_id, done_at=None, dead_at=None).first()
    if entry is None:
        return True
    if entry.attempts != held.attempt:
        return False  # our lease ran out and somebody else holds it: theirs to finish
    if entry.version != held.version:
        entry.attempts, entry.locked_until = 0, None
        entry.save(update_fields=["attempts", "locked_until"])
        if entry.available_at <= timezone.now():
            _ring(entry)
        return False
    entry.done_at = timezone.now()
    entry.locked_until = None
    entry.save(update_fields=["done_at", "locked_until"])
    return True


@transaction.atomic
def fail(held: Claim) -> bool:
    """The work broke. It becomes due again, later each time; True when that was its last attempt."""
    entry = OutboxEntry.objects.select_for_update().filter(pk=held.entry_id, done_at=None, dead_at=None).first()
    if entry is None or entry.attempts != held.attempt:
        return False
    if entry.attempts >= OutboxEntry.MAX_ATTEMPTS:
        _bury(entry)
        return True
    entry.locked_until = None
    entry.available_at = timezone.now() + BACKOFF[min(entry.attempts, len(BACKOFF)) - 1]
    entry.save(update_fields=["locked_until", "available_at"])
    return False


def work(kind: str, entry_id: str, do: Callable[[str], object]) -> bool:
    """Claim the entry, do the work on its subject, finish or fail it. False when nothing was done.

    What a task gets from the broker may be forged: without a due row of this kind nothing happens.
    An exception ends here and only its type is told, because its frames may hold secrets.
    """
    try:
        held = claim(kind, UUID(entry_id))
    except (ValueError, TypeError, AttributeError):
        logger.warning("outbox.forged", kind=kind)
        return False
    if held is None:
        return False
    try:
        do(held.subject)
    except Exception as error:
        logger.error("outbox.attempt_failed", kind=kind, entry=entry_id, error=type(error).__name__)
        fail(held)
        return False
    return finish(held)


def due(*, limit: int = RINGS_PER_SWEEP) -> list[OutboxEntry]:
    """Entries that wait for a worker, oldest first."""
    return list(_open_and_due(timezone.now()).order_by("available_at")[:limit])


def ring_due(*, limit: int = RINGS_PER_SWEEP) -> int:
    """Ring for every due entry, and bury those that have used up their attempts. Safe beside itself."""
    rung = 0
    for entry in due(limit=limit):
        if entry.attempts < OutboxEntry.MAX_ATTEMPTS:
            _ring(entry)
            rung += 1
            continue
        with transaction.atomic():
            spent = _due(timezone.now()).filter(pk=entry.pk).first()
            if spent is not None:
                _bury(spent)
    return rung


def forget_done(*, older_than: timedelta = timedelta(days=2)) -> int:
    """Delete finished entries; dead ones stay for the operators."""
    return OutboxEntry.objects.filter(done_at__lt=timezone.now() - older_than).delete()[0]


def _open_and_due(now: datetime) -> QuerySet[OutboxEntry]:
    free = Q(locked_until=None) | Q(locked_until__lte=now)
    return OutboxEntry.objects.filter(free, done_at=None, dead_at=None, available_at__lte=now, kind__in=list(_kinds))


def _due(now: datetime) -> QuerySet[OutboxEntry]:
    return _open_and_due(now).select_for_update(skip_locked=connection.features.has_select_for_update_skip_locked)


def _lease(kind: str) -> timedelta:
    return _kinds[kind].lease if kind in _kinds else timedelta(minutes=2)


def _ring(entry: OutboxEntry) -> None:
    kind = _kinds.get(entry.kind)
    queue.enqueue(kind.task if kind else entry.kind, str(entry.pk))


def _bury(entry: OutboxEntry) -> None:
    entry.dead_at = timezone.now()
    entry.locked_until = None
    entry.save(update_fields=["dead_at", "locked_until"])
    _kinds[entry.kind].on_dead(entry.subject)
    logger.error("outbox.dead", kind=entry.kind, entry=str(entry.pk), attempts=entry.attempts)
