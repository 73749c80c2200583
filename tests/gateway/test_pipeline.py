"""The playground's legs, in this process."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from django.test import override_settings

from billing.models import Leg
from gateway import pipeline, runtime
from gateway.models import Assistant
from gateway.pipeline import Failure, Receipt, TextDelta
from insighto.lib import ids
from tests.gateway.conftest import Customer, listed_micros
from tests.sandbox_server import SandboxServer


@pytest.fixture
def assistant(customer: Callable[..., Customer], sandbox: SandboxServer) -> Any:
    def make(buyer: Customer, **fields: Any) -> Assistant:
        return Assistant.objects.create(
            account=buyer.account, name="Ava", instructions="Be brief.", chat_model="gpt-4o-mini",
            voice_provider="azure_speech", voice="en-US-AvaNeural", **fields,
        )  # fmt: skip

    with override_settings(
        OPENAI_BASE_URL=sandbox.openai_url,
        ELEVENLABS_BASE_URL=sandbox.elevenlabs_url,
        AZURE_SPEECH_TTS_URL=sandbox.azure_url,
    ):
        yield make


async def _chat(buyer: Customer, assistant: Assistant, *, leave_after: int | None = None) -> list[pipeline.Event]:
    events: list[pipeline.Event] = []
    stream = pipeline.stream_chat(
        account=buyer.account, user=buyer.owner, assistant=assistant, messages=[{"role": "user", "content": "Hello"}]
    )
    async for event in stream:
        events.append(event)
        if leave_after is not None and len(events) > leave_after:
            await stream.aclose()
            break
    await runtime.close()
    return events


def test_a_chat_streams_text_between_two_receipts(customer: Callable[..., Customer], assistant: Any) -> None:
    buyer = customer()
    before = buyer.micros

    events = asyncio.run(_chat(buyer, assistant(buyer)))

    first, last = events[0], events[-1]
    leg = buyer.leg()
    assert isinstance(first, Receipt)
    assert isinstance(last, Receipt)
    assert (first.credits, first.funding_source) == ("", "platform_credits")
    assert "".join(event.text for event in events if isinstance(event, TextDelta))
    assert last.credits != ""
    assert before - buyer.micros == leg.cost_micros == listed_micros(leg)
    assert (leg.request.user_id, leg.request.api_key_id) == (buyer.owner.pk, None)


def test_a_refused_chat_is_an_event_and_not_an_exception(customer: Callable[..., Customer], assistant: Any) -> None:
    buyer = customer()
    buyer.switch(on=True)
    events = asyncio.run(_chat(buyer, assistant(buyer)))
    assert [type(event) for event in events] == [Failure, Receipt]
    assert isinstance(events[0], Failure)
    assert events[0].code == "byok_key_missing"


def test_closing_the_stream_settles_what_was_used(
    customer: Callable[..., Customer], assistant: Any, sandbox: SandboxServer
) -> None:
    buyer = customer()
    sandbox.control(chunk_delay_s=0.03)
    asyncio.run(_chat(buyer, assistant(buyer), leave_after=3))
    leg = buyer.leg()
    assert (leg.state, leg.request.state, leg.usage_source) == ("settled", "cancelled", "counted")
    assert leg.cost_micros == listed_micros(leg) > 0


def test_the_assistant_speaks_what_is_escaped(customer: Callable[..., Customer], assistant: Any) -> None:
    buyer = customer()

    speaker = assistant(buyer)

    async def speak() -> tuple[str, bytes, Receipt]:
        speech = await pipeline.speak(
            account=buyer.account,
            user=buyer.owner,
            assistant=speaker,
            text='Fish & "chips" </voice>',
            request_id=ids.new(),
        )
        sound = b"".join([piece async for piece in speech.pieces])
        receipt = speech.receipt
        await runtime.close()
        return speech.content_type, sound, receipt

    content_type, sound, receipt = asyncio.run(speak())
    assert content_type.startswith("audio/")
    assert sound
    assert receipt.credits != ""
    assert Leg.objects.of(buyer.account).get().input_units == len('Fish & "chips" </voice>')
