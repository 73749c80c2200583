"""A key ring of the test's own, people and accounts, and keys of every provider's shape."""

import base64
import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import Account, User
from provider_keys import keyring
from provider_keys.models import Check, Connection, Provider, Slot, Verdict
from provider_keys.services import connections, slots, switch
from tests import factories

OPENAI_KEY = "sk-proj-" + "Kx7Qw2Zt9Lm4Rb8Vn3Hd6Pf1" * 4 + "wxyz"
AZURE_KEY = "Fq3Yt7Bn1Kd9Ws5Jm2Xc8Lp4Vr6Gh0Za3Ue7Ti1Oy5Nb9Mk2SQwE4"[:52] + "JQQJ99" + "AKACYeBjFXJ3w3AAAY" + "ACOGabcd"
ELEVENLABS_KEY = "sk_" + "0a9f8e7d6c5b4a3f2e1d" * 2 + "0c1b2a39"


def line(kid: str, seed: str | None = None) -> str:
    """One line of a ring, its bytes derived from the seed so that tests can name them."""
    return f"{kid}:{base64.b64encode(hashlib.sha256((seed or kid).encode()).digest()).decode()}"


def ring_text(*kids: str) -> str:
    return "\n".join([*(line(kid) for kid in kids), line("fingerprint")])


@pytest.fixture
def use_ring(settings: Any) -> Iterator[Callable[..., None]]:
    """Give the process another ring, as a restart with other settings would."""

    def use(text: str, primary: str = "") -> None:
        settings.CREDENTIAL_KEYS_FILE = ""
        settings.CREDENTIAL_KEYS = text
        settings.CREDENTIAL_PRIMARY_KEK = primary
        keyring.load.cache_clear()

    yield use
    keyring.load.cache_clear()


@pytest.fixture(autouse=True)
def ring(use_ring: Callable[..., None]) -> None:
    use_ring(ring_text("k1"))


@pytest.fixture
def owner(db: None) -> User:
    return factories.make_user()


@pytest.fixture
def account(owner: User) -> Account:
    return factories.make_account(owner=owner)


@pytest.fixture
def add(account: Account, owner: User) -> Callable[..., Connection]:
    """Add a connection; `verdict` says how its check has ended, nothing leaves it to be checked."""

    def add(
        provider: str = Provider.OPENAI,
        key: str = "",
        *,
        verdict: str = "",
        region: str = "westeurope",
        name: str = "",
        to: Account = account,
    ) -> Connection:
        key = key or KEYS[provider]
        connection = connections.add(account=to, provider=provider, key=key, region=region, name=name, actor=owner)
        return judge(connection, verdict) if verdict else connection

    return add


KEYS: dict[str, str] = {
    Provider.OPENAI: OPENAI_KEY,
    Provider.AZURE_SPEECH: AZURE_KEY,
    Provider.ELEVENLABS: ELEVENLABS_KEY,
}


def another(key: str) -> str:
    """A different key of the same shape."""
    return key[:-9] + key[-9:][::-1]


def judge(connection: Connection, verdict: str, reason: str = "", at: datetime | None = None) -> Connection:
    """The provider has answered: the connection has this verdict and no check runs."""
    at = at or timezone.now()
    Check.objects.filter(connection=connection, finished_at=None).update(finished_at=at)
    Connection.objects.filter(pk=connection.pk).update(verdict=verdict, verdict_reason=reason, verdict_at=at)
    connection.refresh_from_db()
    return connection


@pytest.fixture
def byok_account(account: Account, owner: User, add: Callable[..., Connection]) -> Account:
    """An account whose switch is on, on good OpenAI and Azure keys."""
    for provider in (Provider.OPENAI, Provider.AZURE_SPEECH):
        slots.select(account=account, provider=provider, connection=add(provider, verdict=Verdict.VALID), actor=owner)
    return switch.turn_on(account=account, actor=owner)


def slot_of(account: Account, provider: str) -> Slot:
    return Slot.objects.of(account).get(provider=provider)
