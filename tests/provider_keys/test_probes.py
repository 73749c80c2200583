import asyncio
import gzip
import json
import logging
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from insighto.lib import http
from insighto.lib.secret import Secret
from provider_keys import classify, probes
from provider_keys.models import Attempt, Provider, Verdict
from provider_keys.probes import Panel, Probed
from tests.provider_keys.conftest import AZURE_KEY, ELEVENLABS_KEY, OPENAI_KEY
from tests.provider_keys.hostile import Script, answer, drip, listening, raw, silence

KEYS = {Provider.OPENAI: OPENAI_KEY, Provider.AZURE_SPEECH: AZURE_KEY, Provider.ELEVENLABS: ELEVENLABS_KEY}
PROVIDERS = list(Provider)

GOOD: dict[str, Any] = {
    Provider.OPENAI: {"object": "list", "data": [{"id": "gpt-6-luna"}, {"id": "gpt-6-luna"}, {"id": "no id!"}]},
    Provider.AZURE_SPEECH: [{"ShortName": "en-US-AvaNeural"}],
    Provider.ELEVENLABS: {"tier": "creator", "character_count": 1, "character_limit": 10},
}


@pytest.fixture
def point(settings: Any) -> Callable[[str], None]:
    """Send the requests of all three providers to one address."""

    def point(url: str) -> None:
        settings.OPENAI_BASE_URL = f"{url}/v1"
        settings.ELEVENLABS_BASE_URL = url
        settings.AZURE_SPEECH_TTS_URL = f"{url}/azure/{{region}}"

    return point


def ask(provider: str, key: str = "") -> Probed:
    secret = Secret(key or KEYS[Provider(provider)])
    return asyncio.run(probes.ask(provider, region="westeurope", secret=secret))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_well_formed_success_is_valid_and_sends_the_key_once_to_the_right_path(provider, point):
    with listening(answer(200, json.dumps(GOOD[provider]).encode())) as listener:
        point(listener.url)
        probed = ask(provider)

    assert probed.outcome.verdict == Verdict.VALID
    assert len(listener.heard) == 1
    head = listener.heard[0].decode()
    path, header = {
        Provider.OPENAI: ("/v1/models", f"Authorization: Bearer {OPENAI_KEY}"),
        Provider.AZURE_SPEECH: (
            "/azure/westeurope/cognitiveservices/voices/list",
            f"Ocp-Apim-Subscription-Key: {AZURE_KEY}",
        ),
        Provider.ELEVENLABS: ("/v1/user/subscription", f"xi-api-key: {ELEVENLABS_KEY}"),
    }[provider]
    assert head.startswith(f"GET {path} HTTP/1.1\r\n")
    assert header in head


def test_what_a_key_has_is_kept_as_ids_only(point):
    with listening(answer(200, json.dumps(GOOD[Provider.OPENAI]).encode())) as listener:
        point(listener.url)
        assert ask(Provider.OPENAI).capabilities == {"models": ["gpt-6-luna"]}


BAD_ANSWERS: list[tuple[str, Script, str]] = [
    ("html with 200", answer(200, b"<html>Welcome to the guest network</html>"), "bad_body"),
    ("garbage with 200", answer(200, b'{"object": "list", "data": ['), "bad_body"),
    ("nothing with 200", answer(200, b""), "bad_body"),
    ("NaN", answer(200, b'{"object":"list","data":NaN}'), "bad_body"),
    ("dropped", raw(b""), "dropped"),
    ("dropped in the body", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"), "dropped"),
    ("no HTTP", raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "dropped"),
    ("huge by promise", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{"), "too_big"),
    ("huge in fact", answer(200, b" " * (classify.MAX_BODY + 1)), "too_big"),
    ("huge without a promise", raw(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (classify.MAX_BODY + 1)), "too_big"),
    ("huge header", raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n"), "dropped"),
    ("bomb", answer(200, gzip.compress(b" " * 50_000_000), Content_Encoding="gzip"), "bad_body"),
    ("down", answer(503, b"down"), "server_error"),
    ("unknown error", answer(418, b"{}"), "unknown_answer"),
]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("script", "reason"), [row[1:] for row in BAD_ANSWERS], ids=[row[0] for row in BAD_ANSWERS])
def test_a_bad_answer_says_nothing_about_the_key(provider, script, reason, point):
    with listening(script) as listener:
        point(listener.url)
        outcome = ask(provider).outcome

    assert (outcome.verdict, outcome.attempt, outcome.reason) == (None, Attempt.UNREACHABLE, reason)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("script", [silence(5), drip(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 500, every_s=0.05)])
def test_a_provider_that_hangs_or_drips_ends_at_the_deadline(provider, script, point, monkeypatch):
    monkeypatch.setattr(probes, "DEADLINE_S", 0.4)
    with listening(script) as listener:
        point(listener.url)
        began = time.monotonic()
        outcome = ask(provider).outcome
        took = time.monotonic() - began

    assert outcome == classify.network_failure("timeout")
    assert took < 3  # the deadline, not the five seconds of silence or the drip's half minute


def test_the_deadline_in_use_is_ten_seconds():
    assert probes.DEADLINE_S == 10.0


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_the_key_arrives_nowhere_else(provider, status, point):
    good = json.dumps(GOOD[provider]).encode()
    with listening(answer(200, good)) as elsewhere, listening(answer(status, b"", Location=elsewhere.url)) as listener:
        point(listener.url)
        outcome = ask(provider).outcome

    assert outcome.reason == "redirect"
    assert outcome.verdict is None
    assert len(listener.heard) == 1
    assert elsewhere.heard == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_echoed_key_is_kept_nowhere(provider, point, caplog):
    key = KEYS[provider]
    body = json.dumps(
        {
            "error": {"code": key, "message": f"Wrong key {key} {quote(key)}", "type": key},
            "detail": {"status": key, "message": key, "code": key},
        }
    ).encode()
    script = answer(401, body, X_Request_Id=key, Request_Id=f"req_{key[-20:]}", Retry_After=key, Server=key)
    caplog.set_level(logging.DEBUG)
    with listening(script) as listener:
        point(listener.url)
        probed = ask(provider)

    for text in (repr(probed), caplog.text):
        assert key not in text
        assert key[-8:] not in text


def test_ids_that_carry_the_key_are_not_kept(point):
    body = {"object": "list", "data": [{"id": OPENAI_KEY}, {"id": f"model:{OPENAI_KEY[-12:]}"}, {"id": "gpt-6-luna"}]}
    with listening(answer(200, json.dumps(body).encode())) as listener:
        point(listener.url)
        assert ask(Provider.OPENAI).capabilities == {"models": ["gpt-6-luna"]}


def test_more_ids_than_anyone_needs_are_cut(point):
    body = {"object": "list", "data": [{"id": f"model-{number}"} for number in range(5000)]}
    with listening(answer(200, json.dumps(body).encode())) as listener:
        point(listener.url)
        found = ask(Provider.OPENAI).capabilities

    assert found is not None
    assert len(found["models"]) == probes.MAX_IDS


MISSING = json.dumps({"detail": {"status": "missing_permissions", "message": "missing the permission"}}).encode()


def one_after_another(*scripts: Script) -> Script:
    """Each connection gets the next script."""
    waiting = iter(scripts)
    return lambda peer: next(waiting)(peer)


def test_an_elevenlabs_key_without_the_right_to_read_the_subscription_is_tried_on_models_then_voices(point):
    voices = answer(200, b'{"voices": [{"voice_id": "21m00Tcm4TlvDq8ikWAM"}]}')
    script = one_after_another(answer(401, MISSING), answer(401, MISSING), voices)
    with listening(script) as listener:
        point(listener.url)
        probed = ask(Provider.ELEVENLABS)

    asked = [head.split()[1].decode() for head in listener.heard]
    assert asked == ["/v1/user/subscription", "/v1/models", "/v2/voices?page_size=100"]
    assert probed.outcome.verdict == Verdict.VALID
    assert probed.capabilities == {"voices": ["21m00Tcm4TlvDq8ikWAM"]}


def test_an_elevenlabs_key_that_may_read_nothing_is_restricted_and_never_invalid(point):
    with listening(answer(401, MISSING)) as listener:
        point(listener.url)
        outcome = ask(Provider.ELEVENLABS).outcome

    assert len(listener.heard) == 3
    assert (outcome.verdict, outcome.reason) == (Verdict.RESTRICTED, "cannot_be_checked")
    assert outcome.is_usable


def test_an_admin_key_of_openai_is_restricted_without_a_request(point):
    with listening(answer(200, json.dumps(GOOD[Provider.OPENAI]).encode())) as listener:
        point(listener.url)
        outcome = ask(Provider.OPENAI, "sk-admin-" + "Ab3dEf6h" * 6).outcome

    assert (outcome.verdict, outcome.reason) == (Verdict.RESTRICTED, "admin_key")
    assert listener.heard == []


def test_the_environment_neither_adds_a_proxy_nor_another_address(point, monkeypatch):
    with listening(answer(200, b"{}")) as proxy, listening(answer(503)) as listener:
        point(listener.url)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "OPENAI_BASE_URL"):
            monkeypatch.setenv(name, proxy.url)
        ask(Provider.OPENAI)

    assert proxy.heard == []
    assert len(listener.heard) == 1


def test_a_name_that_leads_into_our_own_network_is_not_connected_to(settings, monkeypatch):
    """The name of the setting is public; what it resolves to is not."""

    async def inside(*_: object, **__: object) -> list[Any]:
        return [
            {
                "hostname": "api.example",
                "host": "127.0.0.1",
                "port": port,
                "family": socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
        ]

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", inside)
    monkeypatch.setattr("aiohttp.resolver.AsyncResolver.resolve", inside)
    with listening(answer(200, json.dumps(GOOD[Provider.OPENAI]).encode())) as listener:
        port = int(listener.url.rpartition(":")[2])
        settings.OPENAI_BASE_URL = f"http://api.example:{port}/v1"
        outcome = ask(Provider.OPENAI).outcome

    assert outcome.reason == "connect"
    assert listener.heard == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
        "2002:a00:1::", "fec0::1", "192.0.2.1", "198.18.0.1",
    ],
)  # fmt: skip
def test_inner_addresses_are_refused_in_every_spelling(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    with pytest.raises(http.AddressRefused):
        http.guard("https://api.openai.com/v1")((family, socket.SOCK_STREAM, 6, "", (address, 443)))


def test_a_local_address_is_allowed_exactly_when_the_operator_wrote_it():
    def open_socket(base: str, address: str) -> None:
        http.guard(base)((socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))).close()

    open_socket("http://127.0.0.1:8010/openai", "127.0.0.1")
    open_socket("http://localhost:8010/openai", "127.0.0.1")
    open_socket("http://api.example", "1.1.1.1")
    for base, address in [
        ("http://127.0.0.1", "127.0.0.2"),
        ("http://localhost", "10.0.0.1"),
        ("http://10.0.0.1", "10.0.0.2"),
    ]:
        with pytest.raises(http.AddressRefused):
            open_socket(base, address)


def test_a_mistake_of_ours_in_a_probe_is_told_by_its_type_only(point, monkeypatch, caplog):
    def leak(*_: object, **__: object) -> None:
        raise RuntimeError(OPENAI_KEY)

    monkeypatch.setattr(http, "session", leak)
    caplog.set_level(logging.DEBUG)

    assert ask(Provider.OPENAI).outcome == classify.network_failure("dropped")
    assert OPENAI_KEY not in caplog.text


def test_a_panel_hands_out_answers_as_they_arrive(point, monkeypatch):
    waits = {Provider.OPENAI: 0.3, Provider.AZURE_SPEECH: 0.0, Provider.ELEVENLABS: 0.15}

    async def ask_slowly(provider: str, **_: object) -> Probed:
        await asyncio.sleep(waits[Provider(provider)])
        return Probed(classify.worked())

    monkeypatch.setattr(probes, "ask", ask_slowly)
    names = {uuid4(): provider for provider in PROVIDERS}
    arrived = []
    with Panel() as panel:
        for subject, provider in names.items():
            panel.ask(subject, provider=provider, region="westeurope", secret=Secret(KEYS[provider]))
        while panel.is_waiting:
            arrived += [names[subject] for subject, _ in panel.answers(within_s=1)]

    assert arrived == [Provider.AZURE_SPEECH, Provider.ELEVENLABS, Provider.OPENAI]
