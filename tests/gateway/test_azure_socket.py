"""The native SDK speaking through us: the same sound and word for word the same failures, each turn a leg."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import azure.cognitiveservices.speech as speech
import pytest
from django.db import connection

from billing.models import Leg
from insighto.sandbox import keys
from provider_keys.models import Connection, Verdict
from tests.gateway.conftest import Customer, listed_micros, settled
from tests.gateway.test_azure_surface import ssml, voiced
from tests.gateway.test_funding import eventually
from tests.sandbox_server import SandboxServer

MakeCustomer = Callable[..., Customer]
PATH = "/cognitiveservices/websocket/v1"
VOICE = "en-US-AvaNeural"


def synthesizer(host: str, key: str) -> speech.SpeechSynthesizer:
    config = speech.SpeechConfig(host=host, subscription=key)
    config.speech_synthesis_voice_name = VOICE
    config.set_property_by_name("SpeechSynthesis_MaxRetryTimes", "0")
    config.set_speech_synthesis_output_format(speech.SpeechSynthesisOutputFormat.Audio24Khz48KBitRateMonoMp3)
    return speech.SpeechSynthesizer(speech_config=config, audio_config=None)


def spoken(host: str, key: str, document: str = "", text: str = "Hello & welcome") -> Any:
    voice = synthesizer(host, key)
    return (voice.speak_ssml_async(document) if document else voice.speak_text_async(text)).get()


@pytest.mark.parametrize("funding", ["own", "credits"])
@pytest.mark.parametrize("document", ["", ssml(voiced("One") + voiced("你好", "zh-CN-XiaoxiaoNeural"))])
def test_the_native_sdk_hears_the_same_through_us(
    customer: MakeCustomer, sandbox: SandboxServer, document: str, funding: str
) -> None:
    buyer = customer()
    before = buyer.micros
    if funding == "own":
        buyer.own("azure_speech")
    direct = spoken(sandbox.url, keys.valid_key("azure_speech", "mine"), document)
    through = spoken(buyer.url, buyer.token, document)

    assert through.reason == direct.reason == speech.ResultReason.SynthesizingAudioCompleted
    assert through.audio_data == direct.audio_data != b""
    leg = buyer.leg()
    expected = len("One") + 4 if document else len("Hello & welcome")
    assert (leg.voice, leg.input_units, leg.kind) == (VOICE, expected, "speech")
    assert (leg.request.endpoint, leg.request.state, leg.request.http_status) == (PATH, "finished", 200)
    assert before - buyer.micros == leg.cost_micros == (listed_micros(leg) if funding == "credits" else 0)
    assert sandbox.calls()[-1]["tag"] == ("mine" if funding == "own" else "platform")


def test_word_boundaries_pass(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer()
    heard: list[list[tuple[str, int, int]]] = []
    for host, key in ((sandbox.url, keys.valid_key("azure_speech", "mine")), (buyer.url, buyer.token)):
        words: list[tuple[str, int, int]] = []
        voice = synthesizer(host, key)
        voice.synthesis_word_boundary.connect(
            lambda event, words=words: words.append((event.text, event.audio_offset, event.word_length))
        )
        assert (
            voice.speak_text_async("Hello and welcome").get().reason == speech.ResultReason.SynthesizingAudioCompleted
        )
        heard.append(words)
        assert eventually(lambda: len(heard[-1]) == 3)  # the SDK tells of words in a thread of its own
    assert [word for word, _, _ in heard[0]] == ["Hello", "and", "welcome"]
    assert heard[0] == heard[1]


def test_sound_streams_as_it_arrives(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer()
    sandbox.control(chunk_delay_s=0.1)
    voice = synthesizer(buyer.url, buyer.token)
    pieces: list[float] = []
    voice.synthesizing.connect(lambda _: pieces.append(time.monotonic()))
    result = voice.speak_text_async("One two three four five six seven eight").get()
    assert result.reason == speech.ResultReason.SynthesizingAudioCompleted
    assert len(pieces) > 4
    assert pieces[-1] - pieces[0] > 0.3


@pytest.mark.parametrize(
    ("outcome", "words"),
    [("invalid", "1008"), ("no_quota", "1008"), ("restricted_in_use", "1008"), ("rate_limited", "429")],
)
def test_a_rejected_own_key_is_said_and_nothing_charged(customer: MakeCustomer, outcome: str, words: str) -> None:
    buyer = customer()
    text = buyer.own("azure_speech", outcome)
    result = spoken(buyer.url, buyer.token)
    assert result.reason == speech.ResultReason.Canceled
    details = result.cancellation_details
    assert text not in details.error_details
    assert (buyer.leg().state, buyer.leg().cost_micros) == ("void", 0)
    assert words in details.error_details or details.error_code == speech.CancellationErrorCode.TooManyRequests


async def turn(buyer: Customer, *messages: str, leave_after: int = -1) -> tuple[list[Any], int | None]:
    """What a client that speaks the protocol itself gets, and the code the socket was closed with."""
    answers: list[Any] = []
    headers = {"Ocp-Apim-Subscription-Key": buyer.token}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{buyer.url}{PATH}", headers=headers, protocols=("USP",)) as socket,
    ):
        for message in messages:
            await socket.send_str(message)
        ends = sum("Path:ssml" in message for message in messages)
        async for answer in socket:
            answers.append(answer.data)
            if sum(isinstance(data, bytes) for data in answers) == leave_after:
                break
            ends -= isinstance(answer.data, str) and "Path:turn.end" in answer.data
            if ends == 0:
                break
        return answers, socket.close_code


def message(path: str, body: str) -> str:
    return f"X-RequestId:{'0' * 32}\r\nContent-Type:application/json\r\nPath:{path}\r\n\r\n{body}"


CONTEXT = message(
    "synthesis.context", json.dumps({"synthesis": {"audio": {"outputFormat": "raw-16khz-16bit-mono-pcm"}}})
)
SPEAK = message("ssml", ssml(voiced("Hello there")))


def ask(buyer: Customer, *messages: str, leave_after: int = -1) -> tuple[list[Any], int | None]:
    return asyncio.run(turn(buyer, *messages, leave_after=leave_after))


FAULTS = {
    "down": (1011, "provider_down"),
    "down_in_use": (1011, "provider_down"),
    "slow": (1011, "provider_too_slow"),
    "html": (1011, "provider_down"),
    "redirects": (1011, "provider_down"),
    "drops": (1011, "provider_down"),
    "dies_before_first_byte": (1011, "provider_down"),
    "rate_limited": (4429, "provider_rate_limited"),
    "invalid": (1008, "byok_key_invalid"),
    "no_quota_in_use": (1008, "byok_key_quota_exhausted"),
}


@pytest.mark.parametrize("funding", ["own", "credits"])
@pytest.mark.parametrize("outcome", FAULTS)
def test_a_fault_has_its_code_and_costs_nothing(
    customer: MakeCustomer, sandbox: SandboxServer, outcome: str, funding: str
) -> None:
    buyer = customer()
    if funding == "own":
        text = buyer.own("azure_speech", outcome)
    else:
        text = keys.valid_key("azure_speech", "platform")
        sandbox.control(key=text, outcome=outcome)
    before = buyer.micros

    answers, code = ask(buyer, CONTEXT, SPEAK)

    expected, name = FAULTS[outcome]
    if funding == "credits" and name.startswith("byok_"):
        expected, name = 1011, "provider_refused_platform"
    leg = buyer.leg()
    assert (code, leg.request.error_code) == (expected, name)
    assert (leg.state, leg.cost_micros, buyer.micros) == ("void", 0, before)
    assert text not in str(answers)
    assert [call for call in sandbox.calls(provider="sink") if call["tag"] != "none"] == []
    if name.startswith("provider_"):
        assert all(link.verdict == Verdict.VALID for link in Connection.objects.of(buyer.account))


def test_a_connection_serves_several_turns_each_its_own_leg(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer()
    before = buyer.micros
    answers, _ = ask(buyer, CONTEXT, SPEAK, SPEAK, message("telemetry", "{}"), SPEAK)
    starts = [answer for answer in answers if isinstance(answer, str) and "Path:turn.start" in answer]
    settled()
    legs = Leg.objects.of(buyer.account)
    assert {(leg.state, leg.input_units) for leg in legs} == {("settled", len("Hello there"))}
    assert len(legs) == len(starts) == 3
    assert before - buyer.micros == sum(leg.cost_micros for leg in legs)
    ids = {str(leg.request_id) for leg in legs}
    assert {
        line.partition(":")[2] for start in starts for line in start.split("\r\n") if "insighto-request" in line
    } == ids
    assert all("x-insighto-funding:platform_credits" in start for start in starts)


def test_the_switch_takes_effect_on_the_next_turn(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer()

    def switch_on() -> None:
        buyer.own("azure_speech")
        connection.close()  # the thread's own

    async def script() -> None:
        headers = {"Ocp-Apim-Subscription-Key": buyer.token}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{buyer.url}{PATH}", headers=headers) as socket,
        ):
            for step in range(2):
                await socket.send_str(SPEAK)
                async for answer in socket:
                    if isinstance(answer.data, str) and "Path:turn.end" in answer.data:
                        break
                if not step:
                    await asyncio.to_thread(switch_on)

    asyncio.run(script())
    settled()
    assert [leg.funding_source for leg in Leg.objects.of(buyer.account).order_by("created_at")] == [
        "platform_credits",
        "own_key",
    ]
    assert [call["tag"] for call in sandbox.calls()] == ["platform", "mine"]


@pytest.mark.parametrize("funding", ["own", "credits"])
@pytest.mark.parametrize("after", [1, 3])
def test_a_client_that_leaves_pays_what_it_heard_and_stops_the_provider(
    customer: MakeCustomer, sandbox: SandboxServer, after: int, funding: str
) -> None:
    buyer = customer()
    if funding == "own":
        buyer.own("azure_speech")
    before = buyer.micros
    sandbox.control(chunk_delay_s=0.2)
    long = message("ssml", ssml(voiced("One two three four five six seven eight nine ten")))
    ask(buyer, CONTEXT, long, leave_after=after)

    assert eventually(lambda: Leg.objects.of(buyer.account).filter(request__state="cancelled").exists())
    leg = buyer.leg()
    assert leg.state == "settled"
    assert before - buyer.micros == leg.cost_micros == (listed_micros(leg) if funding == "credits" else 0)
    assert eventually(lambda: sandbox.calls()[-1]["state"] != "running")


def test_a_stream_that_breaks_is_paid_once_sound_was_heard(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer()
    sandbox.control(key=keys.valid_key("azure_speech", "platform"), outcome="breaks_mid_stream")
    answers, code = ask(buyer, CONTEXT, SPEAK)
    leg = buyer.leg()
    assert code == 1011
    assert any(isinstance(answer, bytes) for answer in answers)
    assert (leg.state, leg.request.state, leg.cost_micros) == ("settled", "failed", listed_micros(leg))


@pytest.mark.parametrize("credits", [0, 100])
def test_what_cannot_be_paid_is_refused_before_anything_is_sent(
    customer: MakeCustomer, sandbox: SandboxServer, credits: int
) -> None:
    buyer = customer(credits=credits)
    if credits:
        buyer.switch(on=True)
    _, code = ask(buyer, CONTEXT, SPEAK)
    assert code == 1008
    assert buyer.leg().request.error_code == ("byok_key_missing" if credits else "insufficient_credits")
    assert sandbox.calls() == []


HOSTILE = [
    "",
    "hello",
    message("", "x"),
    message("text.piece", "free work"),
    message("synthesis.control", "{}"),
    message("ssml", ""),
    message("ssml", "<speak>"),
    message("ssml", '<!DOCTYPE speak [<!ENTITY a "b">]><speak>&a;</speak>'),
    message("ssml", ssml("<voice>a</voice>")),
    message("ssml", ssml(voiced("a", "x'/>"))),
    message("ssml", ssml(voiced("a" * 70_000))),
    "Path:ssml\r\nPath:telemetry\r\n\r\n" + ssml("a"),
    "x" * 200_000,
    # What another reader could take for SSML.
    "Path:speech.config\r\nPath:ssml\r\n\r\n" + ssml(voiced("a")),
    "Path:speech.config\r\n Path:ssml\r\n\r\n" + ssml(voiced("a")),
    "Path:speech.config\nPath:ssml\r\n\r\n" + ssml(voiced("a")),
    "Path:speech.config\r\n" + "A:b\r\n" * 2_000 + "Path:ssml\r\n\r\n" + ssml(voiced("a")),
    "Path:speech.config\n\nPath:ssml",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_messages_close_the_socket_and_reach_nobody(
    customer: MakeCustomer, sandbox: SandboxServer, text: str
) -> None:
    _, code = ask(customer(), text)
    assert code == 1007
    assert sandbox.calls() == []


def test_an_unknown_voice_is_the_providers_to_refuse(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer()
    before = buyer.micros
    _, code = ask(buyer, CONTEXT, message("ssml", ssml(voiced("a", "en-US-NobodyNeural"))))
    assert code == 1007
    assert (buyer.leg().state, buyer.micros) == ("void", before)


@pytest.mark.parametrize("token", ["", "in-wrong"])
def test_the_handshake_needs_a_key_we_issued(customer: MakeCustomer, token: str) -> None:
    buyer = customer()
    buyer.token = token
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        ask(buyer, SPEAK)
    assert caught.value.status == 401
    assert caught.value.headers is not None
    assert caught.value.headers["x-insighto-request-id"]
    if token:
        assert "401" in spoken(buyer.url, token).cancellation_details.error_details
