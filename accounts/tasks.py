"""The clockwork of the outbox, and the mails of accounts."""

from datetime import timedelta

from celery import shared_task

from accounts.services import invitations, members, outbox


@shared_task(name="accounts.ring_due_outbox")
def ring_due_outbox() -> None:
    outbox.ring_due()


@shared_task(name="accounts.forget_done_outbox")
def forget_done_outbox() -> None:
    outbox.forget_done()


@shared_task(name=members.INVITATION)
def send_invitation(entry_id: str) -> None:
    outbox.work(members.INVITATION, entry_id, lambda subject: invitations.send(int(subject)))


outbox.register(members.INVITATION, task=members.INVITATION, lease=timedelta(minutes=2))
