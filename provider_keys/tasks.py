"""Celery's side of the checks. Tasks get the id of an outbox entry and nothing else, and give nothing back."""

from uuid import UUID

from celery import shared_task

from accounts.services import outbox
from provider_keys.services import checks


@shared_task(name=checks.CHECK_ACCOUNT)
def check_account(entry_id: str) -> None:
    outbox.work(checks.CHECK_ACCOUNT, entry_id, lambda subject: checks.run_for_account(UUID(subject)))


@shared_task(name=checks.CONFIRM_CONNECTION)
def confirm_connection(entry_id: str) -> None:
    outbox.work(checks.CONFIRM_CONNECTION, entry_id, lambda subject: checks.confirm(UUID(subject)))


outbox.register(
    checks.CHECK_ACCOUNT,
    task=checks.CHECK_ACCOUNT,
    lease=checks.LEASE,
    on_dead=lambda subject: checks.give_up(UUID(subject)),
)
outbox.register(checks.CONFIRM_CONNECTION, task=checks.CONFIRM_CONNECTION, lease=checks.LEASE)
