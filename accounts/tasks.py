"""The clockwork of the outbox, and the mails of accounts."""

from datetime import timedelta
from uuid import UUID

from celery import shared_task

from accounts.services import invitations, members, outbox


@shared_task(name="accounts.ring_due_outbox")
def ring_due_outbox() -> None:
    outbox.ring_due()


@shared_task(name="accounts.forget_done_outbox")
def forget_done_outbox() -> None:
    outbox.forget_done()


@shared_task(name="accounts.send_invitation")
def send_invitation(entry_id: str) -> None:
    held = outbox.claim(UUID(entry_id))
    if held is None:
        return
    try:
        invitations.send(int(held.subject))
    except OSError:  # the mail server: the entry comes back later
        outbox.fail(held)
    else:
        outbox.finish(held)


outbox.register(members.INVITATION, task="accounts.send_invitation", lease=timedelta(minutes=2))
