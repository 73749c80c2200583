"""Ringing Celery's doorbell. The work itself is a row in the database; losing a message costs seconds."""

import structlog
from celery import current_app
from django.db import transaction

logger = structlog.get_logger(__name__)

# A message older than this is dropped unread: the poller has rung again by then, and messages cannot pile up.
EXPIRES_S = 30


def enqueue(task_name: str, *args: str | int) -> None:
    """Send the task once the transaction around us has committed; without one, now.

    Arguments are ids. A broker that is down is logged, never raised: the poller finds the work.
    """
    transaction.on_commit(lambda: _send(task_name, args), robust=True)


def _send(task_name: str, args: tuple[str | int, ...]) -> None:
    try:
        current_app.send_task(task_name, args=list(args), expires=EXPIRES_S, ignore_result=True, retry=False)
    except Exception as error:
        # Whatever the broker's client raises must not reach the person whose work is safely stored.
        logger.warning("queue.doorbell_failed", task=task_name, error=type(error).__name__)
