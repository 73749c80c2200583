"""Money at the running product: who is charged what, over HTTP and with the providers' own clients, also after a crash.

`tests/gateway/` shows the rules one by one; here the whole house stands: the operators' form grants, web, worker and
scheduler run as processes of their own, and the crash happens to the product everything else is then asked of.
"""

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import elevenlabs
import httpx
import openai
import psutil
import pytest

from insighto.sandbox import keys
from tests import product
from tests.product import ROOT, Product
from tests.sandbox_server import SandboxServer
from tests.scenarios import visitor
from tests.scenarios.visitor import PROVIDERS, Database, Visitor, eventually, own_database

MICROS = 1_000_000
STREAMS = 20
VOICE = "SandboxVoiceFlint001"
SPEECH = (
    '<speak version="1.0" xmlns="http://www.w3.org/2001/10/synthesis" xml:lang="en-US">'
    '<voice name="en-US-AvaNeural">Good morning</voice></speak>'
)


@dataclass
class Shop:
    """A product whose web process was killed amid streams, running again on the same database."""

    product: Product
    database: Database
    operator: Visitor
    crashed_wallet: str
    balance_before: int
    held_by_crash: int

    @property
    def sandbox(self) -> SandboxServer:
        return SandboxServer(self.product.sandbox_url)

    def verify(self) -> str:
        command = [sys.executable, "manage.py", "verify_ledger"]
        ended = subprocess.run(command, cwd=ROOT, env=self.product.env, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="insighto-")))
        env = stack.enter_context(own_database("money"))
        with product.running(folder, **env, UPSTREAM_FIRST_BYTE_S="2", UPSTREAM_IDLE_S="2") as first:
            database = Database(first)
            wallet, before, held = _crash(first, database)
        second = stack.enter_context(product.running(folder, **env))
        operator = stack.enter_context(visitor.visit(second, "operator@insighto.test"))
        yield Shop(second, Database(second), operator, wallet, before, held)


def _crash(first: Product, database: Database) -> tuple[str, int, int]:
    """Kill the web process when every stream has begun and a checkpoint is written: wallet, balance before, held."""
    of_contoso = (
        "FROM billing_ledgeraccount w JOIN accounts_account a ON a.id = w.owner_id WHERE a.name = 'Contoso Labs'"
    )
    wallet, before = database.rows(f"SELECT w.id, w.credits_posted - w.debits_posted {of_contoso}")[0]
    SandboxServer(first.sandbox_url).control(chunk_delay_s=0.6)
    gate = threading.Barrier(STREAMS + 1)
    headers = {"Authorization": f"Bearer {first.api_key('Contoso Labs')}"}

    def stream() -> None:
        with httpx.Client(base_url=first.url, headers=headers, timeout=30, trust_env=False) as client:
            try:
                with client.stream("POST", "/v1/chat/completions", json=chat_body(stream=True)) as answer:
                    lines = answer.iter_lines()
                    next(lines)
                    gate.wait(20)
                    for _ in lines:
                        pass
            except httpx.TransportError:
                return  # the server is gone

    with ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(stream) for _ in range(STREAMS)]
        gate.wait(20)
        shown = "SELECT count(*) FROM billing_leg WHERE state = 'dispatched' AND checkpoint_at IS NOT NULL"
        eventually(lambda: database.value(shown) == STREAMS)
        visitor.process_of(first, "insighto.server").kill()
        psutil.wait_procs([psutil.Process(first.supervisor_pid)], timeout=20)
        for ended in streams:
            ended.result()
    held = database.value(f"SELECT w.debits_pending {of_contoso}")
    return str(wallet), int(before), int(held)


def chat_body(text: str = "Tell me about the harbour.", **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "max_tokens": 200, **fields}


@dataclass
class Customer:
    """A person who signed up at the running product and has an API key; the wallet is empty."""

    shop: Shop
    browser: Visitor
    token: str
    account: str

    def grant(self, micros: int) -> None:
        """As an operator does it."""
        wallet = self._wallet("id")
        if "-" not in str(wallet):
            wallet = f"{wallet[:8]}-{wallet[8:12]}-{wallet[12:16]}-{wallet[16:20]}-{wallet[20:]}"
        path = f"/admin/billing/ledgeraccount/{wallet}/grant/"
        form = self.shop.operator.get(path).text
        once = re.search(r'name="key" value="([^"]+)"', form)
        assert once is not None, form
        data = {"amount": f"{micros // MICROS}.{micros % MICROS:06d}", "reason": "Test", "key": once[1]}
        assert self.shop.operator.post(path, data, of=path).status_code == 302
        assert self.micros == micros

    @property
    def micros(self) -> int:
        """The balance, when nothing is held any more."""
        eventually(lambda: not self._wallet("debits_pending"))
        return int(self._wallet("credits_posted - debits_posted"))

    def _wallet(self, column: str) -> Any:
        found = self.shop.database.rows(
            f"SELECT w.{column.replace(' - ', ' - w.')} FROM billing_ledgeraccount w "  # noqa: S608
            f"JOIN accounts_account a ON a.id = w.owner_id WHERE a.name = '{self.account}'"
        )
        return found[0][0]

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.shop.product.url, headers=headers, timeout=30, trust_env=False)

    def receipt(self, request_id: str) -> dict[str, Any]:
        with self.client() as client:
            found: dict[str, Any] = client.get(f"/v1/requests/{request_id}").json()
        return found


@pytest.fixture
def customer(shop: Shop) -> Iterator[Customer]:
    with Visitor(shop.product) as browser:
        name = f"Shopper {time.monotonic_ns()}"
        person = {"account_name": name, "email": f"s{time.monotonic_ns()}@example.test"}
        person |= {"password1": "a long way to the harbour", "password2": "a long way to the harbour"}
        assert browser.post("/accounts/signup/", person, of="/accounts/signup/").status_code == 302
        browser.forget_tokens()
        issued = browser.post("/api-keys/issue/", {"name": "Test", "expires": ""}, of="/api-keys/")
        token = re.search(r"in-[A-Za-z0-9]{50}", issued.text)
        assert token is not None
        yield Customer(shop, browser, token[0], name)


def price(shop: Shop, provider: str, model: str) -> tuple[int, int]:
    """Input and output price in force, in micros per million units, as the price book lists them."""
    found = shop.database.rows(
        "SELECT input_micros, output_micros FROM billing_price WHERE valid_from <= CURRENT_TIMESTAMP "  # noqa: S608
        f"AND provider = '{provider}' AND model = '{model}' ORDER BY valid_from DESC LIMIT 1"
    )
    return int(found[0][0]), int(found[0][1])


def listed(units: int, micros_per_million: int) -> int:
    return -(-units * micros_per_million // MICROS)


@pytest.mark.parametrize("kind", ["chat", "speech"])
def test_of_sixty_four_streams_at_once_exactly_the_forty_that_were_paid_for_are_served(
    shop: Shop, customer: Customer, kind: str
) -> None:
    if kind == "chat":
        path, body = "/v1/chat/completions", chat_body("a", stream=True)
        reads, writes = price(shop, "openai", "gpt-4o-mini")
        # A chat sets aside its bound: the bytes of its body as tokens, and all it may answer.
        each = -(-(len(httpx.Request("POST", "http://x", json=body).content) * reads + 200 * writes) // MICROS)
    else:
        # The price of speech is known before it is sent, so nothing comes back and the fortieth empties the wallet.
        path, body = (
            f"/v1/text-to-speech/{VOICE}/stream",
            {"text": "Good morning", "model_id": "eleven_multilingual_v2"},
        )
        each = listed(len("Good morning"), price(shop, "elevenlabs", "eleven_multilingual_v2")[0])
    customer.grant(40 * each)
    shop.sandbox.control(reset=True, chunk_delay_s=0.4 if kind == "chat" else 0.0)  # every hold stands at once
    gate = threading.Barrier(64)

    def ask(_: int) -> tuple[int, int]:
        with customer.client() as client:
            gate.wait(30)
            answer = client.post(path, json=body)
            return answer.status_code, len(answer.content)

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, range(64)))

    assert sorted(status for status, _ in answers) == [200] * 40 + [402] * 24
    served = {size for status, size in answers if status == 200}
    assert min(served) > 500
    assert len(shop.sandbox.calls()) == 40
    assert {call["tag"] for call in shop.sandbox.calls()} == {"platform"}
    legs = shop.database.rows(
        "SELECT l.state, l.cost_micros FROM billing_leg l JOIN accounts_account a ON a.id = l.account_id "  # noqa: S608
        f"WHERE a.name = '{customer.account}' AND l.state <> 'refused'"
    )
    assert [state for state, _ in legs] == ["settled"] * 40
    assert customer.micros == 40 * each - sum(cost for _, cost in legs)
    assert kind == "chat" or customer.micros == 0
    assert "0 mismatches" in shop.verify()


def test_with_the_switch_off_credits_pay_and_with_it_on_they_rest_even_at_zero(shop: Shop, customer: Customer) -> None:
    """One customer's way, with the official clients of all three providers."""
    sandbox = shop.sandbox
    sandbox.control(reset=True, chunk_delay_s=0.0)
    for refused in _refusals(customer):
        assert refused == 402
    assert sandbox.calls() == []

    own = {provider: keys.valid_key(provider, f"own-{time.monotonic_ns() % 10**9}") for provider in PROVIDERS}
    for provider, key in own.items():
        customer.browser.add(provider, key, name=f"Mine {provider}")
    customer.browser.select(**{provider: customer.browser.newest(provider) for provider in PROVIDERS})
    mine = f"SELECT count(*) FROM provider_keys_connection WHERE verdict = 'valid' AND name LIKE 'Mine %' AND account_id = ({_id_of(customer)})"  # noqa: S608, E501
    eventually(lambda: shop.database.value(mine) == 3)
    customer.browser.switch("on")

    since = sandbox.last_call()
    for headers, _ in _all_three(customer):
        assert headers["x-insighto-funding"] == "own_key"
        assert headers["x-insighto-connection"].startswith("Mine ")
        receipt = customer.receipt(headers["x-insighto-request-id"])
        (leg,) = receipt["legs"]
        assert (leg["funding_source"], leg["cost_micros"], leg["connection"]) == (
            "own_key", 0, headers["x-insighto-connection"],
        )  # fmt: skip
        assert leg["estimate_micros"] > 0
    tags = {call["provider"]: call["tag"] for call in sandbox.calls(since=since)}
    assert tags == {provider: keys.name(provider, key) for provider, key in own.items()}
    assert customer.micros == 0

    customer.grant(100 * MICROS)
    _all_three(customer)
    assert customer.micros == 100 * MICROS

    customer.browser.switch("off")
    since = sandbox.last_call()
    for headers, cost in _all_three(customer):
        assert headers["x-insighto-funding"] == "platform_credits"
        receipt = customer.receipt(headers["x-insighto-request-id"])
        (leg,) = receipt["legs"]
        assert (leg["funding_source"], leg["cost_micros"], leg["connection"]) == ("platform_credits", cost, None)
    assert {call["tag"] for call in sandbox.calls(since=since)} == {"platform"}
    spent = [cost for _, cost in _all_three(customer)]
    assert min(spent) > 0
    assert customer.micros == 100 * MICROS - 2 * sum(spent)
    assert "0 mismatches" in shop.verify()


def _id_of(customer: Customer) -> str:
    return f"SELECT id FROM accounts_account WHERE name = '{customer.account}'"  # noqa: S608


def _refusals(customer: Customer) -> Iterator[int]:
    with _openai(customer) as sdk:
        with pytest.raises(openai.APIStatusError) as chat:
            sdk.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])
        yield chat.value.status_code
    with httpx.Client(trust_env=False) as http:
        sdk_of_voices = elevenlabs.ElevenLabs(
            api_key=customer.token, base_url=customer.shop.product.url, httpx_client=http
        )
        with pytest.raises(elevenlabs.core.ApiError) as speech:
            b"".join(sdk_of_voices.text_to_speech.convert(VOICE, text="Hello", model_id="eleven_flash_v2_5"))
        yield int(speech.value.status_code or 0)
    yield _azure(customer).status_code


def _all_three(customer: Customer) -> list[tuple[Any, int]]:
    """One call with each client: the answer's headers, and what the price book says it costs."""
    shop = customer.shop
    with _openai(customer) as sdk:
        raw = sdk.chat.completions.with_raw_response.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Good morning"}], max_tokens=50
        )
        usage = raw.parse().usage
        assert usage is not None
        reads, writes = price(shop, "openai", "gpt-4o-mini")
        chat = -(-(usage.prompt_tokens * reads + usage.completion_tokens * writes) // MICROS)
    with httpx.Client(trust_env=False, timeout=30) as http:
        voices = elevenlabs.ElevenLabs(api_key=customer.token, base_url=shop.product.url, httpx_client=http)
        with voices.text_to_speech.with_raw_response.convert(
            VOICE, text="Good morning", model_id="eleven_flash_v2_5"
        ) as spoken:
            assert b"".join(spoken.data)
            heard = spoken.headers
    azure = _azure(customer)
    assert azure.status_code == 200
    return [
        (raw.headers, chat),
        (heard, listed(6, price(shop, "elevenlabs", "eleven_flash_v2_5")[0])),  # twelve characters at half a credit
        (azure.headers, listed(len("Good morning"), price(shop, "azure_speech", "neural")[0])),
    ]


def _openai(customer: Customer) -> openai.OpenAI:
    return openai.OpenAI(
        api_key=customer.token,
        base_url=f"{customer.shop.product.url}/v1",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    )


def _azure(customer: Customer) -> httpx.Response:
    headers = {"Content-Type": "application/ssml+xml", "Ocp-Apim-Subscription-Key": customer.token}
    headers["X-Microsoft-OutputFormat"] = "audio-24khz-48kbitrate-mono-mp3"
    url = f"{customer.shop.product.url}/cognitiveservices/v1"
    return httpx.post(url, headers=headers, content=SPEECH, timeout=30, trust_env=False)


def test_what_the_killed_web_process_left_held_is_settled_once_by_the_sweeper(shop: Shop) -> None:
    """Last in the file, because the deadline of what was left is half a minute after its last checkpoint."""
    assert shop.held_by_crash > 0
    left = "SELECT count(*) FROM billing_leg WHERE state = 'dispatched'"
    eventually(lambda: shop.database.value(left) == 0, 60, 0.5)

    wallet = f"FROM billing_ledgeraccount WHERE id = '{shop.crashed_wallet}'"
    pending, balance = shop.database.rows(f"SELECT debits_pending, credits_posted - debits_posted {wallet}")[0]
    legs = shop.database.rows("SELECT state, cost_micros, is_flagged FROM billing_leg WHERE state = 'expired'")
    assert pending == 0
    assert len(legs) == STREAMS
    assert all(cost > 0 and is_flagged for _, cost, is_flagged in legs)
    assert shop.balance_before - balance == sum(cost for _, cost, _ in legs) <= shop.held_by_crash
    twice = "SELECT hold_id FROM billing_transfer WHERE hold_id IS NOT NULL GROUP BY hold_id HAVING count(*) > 1"
    assert shop.database.rows(twice) == []
    assert json.dumps(shop.verify()).count("0 mismatches, 0 frozen") == 1
