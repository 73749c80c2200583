"""Connections and the credential versions behind them: added, replaced, removed; opened for one call."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from accounts.models import Account, User
from accounts.services import audit
from insighto.lib.secret import Secret
from provider_keys import destinations, keyring, pasted, selectors
from provider_keys.crypto import SealedCredential
from provider_keys.errors import (
    ConnectionGone,
    ConnectionInUse,
    ConnectionRefused,
    KeyAlreadyStored,
    KeyIsExample,
    NameRefused,
    TooManyConnections,
)
from provider_keys.keyring import KeyRing
from provider_keys.models import Check, Connection, Credential, Provider, Slot, Verdict
from provider_keys.services import checks, vault

CONNECTIONS_PER_PROVIDER: Final = 100
TOUCH_EVERY: Final = timedelta(minutes=1)

# The `verdict_reason` of a key that is known, without asking anyone, to be unable to do inference.
ADMIN_KEY: Final = "admin_key"


def add(
    *, account: Account, provider: str, key: str, name: str = "", region: str = "", actor: User | None
) -> Connection:
    """Store what was pasted as a new connection and have it checked; nothing uses it yet.

    `dummy`, or saying that one does not use it, makes a placeholder of an optional provider:
    no secret is stored. Without a name the connection gets a free one. Raises an `EntryRefused`
    whose `field` is `key`, `name` or `region`. A repeat is refused: the account has the key.
    """
    provider = Provider(provider)
    chosen = pasted.connection_name(name)
    if pasted.says_not_used(provider, key):
        return _add_placeholder(account, provider, chosen, actor)
    secret = Secret(pasted.key(key))
    _refuse_key_as_name(chosen, secret)
    region = _region(provider, region)
    with transaction.atomic():
        ring = keyring.for_sealing()
        lock(account)
        stored = _others(account, provider)
        _refuse_known(secret, ring=ring, account=account, provider=provider)
        connection = Connection.objects.create(
            account=account,
            provider=provider,
            name=_free_name(provider, chosen, stored),
            region=region,
            created_by=actor,
        )
        _store(connection, secret, ring=ring, actor=actor)
        audit.record(
            account=account,
            actor=actor,
            action="connection.added",
            target=connection,
            detail={"provider": provider, "region": region},
        )
    return connection


def replace_secret(*, connection: Connection, key: str, region: str = "", actor: User | None) -> Connection:
    """Store another secret under the same connection, as its next version; the old one is destroyed.

    The region may change with it, and only with it. Refused with `ConnectionInUse` while a live
    slot uses the connection, because the new key has not been checked yet. Work that
    already holds the old version finishes on it.
    """
    account = connection.account
    if connection.is_placeholder:
        raise ConnectionRefused("A placeholder has no key to replace. Add a connection with the key instead.")
    if pasted.says_not_used(connection.provider, key):
        raise KeyIsExample(field="key")
    secret = Secret(pasted.key(key))
    region = _region(connection.provider, region or connection.region)
    with transaction.atomic():
        ring = keyring.for_sealing()
        account = lock(account)
        connection = present(account, connection)
        if is_live(account, connection):
            message = (
                f"“{connection.name}” is in use. Add the new key as another connection; "
                "once it has passed its check, choose it and press Submit."
            )
            raise ConnectionInUse(message)
        _refuse_known(secret, ring=ring, account=account, provider=connection.provider, but=connection)
        _refuse_key_as_name(connection.name, secret)
        _destroy(connection)
        connection.region = region
        _store(connection, secret, ring=ring, actor=actor)
        audit.record(
            account=account,
            actor=actor,
            action="connection.replaced",
            target=connection,
            detail={
                "provider": connection.provider,
                "region": region,
                "secret_version": connection.current_version,
            },
        )
    return connection


def rename(*, connection: Connection, name: str, actor: User | None) -> Connection:
    """Give the connection another name; receipts written so far keep the old one. The same name changes nothing.

    Raises `NameRefused`, or `ConnectionGone` when it was removed meanwhile.
    """
    chosen = pasted.connection_name(name)
    if not chosen:
        raise NameRefused("Enter a name.", field="name")
    with transaction.atomic():
        account = lock(connection.account)
        connection = present(account, connection)
        if connection.name == chosen:
            return connection
        stored = Connection.objects.of(account).filter(provider=connection.provider, removed_at=None)
        others = [row for row in stored if row.pk != connection.pk]
        before, connection.name = connection.name, _free_name(Provider(connection.provider), chosen, others)
        connection.save(update_fields=["name"])
        audit.record(
            account=account, actor=actor, action="connection.renamed", target=connection, detail={"before": before}
        )
    return connection


def remove(*, connection: Connection, actor: User | None) -> None:
    """Destroy every ciphertext of the connection and take it off the page; a repeat changes nothing.

    The row stays, because receipts name it. A dormant slot that holds it is emptied. Refused
    with `ConnectionInUse` while a live slot uses it.
    """
    with transaction.atomic():
        account = lock(connection.account)
        row = Connection.objects.of(account).select_for_update(no_key=True).get(pk=connection.pk)
        if row.is_removed:
            return
        if is_live(account, row):
            message = f"“{row.name}” is in use. Choose another key first, or turn Use My API Keys off."
            raise ConnectionInUse(message)
        Slot.objects.of(account).filter(connection=row).update(connection=None, changed_at=timezone.now())
        _destroy(row)
        row.removed_at = timezone.now()
        row.save(update_fields=["removed_at"])
        audit.record(
            account=account,
            actor=actor,
            action="connection.removed",
            target=row,
            detail={"provider": row.provider},
        )


def touch(ids: Iterable[UUID]) -> int:
    """Note that these connections were used just now; each row is written at most once a minute."""
    now = timezone.now()
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - TOUCH_EVERY)
    return Connection.objects.filter(stale, pk__in=set(ids)).update(last_used_at=now)


def open_credential(sealed: SealedCredential) -> Secret:
    """The secret of one credential version, a customer's or the platform's, for one outgoing call.

    Raises `CredentialLocked` or `CredentialUnreadable`. There is no fallback value.
    """
    return vault.unseal(sealed)


def lock(account: Account) -> Account:
    """The account's row, locked: one change of connections, slots or the switch at a time. Always taken first."""
    # no_key: legs that only refer to the account do not wait.
    return (
        Account.objects.select_for_update(no_key=True, of=("self",)).select_related("plan", "parent").get(pk=account.pk)
    )


def present(account: Account, connection: Connection) -> Connection:
    """The locked row of a connection of this account. Raises `ConnectionGone`, for foreign ones alike."""
    row = (
        Connection.objects.of(account).filter(pk=connection.pk, removed_at=None).select_for_update(no_key=True).first()
    )
    if row is None:
        raise ConnectionGone
    return row


def is_live(account: Account, connection: Connection) -> bool:
    """Requests run on it: the switch is on and a slot holds it."""
    return account.byok_enabled and Slot.objects.of(account).filter(connection=connection).exists()


def _add_placeholder(account: Account, provider: Provider, name: str, actor: User | None) -> Connection:
    with transaction.atomic():
        lock(account)
        stored = _others(account, provider)
        known = next((row for row in stored if row.is_placeholder), None)
        if known:
            message = f"The connection “{known.name}” says so already."
            raise KeyAlreadyStored(message, field="key")
        connection = Connection.objects.create(
            account=account,
            provider=provider,
            name=_free_name(provider, name or f"I don’t use {provider.label}", stored),
            is_placeholder=True,
            verdict=Verdict.PLACEHOLDER,
            verdict_at=timezone.now(),
            created_by=actor,
        )
        audit.record(
            account=account,
            actor=actor,
            action="connection.added",
            target=connection,
            detail={"provider": provider, "placeholder": True},
        )
    return connection


def _store(connection: Connection, secret: Secret, *, ring: KeyRing, actor: User | None) -> None:
    """Seal the next version, forget what was known of the last one, and have the new one judged."""
    text = secret.reveal()
    now = timezone.now()
    connection.current_version += 1
    credential = Credential(
        connection=connection,
        account_id=connection.account_id,
        secret_version=connection.current_version,
        last_four=pasted.last_four(text),
        key_shape=pasted.shape(connection.provider, text),
        fingerprint=vault.fingerprint(
            secret, ring=ring, account_id=connection.account_id, provider=connection.provider
        ),
        sealed_at=now,
    )
    for column, value in vault.seal(secret, ring=ring, into=credential.sealed()).items():
        setattr(credential, column, value)
    credential.save(force_insert=True)
    is_hopeless = pasted.is_admin_key(connection.provider, text)
    connection.verdict = Verdict.RESTRICTED if is_hopeless else Verdict.UNTESTED
    connection.verdict_reason = ADMIN_KEY if is_hopeless else ""
    connection.verdict_at = now if is_hopeless else None
    connection.rejected_at, connection.rejected_verdict = None, ""
    connection.attempt, connection.attempt_reason = "", ""
    connection.attempt_at = connection.retry_at = None
    connection.capabilities = {}
    connection.save()
    if not is_hopeless:
        checks.request(account=connection.account, connections=[connection], trigger=Check.Trigger.ADDED, actor=actor)


def _destroy(connection: Connection) -> None:
    """Overwrite what could be opened or matched; the last four characters stay, for the history."""
    Credential.objects.of(connection.account).filter(connection=connection, destroyed_at=None).update(
        ciphertext=b"", kek_id="", fingerprint=b"", destroyed_at=timezone.now()
    )
    vault.flush_destroyed()


def _others(account: Account, provider: str) -> Sequence[Connection]:
    stored = list(Connection.objects.of(account).filter(provider=provider, removed_at=None))
    if len(stored) >= CONNECTIONS_PER_PROVIDER:
        message = f"An account has {CONNECTIONS_PER_PROVIDER} connections per provider at most. Remove one first."
        raise TooManyConnections(message)
    return stored


def _refuse_known(
    secret: Secret, *, ring: KeyRing, account: Account, provider: str, but: Connection | None = None
) -> None:
    mark = vault.fingerprint(secret, ring=ring, account_id=account.pk, provider=provider)
    same = Credential.objects.of(account).filter(fingerprint=mark, destroyed_at=None).select_related("connection")
    if but is not None:
        same = same.exclude(connection=but)
    known = same.first()
    if known:
        message = f"This key is stored already, as “{known.connection.name}”."
        raise KeyAlreadyStored(message, field="key")


def _free_name(provider: Provider, chosen: str, stored: Sequence[Connection]) -> str:
    taken = {row.name.casefold() for row in stored}
    if not chosen:
        return selectors.suggested_name(provider, taken)
    if chosen.casefold() in taken:
        message = f"You have a connection named “{chosen}” for {provider.label} already."
        raise NameRefused(message, field="name")
    return chosen


def _refuse_key_as_name(name: str, secret: Secret) -> None:
    if secret.reveal() in name:
        raise NameRefused("The name is shown to everyone, so it cannot be the key.", field="name")


def _region(provider: str, typed: str) -> str:
    return destinations.normalised_region(typed) if provider == Provider.AZURE_SPEECH else ""
