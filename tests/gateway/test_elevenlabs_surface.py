"""ElevenLabs' surface with its official client: directly and through us, field for field."""

from collections.abc import Callable
from typing import Any

import elevenlabs
import httpx
import pytest
from elevenlabs.core.api_error import ApiError

from billing.models import Leg
from billing.money import MICROS_PER_CREDIT
from billing.services.prices import in_force
from provider_keys.models import Connection, Verdict
from tests.gateway.conftest import Customer, listed_micros
from tests.gateway.surface import comparable, elevenlabs_pair
from tests.gateway.test_funding import VOICE, error_code
from tests.sandbox_server import SandboxServer

MakeCustomer = Callable[..., Customer]
Script = Callable[[elevenlabs.ElevenLabs], Any]

READS: dict[str, Script] = {
    "voices": lambda client: client.voices.get_all(),
    "search": lambda client: client.voices.search(search="a b&c", page_size=3, include_total_count=True),
    "subscription": lambda client: client.user.subscription.get(),
}
SPEECH: dict[str, Script] = {
    "convert": lambda client: b"".join(client.text_to_speech.convert(VOICE, text="Hello there")),
    "stream": lambda client: b"".join(client.text_to_speech.stream(VOICE, text="Hello there")),
    "timed": lambda client: client.text_to_speech.convert_with_timestamps(VOICE, text="Hello there"),
    "timed stream": lambda client: list(client.text_to_speech.stream_with_timestamps(VOICE, text="Hello there")),
}


@pytest.mark.parametrize("name", [*READS, *SPEECH])
def test_on_the_own_key_the_same_script_gets_the_same_answer(
    customer: MakeCustomer, sandbox: SandboxServer, name: str
) -> None:
    buyer = customer(credits=0)
    buyer.own("elevenlabs")
    with httpx.Client(trust_env=False) as http:
        direct, through = (({**READS, **SPEECH}[name])(client) for client in elevenlabs_pair(buyer, sandbox, http))
    assert direct
    assert comparable(through) == comparable(direct)
    assert {call["tag"] for call in sandbox.calls()} == {"mine"}


@pytest.mark.parametrize("name", SPEECH)
def test_speech_costs_the_credits_the_provider_says(customer: MakeCustomer, sandbox: SandboxServer, name: str) -> None:
    buyer = customer()
    before = buyer.micros
    with httpx.Client(trust_env=False) as http:
        _, through = elevenlabs_pair(buyer, sandbox, http)
        assert SPEECH[name](through)
    leg = buyer.leg()
    assert (leg.input_units, leg.usage_source) == (len("Hello there"), "provider")
    assert before - buyer.micros == leg.cost_micros == listed_micros(leg) > 0


def test_timestamps_carry_the_cost_and_the_receipt_in_their_headers(customer: MakeCustomer) -> None:
    buyer = customer()
    with buyer.client() as client:
        for suffix in ("with-timestamps", "stream/with-timestamps"):
            response = client.post(f"/v1/text-to-speech/{VOICE}/{suffix}", json={"text": "Hello"})
            assert response.status_code == 200
            assert response.headers["character-cost"] == "5"
            assert response.headers["x-insighto-funding"] == "platform_credits"
            assert float(response.headers["x-insighto-credits"]) * MICROS_PER_CREDIT == buyer.leg(response).cost_micros


def test_the_subscription_on_credits_is_an_answer_of_our_own(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer(credits=7)
    price = in_force("elevenlabs", "eleven_multilingual_v2")
    assert price is not None
    with httpx.Client(trust_env=False) as http:
        _, through = elevenlabs_pair(buyer, sandbox, http)
        found = through.user.subscription.get()
    assert (found.tier, found.status, found.character_count) == ("insighto_credits", "active", 0)
    assert found.character_limit == 7 * MICROS_PER_CREDIT * 1_000_000 // price.input_micros
    assert sandbox.calls() == []


def test_on_credits_the_platforms_voices_are_listed_without_what_is_the_platforms(
    customer: MakeCustomer, sandbox: SandboxServer
) -> None:
    buyer = customer(credits=0)
    with buyer.client() as client:
        answer = client.get("/v2/voices", headers={"xi-api-key": buyer.token})
        again = client.get("/v2/voices", headers={"xi-api-key": buyer.token})
    voices = answer.json()["voices"]
    assert VOICE in {voice["voice_id"] for voice in voices}
    assert not {"is_owner", "samples", "sharing"} & set().union(*voices)
    assert answer.headers["x-insighto-credits"] == "0"
    assert again.json() == answer.json()
    assert len(sandbox.calls()) <= 1  # the answer is the same for everybody, so it is asked for once
    assert not Leg.objects.exists()


@pytest.mark.parametrize("outcome", ["invalid", "rate_limited", "down", "html", "garbage", "empty", "drops", "echoes"])
@pytest.mark.parametrize("path", ["/v1/voices", "/v1/user/subscription"])
def test_a_free_call_that_fails_says_so_in_the_providers_shape(customer: MakeCustomer, path: str, outcome: str) -> None:
    buyer = customer()
    text = buyer.own("elevenlabs", outcome)
    response = read(buyer, path)
    expected = {
        "invalid": (424, "byok_key_invalid"),
        "rate_limited": (429, "provider_rate_limited"),
        "html": (502, "provider_bad_answer"),
        "garbage": (502, "provider_bad_answer"),
        "empty": (502, "provider_bad_answer"),
    }.get(outcome, (502, "provider_down"))
    assert (response.status_code, error_code(response)) == expected
    assert text not in response.text + str(response.headers)
    assert response.headers["x-insighto-request-id"]


def test_a_key_that_may_not_list_voices_is_not_condemned_by_being_asked(customer: MakeCustomer) -> None:
    buyer = customer()
    buyer.own("elevenlabs", "restricted")
    response = read(buyer, "/v1/voices")
    assert (response.status_code, error_code(response)) == (424, "byok_key_restricted")
    link = Connection.objects.of(buyer.account).get()
    assert (link.verdict, link.rejected_at) == (Verdict.VALID, None)


def test_a_missing_own_key_refuses_the_free_calls_too(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer()
    buyer.switch(on=True)
    for path in ("/v1/voices", "/v2/voices", "/v1/user/subscription"):
        assert error_code(read(buyer, path)) == "byok_key_missing"
    assert sandbox.calls() == []


@pytest.mark.parametrize("query", ["x=1", "search=%0d%0a", "search=" + "a" * 300, "&".join(["search=a"] * 200)])
def test_a_hostile_query_reaches_nobody(customer: MakeCustomer, sandbox: SandboxServer, query: str) -> None:
    buyer = customer()
    assert read(buyer, f"/v2/voices?{query}").status_code == 400
    assert sandbox.calls() == []


@pytest.mark.parametrize("timed", [True, False])
def test_the_same_failures_raise_the_same_exceptions(
    customer: MakeCustomer, sandbox: SandboxServer, timed: bool
) -> None:
    buyer = customer()
    buyer.own("elevenlabs")
    raised = []
    with httpx.Client(trust_env=False) as http:
        for client in elevenlabs_pair(buyer, sandbox, http):
            ask = client.text_to_speech.convert_with_timestamps if timed else client.text_to_speech.convert
            with pytest.raises(ApiError) as caught:
                list(ask("B" * 20, text="Hello"))  # what is streamed is only asked for once it is read
            raised.append((caught.value.status_code, caught.value.body["detail"]["status"]))
    assert raised == [(404, "voice_not_found")] * 2


def read(buyer: Customer, path: str) -> httpx.Response:
    return httpx.get(f"{buyer.url}{path}", headers={"xi-api-key": buyer.token}, timeout=20, trust_env=False)
