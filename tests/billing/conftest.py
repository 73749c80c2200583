"""Accounts with credits, keys and prices for the stories about money."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

import pytest

from accounts.models import Account, Plan
from billing.leg_records import Opened, Opening, Settled, Settlement
from billing.money import MICROS_PER_CREDIT
from billing.pricing import PriceRow, Usage
from billing.routing import Decision
from billing.services import ledger, leg_batches, legs, prices
from insighto.lib import ids, postgres
from insighto.lib.errors import DomainError
from insighto.lib.lane import LEFT
from provider_keys.models import Connection, Credential, PlatformCredential, Slot

CREDIT = MICROS_PER_CREDIT


@pytest.fixture(autouse=True)
def _no_remembered_prices() -> Iterator[None]:
    prices.forget()
    yield
    prices.forget()


@pytest.fixture
def make_account(db: None) -> Callable[..., Account]:
    plan, _ = Plan.objects.get_or_create(code="standard", defaults={"name": "Standard"})

    def make(credits: int = 0, **fields: object) -> Account:
        slug = f"account-{ids.new().hex[-12:]}"
        account = Account.objects.create(**{"name": slug, "slug": slug, "plan": plan, **fields})
        ledger.open_wallets([account.pk])
        if credits:
            ledger.grant(
                account=account, amount_micros=credits * CREDIT, reason="Start", actor=None, idempotency_key="start"
            )
        return account

    return make


@pytest.fixture
def account(make_account: Callable[..., Account]) -> Account:
    return make_account(credits=100)


@pytest.fixture
def price(db: None) -> PriceRow:
    found = prices.in_force("openai", "gpt-4o-mini")
    assert found is not None
    return found


@pytest.fixture
def platform_key(db: None) -> PlatformCredential:
    return PlatformCredential.objects.create(provider="openai", ciphertext=b"sealed", kek_id="k1")


@pytest.fixture
def connect(db: None) -> Callable[..., Connection]:
    """A connection with one sealed version, put into the account's slot."""

    def make(account: Account, *, verdict: str = "valid", provider: str = "openai", **fields: object) -> Connection:
        connection = Connection.objects.create(
            account=account, provider=provider, name="Ours", verdict=verdict, current_version=1, **fields
        )
        Credential.objects.create(
            connection=connection, account=account, secret_version=1, ciphertext=b"sealed", fingerprint=b"f" * 32
        )
        Slot.objects.update_or_create(account=account, provider=provider, defaults={"connection": connection})
        return connection

    return make


def on_credits(account: Account) -> Decision:
    return Decision("platform_credits", account.pk, None, "", None, "byok_off")


def opening(account: Account, price: PriceRow | None, **fields: object) -> Opening:
    values: dict[str, object] = {
        "request_id": ids.new(),
        "account_id": account.pk,
        "api_key_id": None,
        "user_id": None,
        "endpoint": "/v1/chat/completions",
        "streamed": False,
        "leg_id": ids.new(),
        "kind": "chat",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "decision": on_credits(account),
        "price": price,
        "hold_micros": CREDIT,
        **fields,
    }
    return Opening(**values)  # type: ignore[arg-type]


def settlement(leg_id: UUID, usage: Usage | None = None, **fields: object) -> Settlement:
    return Settlement(leg_id=leg_id, usage=usage or Usage(1000, 0, 0, 100), **fields)  # type: ignore[arg-type]


def settle_all(settlements: Sequence[Settlement]) -> list[Any]:
    """`legs.settle_many`, for stories that know their legs exist."""
    return list(legs.settle_many(settlements))


def open_all(openings: Sequence[Opening]) -> list[Any]:
    """`legs.open_many`, for stories that say themselves which answer is a refusal."""
    return list(legs.open_many(openings))


def usual_open(openings: Sequence[Opening]) -> list[Opened | DomainError]:
    """Through the statement of the usual case, as the gateway does on PostgreSQL; what it leaves at length."""
    document = postgres.document(leg_batches.OPEN, leg_batches.open_ask(openings))
    answers = leg_batches.open_read(document, openings)
    return [
        open_all([opening])[0] if answer is LEFT else answer for opening, answer in zip(openings, answers, strict=True)
    ]


def usual_settle(settlements: Sequence[Settlement]) -> list[Settled | DomainError]:
    document = postgres.document(leg_batches.SETTLE, leg_batches.settle_ask(settlements))
    answers = leg_batches.settle_read(document, settlements)
    return [
        legs.settle_many([settlement])[0] if answer is LEFT else answer
        for settlement, answer in zip(settlements, answers, strict=True)
    ]
