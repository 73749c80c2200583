"""What happens on the way: faults of providers, clients that leave, hostile input, crashes."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.db import connection
from django.utils import timezone

from billing.models import Leg, Request
from billing.services import ledger, sweeper, verification
from billing.services.prices import in_force
from gateway.upstreams.base import tokens_of
from insighto.sandbox import keys
from provider_keys.models import Connection, Provider, Verdict
from tests.gateway.conftest import Customer, Web, chat_body, listed_micros, settled
from tests.gateway.test_funding import VOICE, ask, error_code, eventually, synthesize
from tests.sandbox_server import SandboxServer

MakeCustomer = Callable[..., Customer]

# fault of the provider → what a client sees of it, before any output
FAULTS = {
    "down": (502, "provider_down"),
    "down_in_use": (502, "provider_down"),
    "slow": (504, "provider_too_slow"),
    "html": (502, "provider_bad_answer"),
    "garbage": (502, "provider_bad_answer"),
    "empty": (502, "provider_bad_answer"),
    "drops": (502, "provider_down"),
    "redirects": (502, "provider_down"),
    "echoes": (502, "provider_down"),
    "unknown_401": (502, "provider_down"),
    "rate_limited": (429, "provider_rate_limited"),
    "dies_before_first_byte": (502, "provider_down"),
}
AZURE_SAYS_LITTLE = {"unknown_401", "echoes"}  # any 401 of Azure's is "wrong key or wrong region"


@pytest.mark.parametrize("outcome", FAULTS)
@pytest.mark.parametrize("provider", ["openai", "openai-stream", "azure_speech", "elevenlabs"])
def test_a_providers_fault_has_its_status_costs_nothing_and_condemns_no_key(
    customer: MakeCustomer, sandbox: SandboxServer, provider: str, outcome: str
) -> None:
    buyer = customer()
    name = provider.removesuffix("-stream")
    text = buyer.own(name, outcome)

    response = buyer.chat(stream=True) if provider == "openai-stream" else ask(buyer, name)

    expected = FAULTS[outcome]
    if name == Provider.AZURE_SPEECH and outcome in AZURE_SAYS_LITTLE:
        expected = (424, "byok_key_invalid")
    assert (response.status_code, error_code(response)) == expected
    assert text not in response.text
    assert text not in str(response.headers)
    leg = buyer.leg(response)
    assert (leg.state, leg.cost_micros, leg.request.http_status) == ("void", 0, expected[0])
    assert Connection.objects.of(buyer.account).get().verdict == Verdict.VALID
    assert [call for call in sandbox.calls(provider="sink") if call["tag"] != "none"] == []
    if outcome == "rate_limited":
        assert response.headers["retry-after"] == "7"


def test_the_platforms_own_key_failing_is_never_the_customers_fault(
    customer: MakeCustomer, sandbox: SandboxServer
) -> None:
    buyer = customer()
    sandbox.control(key=keys.valid_key("openai", "platform"), outcome="invalid")
    before = buyer.micros

    response = buyer.chat()

    assert (response.status_code, error_code(response)) == (502, "provider_refused_platform")
    assert buyer.leg(response).state == "void"
    assert buyer.micros == before


def test_a_stream_that_breaks_says_so_and_its_output_is_paid(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer()
    sandbox.control(key=keys.valid_key("openai", "platform"), outcome="breaks_mid_stream")
    response = buyer.chat(stream=True)

    events = [line for line in response.text.split("\n\n") if line]
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "provider_down"
    leg = buyer.leg(response)
    assert (leg.state, leg.usage_source, leg.request.state) == ("settled", "counted", "failed")
    assert leg.cost_micros == listed_micros(leg) > 0


@pytest.mark.parametrize("outcome", ["no_usage", "hostile_usage"])
@pytest.mark.parametrize("streamed", [True, False])
def test_usage_that_is_missing_or_absurd_is_counted_instead(
    customer: MakeCustomer, sandbox: SandboxServer, outcome: str, streamed: bool
) -> None:
    buyer = customer()
    sandbox.control(key=keys.valid_key("openai", "platform"), outcome=outcome)
    response = buyer.chat(stream=streamed)

    leg = buyer.leg(response)
    assert response.status_code == 200
    assert (leg.usage_source, leg.is_flagged) == ("counted", outcome == "hostile_usage")
    assert 0 < leg.cost_micros == listed_micros(leg)


def test_the_first_piece_passes_before_the_provider_is_done(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer()
    sandbox.control(chunk_delay_s=0.05)
    with buyer.client() as client, client.stream("POST", "/v1/chat/completions", json=chat_body(stream=True)) as stream:
        pieces = stream.iter_bytes()
        first = next(pieces)
        running = [call["state"] for call in sandbox.calls(provider="openai")]
        rest = list(pieces)
    assert first.startswith(b"data: ")
    assert running == ["running"]
    assert len(rest) > 3


@pytest.mark.parametrize("way", ["close", "reset"])
@pytest.mark.parametrize("funding", ["credits", "own"])
@pytest.mark.parametrize("index", [0, 1, 2, 5, 9])
def test_a_client_that_leaves_pays_for_what_it_got_and_stops_the_provider(
    customer: MakeCustomer, sandbox: SandboxServer, index: int, way: str, funding: str
) -> None:
    buyer = customer()
    if funding == "own":
        buyer.own("openai")
    full = buyer.leg(buyer.chat(stream=True))
    before = buyer.micros
    sandbox.control(chunk_delay_s=0.03)

    with raw_stream(buyer) as connection_:
        received = 0
        while received <= index:
            received += connection_.recv(65_536).count(b"data: ")
        if way == "reset":
            connection_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert eventually(lambda: Leg.objects.of(buyer.account).filter(request__state="cancelled").exists())

    leg = Leg.objects.of(buyer.account).get(request__state="cancelled")
    assert eventually(lambda: sandbox.calls(provider="openai")[-1]["state"] != "running")
    assert sandbox.calls(provider="openai")[-1]["state"] == "left"
    assert leg.usage_source == "counted"
    assert 0 < leg.input_units <= full.input_units
    assert leg.output_units <= full.output_units
    assert index < 2 or leg.output_units > 0
    assert before - buyer.micros == leg.cost_micros <= full.cost_micros
    assert (leg.cost_micros > 0) is (funding == "credits")


def test_counting_bytes_never_charges_more_tokens_than_there_are() -> None:
    assert tokens_of(0) == 0
    assert tokens_of(1) == 1
    assert tokens_of(600) == 100


HOSTILE: list[bytes] = [
    b"",
    b"null",
    b"[]",
    b"{",
    b'{"model":NaN}',
    b'{"model":1e999}',
    b'{"model":"gpt-4o-mini","messages":' + b"[" * 60_000 + b"]" * 60_000 + b"}",
    b'{"model":"gpt-4o-mini","messages":"\xff\xfe"}',
    b'{"model":"gpt-4o-mini\\u0000","messages":[]}',
    b'{"model":"gpt-4o-mini\\r\\nx-evil: 1","messages":[]}',
    b'{"model":["gpt-4o-mini"],"messages":[]}',
    b'{"model":"gpt-4o-mini","messages":{}}',
    b'{"model":"gpt-4o-mini","messages":[1,2]}',
    b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":[1]}]}',
    b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":[{"type":"input_audio"}]}]}',
    b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a"}],"n":-1}',
    b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a"}],"n":1e3}',
    b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a"}],"n":true}',
    b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a"}],"max_tokens":99999999999999999999999}',
    b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a"}],"max_tokens":"7"}',
    b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a"}],"stream":"yes"}',
    b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a"}],"stream":true,"stream_options":7}',
    b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a"}],"tools":[{"type":"web_search"}]}',
    b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"\\ud800"}]}',
    b'{"model":"gpt-4o-mini","messages":[],"api_base":"http://127.0.0.1:1","extra_headers":{"a":"b"}}',
    b'{"text":7}',
    b'{"text":"a","model_id":{}}',
    b'<!DOCTYPE speak [<!ENTITY a "b">]><speak>&a;</speak>',
    b"<speak><voice name='en-US-AvaNeural'>a</voice><voice name='en-US-AvaNeural'>b</voice></speak>",
    b"<speak><voice name='en-US-AvaNeural\"/><x'>a</voice></speak>",
    b"<speak>" + b"<p>" * 5_000 + b"</p>" * 5_000 + b"</speak>",
    b"<?xml version='1.0' encoding='utf-16'?><speak><voice name='en-US-AvaNeural'>a</voice></speak>",
    b"\xff" * 100,
]


@pytest.mark.parametrize("funding", ["credits", "own"])
def test_hostile_input_is_refused_and_never_our_failure(customer: MakeCustomer, funding: str, web: Web) -> None:
    buyer = customer()
    if funding == "own":
        for provider in Provider.values:
            buyer.own(provider)
    before = buyer.micros
    with buyer.client() as client:
        for body in HOSTILE:
            for path in (
                "/v1/chat/completions",
                f"/v1/text-to-speech/{VOICE}",
                "/cognitiveservices/v1",
                "/v1/funding/explain",
            ):
                headers = {
                    "Content-Type": "application/ssml+xml",
                    "X-Microsoft-OutputFormat": "raw-16khz-16bit-mono-pcm",
                }
                response = client.post(path, content=body, headers=headers)
                assert 200 <= response.status_code < 500, (path, body[:80], response.text)
                assert response.headers["x-insighto-request-id"]
                assert "x-evil" not in response.headers
    assert "Traceback" not in web.log()
    assert "gateway_failed" not in web.log()
    assert before - buyer.micros == sum(leg.cost_micros for leg in Leg.objects.of(buyer.account))


@pytest.mark.parametrize(
    "path",
    [
        "/v1/text-to-speech/../user",
        "/v1/text-to-speech/x%3Foutput_format=a",
        "/v1/text-to-speech/SandboxVoiceFlint001/../../user",
        "/v1/text-to-speech/SandboxVoiceFlint001%0d%0a",
        "/v1/text-to-speech/SandboxVoiceFlint001/stream/x",
        "/v1/requests/../../etc/passwd",
        "/v1/nothing",
        "/cognitiveservices/other",
        "/sts/v1.0/issueToken",
    ],
)
def test_paths_lead_nowhere_else(customer: MakeCustomer, sandbox: SandboxServer, path: str) -> None:
    buyer = customer()
    with buyer.client() as client:
        response = client.post(path, json={"text": "Hello"})
    assert 400 <= response.status_code < 500
    assert sandbox.calls() == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic aW4t"},
        {"Authorization": "Bearer in-' OR 1=1 --"},
        {"xi-api-key": "in-" + "0" * 50},
        {"Ocp-Apim-Subscription-Key": "in-é" + "a" * 49},
        {"Authorization": "Bearer " + "a" * 5_000},
    ],
)
def test_only_a_key_we_issued_opens_the_door(web: Web, headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    response = httpx.post(f"{web.url}/v1/chat/completions", headers=raw, json=chat_body(), trust_env=False)
    assert (response.status_code, error_code(response)) == (401, "invalid_api_key")
    assert not Request.objects.exists()


def test_two_different_keys_in_one_request_are_refused(customer: MakeCustomer) -> None:
    one, two = customer(), customer()
    with one.client() as client:
        mixed = client.post("/v1/chat/completions", json=chat_body(), headers={"xi-api-key": two.token})
        same = client.post("/v1/chat/completions", json=chat_body(), headers={"xi-api-key": one.token})
    assert (mixed.status_code, same.status_code) == (401, 200)


def test_bodies_have_a_bound(customer: MakeCustomer) -> None:
    buyer = customer()
    with buyer.client() as client:
        whole = client.post("/v1/chat/completions", content=b"a" * (10 * 1024 * 1024 + 1))
        pieces = client.post("/cognitiveservices/v1", content=(b"a" * 4096 for _ in range(40)))
    assert whole.status_code == pieces.status_code == 413


def test_a_secret_echoed_by_the_provider_and_its_cookies_stay_behind(customer: MakeCustomer) -> None:
    buyer = customer()
    text = buyer.own("openai", "invalid")
    response = buyer.chat()
    assert text[-4:] not in response.text
    assert "set-cookie" not in response.headers


def test_characters_count_as_azure_bills_them(customer: MakeCustomer) -> None:
    buyer = customer()
    ssml = (
        '<speak version="1.0" xmlns="http://www.w3.org/2001/10/synthesis" xml:lang="en-US">'
        "<voice name='zh-CN-XiaoxiaoNeural'>你好, <break time='1s'/>ok</voice></speak>"
    )
    assert synthesize(buyer, ssml).status_code == 200
    assert buyer.leg().input_units == 4 + 2 + len("<break time='1s'/>") + 2


def test_the_web_process_killed_amid_twenty_streams_leaves_nothing_held(
    customer: MakeCustomer, web: Web, sandbox: SandboxServer
) -> None:
    buyer = customer()
    before = buyer.micros
    sandbox.control(chunk_delay_s=0.6)
    streams = [raw_stream(buyer) for _ in range(20)]
    for stream in streams:
        while b"data: " not in stream.recv(65_536):
            pass
    time.sleep(3)  # a checkpoint is due every two seconds
    web.kill()
    for stream in streams:
        stream.close()
    assert Leg.objects.filter(state="dispatched").count() == 20
    held = ledger.wallet(buyer.account).debits_pending
    assert held > 0

    Leg.objects.filter(state="dispatched").update(deadline_at=timezone.now())
    swept = sweeper.sweep()
    again = sweeper.sweep()
    web.start()

    assert (swept, again) == (20, 0)
    settled()
    assert ledger.wallet(buyer.account).debits_pending == 0
    legs = list(Leg.objects.of(buyer.account))
    assert {leg.state for leg in legs} == {"expired"}
    assert all(0 < leg.cost_micros <= listed_micros(leg) for leg in legs)
    assert before - buyer.micros == sum(leg.cost_micros for leg in legs) <= held
    assert verification.verify() == []


def test_exhausting_credits_in_turn_serves_exactly_what_they_cover(customer: MakeCustomer) -> None:
    buyer = customer(credits=0)
    fund(buyer, 3)
    statuses = [buyer.chat(text="a", max_tokens=200).status_code for _ in range(12)]
    assert 402 in statuses
    assert statuses.index(402) >= 3
    assert buyer.micros >= 0


@pytest.mark.postgres
def test_sixty_four_streams_at_once_against_credits_for_forty(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer(credits=0)
    fund(buyer, 40)
    sandbox.control(chunk_delay_s=0.2)  # every hold stands before the first one is given back
    gate = threading.Barrier(64)

    def one(_: int) -> tuple[int, bool]:
        with buyer.client() as client:
            gate.wait()
            response = client.post("/v1/chat/completions", json=chat_body(text="a", stream=True))
            return response.status_code, response.text.endswith("data: [DONE]\n\n")

    with ThreadPoolExecutor(64) as pool:
        results = list(pool.map(one, range(64)))
    connection.close()

    assert sorted(results) == [(200, True)] * 40 + [(402, False)] * 24
    settled()
    assert len(sandbox.calls(provider="openai")) == 40
    assert Leg.objects.of(buyer.account).filter(state="settled").count() == 40
    assert ledger.wallet(buyer.account).debits_pending == 0
    assert verification.verify() == []


def fund(buyer: Customer, requests: int) -> None:
    """Credits for exactly so many holds of `chat_body(text="a")` at once."""
    price = in_force("openai", "gpt-4o-mini")
    assert price is not None
    # The bound is the body's length in bytes as it is sent, and the answer's limit.
    body = httpx.Request("POST", "http://test", json=chat_body(text="a", stream=True)).content
    micros = -(-(len(body) * price.input_micros + 200 * price.output_micros) // 1_000_000)
    ledger.grant(
        account=buyer.account, amount_micros=micros * requests, reason="Test", actor=None, idempotency_key="exact"
    )


class raw_stream:  # noqa: N801 - reads as the verb it is
    """A streamed chat over a bare socket, so that the way of leaving it is ours to choose."""

    def __init__(self, buyer: Customer, **fields: Any) -> None:
        parts = urlsplit(buyer.url)
        assert parts.hostname is not None
        body = json.dumps(chat_body(stream=True, **fields)).encode()
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=15)
        self._socket.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer "
            + buyer.token.encode()
            + b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )

    def __enter__(self) -> socket.socket:
        return self._socket

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def recv(self, size: int) -> bytes:
        return self._socket.recv(size)

    def close(self) -> None:
        self._socket.close()
