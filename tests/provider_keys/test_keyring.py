import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection as database

from provider_keys import checks, crypto, keyring
from provider_keys.errors import CredentialLocked, KekRefused, KeyRingUnusable
from provider_keys.models import Connection, Credential, KekCheckValue
from provider_keys.services import connections
from tests.provider_keys.conftest import OPENAI_KEY, line, ring_text

Use = Callable[..., None]


@pytest.fixture
def ring_file(tmp_path: Path, settings: Any) -> Callable[..., Path]:
    """Let the process read its ring from a file with this text and mode."""

    def write(text: str | bytes, mode: int = 0o400) -> Path:
        path = tmp_path / "ring"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        settings.CREDENTIAL_KEYS, settings.CREDENTIAL_KEYS_FILE = "", str(path)
        keyring.load.cache_clear()
        return path

    return write


def test_lines_and_json_are_the_same_ring(ring_file: Callable[..., Path]) -> None:
    ring_file("# a comment\n\n" + ring_text("k1", "k2") + "\n")
    from_lines = keyring.load()
    encoded = dict(entry.split(":") for entry in ring_text("k1", "k2").split("\n"))
    from_json = keyring.parse(
        json.dumps({"keys": {"k1": encoded["k1"], "k2": encoded["k2"]}, "fingerprint": encoded["fingerprint"]})
    )

    for ring in (from_lines, from_json):
        assert list(ring.keks) == ["k1", "k2"]
        assert ring.primary.kid == "k1"
    assert crypto.check_value(from_json.keks["k2"]) == crypto.check_value(from_lines.keks["k2"])


def test_the_primary_is_the_one_the_setting_names(use_ring: Use) -> None:
    use_ring(ring_text("k1", "k2"), primary="k2")
    assert keyring.load().primary.kid == "k2"

    use_ring(ring_text("k1", "k2"), primary="k3")
    with pytest.raises(KeyRingUnusable, match="k3"):
        keyring.load()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no fingerprint"),
        (line("k1"), "no fingerprint"),
        (line("fingerprint"), "no key to seal with"),
        (ring_text("k1", "k1"), "twice"),
        ("\n".join([line("k1", "same"), line("k2", "same"), line("fingerprint")]), "same bytes"),
        ("\n".join([line("k1", "same"), line("fingerprint", "same")]), "same bytes"),
        (ring_text("k1").replace("=", "", 1)[:-8], "k1|fingerprint"),
        ("k1:AAAA\n" + line("fingerprint"), "3 bytes long"),
        ("k1:" + "A" * 43 + "=\n" + line("fingerprint"), "not random"),
        ("k1:§§§\n" + line("fingerprint"), "not base64"),
        ("no colon\n" + line("fingerprint"), "Line 1"),
        ("K/1:AAAA\n" + line("fingerprint"), "names a key with other"),
        ("{", "JSON"),
        ('{"keys": []}', "JSON"),
        ('{"keys": {"k1": 5}, "fingerprint": "AAAA"}', "not text"),
        ('{"keys": {"k1": "AAAA", "k1": "AAAA"}}', "twice"),
        ('{"keys": {}, "other": 1}', "JSON"),
    ],
)
def test_a_damaged_ring_is_refused_and_not_quoted(text: str, says: str) -> None:
    with pytest.raises(KeyRingUnusable, match=says) as refusal:
        keyring.parse(text)

    material = [part for entry in text.split("\n") if (part := entry.partition(":")[2]) and len(part) > 8]
    assert not any(part in str(refusal.value) for part in material)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize("cut", range(1, 100, 7))
def test_a_truncated_file_is_refused(ring_file: Callable[..., Path], cut: int) -> None:
    ring_file(ring_text("k1")[:-cut])
    with pytest.raises(KeyRingUnusable):
        keyring.load()


def test_a_missing_file_that_someone_chose_is_refused_and_not_made(settings: Any, tmp_path: Path) -> None:
    settings.CREDENTIAL_KEYS_FILE = str(tmp_path / "nowhere")
    keyring.load.cache_clear()

    with pytest.raises(KeyRingUnusable, match="cannot be read"):
        keyring.load()
    assert list(tmp_path.iterdir()) == []


def test_no_ring_at_all_is_refused(settings: Any) -> None:
    settings.CREDENTIAL_KEYS = settings.CREDENTIAL_KEYS_FILE = ""
    keyring.load.cache_clear()
    with pytest.raises(KeyRingUnusable, match="no key ring"):
        keyring.load()


@pytest.mark.parametrize("mode", [0o404, 0o440, 0o644, 0o666, 0o604, 0o401])
def test_a_file_open_to_others_is_refused(ring_file: Callable[..., Path], mode: int) -> None:
    path = ring_file(ring_text("k1"), mode)
    with pytest.raises(KeyRingUnusable, match="open to other users"):
        keyring.load()

    path.chmod(0o400)
    assert keyring.load().primary.kid == "k1"


def test_a_file_that_is_no_text_and_a_folder_are_refused(ring_file: Callable[..., Path], settings: Any) -> None:
    path = ring_file(b"\x00\xff\xfe")
    with pytest.raises(KeyRingUnusable, match="not text"):
        keyring.load()

    settings.CREDENTIAL_KEYS_FILE = str(path.parent)
    with pytest.raises(KeyRingUnusable, match="not a file"):
        keyring.load()


def test_the_same_name_with_other_bytes_refuses_to_start(use_ring: Use, add: Callable[..., Connection]) -> None:
    add()
    before = list(Credential.objects.values_list("ciphertext", "kek_id"))
    use_ring("\n".join([line("k1", "other bytes"), line("fingerprint")]))

    with pytest.raises(KeyRingUnusable, match="k1 is not the key"):
        keyring.verify()
    assert [message.id for message in checks.key_ring_matches_database(None, databases=["default"])] == [
        "provider_keys.E002"
    ]
    with pytest.raises(KeyRingUnusable):
        add(key=OPENAI_KEY + "2")
    assert [(bytes(text), kid) for text, kid in before] == [
        (bytes(text), kid) for text, kid in Credential.objects.values_list("ciphertext", "kek_id")
    ]


def test_two_keys_swapped_in_the_ring_refuse_to_start(use_ring: Use, db: None) -> None:
    use_ring(ring_text("k1", "k2"))
    keyring.verify()
    use_ring("\n".join([line("k1", "k2"), line("k2", "k1"), line("fingerprint")]))

    with pytest.raises(KeyRingUnusable, match="k1, k2"):
        keyring.verify()


def test_another_fingerprint_key_refuses_to_start(use_ring: Use, db: None) -> None:
    keyring.verify()
    use_ring("\n".join([line("k1"), line("fingerprint", "other")]))

    with pytest.raises(KeyRingUnusable, match="fingerprint"):
        keyring.verify()


def test_the_database_keeps_of_a_key_only_its_check_value(use_ring: Use, db: None) -> None:
    use_ring(ring_text("k1", "k2"))
    keyring.verify()
    keyring.verify()

    assert set(KekCheckValue.objects.values_list("kek_id", flat=True)) == {"k1", "k2", "fingerprint"}
    for row in KekCheckValue.objects.exclude(kek_id="fingerprint"):
        assert bytes(row.check_value) == crypto.check_value(keyring.load().keks[row.kek_id])


def test_a_ring_that_lacks_a_key_in_use_starts_and_locks_those_credentials(
    use_ring: Use, add: Callable[..., Connection]
) -> None:
    connection = add()
    use_ring(ring_text("k2"))

    keyring.verify()
    assert checks.key_ring_matches_database(None, databases=["default"]) == []
    sealed = Credential.objects.get(connection=connection).sealed()
    with pytest.raises(CredentialLocked):
        connections.open_credential(sealed)

    use_ring(ring_text("k2", "k1"))
    assert connections.open_credential(sealed).reveal() == OPENAI_KEY


def test_nothing_is_sealed_with_a_retired_key(use_ring: Use, add: Callable[..., Connection]) -> None:
    keyring.verify()
    KekCheckValue.objects.filter(kek_id="k1").update(retired_at="2026-01-01T00:00Z")

    with pytest.raises(KekRefused, match="retired"):
        add()
    assert not Connection.objects.exists()
    assert not Credential.objects.exists()


def test_the_first_local_run_makes_a_ring_and_says_what_losing_it_means(
    settings: Any, tmp_path: Path, db: None, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.VAR_DIR = tmp_path
    path = tmp_path / "secrets" / "ring"
    settings.CREDENTIAL_KEYS_FILE = str(path)
    keyring.load.cache_clear()

    ring = keyring.load()
    said = capsys.readouterr().err
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert str(path) in said
    assert "entered again" in said
    assert path.read_text().split(":")[1][:20] not in said
    assert list(path.parent.iterdir()) == [path]

    keyring.load.cache_clear()
    assert crypto.check_value(keyring.load().primary) == crypto.check_value(ring.primary)
    assert capsys.readouterr().err == ""


def test_a_lost_local_ring_is_not_replaced_by_a_new_one(
    settings: Any, tmp_path: Path, add: Callable[..., Connection]
) -> None:
    add()
    settings.VAR_DIR = tmp_path
    settings.CREDENTIAL_KEYS_FILE = str(tmp_path / "ring")
    keyring.load.cache_clear()

    with pytest.raises(KeyRingUnusable, match="is gone"):
        keyring.load()
    assert list(tmp_path.iterdir()) == []


def test_production_never_makes_a_ring(settings: Any, tmp_path: Path, db: None) -> None:
    settings.PRODUCTION, settings.VAR_DIR = True, tmp_path
    settings.CREDENTIAL_KEYS_FILE = str(tmp_path / "ring")
    keyring.load.cache_clear()

    with pytest.raises(KeyRingUnusable, match="cannot be read"):
        keyring.load()
    assert list(tmp_path.iterdir()) == []


def test_of_processes_that_start_together_one_makes_the_ring(tmp_path: Path) -> None:
    code = (
        "import django; django.setup()\n"
        "from provider_keys import crypto, keyring\n"
        "print(crypto.check_value(keyring.load().primary).hex())"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "insighto.settings",
        "VAR_DIR": str(tmp_path),
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
        "CREDENTIAL_KEYS_FILE": str(tmp_path / "secrets" / "ring"),
    }
    starting = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    ended = [process.communicate(timeout=60) for process in starting]

    assert [process.returncode for process in starting] == [0, 0, 0], ended
    assert len({out for out, _ in ended}) == 1
    assert sum(b"Created the key ring" in err for _, err in ended) == 1


def test_new_kek_prints_a_line_that_the_ring_takes(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("new_kek", "2026-12")
    call_command("new_kek", "fingerprint")

    ring = keyring.parse(capsys.readouterr().out)
    assert ring.primary.kid == "2026-12"

    with pytest.raises(CommandError):
        call_command("new_kek", "not a name")


def test_new_kek_adds_to_the_file_behind_the_primary(
    ring_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = ring_file(ring_text("k1"))
    call_command("new_kek", "k2", "--add")
    keyring.load.cache_clear()

    assert list(keyring.load().keks) == ["k1", "k2"]
    assert keyring.load().primary.kid == "k1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert path.read_text().strip().rpartition(":")[2] not in capsys.readouterr().out

    before = path.read_text()
    with pytest.raises(CommandError, match="twice"):
        call_command("new_kek", "k2", "--add")
    assert path.read_text() == before


def test_a_server_on_the_wrong_ring_ends_before_it_serves(
    use_ring: Use, add: Callable[..., Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "close", lambda: None)  # the test goes on with it
    keyring.check_before_serving()
    add()
    use_ring("\n".join([line("k1", "other bytes"), line("fingerprint")]))

    with pytest.raises(SystemExit, match="Refusing to start"):
        keyring.check_before_serving()
