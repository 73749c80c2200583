"""What two of our own do to each other at the same moment. PostgreSQL only: SQLite would look right anyway."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import connection as database
from django.db import connections as databases

from accounts.models import Account, User
from insighto.lib.errors import DomainError
from provider_keys.models import Check, Connection, Credential, KekCheckValue, Provider, Slot, Verdict
from provider_keys.services import connections, rewrap, slots, switch
from tests import factories
from tests.provider_keys.conftest import AZURE_KEY, OPENAI_KEY, another, judge, ring_text, slot_of

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

ROUNDS = 12


def together(*functions: Callable[[], object]) -> list[object]:
    """Run the functions at the same moment, each on a database connection of its own; their results or refusals."""
    barrier = threading.Barrier(len(functions))
    results: list[object] = [None] * len(functions)

    def run(number: int, function: Callable[[], object]) -> None:
        try:
            barrier.wait(10)
            results[number] = function()
        except Exception as error:
            results[number] = error
        finally:
            databases.close_all()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads), "they wait for each other"
    unexpected = [result for result in results if isinstance(result, Exception) and not isinstance(result, DomainError)]
    assert unexpected == []
    return results


@pytest.fixture
def pair(owner: User) -> Callable[[], tuple[Account, Connection]]:
    """A new account, ready to be switched on, with one more connection that failed its check."""

    def make() -> tuple[Account, Connection]:
        account = factories.make_account(owner=owner)
        for provider, key in ((Provider.OPENAI, OPENAI_KEY), (Provider.AZURE_SPEECH, AZURE_KEY)):
            row = connections.add(account=account, provider=provider, key=key, region="westeurope", actor=owner)
            slots.select(account=account, provider=provider, connection=judge(row, Verdict.VALID), actor=owner)
        bad = connections.add(account=account, provider=Provider.OPENAI, key=another(OPENAI_KEY), actor=owner)
        return account, judge(bad, Verdict.INVALID)

    return make


def test_the_switch_never_goes_on_over_a_slot_that_changes_meanwhile(
    pair: Callable[[], tuple[Account, Connection]], owner: User
) -> None:
    outcomes = set()
    for _ in range(ROUNDS):
        account, bad = pair()
        on, chosen = together(
            partial(switch.turn_on, account=account, actor=owner),
            partial(slots.select, account=account, provider=Provider.OPENAI, connection=bad, actor=owner),
        )
        account.refresh_from_db()
        is_bad_in = slot_of(account, Provider.OPENAI).connection == bad
        assert account.byok_enabled != is_bad_in
        assert isinstance(on, DomainError) == is_bad_in
        assert isinstance(chosen, DomainError) == account.byok_enabled
        outcomes.add(is_bad_in)
    assert outcomes


def test_the_same_key_pasted_twice_at_once_is_stored_once(owner: User) -> None:
    for _ in range(ROUNDS):
        account = factories.make_account(owner=owner)
        add = partial(connections.add, account=account, provider=Provider.OPENAI, key=OPENAI_KEY, actor=owner)
        results = together(partial(add, name="one"), partial(add, name="two"))
        assert sum(isinstance(result, Connection) for result in results) == 1
        assert Credential.objects.of(account).count() == Connection.objects.of(account).count() == 1


def test_a_slot_never_holds_what_is_removed_at_the_same_moment(
    pair: Callable[[], tuple[Account, Connection]], owner: User
) -> None:
    for _ in range(ROUNDS):
        account, other = pair()
        together(
            partial(slots.select, account=account, provider=Provider.OPENAI, connection=other, actor=owner),
            partial(connections.remove, connection=other, actor=owner),
        )
        assert not Slot.objects.of(account).filter(connection__removed_at__isnull=False).exists()


def test_two_replacements_at_once_leave_one_version_that_opens(owner: User) -> None:
    for _ in range(ROUNDS):
        account = factories.make_account(owner=owner)
        row = connections.add(account=account, provider=Provider.OPENAI, key=OPENAI_KEY, actor=owner)
        replace = partial(connections.replace_secret, connection=row, actor=owner)
        together(partial(replace, key=OPENAI_KEY + "1"), partial(replace, key=OPENAI_KEY + "2"))
        row.refresh_from_db()
        assert row.current_version == 3
        present = Credential.objects.get(connection=row, destroyed_at=None)
        assert present.secret_version == 3
        assert connections.open_credential(present.sealed()).reveal()[:-1] == OPENAI_KEY
        assert Check.objects.filter(connection=row, secret_version=3, finished_at=None).count() == 1


def test_a_key_is_not_retired_while_something_is_being_sealed_with_it(
    owner: User, use_ring: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process still seals with k1 while an operator's, whose primary is k2, retires it."""
    from provider_keys import keyring
    from provider_keys.services import vault

    ring_new = keyring.parse(ring_text("k1", "k2"), primary="k2")
    ring_old = keyring.load()
    local = threading.local()
    loaded = lambda: getattr(local, "ring", ring_old)  # noqa: E731
    loaded.cache_clear = keyring.load.cache_clear  # type: ignore[attr-defined]
    monkeypatch.setattr(keyring, "load", loaded)
    original = vault.seal

    def slow_seal(*args: Any, **rest: Any) -> Any:
        time.sleep(0.05)
        return original(*args, **rest)

    monkeypatch.setattr(vault, "seal", slow_seal)
    account = factories.make_account(owner=owner)
    for number in range(ROUNDS):
        KekCheckValue.objects.filter(kek_id="k1").update(retired_at=None)

        def retire() -> None:
            local.ring = ring_new
            rewrap.retire("k1")

        Credential.objects.all().delete()
        together(
            partial(
                connections.add, account=account, provider=Provider.OPENAI, key=f"{OPENAI_KEY}{number}", actor=owner
            ),
            retire,
        )
        is_retired = KekCheckValue.objects.filter(kek_id="k1").exclude(retired_at=None).exists()
        assert not (is_retired and Credential.objects.filter(kek_id="k1").exists())


def test_rotation_under_replacements_and_kills_loses_nothing_and_leaves_nothing(
    owner: User, use_ring: Callable[..., None]
) -> None:
    """A rewrap in another process is killed again and again while customers replace their keys."""
    stored: dict[Any, str] = {}
    rows: list[Connection] = []
    for number in range(60):
        if number % 30 == 0:
            account = factories.make_account(owner=owner)
        key = f"{OPENAI_KEY}-{number:04}"
        row = connections.add(account=account, provider=Provider.OPENAI, key=key, actor=owner)
        stored[row.pk] = key
        rows.append(row)
    use_ring(ring_text("k1", "k2"), primary="k1")  # web processes that were not restarted yet
    stop = threading.Event()
    replaced = [0]

    def replace(mine: Sequence[Connection]) -> None:
        while not stop.is_set():
            for row in mine:
                if stop.is_set():
                    break
                key = f"{OPENAI_KEY}-{row.name}-{replaced[0]:05}".replace(" ", "")
                connections.replace_secret(connection=row, key=key, actor=owner)
                stored[row.pk] = key
                replaced[0] += 1

    kills: list[int] = []

    def under_k2() -> int:
        return Credential.objects.filter(kek_id="k2").count()

    def rotate() -> None:
        try:
            for _ in range(4):
                process = _start_rewrap()
                moved, deadline = under_k2(), time.monotonic() + 15
                while under_k2() <= moved and time.monotonic() < deadline:
                    time.sleep(0.005)
                process.send_signal(signal.SIGKILL)
                kills.append(process.wait(10))
        finally:
            stop.set()

    together(rotate, lambda: replace(rows[::2][:20]))
    assert replaced[0] > 20
    assert -signal.SIGKILL in kills  # some were killed in the middle of their work

    use_ring(ring_text("k1", "k2"), primary="k2")  # now they were
    assert _start_rewrap().wait(60) == 0
    assert rewrap.references("k1") == {}
    rewrap.retire("k1")
    use_ring(ring_text("k2"))
    assert not Credential.objects.exclude(destroyed_at=None).exclude(ciphertext=b"").exists()
    present = Credential.objects.filter(destroyed_at=None).select_related("connection")
    opened = {row.connection_id: connections.open_credential(row.sealed()).reveal() for row in present}
    assert opened == stored


def _start_rewrap() -> "subprocess.Popen[bytes]":
    at = database.settings_dict
    environment = {
        **os.environ,
        "DATABASE_URL": f"postgres://{at['USER']}:{at['PASSWORD']}@{at['HOST']}:{at['PORT']}/{at['NAME']}",
        "CREDENTIAL_KEYS": ring_text("k1", "k2"),
        "CREDENTIAL_PRIMARY_KEK": "k2",
    }
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen([sys.executable, root / "manage.py", "rewrap"], env=environment, stdout=subprocess.DEVNULL)
