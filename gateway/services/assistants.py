"""Writes to assistants and to the conversations people have with them."""

import uuid

from django.db import IntegrityError, transaction

from accounts.models import Account, User
from accounts.services import audit
from gateway.errors import AssistantNameTaken
from gateway.models import Assistant, Message

FIELDS = (
    "name",
    "instructions",
    "chat_model",
    "voice_provider",
    "voice",
    "voice_name",
    "speech_model",
    "language",
)


def create(*, account: Account, actor: User, **values: str) -> Assistant:
    """Add an assistant. Raises `AssistantNameTaken` when the account already has one of that name."""
    assistant = Assistant(account=account, **{field: values.get(field, "") for field in FIELDS})
    _save(assistant)
    audit.record(account=account, actor=actor, action="assistant.created", target=assistant)
    return assistant


def update(*, assistant: Assistant, actor: User, **values: str) -> Assistant:
    """Change an assistant's fields; those not named stay. Raises `AssistantNameTaken`."""
    for field in FIELDS:
        if field in values:
            setattr(assistant, field, values[field])
    _save(assistant)
    audit.record(account=assistant.account, actor=actor, action="assistant.changed", target=assistant)
    return assistant


@transaction.atomic
def remove(*, assistant: Assistant, actor: User) -> None:
    """Delete the assistant and its conversations; receipts of its requests stay."""
    audit.record(account=assistant.account, actor=actor, action="assistant.removed", target=assistant)
    assistant.delete()


def say(*, assistant: Assistant, user: User, text: str) -> tuple[Message, Message]:
    """Append the person's line and an empty answer that `finish` fills."""
    with transaction.atomic():
        line = Message.objects.create(
            account_id=assistant.account_id, assistant=assistant, user=user, role=Message.Role.USER, text=text
        )
        answer = Message.objects.create(
            account_id=assistant.account_id,
            assistant=assistant,
            user=user,
            role=Message.Role.ASSISTANT,
            is_complete=False,
        )
    return line, answer


def finish(*, message: Message, text: str, request_id: uuid.UUID | None, is_complete: bool) -> Message:
    """Keep what was answered, complete or cut off, with the request whose receipt says who paid."""
    message.text = text
    message.chat_request_id = request_id
    message.is_complete = is_complete
    message.save(update_fields=["text", "chat_request_id", "is_complete"])
    return message


def spoken(*, message: Message, request_id: uuid.UUID) -> None:
    """Remember the last request that spoke this answer."""
    message.speech_request_id = request_id
    message.save(update_fields=["speech_request_id"])


def start_over(*, assistant: Assistant, user: User) -> int:
    """Forget the person's conversation with the assistant; returns how many lines went."""
    removed, _ = Message.objects.filter(assistant=assistant, user=user).delete()
    return removed


def _save(assistant: Assistant) -> None:
    try:
        with transaction.atomic():
            assistant.save()
    except IntegrityError:
        raise AssistantNameTaken(field="name") from None
