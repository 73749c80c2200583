"""The playground's way to the same legs: Django async views in the web process call these two.

Same decisions, holds, receipts and refusals as the HTTP API; only the name in which the request runs differs.
Closing an iterator early cancels the provider's work and settles what was used.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID
from xml.sax.saxutils import escape, quoteattr

import msgspec

from accounts.models import Account, User
from gateway import errors, receipts, runtime
from gateway.errors import Refused
from gateway.legs import Asker, Leg
from gateway.models import Assistant
from gateway.store import Admission, Ask
from gateway.upstreams import azure_speech, elevenlabs
from gateway.upstreams.base import Operation
from gateway.upstreams.openai import ChatCompletion
from insighto.lib import ids
from insighto.lib.batcher import Overloaded
from insighto.lib.errors import DomainError
from provider_keys.models import Provider

MAX_MESSAGES: Final = 60
MAX_ANSWER_TOKENS: Final = 1_024
AZURE_FORMAT: Final = "audio-24khz-48kbitrate-mono-mp3"
ELEVENLABS_FORMAT: Final = "output_format=mp3_44100_128"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a leg's headers say to an API client. `credits` is empty until the price is known."""

    request_id: UUID
    kind: str
    funding_source: str
    connection_name: str
    reason: str
    credits: str
    estimate_micros: int | None


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The leg was refused or broke off; `code` and `message` are for a person."""

    code: str
    message: str
    status: int


Event = TextDelta | Receipt | Failure


@dataclass(slots=True)
class Speech:
    """Sound on its way. Iterate `pieces` to its end, or close it; `receipt` is final after that."""

    content_type: str
    pieces: AsyncIterator[bytes]
    _leg: Leg = field(repr=False)
    request_id: UUID

    @property
    def receipt(self) -> Receipt:
        return _receipt(self._leg, self.request_id)


async def stream_chat(
    *, account: Account, user: User, assistant: Assistant, messages: Sequence[dict[str, str]]
) -> AsyncGenerator[Event, None]:
    """The assistant's answer to `messages` (role and content, oldest first).

    Yields a `Receipt` when the route is decided, text as it arrives, then a `Failure` if it broke
    off, and last the final `Receipt`. Never raises a refusal.
    """
    request_id = ids.new()
    leg: Leg | None = None
    try:
        operation = ChatCompletion(_chat_body(assistant, messages))
        leg, admission = await _new_leg(account, user, assistant, request_id, operation)
        try:
            await leg.open(admission)
            yield _receipt(leg, request_id)
            await leg.send()
            reader = _TextReader()
            async for piece in leg.pieces():
                for text in reader.feed(piece):
                    yield TextDelta(text)
            await leg.finish()
        except Refused as problem:
            await leg.fail(problem)
            raise
        finally:
            leg.close()
    except (DomainError, Overloaded) as error:
        yield _failure(error)
    if leg is not None and leg.decision is not None:
        yield _receipt(leg, request_id)


async def speak(*, account: Account, user: User, assistant: Assistant, text: str, request_id: UUID) -> Speech:
    """The assistant's voice saying `text`, booked under `request_id`, which the caller made.

    Raises `Refused` (or `Overloaded`) when it cannot start; nothing is charged then.
    """
    leg, admission = await _new_leg(account, user, assistant, request_id, _speech(assistant, text))
    try:
        await leg.open(admission)
        headers = dict(await leg.send())
    except Refused as problem:
        await leg.fail(problem)
        raise
    except BaseException:
        leg.close()
        raise
    content_type = headers.get(b"content-type", b"audio/mpeg").decode("latin-1")
    return Speech(content_type, _sound(leg), leg, request_id)


async def _sound(leg: Leg) -> AsyncIterator[bytes]:
    try:
        async for piece in leg.pieces():
            yield piece
        await leg.finish()
    except Refused as problem:
        await leg.fail(problem)
        raise
    finally:
        leg.close()


async def _new_leg(
    account: Account, user: User, assistant: Assistant, request_id: UUID, operation: Operation
) -> tuple[Leg, Admission]:
    running = runtime.current()
    ask = Ask(operation.provider, operation.price_model, account_id=account.pk)
    admission = await running.store.admit(ask)
    assert admission is not None, "an account that is known is admitted"
    return Leg(running, request_id, operation, Asker(user.pk, assistant.pk)), admission


def _failure(error: DomainError | Overloaded) -> Failure:
    problem = errors.of_domain(error) if isinstance(error, DomainError) else Refused("overloaded")
    return Failure(problem.code, str(problem), problem.status)


def _receipt(leg: Leg, request_id: UUID) -> Receipt:
    decision = leg.decision
    assert decision is not None, "a receipt follows a decision"
    return Receipt(
        request_id=request_id,
        kind=leg.operation.kind,
        funding_source=decision.funding_source,
        connection_name=decision.connection_name,
        reason=decision.reason,
        credits="" if leg.cost_micros is None else receipts.credits_text(leg.cost_micros),
        estimate_micros=leg.estimate_micros,
    )


def _chat_body(assistant: Assistant, messages: Sequence[dict[str, str]]) -> bytes:
    thread: list[dict[str, str]] = [
        {"role": message["role"], "content": message["content"]} for message in messages[-MAX_MESSAGES:]
    ]
    if assistant.instructions:
        thread.insert(0, {"role": "system", "content": assistant.instructions})
    return msgspec.json.encode(
        {
            "model": assistant.chat_model,
            "messages": thread,
            "stream": True,
            "max_completion_tokens": MAX_ANSWER_TOKENS,
        }
    )


def _speech(assistant: Assistant, text: str) -> Operation:
    if assistant.voice_provider == Provider.AZURE_SPEECH:
        spoken = "".join(character for character in text if character.isprintable() or character in "\n\t")
        ssml = (
            '<speak version="1.0" xmlns="http://www.w3.org/2001/10/synthesis" '
            f"xml:lang={quoteattr(assistant.language)}>"
            f"<voice name={quoteattr(assistant.voice)}>{escape(spoken)}</voice></speak>"
        )
        return azure_speech.Speech(ssml.encode(), AZURE_FORMAT)
    if assistant.voice_provider == Provider.ELEVENLABS:
        body = {"text": text, "model_id": assistant.speech_model or elevenlabs.DEFAULT_MODEL}
        return elevenlabs.Speech(assistant.voice, msgspec.json.encode(body), ELEVENLABS_FORMAT, streamed=True)
    raise Refused("invalid_value", "This assistant has no voice.", param="voice")


class _TextReader:
    """The words in a stream of chat events. The pieces it is fed end where events end."""

    def feed(self, piece: bytes) -> list[str]:
        found: list[str] = []
        for event in piece.split(b"\n\n"):
            if not event.startswith(b"data:"):
                continue
            try:
                chunk: Any = msgspec.json.decode(event[5:])
            except (msgspec.MsgspecError, RecursionError, ValueError):
                continue
            choices = chunk.get("choices") if isinstance(chunk, dict) else None
            for choice in choices if isinstance(choices, list) else ():
                delta = choice.get("delta") if isinstance(choice, dict) else None
                text = delta.get("content") if isinstance(delta, dict) else None
                if isinstance(text, str) and text:
                    found.append(text)
        return found
