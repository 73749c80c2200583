"""Plant keys, take everything the database has, and look for them in every disguise."""

import base64
import binascii
import hashlib
import json
import os
import subprocess
import sys
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.db import connection as database

from accounts.models import User
from provider_keys.models import Connection, Credential, Provider
from provider_keys.services import connections, platform_credentials
from tests.provider_keys.conftest import KEYS, OPENAI_KEY, another, ring_text

PLATFORM_KEY = "sk-svcacct-" + "Jd83kLm20QpXz" * 4


def disguises(key: str) -> dict[str, bytes]:
    """The key as it might lie around: encoded, reversed, compressed, hashed."""
    raw = key.encode()
    found = {
        "clear": raw,
        "upper": key.upper().encode(),
        "lower": key.lower().encode(),
        "reversed": raw[::-1],
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "utf-16le": key.encode("utf-16-le"),
        "utf-16be": key.encode("utf-16-be"),
        "percent": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "quoted": urllib.parse.quote(key, safe="").encode(),
        "json": json.dumps(key)[1:-1].encode(),
        "unicode escapes": "".join(f"\\u{byte:04x}" for byte in raw).encode(),
        "html": "".join(f"&#{byte};" for byte in raw).encode(),
        "rot13": __import__("codecs").encode(key, "rot13").encode(),
        "base32": base64.b32encode(raw).rstrip(b"="),
        "base85": base64.b85encode(raw),
        "ascii85": base64.a85encode(raw),
        "uu": binascii.b2a_uu(raw[:45]).strip(),
        "zlib": zlib.compress(raw)[2:-4],
        "deflate 9": zlib.compress(raw, 9)[2:-4],
    }
    for shift in range(3):  # base64 of a text that the key is part of, at each alignment
        coded = base64.b64encode(b"\0" * shift + raw)
        found[f"base64 at {shift}"] = coded[4 if shift else 0 : len(coded) // 4 * 4 - 4]
        found[f"base64url at {shift}"] = found[f"base64 at {shift}"].translate(bytes.maketrans(b"+/", b"-_"))
    for name in ("md5", "sha1", "sha256", "sha512"):
        digest = hashlib.new(name, raw).digest()
        found[name], found[f"{name} hex"] = digest, digest.hex().encode()
        found[f"{name} base64"] = base64.b64encode(digest).rstrip(b"=")
    return found


def leaks(haystack: bytes, keys: list[str]) -> list[str]:
    return [f"{key[:7]}… as {name}" for key in keys for name, text in disguises(key).items() if text in haystack]


def everything() -> bytes:
    """Every value of every row of every table, as bytes."""

    def values() -> Iterator[bytes]:
        with database.cursor() as cursor:
            for table in database.introspection.table_names(cursor):
                cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608
                for row in cursor.fetchall():
                    for value in row:
                        yield bytes(value) if isinstance(value, (bytes, memoryview)) else str(value).encode()

    return b"\n".join(values())


def test_planted_keys_are_nowhere_in_the_database(add: Callable[..., Connection], owner: User) -> None:
    for provider in Provider.values:
        add(provider)
    connections.replace_secret(
        connection=Connection.objects.get(provider=Provider.OPENAI), key=another(OPENAI_KEY), actor=owner
    )
    platform_credentials.put(provider=Provider.OPENAI, key=PLATFORM_KEY, actor=owner)
    planted = [*KEYS.values(), another(OPENAI_KEY), PLATFORM_KEY]

    dump = everything()

    assert b"westeurope" in dump  # the dump is of the right database
    assert bytes(Credential.objects.exclude(ciphertext=b"")[0].ciphertext) in dump
    assert leaks(dump, planted) == []


@pytest.mark.parametrize("disguise", sorted(disguises(OPENAI_KEY)))
def test_the_search_finds_a_planted_leak(add: Callable[..., Connection], disguise: str) -> None:
    connection = add()
    Credential.objects.filter(connection=connection).update(fingerprint=b"..." + disguises(OPENAI_KEY)[disguise])
    assert leaks(everything(), [OPENAI_KEY])


def test_key_encryption_keys_are_nowhere_in_the_database(add: Callable[..., Connection]) -> None:
    add()
    dump = everything()
    for line in ring_text("k1").split("\n"):
        encoded = line.partition(":")[2]
        material = base64.b64decode(encoded)
        for shape in (material, material.hex().encode(), encoded.encode(), hashlib.sha256(material).digest()):
            assert shape not in dump


_STORE_AND_REMOVE = """
import django; django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from tests import factories
from provider_keys.models import Credential, Provider
from provider_keys.services import connections
import json, sys
account = factories.make_account(owner=factories.make_user())
blobs = []
def stored(key):
    row = connections.add(account=account, provider=Provider.OPENAI, key=key, actor=None)
    blobs.append(bytes(Credential.objects.get(connection=row).ciphertext).hex())
    return row
kept, removed, replaced = (stored("sk-proj-" + letter * 3 + "0123456789abcdefghijkl" * 3) for letter in "KRP")
before = {path.name: path.read_bytes().count(bytes.fromhex(blobs[1])) for path in folder.iterdir() if path.is_file()}
connections.replace_secret(connection=replaced, key="sk-proj-" + "NEW0123456789abcdefgh" * 3, actor=None)
connections.remove(connection=removed, actor=None)
print(json.dumps({"blobs": blobs, "seen_before": sum(before.values())}))
sys.stdout.flush()
import os, signal
if crash: os.kill(os.getpid(), signal.SIGKILL)  # no tidy closing of the database
"""


@pytest.mark.parametrize("crash", [True, False])
def test_the_raw_file_holds_no_destroyed_blob_and_no_key(tmp_path: Path, crash: bool) -> None:
    folder = tmp_path / "database"
    folder.mkdir()
    code = f"import pathlib\nfolder = pathlib.Path({str(folder)!r})\ncrash = {crash}\n{_STORE_AND_REMOVE}"
    environment = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "VAR_DIR": str(tmp_path / "var"),
        "CREDENTIAL_KEYS": ring_text("k1"),
        "DJANGO_SETTINGS_MODULE": "insighto.settings",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=120, check=False)
    assert ended.stdout, ended.stderr.decode()[-2000:]
    said = json.loads(ended.stdout)
    kept, removed, replaced = (bytes.fromhex(blob) for blob in said["blobs"])

    raw = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))  # with -wal and -shm, where there are any

    assert said["seen_before"] > 0  # the search would have found it
    assert kept in raw
    for blob in (removed, replaced):
        pieces = [blob[start : start + 12] for start in range(8, len(blob) - 12, 4)]  # past magic and kid
        assert [piece for piece in pieces if piece in raw] == []
    keys = ["sk-proj-" + letter * 3 + "0123456789abcdefghijkl" * 3 for letter in "KRP"]
    assert leaks(raw, [*keys, "sk-proj-" + "NEW0123456789abcdefgh" * 3]) == []


def test_no_text_column_is_named_like_a_plain_key() -> None:
    for model in apps.get_models():
        for field in model._meta.get_fields():
            if model._meta.app_label in {"accounts", "provider_keys", "billing", "gateway"}:
                assert field.name not in {"key", "secret", "api_key", "password_plain", "token"} or field.is_relation
