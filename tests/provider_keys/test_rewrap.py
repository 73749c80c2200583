import io
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import User
from insighto.lib.secret import Secret
from provider_keys import crypto, keyring
from provider_keys.errors import CredentialUnreadable, KekRefused
from provider_keys.fields import SealedColumn
from provider_keys.models import Connection, Credential, KekCheckValue, PlatformCredential, Provider
from provider_keys.services import connections, platform_credentials, rewrap
from tests.provider_keys.conftest import ELEVENLABS_KEY, KEYS, OPENAI_KEY, another, ring_text

Add = Callable[..., Connection]
Use = Callable[..., None]
CREDENTIALS = "provider_keys.credential.ciphertext"


@pytest.fixture
def stored(add: Add, owner: User) -> dict[str, str]:
    """One key per provider and one of the platform, sealed under k1; what each is in clear."""
    platform_credentials.put(provider=Provider.OPENAI, key="sk-platform-" + "Zy9Xw8Vu7" * 4, actor=owner)
    return {str(add(provider).pk): KEYS[provider] for provider in Provider.values}


@pytest.fixture
def longer_ring(stored: dict[str, str], use_ring: Use) -> None:
    use_ring(ring_text("k1", "k2"), primary="k2")


def opened() -> dict[str, str]:
    rows = Credential.objects.exclude(ciphertext=b"").select_related("connection")
    return {str(row.connection_id): connections.open_credential(row.sealed()).reveal() for row in rows}


def left_under(kid: str) -> int:
    return sum(rewrap.references(kid).values())


def run() -> str:
    out = io.StringIO()
    call_command("rewrap", stdout=out)
    return out.getvalue()


@pytest.mark.usefixtures("longer_ring")
def test_everything_sealed_moves_to_the_primary_and_still_opens(stored: dict[str, str], use_ring: Use) -> None:
    before = {row.pk: bytes(row.ciphertext) for row in Credential.objects.all()}

    said = run()

    assert "3 moved to k2, 0 left" in said
    assert left_under("k1") == 0
    assert set(Credential.objects.values_list("kek_id", flat=True)) == {"k2"}
    assert set(PlatformCredential.objects.values_list("kek_id", flat=True)) == {"k2"}
    for row in Credential.objects.all():  # the sealed body is carried over; only its wrapping is new
        assert bytes(row.ciphertext)[68:] == before[row.pk][68:]
    use_ring(ring_text("k2"))
    assert opened() == stored
    assert connections.open_credential(PlatformCredential.objects.get().sealed()).reveal().startswith("sk-platform")


@pytest.mark.usefixtures("longer_ring")
def test_a_second_run_changes_nothing() -> None:
    run()
    before = list(Credential.objects.order_by("pk").values())
    assert "0 moved to k2, 0 left" in run()
    assert list(Credential.objects.order_by("pk").values()) == before


@pytest.mark.usefixtures("longer_ring")
def test_a_dry_run_counts_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(Credential.objects.order_by("pk").values())

    call_command("rewrap", "--dry-run")

    assert "4 sealed values would be moved" in capsys.readouterr().out
    assert list(Credential.objects.order_by("pk").values()) == before


def test_rows_of_a_missing_key_are_left_named_and_end_in_failure(stored: dict[str, str], use_ring: Use) -> None:
    use_ring(ring_text("k2"))

    out = io.StringIO()
    with pytest.raises(CommandError, match="4 sealed values are not under k2"):
        call_command("rewrap", stdout=out)

    assert "3 locked: the key ring has no key k1" in out.getvalue()
    use_ring(ring_text("k1"))
    assert opened() == stored


@pytest.mark.usefixtures("longer_ring")
def test_a_row_that_does_not_open_stops_no_other_row(stored: dict[str, str]) -> None:
    broken = Credential.objects.order_by("pk")[1]
    Credential.objects.filter(pk=broken.pk).update(ciphertext=bytes(broken.ciphertext)[:-1] + b"?", secret_version=7)

    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("rewrap", stdout=out)

    assert "2 moved to k2, 1 left" in out.getvalue()
    assert "1 cannot be opened" in out.getvalue()
    assert Credential.objects.get(pk=broken.pk).kek_id == "k1"


@pytest.mark.usefixtures("longer_ring")
def test_a_value_replaced_while_it_is_being_moved_is_not_overwritten(
    owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Connection.objects.get(provider=Provider.OPENAI)
    original = crypto.rewrap
    replaced: list[bool] = []

    def slow(ciphertext: bytes, **rest: Any) -> bytes:
        result = original(ciphertext, **rest)
        if not replaced and ciphertext == bytes(Credential.objects.get(connection=connection).ciphertext):
            replaced.append(True)
            connections.replace_secret(connection=connection, key=another(OPENAI_KEY), actor=owner)
        return result

    monkeypatch.setattr(crypto, "rewrap", slow)
    run()

    assert replaced
    assert opened()[str(connection.pk)] == another(OPENAI_KEY)
    assert bytes(Credential.objects.get(connection=connection, secret_version=1).ciphertext) == b""
    assert left_under("k1") == 0


@pytest.mark.usefixtures("longer_ring")
def test_a_run_that_was_cut_short_is_simply_run_again(stored: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[Any] = []
    original = SealedColumn.rewrap

    def cut(self: SealedColumn, pk: Any, **rest: Any) -> bool:
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(pk)
        return original(self, pk, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(SealedColumn, "rewrap", cut)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert left_under("k1") > 0
    assert opened() == stored

    run()
    assert left_under("k1") == 0
    assert opened() == stored


@pytest.mark.usefixtures("longer_ring")
def test_a_key_that_rows_refer_to_is_not_retired(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["k1"], ["k1", "--dry-run"]):
        with pytest.raises(CommandError, match="3 in provider_keys"):
            call_command("retire_kek", *arguments)
    assert not KekCheckValue.objects.exclude(retired_at=None).exists()

    run()
    call_command("retire_kek", "k1", "--dry-run")
    assert not KekCheckValue.objects.exclude(retired_at=None).exists()
    call_command("retire_kek", "k1")
    call_command("retire_kek", "k1")
    assert KekCheckValue.objects.get(kek_id="k1").retired_at


@pytest.mark.usefixtures("longer_ring")
def test_bytes_that_refer_to_a_key_count_even_when_the_column_denies_it() -> None:
    run()
    row = Credential.objects.order_by("pk")[0]
    ring = keyring.load()
    under_k1 = crypto.seal(Secret(ELEVENLABS_KEY), key=ring.keks["k1"], context=row.sealing_context())
    Credential.objects.filter(pk=row.pk).update(ciphertext=under_k1)

    assert rewrap.references("k1") == {CREDENTIALS: 1}
    with pytest.raises(KekRefused):
        rewrap.retire("k1")


@pytest.mark.usefixtures("longer_ring")
@pytest.mark.parametrize(("kid", "says"), [("k2", "in use"), ("fingerprint", "in use"), ("k9", "never met")])
def test_the_primary_and_strangers_cannot_be_retired(kid: str, says: str) -> None:
    keyring.verify()
    with pytest.raises(KekRefused, match=says):
        rewrap.retire(kid)
    assert not KekCheckValue.objects.exclude(retired_at=None).exists()


def test_a_ciphertext_carried_to_another_row_is_not_moved(stored: dict[str, str], use_ring: Use) -> None:
    first, second = Credential.objects.order_by("pk")[:2]
    Credential.objects.filter(pk=second.pk).update(ciphertext=bytes(first.ciphertext))
    use_ring(ring_text("k1", "k2"), primary="k2")

    with pytest.raises(CommandError):
        run()
    second.refresh_from_db()
    with pytest.raises(CredentialUnreadable):
        connections.open_credential(second.sealed())
