"""Every fault of a provider on every endpoint, on credits and on own keys: mapped code, no charge, no key condemned."""

from collections.abc import Callable

import httpx
import pytest

from billing.models import Leg
from insighto.sandbox import audio, keys
from provider_keys.models import Connection, Verdict
from tests.gateway.conftest import Customer, Web, listed_micros, settled
from tests.gateway.test_funding import VOICE, error_code, eventually
from tests.gateway.test_relay import AZURE_SAYS_LITTLE, FAULTS, HOSTILE
from tests.sandbox_server import SandboxServer

MakeCustomer = Callable[..., Customer]


def wav(seconds: int, rate: int = 8_000) -> bytes:
    return audio.riff_header(seconds * rate * 2, rate) + bytes(seconds * rate * 2)


def post(buyer: Customer, path: str, **options: object) -> httpx.Response:
    with buyer.client() as client:
        return client.post(path, **options)  # type: ignore[arg-type]


def embed(buyer: Customer) -> httpx.Response:
    return post(buyer, "/v1/embeddings", json={"model": "text-embedding-3-small", "input": "A harbour"})


def respond(buyer: Customer, **fields: object) -> httpx.Response:
    body = {"model": "gpt-4o-mini", "input": "Tell me about the harbour.", "max_output_tokens": 100, **fields}
    return post(buyer, "/v1/responses", json=body)


def respond_streamed(buyer: Customer) -> httpx.Response:
    return respond(buyer, stream=True)


def say(buyer: Customer, **fields: object) -> httpx.Response:
    return post(buyer, "/v1/audio/speech", json={"model": "tts-1", "input": "Hello", "voice": "alloy", **fields})


def hear(buyer: Customer, sound: bytes = wav(2), path: str = "transcriptions", **fields: str) -> httpx.Response:
    files = {"file": ("a.wav", sound, "audio/wav")}
    return post(buyer, f"/v1/audio/{path}", data={"model": "whisper-1", **fields}, files=files)


def hear_streamed(buyer: Customer) -> httpx.Response:
    return hear(buyer, model="gpt-transcribe", stream="true")


def speak_timed(buyer: Customer, suffix: str = "with-timestamps") -> httpx.Response:
    return post(buyer, f"/v1/text-to-speech/{VOICE}/{suffix}", headers={"xi-api-key": buyer.token}, json={"text": "Hi"})


def stream_timed(buyer: Customer) -> httpx.Response:
    return speak_timed(buyer, "stream/with-timestamps")


# name → provider, call
LEGS: dict[str, tuple[str, Callable[[Customer], httpx.Response]]] = {
    "embeddings": ("openai", embed),
    "responses": ("openai", respond),
    "responses-stream": ("openai", respond_streamed),
    "speech": ("openai", say),
    "transcription": ("openai", hear),
    "transcription-stream": ("openai", hear_streamed),
    "timed": ("elevenlabs", speak_timed),
    "timed-stream": ("elevenlabs", stream_timed),
}
DEAD = {
    "openai": ("invalid", "byok_key_invalid"),
    "elevenlabs": ("no_quota_in_use", "byok_key_quota_exhausted"),
    "azure_speech": ("no_quota_in_use", "byok_key_quota_exhausted"),
}


@pytest.mark.parametrize("funding", ["own", "credits"])
@pytest.mark.parametrize("outcome", FAULTS)
@pytest.mark.parametrize("name", LEGS)
def test_a_fault_has_its_status_and_costs_nothing(
    customer: MakeCustomer, sandbox: SandboxServer, name: str, outcome: str, funding: str
) -> None:
    provider, call = LEGS[name]
    buyer = customer()
    text = set_up(buyer, sandbox, provider, outcome, funding)
    before = buyer.micros

    response = call(buyer)

    expected = FAULTS[outcome]
    if provider == "azure_speech" and outcome in AZURE_SAYS_LITTLE:
        expected = (424, "byok_key_invalid") if funding == "own" else (502, "provider_refused_platform")
    assert (response.status_code, error_code(response)) == expected, response.text
    assert text not in response.text
    assert text not in str(response.headers)
    leg = buyer.leg(response)
    assert (leg.state, leg.cost_micros, leg.request.http_status) == ("void", 0, expected[0])
    assert buyer.micros == before
    assert all(link.verdict == Verdict.VALID for link in Connection.objects.of(buyer.account))


@pytest.mark.parametrize("funding", ["own", "credits"])
@pytest.mark.parametrize("name", LEGS)
def test_a_rejected_key_is_424_to_its_owner_and_502_to_who_pays_with_credits(
    customer: MakeCustomer, sandbox: SandboxServer, name: str, funding: str
) -> None:
    provider, call = LEGS[name]
    outcome, code = DEAD[provider]
    buyer = customer()
    set_up(buyer, sandbox, provider, outcome, funding)

    response = call(buyer)

    expected = (424, code) if funding == "own" else (502, "provider_refused_platform")
    assert (response.status_code, error_code(response)) == expected
    assert (buyer.leg(response).state, buyer.leg(response).cost_micros) == ("void", 0)


@pytest.mark.parametrize("name", LEGS)
def test_credits_that_do_not_cover_the_hold_are_402_and_nothing_is_sent(
    customer: MakeCustomer, sandbox: SandboxServer, name: str
) -> None:
    _, call = LEGS[name]
    buyer = customer(credits=0)

    response = call(buyer)

    assert (response.status_code, error_code(response)) == (402, "insufficient_credits")
    assert buyer.leg(response).state == "refused"
    assert sandbox.calls() == []


@pytest.mark.parametrize("name", LEGS)
def test_an_own_key_pays_everything_and_the_receipt_says_so(
    customer: MakeCustomer, sandbox: SandboxServer, name: str
) -> None:
    provider, call = LEGS[name]
    buyer = customer(credits=0)
    buyer.own(provider)

    response = call(buyer)

    assert response.status_code == 200, response.text
    assert response.headers["x-insighto-funding"] == "own_key"
    assert response.headers["x-insighto-connection"] == f"{provider} valid"
    assert [each["tag"] for each in sandbox.calls()] == ["mine"]
    leg = buyer.leg(response)
    assert (leg.state, leg.cost_micros, leg.hold_id) == ("settled", 0, None)
    assert leg.input_units > 0
    with buyer.client() as client:
        receipt = client.get(f"/v1/requests/{response.headers['x-insighto-request-id']}").json()
    assert (receipt["state"], receipt["legs"][0]["connection"]) == ("finished", f"{provider} valid")


def set_up(buyer: Customer, sandbox: SandboxServer, provider: str, outcome: str, funding: str) -> str:
    """The key that will serve meets `outcome`; its text."""
    if funding == "own":
        return buyer.own(provider, outcome)
    text = keys.valid_key(provider, "platform")
    sandbox.control(key=text, outcome=outcome)
    return text


PATHS = [
    "/v1/embeddings",
    "/v1/responses",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    f"/v1/text-to-speech/{VOICE}/with-timestamps",
    f"/v1/text-to-speech/{VOICE}/stream/with-timestamps",
]


@pytest.mark.parametrize("funding", ["own", "credits"])
@pytest.mark.parametrize("path", PATHS)
def test_hostile_input_is_refused_and_never_our_failure(
    customer: MakeCustomer, web: Web, path: str, funding: str
) -> None:
    buyer = customer()
    if funding == "own":
        buyer.own("openai")
        buyer.own("elevenlabs")
    before = buyer.micros
    for body in HOSTILE:
        response = post(buyer, path, content=body, headers={"Content-Type": "application/json"})
        assert 200 <= response.status_code < 500, (body[:80], response.text)
        assert response.headers["x-insighto-request-id"]
    settled()
    assert "gateway_failed" not in web.log()
    assert before - buyer.micros == sum(leg.cost_micros for leg in Leg.objects.of(buyer.account))


LEAVERS: dict[str, tuple[str, str, dict[str, object]]] = {
    "responses": (
        "openai",
        "/v1/responses",
        {"json": {"model": "gpt-4o-mini", "input": "Tell me about the harbour.", "stream": True}},
    ),
    "timed": (
        "elevenlabs",
        f"/v1/text-to-speech/{VOICE}/stream/with-timestamps",
        {"json": {"text": "One two three four five six seven eight nine ten"}},
    ),
    "transcript": (
        "openai",
        "/v1/audio/transcriptions",
        {"data": {"model": "gpt-transcribe", "stream": "true"}, "files": {"file": ("a.wav", wav(30))}},
    ),
}


@pytest.mark.parametrize("funding", ["own", "credits"])
@pytest.mark.parametrize("name", LEAVERS)
def test_a_client_that_leaves_pays_for_what_it_got_and_stops_the_provider(
    customer: MakeCustomer, sandbox: SandboxServer, name: str, funding: str
) -> None:
    provider, path, request = LEAVERS[name]
    buyer = customer()
    if funding == "own":
        buyer.own(provider)
    before = buyer.micros
    sandbox.control(chunk_delay_s=0.1)

    with buyer.client() as client, client.stream("POST", path, **request) as answer:  # type: ignore[arg-type]
        pieces = answer.iter_bytes()
        for _ in range(5 if name == "responses" else 1):
            next(pieces)

    assert eventually(lambda: Leg.objects.of(buyer.account).filter(request__state="cancelled").exists())
    leg = buyer.leg()
    assert (leg.state, leg.usage_source) in (("settled", "counted"), ("settled", "provider"))
    assert before - buyer.micros == leg.cost_micros == (listed_micros(leg) if funding == "credits" else 0)
    assert (leg.cost_micros > 0) is (funding == "credits")
    assert eventually(lambda: sandbox.calls()[-1]["state"] == "left")
