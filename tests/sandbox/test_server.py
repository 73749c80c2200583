import asyncio
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from insighto.sandbox import keys, server
from insighto.sandbox.call import Sandbox
from insighto.sandbox.journal import KEPT, Journal
from insighto.sandbox.keys import Outcome
from tests import sandbox_server
from tests.sandbox_server import SandboxServer

ROOT = Path(__file__).resolve().parent.parent.parent


def models(sandbox: SandboxServer, text: str) -> httpx.Response:
    return httpx.get(f"{sandbox.openai_url}/models", headers={"Authorization": f"Bearer {text}"}, trust_env=False)


def test_a_keys_outcome_can_be_changed_and_taken_back(sandbox: SandboxServer) -> None:
    text = keys.valid_key(keys.OPENAI, "one")
    sandbox.control(key=text, outcome="invalid")
    assert models(sandbox, text).json()["error"]["code"] == "invalid_api_key"
    assert models(sandbox, keys.valid_key(keys.OPENAI, "two")).status_code == 200
    sandbox.control(key=text, outcome=None)
    assert models(sandbox, text).status_code == 200


def test_a_whole_provider_can_be_down(sandbox: SandboxServer) -> None:
    text = keys.valid_key(keys.OPENAI, "one")
    sandbox.control(key=text, outcome="invalid")
    sandbox.control(provider=keys.OPENAI, outcome="down")
    assert models(sandbox, text).status_code == 500
    assert (
        httpx.get(
            f"{sandbox.elevenlabs_url}/v1/models",
            headers={"xi-api-key": keys.valid_key(keys.ELEVENLABS, "one")},
            trust_env=False,
        ).status_code
        == 200
    )
    sandbox.reset()
    assert models(sandbox, text).status_code == 200
    assert len(sandbox.calls()) == 1


def test_trouble_can_last_for_a_number_of_calls(sandbox: SandboxServer) -> None:
    text = keys.valid_key(keys.OPENAI, "one")
    sandbox.control(provider=keys.OPENAI, outcome="down", times=2)
    assert [models(sandbox, text).status_code for _ in range(3)] == [500, 500, 200]
    sandbox.control(key=text, outcome="rate_limited", times=1)
    assert [models(sandbox, text).status_code for _ in range(2)] == [429, 200]


def test_it_only_listens_on_this_machine() -> None:
    with pytest.raises(ValueError, match="only listens on this machine"):
        asyncio.run(server.serve(Sandbox(), port=0, ready=print, host="0.0.0.0"))


def test_a_pasted_real_looking_key_can_be_made_valid(sandbox: SandboxServer) -> None:
    text = "sk-proj-planted-by-a-test-0123456789"
    assert models(sandbox, text).status_code == 401
    sandbox.control(key=text, outcome="valid")
    assert models(sandbox, text).status_code == 200


@pytest.mark.parametrize(
    "instruction",
    [[], {"outcome": "sideways", "provider": "openai"}, {"outcome": "down", "provider": "nobody"},
     {"outcome": "down"}, {"redirect_to": "http://example.org/"}, {"hang_s": "long"}],
)  # fmt: skip
def test_a_senseless_instruction_is_refused(sandbox: SandboxServer, instruction: Any) -> None:
    assert httpx.post(f"{sandbox.url}/_control", json=instruction, trust_env=False).status_code == 400


def test_a_foreign_page_cannot_post_instructions(sandbox: SandboxServer) -> None:
    answer = httpx.post(
        f"{sandbox.url}/_control", content='{"reset": true}', headers={"Content-Type": "text/plain"}, trust_env=False
    )
    assert answer.status_code == 415


def test_redirects_can_be_sent_to_a_listener(sandbox: SandboxServer) -> None:
    sandbox.control(redirect_to="http://127.0.0.1:9/elsewhere")
    answer = models(sandbox, keys.key(keys.OPENAI, Outcome.REDIRECTS))
    assert answer.headers["location"] == "http://127.0.0.1:9/elsewhere"


def test_the_journal_is_filtered_and_bounded(sandbox: SandboxServer) -> None:
    for tag in ("one", "two", "one"):
        models(sandbox, keys.valid_key(keys.OPENAI, tag))
    assert [call["tag"] for call in sandbox.calls(provider=keys.OPENAI)] == ["one", "two", "one"]
    first = sandbox.calls(tag="one")[0]
    assert [call["tag"] for call in sandbox.calls(since=first["seq"])] == ["two", "one"]
    assert first["ended_at"] >= first["started_at"]

    calls = Journal()
    for _ in range(KEPT + 5):
        calls.open(provider="", operation="", method="", path="", tag="", outcome="", request_id="")
    assert len(calls.find()) == KEPT
    assert calls.find()[0].seq == 6


def test_the_page_lists_every_key_and_the_last_calls(sandbox: SandboxServer) -> None:
    models(sandbox, keys.valid_key(keys.OPENAI, "acme"))
    answer = httpx.get(sandbox.url, trust_env=False)
    for provider in keys.PROVIDERS:
        for known, _ in keys.listed(provider):
            assert known.text in answer.text
    assert "<td>acme</td>" in answer.text
    assert keys.valid_key(keys.OPENAI, "acme") not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"<script|style=|\son\w+=", answer.text)


@pytest.mark.parametrize(
    ("provider", "address", "header"),
    [
        (keys.OPENAI, "/openai/v1/files", "Authorization"),
        (keys.ELEVENLABS, "/elevenlabs/v1/user", "xi-api-key"),
        (keys.AZURE, "/azure/westeurope/elsewhere", "Ocp-Apim-Subscription-Key"),
    ],
)
def test_a_path_that_is_not_served_is_a_404_and_in_the_journal(
    sandbox: SandboxServer, provider: str, address: str, header: str
) -> None:
    text = keys.valid_key(provider, "one")
    value = f"Bearer {text}" if header == "Authorization" else text
    assert httpx.get(sandbox.url + address, headers={header: value}, trust_env=False).status_code == 404
    assert [(call["path"], call["tag"], call["status"]) for call in sandbox.calls()] == [(address, "one", 404)]


def test_a_path_with_markup_stays_text_on_the_page(sandbox: SandboxServer) -> None:
    models(sandbox, "x")
    httpx.post(
        f"{sandbox.elevenlabs_url}/v1/text-to-speech/%3Cscript%3E",
        json={},
        trust_env=False,
        headers={"xi-api-key": "x"},
    )
    assert "<script" not in httpx.get(sandbox.url, trust_env=False).text


def test_the_sandbox_ends_when_its_parent_dies() -> None:
    script = (
        "import os, signal\n"
        "from tests import sandbox_server\n"
        "with sandbox_server.running() as server:\n"
        "    print(server.url, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=20)
    url = done.stdout.strip()
    assert url.startswith("http://127.0.0.1:")
    for _ in range(100):
        try:
            httpx.get(f"{url}/_health", timeout=1, trust_env=False)
        except httpx.TransportError:
            return
    pytest.fail("the sandbox outlived its parent")


def test_two_sandboxes_live_side_by_side() -> None:
    with sandbox_server.running() as one, sandbox_server.running() as two:
        one.control(provider=keys.OPENAI, outcome="down")
        assert models(two, keys.valid_key(keys.OPENAI, "one")).status_code == 200


def test_the_command_refuses_in_production(settings: Any) -> None:
    settings.PRODUCTION = True
    with pytest.raises(CommandError, match="do not exist in production"):
        call_command("sandbox", port=0, stdout=io.StringIO())


def test_the_module_refuses_in_production() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "insighto.sandbox"],
        cwd=ROOT,
        env={"INSIGHTO_ENV": "production", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 1
    assert "do not exist in production" in done.stderr
