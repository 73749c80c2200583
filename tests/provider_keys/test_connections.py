from collections.abc import Callable
from typing import Any

import pytest

from accounts.models import Account, AuditEvent, User
from provider_keys import destinations
from provider_keys.crypto import SealedCredential
from provider_keys.errors import (
    ConnectionGone,
    ConnectionInUse,
    ConnectionRefused,
    CredentialLocked,
    CredentialUnreadable,
    EntryRefused,
    KeyAlreadyStored,
    KeyIsExample,
    KeyMalformed,
    NameRefused,
    RegionRefused,
    TooManyConnections,
)
from provider_keys.models import Check, Connection, Credential, Provider, Verdict
from provider_keys.services import connections, slots
from tests import factories
from tests.provider_keys.conftest import AZURE_KEY, ELEVENLABS_KEY, KEYS, OPENAI_KEY, another, judge, ring_text, slot_of

Add = Callable[..., Connection]


def current(connection: Connection) -> SealedCredential:
    return Credential.objects.get(connection=connection, secret_version=connection.current_version).sealed()


@pytest.mark.parametrize("provider", Provider.values)
def test_a_key_is_stored_sealed_and_opens_for_its_call(provider: str, add: Add) -> None:
    connection = add(provider)

    credential = Credential.objects.get(connection=connection)
    assert connection.current_version == credential.secret_version == 1
    assert connection.verdict == Verdict.UNTESTED
    assert credential.kek_id == "k1"
    assert credential.last_four == KEYS[provider][-4:]
    assert KEYS[provider].encode() not in bytes(credential.ciphertext)
    assert connections.open_credential(credential.sealed()).reveal() == KEYS[provider]


def test_a_new_connection_is_checked_by_itself_and_used_by_nothing(add: Add, account: Account) -> None:
    connection = add()

    check = Check.objects.of(account).get()
    assert (check.connection, check.secret_version, check.trigger) == (connection, 1, Check.Trigger.ADDED)
    assert not account.slots.filter(connection=connection).exists()
    assert not account.byok_enabled


def test_adding_is_audited_without_the_key(add: Add, account: Account, owner: User) -> None:
    connection = add(Provider.AZURE_SPEECH)

    event = AuditEvent.objects.of(account).get(action="connection.added")
    assert event.actor == owner
    assert event.target_id == str(connection.pk)
    assert AZURE_KEY[-4:] not in str(event.detail)


@pytest.mark.parametrize("typed", ["dummy", " DUMMY\n", "I don't use ElevenLabs"])
def test_dummy_makes_a_placeholder_that_stores_and_sends_nothing(add: Add, account: Account, typed: str) -> None:
    connection = add(Provider.ELEVENLABS, typed)

    assert connection.is_placeholder
    assert connection.verdict == Verdict.PLACEHOLDER
    assert not connection.is_usable
    assert not Credential.objects.of(account).exists()
    assert not Check.objects.of(account).exists()
    with pytest.raises(KeyAlreadyStored):
        add(Provider.ELEVENLABS, typed)


@pytest.mark.parametrize("provider", [Provider.OPENAI, Provider.AZURE_SPEECH])
@pytest.mark.parametrize("typed", ["dummy", "I don't use ElevenLabs", "YOUR_API_KEY", "a b c d e f g", ""])
def test_a_required_provider_takes_no_placeholder(add: Add, account: Account, provider: str, typed: str) -> None:
    with pytest.raises((KeyIsExample, KeyMalformed)) as refusal:
        connections.add(account=account, provider=provider, key=typed, region="westeurope", actor=None)

    assert refusal.value.field == "key"
    assert not Connection.objects.exists()
    assert not AuditEvent.objects.of(account).filter(action="connection.added").exists()


@pytest.mark.parametrize("region", ["", "usgovvirginia", "evil?", "chinanorth3"])
def test_azure_needs_a_region_of_the_list(add: Add, region: str) -> None:
    with pytest.raises(RegionRefused):
        add(Provider.AZURE_SPEECH, region=region)
    assert not Connection.objects.exists()
    assert not Credential.objects.exists()


def test_other_providers_keep_no_region(add: Add) -> None:
    assert add(Provider.OPENAI, region="evil?").region == ""
    assert add(Provider.AZURE_SPEECH, region="UK South").region == "uksouth"


def test_the_same_key_is_found_within_the_account_and_named(add: Add, account: Account) -> None:
    add(name="Production")

    with pytest.raises(KeyAlreadyStored, match="Production") as refusal:
        add(key=f' "{OPENAI_KEY}" ', name="Again")
    assert refusal.value.field == "key"
    assert Connection.objects.of(account).count() == Credential.objects.of(account).count() == 1


def test_another_account_may_have_the_same_key_and_nothing_shows_it(add: Add) -> None:
    theirs = factories.make_account(owner=factories.make_user())
    add()
    add(to=theirs)

    marks = [bytes(mark) for mark in Credential.objects.values_list("fingerprint", flat=True)]
    assert len(set(marks)) == 2


def test_names_are_unique_within_a_provider_of_the_account(add: Add, account: Account) -> None:
    add(name="Main")
    add(Provider.AZURE_SPEECH, name="Main")

    with pytest.raises(NameRefused, match="“main” for OpenAI"):
        add(key=another(OPENAI_KEY), name="  main ")
    assert Connection.objects.of(account).count() == 2


def test_without_a_name_a_free_one_is_taken(add: Add) -> None:
    assert add().name == "OpenAI"
    assert add(key=another(OPENAI_KEY)).name == "OpenAI 2"
    assert add(Provider.AZURE_SPEECH).name == "Azure"


def test_the_key_is_not_taken_as_the_name(add: Add) -> None:
    with pytest.raises(NameRefused) as refusal:
        add(key="Abc-1234-xyz", name="my Abc-1234-xyz key")
    assert "1234" not in str(refusal.value)
    assert not Connection.objects.exists()


def test_an_account_has_a_bounded_number_of_connections(add: Add, account: Account, monkeypatch: Any) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS_PER_PROVIDER", 2)
    add()
    add(key=another(OPENAI_KEY))

    with pytest.raises(TooManyConnections):
        add(key=OPENAI_KEY + "3")
    assert Connection.objects.of(account).count() == 2
    assert add(Provider.ELEVENLABS).provider == Provider.ELEVENLABS


def test_an_admin_key_is_known_to_be_useless_without_asking(add: Add) -> None:
    connection = add(key="sk-admin-" + "aB3dE6gH" * 8)

    assert (connection.verdict, connection.verdict_reason) == (Verdict.RESTRICTED, connections.ADMIN_KEY)
    assert not connection.is_usable
    assert not Check.objects.exists()


def test_a_replaced_key_is_a_new_version_with_nothing_known_of_it(add: Add, owner: User) -> None:
    connection = judge(add(), Verdict.VALID)
    old = current(connection)

    connection = connections.replace_secret(connection=connection, key=another(OPENAI_KEY), actor=owner)

    assert (connection.current_version, connection.verdict, connection.verdict_at) == (2, Verdict.UNTESTED, None)
    assert connections.open_credential(current(connection)).reveal() == another(OPENAI_KEY)
    assert Check.objects.get(connection=connection, finished_at=None).secret_version == 2
    # Work that pinned the old version holds its bytes and finishes; the row has none any more.
    assert connections.open_credential(old).reveal() == OPENAI_KEY
    destroyed = Credential.objects.get(connection=connection, secret_version=1)
    assert (bytes(destroyed.ciphertext), destroyed.kek_id, bytes(destroyed.fingerprint)) == (b"", "", b"")
    assert destroyed.destroyed_at


def test_a_connection_in_a_live_slot_keeps_its_key(byok_account: Account, owner: User) -> None:
    connection = slot_of(byok_account, Provider.OPENAI).connection
    assert connection
    before = current(connection)

    with pytest.raises(ConnectionInUse, match="as another connection"):
        connections.replace_secret(connection=connection, key=another(OPENAI_KEY), actor=owner)
    with pytest.raises(ConnectionInUse):
        connections.remove(connection=connection, actor=owner)

    connection.refresh_from_db()
    assert (connection.current_version, connection.verdict, connection.removed_at) == (1, Verdict.VALID, None)
    assert current(connection) == before
    assert not AuditEvent.objects.of(byok_account).filter(action__in=["connection.replaced", "connection.removed"])


def test_the_region_changes_only_with_the_key(add: Add, owner: User) -> None:
    connection = add(Provider.AZURE_SPEECH)
    connections.replace_secret(connection=connection, key=AZURE_KEY, region="uksouth", actor=owner)
    connection.refresh_from_db()
    assert connection.region == "uksouth"
    assert connections.open_credential(current(connection)).reveal() == AZURE_KEY

    Connection.objects.filter(pk=connection.pk).update(region="eastus")
    Credential.objects.filter(connection=connection).update(
        destination=destinations.canonical("azure_speech", "eastus")
    )
    with pytest.raises(CredentialUnreadable):
        connections.open_credential(current(Connection.objects.get(pk=connection.pk)))


def test_a_key_does_not_go_to_another_host_than_it_was_stored_for(add: Add, settings: Any) -> None:
    connection = add()
    settings.OPENAI_BASE_URL = "https://evil.example/v1"

    with pytest.raises(CredentialUnreadable):
        connections.open_credential(current(connection))


def test_a_replacement_is_refused_when_it_is_another_connections_key(add: Add, owner: User) -> None:
    add(name="First")
    second = add(key=another(OPENAI_KEY), name="Second")

    with pytest.raises(KeyAlreadyStored, match="First"):
        connections.replace_secret(connection=second, key=OPENAI_KEY, actor=owner)
    second.refresh_from_db()
    assert second.current_version == 1
    assert connections.open_credential(current(second)).reveal() == another(OPENAI_KEY)


def test_a_placeholder_has_nothing_to_replace(add: Add, owner: User) -> None:
    placeholder = add(Provider.ELEVENLABS, "dummy")

    with pytest.raises(ConnectionRefused):
        connections.replace_secret(connection=placeholder, key=ELEVENLABS_KEY, actor=owner)
    assert not Credential.objects.exists()


@pytest.mark.parametrize("typed", ["dummy", "", "a b c d e f g h"])
def test_a_replacement_has_to_be_a_key(add: Add, owner: User, typed: str) -> None:
    connection = add(Provider.ELEVENLABS)
    with pytest.raises(EntryRefused):
        connections.replace_secret(connection=connection, key=typed, actor=owner)
    connection.refresh_from_db()
    assert connection.current_version == 1


def test_removing_destroys_every_version_and_empties_the_dormant_slot(add: Add, account: Account, owner: User) -> None:
    connection = add()
    slots.select(account=account, provider=Provider.OPENAI, connection=connection, actor=owner)
    connections.replace_secret(connection=connection, key=another(OPENAI_KEY), actor=owner)

    connections.remove(connection=connection, actor=owner)
    connections.remove(connection=connection, actor=owner)

    connection.refresh_from_db()
    assert connection.is_removed
    assert slot_of(account, Provider.OPENAI).connection is None
    assert [bytes(value) for value in connection.credentials.values_list("ciphertext", flat=True)] == [b"", b""]
    assert AuditEvent.objects.of(account).filter(action="connection.removed").count() == 1
    with pytest.raises(CredentialUnreadable):
        connections.open_credential(current(connection))
    with pytest.raises(ConnectionGone):
        connections.replace_secret(connection=connection, key=OPENAI_KEY, actor=owner)
    # Its name and its key are free again.
    assert add(name=connection.name).pk != connection.pk


def test_a_missing_kek_locks_and_a_changed_row_is_unreadable(
    add: Add, use_ring: Callable[..., None], account: Account
) -> None:
    connection = add()
    use_ring(ring_text("k2"))
    with pytest.raises(CredentialLocked):
        connections.open_credential(current(connection))

    use_ring(ring_text("k1"))
    theirs = add(to=factories.make_account(owner=factories.make_user()))
    stolen = bytes(Credential.objects.get(connection=connection).ciphertext)
    Credential.objects.filter(connection=theirs).update(ciphertext=stolen)
    with pytest.raises(CredentialUnreadable):
        connections.open_credential(current(theirs))


def test_a_refusal_to_open_says_nothing_of_the_secret(add: Add, settings: Any) -> None:
    sealed = current(add())
    settings.OPENAI_BASE_URL = "https://evil.example/v1"

    with pytest.raises(CredentialUnreadable) as refusal:
        connections.open_credential(sealed)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__
    assert OPENAI_KEY[:12] not in str(refusal.value)
