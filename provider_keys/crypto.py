"""The envelope: how a secret becomes bytes that are worthless anywhere but in their own row (design §1).

Pure: no database, no settings, no clock. A fresh data key (DEK) seals each stored version
with AES-256-GCM; the DEK is sealed, again with AES-256-GCM, by a wrapping key that HKDF
derives from one key-encryption key (KEK) for one account. Both layers authenticate the
`Context`, so bytes moved to another row, account, provider, field, version or destination
do not open. Every part of an HKDF info or of associated data carries its length, because
joined text is ambiguous.

The bytes describe themselves::

    magic 3 | version 1 | suite 1 | length of kid 1 | kid | nonce 12 | wrapped DEK 48 | nonce 12 | ciphertext ≥ 16
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from insighto.lib.secret import Secret

MAGIC: Final = b"ISV"
VERSION: Final = 1
SUITE_AES_256_GCM_HKDF_SHA256: Final = 1

KEK_BYTES: Final = 32
MAX_PLAINTEXT_BYTES: Final = 65_536

_NONCE: Final = 12
_TAG: Final = 16
_DEK: Final = 32
_WRAPPED: Final = _DEK + _TAG
_HEAD: Final = len(MAGIC) + 3
_KID = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")


class SealBroken(Exception):
    """The bytes are not ours, were changed, or belong to another row, account or destination."""


class UnknownKek(Exception):
    """The bytes name a KEK version that the ring does not hold."""

    def __init__(self, kid: str) -> None:
        super().__init__(f"The key ring has no key {kid}.")
        self.kid = kid


class Kek:
    """One key-encryption key version: a name and 32 bytes that no repr, pickle or comparison gives away."""

    __slots__ = ("__material", "kid")

    def __init__(self, kid: str, material: bytes) -> None:
        if not is_kid(kid):
            message = "A KEK version is named with lower-case letters, digits, dots, dashes; 32 at most."
            raise ValueError(message)
        if len(material) != KEK_BYTES:
            message = f"KEK {kid} is {len(material)} bytes long, not {KEK_BYTES}."
            raise ValueError(message)
        self.kid = kid
        self.__material = material

    def derive(self, *info: bytes) -> bytes:
        """A 32-byte key for one purpose."""
        return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=length_prefixed(*info)).derive(
            self.__material
        )

    def __repr__(self) -> str:
        return f"Kek({self.kid})"

    def __reduce__(self) -> str:
        raise TypeError("a Kek cannot be copied or serialised")


class Ring(Protocol):
    """What opening needs of a key ring."""

    @property
    def keks(self) -> Mapping[str, Kek]: ...


@dataclass(frozen=True, slots=True)
class Context:
    """Where a secret belongs. Authenticated, not stored in the bytes: the row says it, and must say the same."""

    account_id: UUID | None  # None: the platform's own
    credential_id: UUID
    provider: str
    field: str
    secret_version: int
    destination: str  # the canonical target: host, and the region where the provider has one

    def associated_data(self, layer: bytes) -> bytes:
        return length_prefixed(
            MAGIC,
            bytes([VERSION, SUITE_AES_256_GCM_HKDF_SHA256]),
            layer,
            self.account_id.bytes if self.account_id else b"",
            self.credential_id.bytes,
            self.provider.encode(),
            self.field.encode(),
            str(self.secret_version).encode(),
            self.destination.encode(),
        )


@dataclass(frozen=True, slots=True)
class SealedCredential:
    """A credential as a leg or a check carries it: everything that opening needs, and nothing opened."""

    credential_id: UUID
    account_id: UUID | None  # None: a platform credential
    provider: str
    secret_version: int
    region: str
    ciphertext: bytes

    def context(self, *, destination: str) -> Context:
        return Context(
            account_id=self.account_id,
            credential_id=self.credential_id,
            provider=self.provider,
            field="credential" if self.account_id else "platform_credential",
            secret_version=self.secret_version,
            destination=destination,
        )


@dataclass(frozen=True, slots=True)
class _Envelope:
    kid: str
    wrap_nonce: bytes
    wrapped_dek: bytes
    body: bytes  # nonce and ciphertext, which a rewrap carries over unchanged


def is_kid(text: str) -> bool:
    return _KID.fullmatch(text) is not None


def length_prefixed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def seal(plaintext: Secret, *, key: Kek, context: Context) -> bytes:
    """Bytes that only the same context and a ring with `key` open again. Never twice the same."""
    dek = secrets.token_bytes(_DEK)
    nonce = secrets.token_bytes(_NONCE)
    clear = plaintext.reveal().encode()
    if len(clear) > MAX_PLAINTEXT_BYTES:
        raise ValueError("The secret is too long to be sealed.")
    ciphertext = AESGCM(dek).encrypt(nonce, clear, context.associated_data(b"secret"))
    return _wrap(dek, key=key, context=context, body=nonce + ciphertext)


def unseal(ciphertext: bytes, *, ring: Ring, context: Context) -> Secret:
    """The secret. Raises `UnknownKek` or `SealBroken`; there is no other outcome."""
    envelope = _parse(ciphertext)
    dek = _unwrap(envelope, ring=ring, context=context)
    nonce, sealed = envelope.body[:_NONCE], envelope.body[_NONCE:]
    try:
        return Secret(AESGCM(dek).decrypt(nonce, sealed, context.associated_data(b"secret")).decode())
    except (InvalidTag, UnicodeDecodeError):
        raise SealBroken from None


def rewrap(ciphertext: bytes, *, ring: Ring, primary: Kek, context: Context) -> bytes:
    """The same sealed secret with its DEK under `primary`; the secret itself is not opened.

    Bytes already under `primary` come back as they are, so a repeat changes nothing.
    """
    envelope = _parse(ciphertext)
    if envelope.kid == primary.kid:
        return ciphertext
    return _wrap(_unwrap(envelope, ring=ring, context=context), key=primary, context=context, body=envelope.body)


def kek_id_of(ciphertext: bytes) -> str:
    """The KEK version the bytes name. Says nothing about whether they open."""
    return _parse(ciphertext).kid


def fingerprint(secret: Secret, *, key: Kek, account_id: UUID, provider: str) -> bytes:
    """Equal for the same secret in the same account and provider, and unrelated to everything else."""
    parts = length_prefixed(b"fingerprint", account_id.bytes, provider.encode(), secret.reveal().encode())
    return hmac.digest(key.derive(b"fingerprint"), parts, hashlib.sha256)


def check_value(key: Kek) -> bytes:
    """32 bytes that tell whether a KEK still is the one it was, and nothing else about it."""
    return hmac.digest(key.derive(b"check", key.kid.encode()), b"insighto key check value", hashlib.sha256)


def identity(key: Kek) -> bytes:
    """Equal for equal bytes whatever their name: finds one key listed twice."""
    return key.derive(b"identity")


def to_text(ciphertext: bytes) -> str:
    return base64.urlsafe_b64encode(ciphertext).decode()


def from_text(text: str) -> bytes:
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True)
    except ValueError:
        raise SealBroken from None


def _wrapping_key(key: Kek, context: Context) -> bytes:
    return key.derive(b"wrap", key.kid.encode(), context.account_id.bytes if context.account_id else b"")


def _wrap(dek: bytes, *, key: Kek, context: Context, body: bytes) -> bytes:
    kid = key.kid.encode()
    nonce = secrets.token_bytes(_NONCE)
    wrapped = AESGCM(_wrapping_key(key, context)).encrypt(nonce, dek, context.associated_data(b"dek"))
    head = MAGIC + bytes([VERSION, SUITE_AES_256_GCM_HKDF_SHA256, len(kid)])
    return head + kid + nonce + wrapped + body


def _unwrap(envelope: _Envelope, *, ring: Ring, context: Context) -> bytes:
    key = ring.keks.get(envelope.kid)
    if key is None:
        raise UnknownKek(envelope.kid)
    try:
        return AESGCM(_wrapping_key(key, context)).decrypt(
            envelope.wrap_nonce, envelope.wrapped_dek, context.associated_data(b"dek")
        )
    except InvalidTag:
        raise SealBroken from None


def _parse(ciphertext: bytes) -> _Envelope:
    data = bytes(ciphertext)
    if len(data) < _HEAD or data[: len(MAGIC)] != MAGIC:
        raise SealBroken
    version, suite, kid_length = data[len(MAGIC) : _HEAD]
    if version != VERSION or suite != SUITE_AES_256_GCM_HKDF_SHA256:
        raise SealBroken
    start = _HEAD + kid_length
    body = start + _NONCE + _WRAPPED
    if not body + _NONCE + _TAG <= len(data) <= body + _NONCE + _TAG + MAX_PLAINTEXT_BYTES:
        raise SealBroken
    kid = data[_HEAD:start].decode("ascii", "replace")
    if not is_kid(kid):
        raise SealBroken
    return _Envelope(
        kid=kid,
        wrap_nonce=data[start : start + _NONCE],
        wrapped_dek=data[start + _NONCE : body],
        body=data[body:],
    )
