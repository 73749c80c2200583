"""Ends what a crash left open. Safe to run twice, beside itself, and beside the gateway that settles.

Time is the database's. A leg past its deadline is charged what its last checkpoint shows, within its
hold, and flagged; its request is closed as crashed.
"""

from datetime import timedelta

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from billing.leg_records import Settlement
from billing.models import Leg, Request, Transfer
from billing.services import ledger, leg_statements, legs

BATCH = 200
STRANDED_AFTER = timedelta(minutes=15)  # a request between two legs is never this old
ORPHANED_AFTER = timedelta(hours=1)


def sweep(*, batch: int = BATCH) -> int:
    """End every leg past its deadline, then close requests nobody works on. How many were ended."""
    ended = 0
    while True:
        count = _sweep_batch(batch)
        ended += count
        if count < batch:
            return ended + _close_stranded()


def expire_orphans(*, dry_run: bool = False) -> int:
    """Give back holds that no open leg stands behind and that are an hour old; how many there were."""
    orphans = Transfer.objects.filter(
        kind=Transfer.Kind.HOLD, resolution=None, created_at__lt=Now() - ORPHANED_AFTER
    ).exclude(pk__in=Leg.objects.filter(state=Leg.State.DISPATCHED, hold__isnull=False).values("hold_id"))
    found = list(orphans.values_list("pk", flat=True))
    if not dry_run:
        for start in range(0, len(found), BATCH):
            ledger.resolve_many([ledger.Resolution(hold_id, "expire") for hold_id in found[start : start + BATCH]])
    return len(found)


@transaction.atomic
def _sweep_batch(limit: int) -> int:
    overdue = leg_statements.lock_overdue(limit)
    pairs = [
        (
            leg,
            Settlement(
                leg_id=leg.id,
                usage=leg.checkpoint,
                usage_source="checkpoint",
                request_state="crashed",
                http_status=None,
                error_code="crashed",
                is_flagged=True,
            ),
        )
        for leg in overdue.values()
    ]
    legs.end(pairs, by_sweeper=True)
    return len(pairs)


def _close_stranded() -> int:
    return (
        Request.objects.filter(state=Request.State.RUNNING, created_at__lt=Now() - STRANDED_AFTER)
        .filter(~Q(pk__in=Leg.objects.filter(state=Leg.State.DISPATCHED).values("request_id")))
        .update(state=Request.State.CRASHED, error_code="crashed", finished_at=Now())
    )
