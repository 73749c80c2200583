"""Who pays over HTTP, with the providers' own SDKs."""

import time
from collections.abc import Callable

import elevenlabs
import httpx
import openai
import pytest
from elevenlabs.core.api_error import ApiError

from accounts.models import Account
from billing.models import Leg, Request
from gateway.receipts import credits_text
from provider_keys.models import Connection, Provider, Slot, Verdict
from provider_keys.services import connections
from tests.gateway.conftest import Customer, listed_micros
from tests.sandbox_server import SandboxServer

VOICE = "SandboxVoiceFlint001"
SSML = (
    '<speak version="1.0" xmlns="http://www.w3.org/2001/10/synthesis" xml:lang="en-US">'
    '<voice name="en-US-AvaNeural">Hello &amp; welcome</voice></speak>'
)
AZURE_HEADERS = {
    "Content-Type": "application/ssml+xml",
    "X-Microsoft-OutputFormat": "audio-24khz-48kbitrate-mono-mp3",
}
MakeCustomer = Callable[..., Customer]


def openai_sdk(customer: Customer) -> openai.OpenAI:
    return openai.OpenAI(
        api_key=customer.token,
        base_url=f"{customer.url}/v1",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    )


def elevenlabs_sdk(customer: Customer, http: httpx.Client) -> elevenlabs.ElevenLabs:
    return elevenlabs.ElevenLabs(api_key=customer.token, base_url=customer.url, httpx_client=http)


def synthesize(customer: Customer, ssml: str = SSML) -> httpx.Response:
    headers = {**AZURE_HEADERS, "Ocp-Apim-Subscription-Key": customer.token}
    return httpx.post(
        f"{customer.url}/cognitiveservices/v1", headers=headers, content=ssml.encode(), timeout=20, trust_env=False
    )


def test_with_the_switch_off_a_chat_costs_exactly_its_list_price(
    customer: MakeCustomer, sandbox: SandboxServer
) -> None:
    buyer = customer()
    before = buyer.micros

    with openai_sdk(buyer) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Good morning"}], max_tokens=100
        )
    answer = raw.parse()

    leg = buyer.leg()
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert (leg.input_units, leg.output_units) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert before - buyer.micros == leg.cost_micros == listed_micros(leg) > 0
    assert raw.headers["x-insighto-funding"] == "platform_credits"
    assert raw.headers["x-insighto-payer"] == str(buyer.account.pk)
    assert raw.headers["x-insighto-reason"] == "byok_off"
    assert raw.headers["x-insighto-credits"] == credits_text(leg.cost_micros)
    assert [call["tag"] for call in sandbox.calls(provider="openai")] == ["platform"]


@pytest.mark.parametrize("asks_for_usage", [True, False])
def test_a_streamed_chat_costs_the_same_and_shows_usage_only_when_asked(
    customer: MakeCustomer, asks_for_usage: bool
) -> None:
    buyer = customer()
    before = buyer.micros
    options: openai.types.chat.ChatCompletionStreamOptionsParam = {"include_usage": True}

    with openai_sdk(buyer) as client:
        chunks = list(
            client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": "Good morning"}],
                max_tokens=100,
                stream=True,
                stream_options=options if asks_for_usage else openai.omit,
            )
        )

    leg = buyer.leg()
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert any(chunk.usage for chunk in chunks) is asks_for_usage
    assert leg.usage_source == "provider"
    assert before - buyer.micros == leg.cost_micros == listed_micros(leg) > 0


def test_speech_of_both_providers_costs_its_list_price(customer: MakeCustomer) -> None:
    buyer = customer()
    before = buyer.micros

    with httpx.Client(trust_env=False) as http:
        sound = b"".join(
            elevenlabs_sdk(buyer, http).text_to_speech.convert(VOICE, text="Hello there", model_id="eleven_flash_v2_5")
        )
    first = buyer.leg()
    spoken = synthesize(buyer)
    second = buyer.leg()

    assert sound
    assert first.input_units == 6  # eleven characters at half a credit, rounded up
    assert spoken.headers["content-type"].startswith("audio/")
    assert second.input_units == len("Hello & welcome")
    assert spoken.headers["x-insighto-credits"] == credits_text(second.cost_micros)
    assert (
        before - buyer.micros == listed_micros(first) + listed_micros(second) == first.cost_micros + second.cost_micros
    )


def test_with_the_switch_on_the_balance_rests_and_each_provider_sees_the_accounts_own_key(
    customer: MakeCustomer, sandbox: SandboxServer
) -> None:
    buyer = customer(credits=0)
    for provider in Provider.values:
        buyer.own(provider)

    chat = buyer.chat()
    with httpx.Client(trust_env=False) as http:
        sound = b"".join(elevenlabs_sdk(buyer, http).text_to_speech.stream(VOICE, text="Hello"))
    spoken = synthesize(buyer)

    assert chat.status_code == spoken.status_code == 200
    assert sound
    assert chat.headers["x-insighto-funding"] == "own_key"
    assert chat.headers["x-insighto-connection"] == "openai valid"
    assert chat.headers["x-insighto-credits"] == "0"
    assert buyer.micros == 0
    assert {call["tag"] for call in sandbox.calls()} == {"mine"}
    legs = Leg.objects.of(buyer.account)
    assert {(leg.funding_source, leg.cost_micros, leg.hold_id) for leg in legs} == {("own_key", 0, None)}
    assert all(leg.estimate_micros == listed_micros(leg) for leg in legs)


DEAD = [
    ("openai", "invalid", "byok_key_invalid"),
    ("openai", "no_quota", "byok_key_quota_exhausted"),
    ("openai", "restricted_in_use", "byok_key_restricted"),
    ("openai", "wrong_region", "byok_key_region_mismatch"),
    ("azure_speech", "invalid", "byok_key_invalid"),
    ("azure_speech", "no_quota_in_use", "byok_key_quota_exhausted"),
    ("elevenlabs", "invalid", "byok_key_invalid"),
    ("elevenlabs", "no_quota_in_use", "byok_key_quota_exhausted"),
    ("elevenlabs", "restricted_in_use", "byok_key_restricted"),
]


@pytest.mark.parametrize(("provider", "outcome", "code"), DEAD)
def test_an_own_key_the_provider_rejects_is_424_with_its_code_and_costs_nothing(
    customer: MakeCustomer, provider: str, outcome: str, code: str
) -> None:
    buyer = customer()
    text = buyer.own(provider, outcome)
    before = buyer.micros

    response = ask(buyer, provider)

    assert response.status_code == 424
    assert error_code(response) == code
    assert text[:12] not in response.text
    assert response.headers["x-insighto-funding"] == "own_key"
    leg = buyer.leg(response)
    assert (leg.state, leg.cost_micros) == ("void", 0)
    assert buyer.micros == before


@pytest.mark.parametrize("provider", Provider.values)
def test_a_missing_or_unused_key_is_424_before_anything_is_sent(
    customer: MakeCustomer, sandbox: SandboxServer, provider: str
) -> None:
    buyer = customer()
    buyer.switch(on=True)
    missing = ask(buyer, provider)

    assert (missing.status_code, error_code(missing)) == (424, "byok_key_missing")
    if provider == Provider.ELEVENLABS:
        unused = connections.add(account=buyer.account, provider=provider, key="dummy", actor=buyer.owner)
        Slot.objects.filter(account=buyer.account, provider=provider).update(connection=unused)
        assert error_code(ask(buyer, provider)) == "byok_placeholder"
    assert sandbox.calls() == []
    assert {leg.state for leg in Leg.objects.of(buyer.account)} == {"refused"}


def test_the_sdks_raise_their_own_exceptions(customer: MakeCustomer) -> None:
    poor = customer(credits=0)
    messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]

    with openai_sdk(poor) as client:
        with pytest.raises(openai.APIStatusError) as broke:
            client.chat.completions.create(model="gpt-4o-mini", messages=messages)
        with pytest.raises(openai.AuthenticationError) as stranger:
            client.with_options(api_key="in-nobody").chat.completions.create(model="gpt-4o-mini", messages=messages)
    with httpx.Client(trust_env=False) as http, pytest.raises(ApiError) as silent:
        b"".join(elevenlabs_sdk(poor, http).text_to_speech.convert(VOICE, text="Hello"))

    assert (broke.value.status_code, broke.value.code) == (402, "insufficient_credits")
    assert stranger.value.code == "invalid_api_key"
    assert silent.value.status_code == 402
    assert silent.value.body["detail"]["code"] == "insufficient_credits"


def test_a_suspended_account_and_a_plan_without_byok_are_403(customer: MakeCustomer) -> None:
    buyer = customer()
    buyer.own("openai")
    Account.objects.filter(pk=buyer.account.pk).update(byok_allowed=False)
    assert (buyer.chat().status_code, error_code(buyer.chat())) == (403, "byok_not_allowed")

    Account.objects.filter(pk=buyer.account.pk).update(status="suspended")
    assert error_code(buyer.chat()) == "account_suspended"


def test_on_credits_unknown_fields_are_refused_by_name_and_on_own_keys_passed_on(
    customer: MakeCustomer, sandbox: SandboxServer
) -> None:
    buyer = customer()
    refused = buyer.chat(service_tier="priority")

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "service_tier"
    assert sandbox.calls() == []

    buyer.own("openai")
    assert buyer.chat(service_tier="priority", some_new_field={"a": 1}).status_code == 200
    assert {"service_tier", "some_new_field"} <= set(sandbox.calls(provider="openai")[-1]["fields"])


def test_what_was_judged_is_what_is_sent(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer()
    body = (
        b'{"model":"gpt-6-sol","messages":[{"role":"user","content":"Hi"}],"n":8,"max_tokens":5,'
        b'"n":1,"model":"gpt-4o-mini"}'
    )
    with buyer.client() as client:
        response = client.post("/v1/chat/completions", content=body)

    assert response.status_code == 200
    assert len(response.json()["choices"]) == 1
    assert sandbox.calls(provider="openai")[-1]["model"] == buyer.leg().model == "gpt-4o-mini"


def test_a_model_without_a_price_runs_on_own_keys_only(customer: MakeCustomer) -> None:
    buyer = customer()
    assert error_code(buyer.chat(model="gpt-5.5")) == "price_unknown"
    buyer.own("openai")
    assert buyer.chat(model="gpt-5.5").status_code == 200
    assert buyer.leg().estimate_micros is None


def test_an_untested_key_that_works_becomes_valid(customer: MakeCustomer) -> None:
    buyer = customer()
    buyer.own("openai", verdict=Verdict.UNTESTED)
    assert buyer.chat().headers["x-insighto-reason"] == "own_key_untested"
    assert eventually(lambda: Connection.objects.of(buyer.account).get().verdict == Verdict.VALID)


def test_a_receipt_is_complete_and_only_its_accounts(customer: MakeCustomer) -> None:
    buyer, other = customer(), customer()
    response = buyer.chat(stream=True)
    path = f"/v1/requests/{response.headers['x-insighto-request-id']}"
    with buyer.client() as client, other.client() as stranger:
        receipt = client.get(path).json()
        foreign, unknown = stranger.get(path), stranger.get("/v1/requests/00000000-0000-4000-8000-000000000000")

    assert receipt["state"] == "finished"
    assert receipt["legs"][0]["funding_source"] == "platform_credits"
    assert receipt["legs"][0]["cost_micros"] > 0
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.content == unknown.content


def test_the_header_decides_whose_models_answer(customer: MakeCustomer) -> None:
    buyer = customer()
    with openai_sdk(buyer) as client:
        assert "gpt-4o-mini" in {model.id for model in client.models.list()}
    with httpx.Client(trust_env=False) as http:
        listed = elevenlabs_sdk(buyer, http).models.list()
    assert "eleven_flash_v2_5" in {model.model_id for model in listed}
    refused = httpx.get(f"{buyer.url}/v1/models", headers={"xi-api-key": "wrong"}, trust_env=False)
    assert refused.json()["detail"]["code"] == "invalid_api_key"


def test_explain_says_who_would_pay_without_asking_a_provider(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer()
    buyer.own("openai")
    with buyer.client() as client:
        legs = [
            client.post("/v1/funding/explain", json=question).json()["legs"][0]
            for question in ({"model": "gpt-4o-mini"}, {"voice": "en-US-AvaNeural"}, {"voice": VOICE})
        ]
    assert [(leg["provider"], leg["funding_source"]) for leg in legs] == [
        ("openai", "own_key"),
        ("azure_speech", None),
        ("elevenlabs", None),
    ]
    assert legs[1]["refusal"] == "byok_key_missing"
    assert sandbox.calls() == []
    assert not Request.objects.of(buyer.account).exists()


def ask(buyer: Customer, provider: str) -> httpx.Response:
    if provider == Provider.OPENAI:
        return buyer.chat()
    if provider == Provider.AZURE_SPEECH:
        return synthesize(buyer)
    headers = {"xi-api-key": buyer.token}
    return httpx.post(
        f"{buyer.url}/v1/text-to-speech/{VOICE}", headers=headers, json={"text": "Hello"}, timeout=20, trust_env=False
    )


def error_code(response: httpx.Response) -> str:
    body = response.json()
    code: str = (body.get("error") or body.get("detail"))["code"]
    return code


def eventually(fact: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
