"""The key ring: which KEK versions this process holds, where they come from, and whether they are the right ones.

The ring comes from a file (`CREDENTIAL_KEYS_FILE`, mode 0400) or a variable
(`CREDENTIAL_KEYS`), never from the database and never from `SECRET_KEY`. Either form is
JSON, ``{"keys": {"2026-11": "<base64>"}, "fingerprint": "<base64>"}``, or lines::

    2026-11:<base64 of 32 bytes>
    fingerprint:<base64 of 32 bytes>

`fingerprint` keys the duplicate search and seals nothing. New secrets are sealed with
`CREDENTIAL_PRIMARY_KEK`, or with the first key when that is not set. The database keeps a
check value for every key it has met: the same name with other bytes refuses to start.
"""

import base64
import binascii
import functools
import json
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import DatabaseError, connection, transaction

from provider_keys import crypto
from provider_keys.crypto import Kek
from provider_keys.errors import KekRefused, KeyRingUnusable
from provider_keys.models import KekCheckValue

FINGERPRINT: Final = "fingerprint"
_MAX_FILE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class KeyRing:
    keks: Mapping[str, Kek]
    primary: Kek
    fingerprint: Kek

    def __reduce__(self) -> str:
        raise TypeError("a KeyRing cannot be copied or serialised")


@functools.cache
def load() -> KeyRing:
    """The ring of this process. Raises `KeyRingUnusable` with what to do; reads the source once."""
    if settings.CREDENTIAL_KEYS_FILE:
        path = Path(settings.CREDENTIAL_KEYS_FILE)
        # Only under var/: a path that someone chose, and that is not there, is a mistake to report.
        if not settings.PRODUCTION and not path.exists() and path.is_relative_to(settings.VAR_DIR):
            _create_local_file(path)
        text = _read(path)
    elif settings.CREDENTIAL_KEYS:
        text = settings.CREDENTIAL_KEYS
    else:
        raise KeyRingUnusable("There is no key ring. Set CREDENTIAL_KEYS_FILE (or CREDENTIAL_KEYS).")
    return parse(text, primary=settings.CREDENTIAL_PRIMARY_KEK)


def parse(text: str, *, primary: str = "") -> KeyRing:
    """A ring from either notation. Refusals name keys, never their bytes."""
    entries = _from_json(text) if text.lstrip().startswith("{") else _from_lines(text)
    keks = {kid: _kek(kid, encoded) for kid, encoded in entries}
    if len(keks) != len(entries):
        raise KeyRingUnusable("The key ring names a key twice.")
    fingerprint = keks.pop(FINGERPRINT, None)
    if fingerprint is None:
        message = "The key ring has no fingerprint key. `manage.py new_kek fingerprint` prints one to add."
        raise KeyRingUnusable(message)
    if not keks:
        raise KeyRingUnusable("The key ring has no key to seal with. `manage.py new_kek` prints one to add.")
    materials = {crypto.identity(kek) for kek in [*keks.values(), fingerprint]}
    if len(materials) != len(keks) + 1:
        raise KeyRingUnusable("The key ring has the same bytes under two names.")
    chosen = keks.get(primary) if primary else next(iter(keks.values()))
    if chosen is None:
        message = f"CREDENTIAL_PRIMARY_KEK names {primary}, which the key ring does not have."
        raise KeyRingUnusable(message)
    return KeyRing(keks=keks, primary=chosen, fingerprint=fingerprint)


def verify() -> KeyRing:
    """The ring, held against the database's check values; keys met for the first time are recorded.

    Every process calls this before it serves. A ring that lacks a key which rows use is no
    mistake of the ring: those credentials are locked until the key is back.
    """
    ring = load()
    present = {kek.kid: crypto.check_value(kek) for kek in [*ring.keks.values(), ring.fingerprint]}
    known = dict(KekCheckValue.objects.values_list("kek_id", "check_value"))
    new = [KekCheckValue(kek_id=kid, check_value=value) for kid, value in present.items() if kid not in known]
    if new:
        KekCheckValue.objects.bulk_create(new, ignore_conflicts=True)
        known = dict(KekCheckValue.objects.values_list("kek_id", "check_value"))
    swapped = sorted(kid for kid, value in present.items() if bytes(known[kid]) != value)
    if swapped:
        message = (
            f"The key ring's {', '.join(swapped)} is not the key that this database was sealed with: same name, "
            "other bytes. Put the right key ring back; nothing is lost as long as it exists."
        )
        raise KeyRingUnusable(message)
    return ring


def check_before_serving(**_: object) -> None:
    """End the process with the reason when its ring is not the database's. Servers and workers call it first.

    A database that does not answer yet is no reason: whatever seals verifies again.
    """
    try:
        verify()
    except KeyRingUnusable as error:
        message = f"Refusing to start: {error}"
        raise SystemExit(message) from None
    except DatabaseError:
        pass
    finally:
        connection.close()


def for_sealing() -> KeyRing:
    """The verified ring, with its primary held against retirement until the transaction ends."""
    assert connection.in_atomic_block
    ring = verify()
    held = KekCheckValue.objects.select_for_update().get(kek_id=ring.primary.kid)
    if held.retired_at is not None:
        message = f"Key {held.kek_id} was retired; nothing is sealed with it any more. Make another key primary."
        raise KekRefused(message)
    return ring


def new_line(kid: str) -> str:
    """One line of a ring file with a fresh key."""
    if not crypto.is_kid(kid):
        message = "Name keys with lower-case letters, digits, dots and dashes, 32 characters at most."
        raise KekRefused(message)
    return f"{kid}:{base64.b64encode(secrets.token_bytes(crypto.KEK_BYTES)).decode()}"


def add_to_file(line: str) -> Path:
    """Add one line at the end of the ring's file, where it is not primary; the file is replaced in one step."""
    if not settings.CREDENTIAL_KEYS_FILE:
        raise KekRefused("The key ring is not a file. Print the line and add it where the ring comes from.")
    path = Path(settings.CREDENTIAL_KEYS_FILE)
    text = _read(path)
    if text.lstrip().startswith("{"):
        raise KekRefused("The key ring is JSON. Print the line and add the key by hand.")
    longer = text.rstrip("\n") + "\n" + line + "\n"
    parse(longer)
    _private_file(path, longer).replace(path)
    return path


def _read(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            message = f"The key ring {path} is not a file."
            raise KeyRingUnusable(message)
        if mode & 0o077:
            message = f"The key ring {path} is open to other users (mode {mode & 0o777:04o}). Set it to 0400."
            raise KeyRingUnusable(message)
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES).decode("ascii")
    except OSError as error:
        message = f"The key ring {path} cannot be read ({error.strerror})."
        raise KeyRingUnusable(message) from None
    except UnicodeDecodeError:
        message = f"The key ring {path} is not text."
        raise KeyRingUnusable(message) from None


def _from_lines(text: str) -> list[tuple[str, str]]:
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            kid, colon, encoded = line.strip().partition(":")
            if not colon:
                message = f"Line {number} of the key ring is not of the form name:base64."
                raise KeyRingUnusable(message)
            entries.append((kid.strip(), encoded.strip()))
    return entries


def _from_json(text: str) -> list[tuple[str, str]]:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) != len(pairs):
            raise KeyRingUnusable("The key ring names a key twice.")
        return dict(pairs)

    try:
        data = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        # The parser's own message and exception quote the text.
        message = f"The key ring is not valid JSON (line {error.lineno})."
        raise KeyRingUnusable(message) from None
    keys = data.get("keys")
    if not isinstance(keys, dict) or set(data) - {"keys", FINGERPRINT}:
        raise KeyRingUnusable('The key ring is JSON, but not of the form {"keys": {…}, "fingerprint": "…"}.')
    entries = [*keys.items(), *([(FINGERPRINT, data[FINGERPRINT])] if FINGERPRINT in data else [])]
    if not all(isinstance(encoded, str) for _, encoded in entries):
        raise KeyRingUnusable("The key ring has a key that is not text.")
    return entries


def _kek(kid: str, encoded: str) -> Kek:
    if not crypto.is_kid(kid):
        raise KeyRingUnusable("The key ring names a key with other than lower-case letters, digits, dots, dashes.")
    try:
        material = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        message = f"Key {kid} of the key ring is not base64."
        raise KeyRingUnusable(message) from None
    if len(material) != crypto.KEK_BYTES:
        message = f"Key {kid} of the key ring is {len(material)} bytes long, not {crypto.KEK_BYTES}: was it cut?"
        raise KeyRingUnusable(message)
    if len(set(material)) < crypto.KEK_BYTES // 4:
        message = f"Key {kid} of the key ring is not random."
        raise KeyRingUnusable(message)
    return Kek(kid, material)


def _create_local_file(path: Path) -> None:
    """The first run's own ring. Not when the database already holds keys sealed with a lost one."""
    if _database_has_met_a_ring():
        message = (
            f"The key ring {path} is gone, and this database holds keys sealed with it. Put the file back; "
            "without it every stored key has to be entered again, into a new database."
        )
        raise KeyRingUnusable(message)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = "\n".join(
        [
            "# Insighto's key-encryption keys. They open every provider key stored in the database.",
            "# Lost: every stored provider key has to be entered again. Copied: so are the keys of all customers.",
            new_line("local-1"),
            new_line(FINGERPRINT),
            "",
        ]
    )
    temporary = _private_file(path, text)
    try:
        # A link, not a rename: of several processes that start together one wins and the others read its ring.
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink()
    sys.stderr.write(
        f"Created the key ring {path}. Back it up apart from the database: "
        "without it the stored provider keys cannot be opened and have to be entered again.\n"
    )


def _private_file(beside: Path, text: str) -> Path:
    """A complete new file, readable by nobody else, in the folder of `beside`."""
    descriptor, name = tempfile.mkstemp(dir=beside.parent, prefix=".credential-keys-")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o400)
        file.flush()
        os.fsync(file.fileno())
    return Path(name)


def _database_has_met_a_ring() -> bool:
    try:
        with transaction.atomic():
            return KekCheckValue.objects.exists()
    except DatabaseError:  # before the first migrate
        return False
