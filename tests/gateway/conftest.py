"""The real server and the real sandbox as processes of their own, on the tests' database; customers with API keys."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connection

from accounts.models import Account, User
from accounts.services import api_keys
from billing.models import Leg, Request
from billing.money import MICROS_PER_CREDIT
from billing.services import ledger, prices, verification
from insighto.dev import processes
from insighto.dev.processes import Child, Lifeline
from insighto.sandbox import keys
from provider_keys.models import Connection, Provider, Slot, Verdict
from provider_keys.services import connections, platform_credentials
from tests import factories, sandbox_server
from tests.sandbox_server import SandboxServer

ROOT = Path(__file__).resolve().parents[2]
SLACK_S = 20.0


@dataclass
class Web:
    """The server under test. `kill` ends it as a crash does; `start` begins another one at the same address."""

    url: str
    port: int
    env: dict[str, str]
    folder: Path
    lifeline: Lifeline
    child: Child | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "insighto.server", "--port", str(self.port)]
        self.child = Child("web", command, lifeline=self.lifeline, env=self.env, log=self.folder / "web.log", cwd=ROOT)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/v1/nothing", timeout=2, trust_env=False).status_code == 404:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
            assert self.child.exit_code() is None, self.log()
        raise AssertionError(self.log())

    def kill(self) -> None:
        assert self.child is not None
        os.killpg(self.child.pid, signal.SIGKILL)
        while self.child.exit_code() is None:
            time.sleep(0.01)

    def log(self) -> str:
        return (self.folder / "web.log").read_text()


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[SandboxServer]:
    with sandbox_server.running(hang_s=6) as server:
        yield server


@pytest.fixture
def sandbox(sandbox_process: SandboxServer) -> SandboxServer:
    sandbox_process.reset()
    sandbox_process.control(chunk_delay_s=0)
    return sandbox_process


@pytest.fixture(scope="session")
def web_process(django_db_setup: None, sandbox_process: SandboxServer) -> Iterator[Web]:
    port = processes.free_port()
    name = connection.settings_dict["NAME"]
    base = os.environ["DATABASE_URL"]
    database = f"sqlite:///{name}" if connection.vendor == "sqlite" else f"{base.rpartition('/')[0]}/{name}"
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    env |= {
        "DATABASE_URL": database,
        "SANDBOX_URL": sandbox_process.url,
        "UPSTREAM_FIRST_BYTE_S": "3",
        "UPSTREAM_IDLE_S": "3",
        "LOG_LEVEL": "WARNING",
    }
    with tempfile.TemporaryDirectory(prefix="insighto-web-") as folder:
        lifeline = Lifeline()
        web = Web(f"http://127.0.0.1:{port}", port, env, Path(folder), lifeline)
        web.start()
        try:
            yield web
        finally:
            if web.child is not None:
                processes.stop([web.child], grace_s=8)
            lifeline.close()


@pytest.fixture
def web(transactional_db: None, web_process: Web, sandbox: SandboxServer) -> Iterator[Web]:
    """The server, its database holding the platform's keys; afterwards nothing held, and the books right."""
    prices.forget()
    for provider in Provider.values:
        platform_credentials.put(
            provider=provider,
            key=keys.valid_key(provider, "platform"),
            region="westeurope" if provider == Provider.AZURE_SPEECH else "",
            actor=None,
        )
    yield web_process
    settled()
    assert verification.verify() == []


@dataclass
class Customer:
    account: Account
    owner: User
    token: str
    url: str

    @property
    def micros(self) -> int:
        return ledger.balance(self.account)

    def client(self, **options: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=SLACK_S, trust_env=False, **options)

    def chat(self, **fields: Any) -> httpx.Response:
        with self.client() as client:
            return client.post("/v1/chat/completions", json=chat_body(**fields))

    def own(self, provider: str, outcome: str = "valid", *, verdict: str = Verdict.VALID, tag: str = "mine") -> str:
        """Put a sandbox key of this outcome into the slot, as if it had been judged so before; the key's text."""
        text = keys.key(provider, outcome, tag)
        region = keys.DEFAULT_REGION if provider == Provider.AZURE_SPEECH else ""
        made = connections.add(
            account=self.account, provider=provider, key=text, name=f"{provider} {outcome}", region=region,
            actor=self.owner,
        )  # fmt: skip
        Connection.objects.filter(pk=made.pk).update(verdict=verdict)
        Slot.objects.update_or_create(account=self.account, provider=provider, defaults={"connection": made})
        self.switch(on=True)
        return text

    def switch(self, *, on: bool) -> None:
        Account.objects.filter(pk=self.account.pk).update(byok_enabled=on)

    def leg(self, response: httpx.Response | None = None) -> Leg:
        settled()
        found = Leg.objects.of(self.account)
        if response is not None:
            found = found.filter(request_id=response.headers["x-insighto-request-id"])
        return found.latest("created_at")


@pytest.fixture
def customer(web: Web) -> Callable[..., Customer]:
    def make(credits: int = 100) -> Customer:
        owner = factories.make_user()
        account = factories.make_account(owner=owner)
        if credits:
            ledger.grant(
                account=account, amount_micros=credits * MICROS_PER_CREDIT, reason="Test", actor=None,
                idempotency_key="test",
            )  # fmt: skip
        _, secret = api_keys.issue(account=account, name="Test", actor=owner)
        return Customer(account, owner, secret.reveal(), web.url)

    return make


def chat_body(text: str = "Tell me about the harbour.", **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "max_tokens": 200, **fields}


def settled(timeout_s: float = 10.0) -> None:
    """Wait until no leg is on its way: a settlement may follow the last byte."""
    deadline = time.monotonic() + timeout_s
    while Leg.objects.filter(state="dispatched").exists() or Request.objects.filter(state="running").exists():
        assert time.monotonic() < deadline, list(Leg.objects.filter(state="dispatched").values())
        time.sleep(0.02)


def listed_micros(leg: Leg) -> int:
    """The list price of what a leg says was used, worked out here by hand; one rounding, up."""
    price = leg.price
    assert price is not None
    cached = price.input_micros if price.cached_input_micros is None else price.cached_input_micros
    plain = leg.input_units - leg.cached_input_units - leg.cache_write_units
    written = price.input_micros if price.cache_write_micros is None else price.cache_write_micros
    total = plain * price.input_micros + leg.cached_input_units * cached + leg.cache_write_units * written
    total += leg.output_units * price.output_micros
    return -(-total // 1_000_000)
