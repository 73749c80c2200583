"""Sealing and opening: the only calls of the envelope in the product.

Opened per use and kept nowhere: it costs microseconds, and what is not kept cannot leak
or go stale (design §1).
"""

from uuid import UUID

from django.db import transaction

from insighto.lib.secret import Secret
from provider_keys import crypto, destinations, keyring
from provider_keys.crypto import SealBroken, SealedCredential, UnknownKek
from provider_keys.errors import CredentialLocked, CredentialUnreadable
from provider_keys.keyring import KeyRing


def seal(secret: Secret, *, ring: KeyRing, into: SealedCredential) -> dict[str, object]:
    """The sealed columns of the row that `into` describes (its own ciphertext is ignored).

    `ring` comes from `keyring.for_sealing`, in the transaction that writes the row.
    """
    destination = destinations.canonical(into.provider, into.region)
    ciphertext = crypto.seal(secret, key=ring.primary, context=into.context(destination=destination))
    return {"ciphertext": ciphertext, "kek_id": ring.primary.kid, "destination": destination}


def unseal(sealed: SealedCredential) -> Secret:
    """The secret, for the one call that is about to be made with it.

    The destination is computed from the settings and the region, never taken from the row.
    Raises `CredentialLocked` or `CredentialUnreadable`; touches no database.
    """
    if not sealed.ciphertext:
        raise CredentialUnreadable
    context = sealed.context(destination=destinations.canonical(sealed.provider, sealed.region))
    try:
        return crypto.unseal(sealed.ciphertext, ring=keyring.load(), context=context)
    except UnknownKek:
        raise CredentialLocked from None
    except SealBroken:
        raise CredentialUnreadable from None


def fingerprint(secret: Secret, *, ring: KeyRing, account_id: UUID, provider: str) -> bytes:
    """What finds the same key again inside the same account, and says nothing across accounts."""
    return crypto.fingerprint(secret, key=ring.fingerprint, account_id=account_id, provider=provider)


def flush_destroyed() -> None:
    """After the commit, make SQLite forget the pages that a destroyed ciphertext stood on.

    `secure_delete` blanks the database file; the write-ahead log keeps the old page until it
    is emptied. PostgreSQL does the like by vacuum, in its own time.
    """
    transaction.on_commit(_empty_write_ahead_log, robust=True)


def _empty_write_ahead_log() -> None:
    connection = transaction.get_connection()
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
