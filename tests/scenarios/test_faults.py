"""Providers, workers and the broker failing under the running product: a good key stays good, and checks end.

Before the first story the worker was killed in the middle of a check; everything is then asked of the product that was
started again on the same folder.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from insighto.sandbox import keys
from tests import product
from tests.product import Product
from tests.provider_keys import hostile
from tests.sandbox_server import SandboxServer
from tests.scenarios import visitor
from tests.scenarios.visitor import KEYS, PROVIDERS, Database, Visitor, eventually, own_database

NORTHWIND, CONTOSO = "Northwind Studio", "Contoso Labs"
SPEECH = (
    '<speak version="1.0" xmlns="http://www.w3.org/2001/10/synthesis" xml:lang="en-US">'
    '<voice name="en-US-AvaNeural">Good morning</voice></speak>'
)
Facts = dict[str, tuple[str, str]]


@dataclass
class Account:
    """One of the demo's accounts with a valid key of each provider in its slots, and its owner's browser."""

    product: Product
    name: str
    owner: Visitor

    def __post_init__(self) -> None:
        self.database = Database(self.product)
        self.sandbox = SandboxServer(self.product.sandbox_url)

    def key(self, provider: str) -> str:
        return keys.valid_key(provider, f"faults-{self.name[:3].lower()}")

    def store(self) -> None:
        for provider in PROVIDERS:
            assert self.owner.add(provider, self.key(provider), name="Mine").status_code == 302
        self.owner.select(**{provider: self.owner.newest(provider) for provider in PROVIDERS})
        self.finished()
        assert {verdict for verdict, _ in self.facts().values()} == {"valid"}

    def facts(self) -> Facts:
        """Verdict and last attempt, by provider."""
        rows = self._rows("c.provider, c.verdict, c.attempt", "provider_keys_connection c")
        return {provider: (verdict, attempt) for provider, verdict, attempt in rows}

    def running(self) -> int:
        return len(self._rows("c.id", "provider_keys_check c", "AND c.finished_at IS NULL"))

    def finished(self, within_s: float = 20.0) -> None:
        eventually(lambda: not self.running(), within_s)

    def money(self) -> tuple[int, int]:
        rows = self._rows(
            "c.credits_posted - c.debits_posted, c.debits_pending", "billing_ledgeraccount c", of="owner_id"
        )
        return int(rows[0][0]), int(rows[0][1])

    def _rows(self, columns: str, table: str, more: str = "", of: str = "account_id") -> list[tuple[Any, ...]]:
        return self.database.rows(
            f"SELECT {columns} FROM {table} JOIN accounts_account a ON a.id = c.{of} "  # noqa: S608
            f"WHERE a.name = '{self.name}' {more}"
        )

    def meets(self, outcome: str | None) -> None:
        for provider in PROVIDERS:
            self.sandbox.control(key=self.key(provider), outcome=outcome)

    def press(self) -> None:
        assert self.owner.post(f"{KEYS}check/").status_code == 302
        assert self.running() == 3

    def asked(self, since: int) -> list[dict[str, Any]]:
        return [call for call in self.sandbox.calls(since=since) if call["provider"] in PROVIDERS]

    def api(self, provider: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.product.api_key(self.name)}"}
        with httpx.Client(base_url=self.product.url, headers=headers, timeout=20, trust_env=False) as client:
            if provider == "openai":
                body = {"model": "gpt-4o-mini", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}
                return client.post("/v1/chat/completions", json=body)
            if provider == "elevenlabs":
                body = {"text": "Hello", "model_id": "eleven_flash_v2_5"}
                return client.post("/v1/text-to-speech/SandboxVoiceFlint001", json=body)
            kind = {
                "Content-Type": "application/ssml+xml",
                "X-Microsoft-OutputFormat": "audio-24khz-48kbitrate-mono-mp3",
            }
            return client.post("/cognitiveservices/v1", headers=kind, content=SPEECH)


MakeAccount = Callable[[str], Account]


@pytest.fixture(scope="module")
def accounts() -> Iterator[MakeAccount]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="insighto-")))
        env = stack.enter_context(own_database("faults"))
        with product.running(folder, **env) as first:
            _kill_the_worker_amid_a_check(first)
        second = stack.enter_context(product.running(folder, **env, UPSTREAM_FIRST_BYTE_S="2", UPSTREAM_IDLE_S="2"))
        made = {}
        for name in (NORTHWIND, CONTOSO):
            made[name] = Account(second, name, stack.enter_context(visitor.visit(second, _owner(first, name))))
        made[NORTHWIND].store()
        yield lambda name: made[name]


def _owner(of: Product, account: str) -> str:
    found: str = next(p["email"] for p in of.demo["people"] if p["account"] == account and p["role"] == "owner")
    return found


def _kill_the_worker_amid_a_check(first: Product) -> None:
    with visitor.visit(first, _owner(first, CONTOSO)) as owner:
        account = Account(first, CONTOSO, owner)
        account.store()
        since = account.sandbox.last_call()
        account.meets("slow")
        account.press()
        eventually(lambda: len(account.asked(since)) == 3)
        visitor.process_of(first, "worker").kill()
        psutil.wait_procs([psutil.Process(first.supervisor_pid)], timeout=20)
        assert account.running() == 3


@pytest.fixture
def northwind(accounts: MakeAccount) -> Iterator[Account]:
    account = accounts(NORTHWIND)
    account.sandbox.reset()
    yield account
    account.finished()
    account.sandbox.reset()
    assert {verdict for verdict, _ in account.facts().values()} == {"valid"}


@pytest.fixture
def contoso(accounts: MakeAccount) -> Account:
    """The account whose check was cut off, when the product has come to it again."""
    account = accounts(CONTOSO)
    account.sandbox.reset()
    if account.running():
        # The lease of the killed worker has a minute; the poller finds the work when that is over.
        open_ones = "done_at IS NULL AND locked_until > CURRENT_TIMESTAMP"
        account.database.run(f"UPDATE accounts_outboxentry SET locked_until = CURRENT_TIMESTAMP WHERE {open_ones}")  # noqa: S608
    account.finished()
    return account


def test_a_check_whose_worker_was_killed_is_finished_by_the_poller(contoso: Account) -> None:
    checks = contoso.database.rows("SELECT count(*), count(finished_at) FROM provider_keys_check")

    assert checks[0][0] == checks[0][1] >= 6  # those of storing the keys, and the press that was cut off
    assert {fact[0] for provider, fact in contoso.facts().items()} <= {"valid", "placeholder"}
    assert contoso.database.value("SELECT count(*) FROM accounts_outboxentry WHERE dead_at IS NOT NULL") == 0


@pytest.mark.parametrize("fault", ["html", "drops", "redirects", "garbage", "down"])
def test_a_provider_that_fails_says_nothing_about_a_key_and_gets_it_nowhere_else(
    northwind: Account, fault: str
) -> None:
    with hostile.listening(hostile.answer(200, b"{}")) as elsewhere:
        northwind.sandbox.control(redirect_to=f"{elsewhere.url}/trap")
        northwind.meets(fault)
        since = northwind.sandbox.last_call()
        northwind.press()
        northwind.finished()

    asked = northwind.asked(since)
    assert {call["provider"] for call in asked} == set(PROVIDERS)
    assert set(northwind.facts().values()) == {("valid", "unreachable")}
    assert elsewhere.heard == []
    assert [call for call in northwind.sandbox.calls(since=since) if call["provider"] == "sink"] == []
    page = northwind.owner.get(KEYS).text
    assert page.count("Could Not Be Reached") >= 3
    assert "The last verdict stays: valid." in page


def test_check_status_takes_as_long_as_the_slowest_provider_and_not_the_sum(northwind: Account) -> None:
    northwind.sandbox.control(hang_s=2.0)
    northwind.meets("slow")
    since = northwind.sandbox.last_call()
    began = time.monotonic()
    northwind.press()
    northwind.finished()
    took = time.monotonic() - began

    calls = northwind.asked(since)
    assert len(calls) == 3
    assert max(call["started_at"] for call in calls) < min(call["ended_at"] for call in calls)
    assert 2.0 <= took < 4.0
    assert set(northwind.facts().values()) == {("valid", "ok")}


def test_a_provider_that_hangs_is_given_ten_seconds_and_keeps_the_others_from_nothing(northwind: Account) -> None:
    northwind.sandbox.control(key=northwind.key("openai"), outcome="slow")
    northwind.press()
    eventually(lambda: northwind.running() == 1, 5)
    assert "Key Validated Successfully" in northwind.owner.get(KEYS).text
    northwind.finished(15)

    facts = northwind.facts()
    assert facts["openai"] == ("valid", "unreachable")
    assert facts["azure_speech"] == facts["elevenlabs"] == ("valid", "ok")


@pytest.mark.parametrize("moment", ["before the worker hears of it", "in the middle"])
def test_a_flushed_broker_costs_a_check_seconds(northwind: Account, moment: str) -> None:
    northwind.sandbox.control(hang_s=2.0)
    northwind.meets("slow")
    since = northwind.sandbox.last_call()
    with redis.Redis(unix_socket_path=str(visitor.valkey_socket(northwind.product))) as broker:
        northwind.press()
        if moment == "in the middle":
            eventually(lambda: len(northwind.asked(since)) == 3)
        broker.flushall()
    northwind.finished(15)

    assert set(northwind.facts().values()) == {("valid", "ok")}


@pytest.fixture
def switched_on(northwind: Account) -> Iterator[Account]:
    switch(northwind, "on")
    yield northwind
    switch(northwind, "off")


def switch(account: Account, to: str) -> None:
    account.owner.switch(to)
    enabled = f"SELECT byok_enabled FROM accounts_account WHERE name = '{account.name}'"  # noqa: S608
    assert bool(account.database.value(enabled)) is (to == "on")


def test_an_account_without_a_usable_key_is_told_so_in_its_providers_shape_and_pays_nothing(
    contoso: Account,
) -> None:
    switch(contoso, "on")
    before = contoso.money()
    since = contoso.sandbox.last_call()
    mine = contoso.owner.newest("elevenlabs")
    slots = {provider: contoso.owner.newest(provider) for provider in ("openai", "azure_speech")}

    contoso.owner.select(**slots, elevenlabs="")
    missing = contoso.api("elevenlabs")
    contoso.owner.post(f"{KEYS}elevenlabs/not-used/")
    contoso.owner.select(**slots, elevenlabs=_placeholder(contoso))
    unused = contoso.api("elevenlabs")
    contoso.owner.select(**slots, elevenlabs=mine)
    assert contoso.asked(since) == []  # nothing was sent, with whosever key
    contoso.meets("invalid")
    rejected = {provider: contoso.api(provider) for provider in PROVIDERS}
    contoso.meets(None)

    told = {provider: answer.json() for provider, answer in rejected.items()}
    assert {answer.status_code for answer in (missing, unused, *rejected.values())} == {424}
    assert missing.json()["detail"]["status"] == "byok_key_missing"
    assert unused.json()["detail"]["status"] == "byok_placeholder"
    assert told["elevenlabs"]["detail"]["status"] == "byok_key_invalid"
    assert told["openai"]["error"]["code"] == "byok_key_invalid"
    assert told["openai"]["error"]["type"] == "provider_key_error"
    assert told["azure_speech"]["error"]["code"] == "byok_key_invalid"
    assert contoso.money() == before
    assert {call["tag"] for call in contoso.asked(since)} == {keys.name("openai", contoso.key("openai"))}


def _placeholder(account: Account) -> str:
    row = account.database.value("SELECT id FROM provider_keys_connection WHERE is_placeholder AND removed_at IS NULL")
    text = str(row).replace("-", "")
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@pytest.mark.parametrize(
    ("outcome", "status", "code"), [("down", 502, "provider_down"), ("slow", 504, "provider_too_slow")]
)
@pytest.mark.parametrize("funding", ["own_key", "platform_credits"])
def test_a_provider_that_is_down_is_502_and_one_that_is_too_slow_504_and_costs_nothing(
    northwind: Account, request: pytest.FixtureRequest, funding: str, outcome: str, status: int, code: str
) -> None:
    if funding == "own_key":
        request.getfixturevalue("switched_on")
    before = northwind.money()
    for provider in PROVIDERS:
        northwind.sandbox.control(provider=provider, outcome=outcome)
    answers = {provider: northwind.api(provider) for provider in PROVIDERS}
    northwind.sandbox.reset()

    for provider, answer in answers.items():
        told = answer.json()["detail" if provider == "elevenlabs" else "error"]
        assert (answer.status_code, told["code"]) == (status, code)
        assert answer.headers["x-insighto-funding"] == funding
    eventually(lambda: northwind.money()[1] == 0)
    assert northwind.money() == before
