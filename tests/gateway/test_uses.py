"""When a key was last used is noted by real traffic, and rarely."""

import time
from collections.abc import Callable

from accounts.models import ApiKey
from provider_keys.models import Connection, Provider
from provider_keys.services import connections
from tests.gateway.conftest import Customer


def _wait_for(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_request_notes_when_its_api_key_and_its_connection_were_last_used(customer: Callable[..., Customer]) -> None:
    buyer = customer(credits=0)
    buyer.own(Provider.OPENAI)
    buyer.own(Provider.ELEVENLABS)
    used, idle = Connection.objects.of(buyer.account).order_by("created_at")

    assert buyer.chat().status_code == 200

    _wait_for(lambda: Connection.objects.get(pk=used.pk).last_used_at)
    _wait_for(lambda: ApiKey.objects.of(buyer.account).get().last_used_at)
    assert Connection.objects.get(pk=idle.pk).last_used_at is None


def test_a_connection_in_use_is_written_once_a_minute(customer: Callable[..., Customer]) -> None:
    buyer = customer()
    buyer.own(Provider.OPENAI)
    used = Connection.objects.of(buyer.account).get()

    assert [connections.touch([used.pk]) for _ in range(3)] == [1, 0, 0]
