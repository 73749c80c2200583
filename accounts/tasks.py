"""The clockwork of the outbox: rings for work that nobody has come for."""

from celery import shared_task

from accounts.services import outbox


@shared_task(name="accounts.ring_due_outbox")
def ring_due_outbox() -> None:
    outbox.ring_due()


@shared_task(name="accounts.forget_done_outbox")
def forget_done_outbox() -> None:
    outbox.forget_done()
