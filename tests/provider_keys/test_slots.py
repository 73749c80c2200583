from collections.abc import Callable
from typing import Any

import pytest

from accounts.models import Account, AuditEvent, User
from provider_keys.errors import ConnectionBeingChecked, ConnectionGone, ConnectionNotReady
from provider_keys.models import CANNOT_BE_CHECKED, Check, Connection, Provider, Slot, Verdict
from provider_keys.services import connections, slots
from tests import factories
from tests.provider_keys.conftest import AZURE_KEY, OPENAI_KEY, another, judge, ring_text, slot_of

Add = Callable[..., Connection]
REFUSED = [
    (Verdict.INVALID, "", "invalid"),
    (Verdict.RESTRICTED, "missing_scope", "permission"),
    (Verdict.QUOTA_EXHAUSTED, "", "quota"),
    (Verdict.REGION_MISMATCH, "", "region"),
]


def test_an_account_has_one_slot_per_provider(account: Account) -> None:
    slots.create_missing(account)
    slots.create_missing(account)

    assert sorted(Slot.objects.of(account).values_list("provider", flat=True)) == sorted(Provider.values)


def test_choices_are_saved_together_and_audited(add: Add, account: Account, owner: User) -> None:
    openai, azure = add(), add(Provider.AZURE_SPEECH)

    slots.select_many(account=account, choices={Provider.OPENAI: openai, Provider.AZURE_SPEECH: azure}, actor=owner)

    assert slot_of(account, Provider.OPENAI).connection == openai
    assert slot_of(account, Provider.AZURE_SPEECH).connection == azure
    assert slot_of(account, Provider.ELEVENLABS).connection is None
    assert AuditEvent.objects.of(account).filter(action="slot.selected").count() == 2


def test_selecting_what_is_selected_changes_nothing(byok_account: Account, owner: User) -> None:
    before = slot_of(byok_account, Provider.OPENAI)
    events = AuditEvent.objects.of(byok_account).count()
    assert before.connection
    judge(before.connection, Verdict.INVALID)  # also when the key in use has died meanwhile

    slots.select(account=byok_account, provider=Provider.OPENAI, connection=before.connection, actor=owner)

    assert slot_of(byok_account, Provider.OPENAI).changed_at == before.changed_at
    assert AuditEvent.objects.of(byok_account).count() == events


@pytest.mark.parametrize(("verdict", "reason", "says"), REFUSED)
def test_a_live_slot_refuses_a_connection_that_failed_its_check(
    byok_account: Account, owner: User, add: Add, verdict: str, reason: str, says: str
) -> None:
    in_use = slot_of(byok_account, Provider.OPENAI).connection
    rejected = judge(add(key=another(OPENAI_KEY)), verdict, reason)

    with pytest.raises(ConnectionNotReady, match=says) as refusal:
        slots.select(account=byok_account, provider=Provider.OPENAI, connection=rejected, actor=owner)

    assert refusal.value.field == Provider.OPENAI
    assert not isinstance(refusal.value, ConnectionBeingChecked)
    assert slot_of(byok_account, Provider.OPENAI).connection == in_use
    assert AuditEvent.objects.of(byok_account).filter(action="slot.selected", target_id=str(rejected.pk)).count() == 0
    # It may have been mended at the provider's, and Check Status does not reach it: so it is asked about again.
    assert Check.objects.get(connection=rejected, finished_at=None).trigger == Check.Trigger.SWITCH


def test_a_dormant_slot_takes_any_connection(add: Add, account: Account, owner: User) -> None:
    connection = add(verdict=Verdict.INVALID)
    slots.select(account=account, provider=Provider.OPENAI, connection=connection, actor=owner)
    assert slot_of(account, Provider.OPENAI).connection == connection


def test_an_unchecked_key_waits_for_its_check_before_it_goes_live(byok_account: Account, owner: User, add: Add) -> None:
    in_use = slot_of(byok_account, Provider.OPENAI).connection
    new = add(key=another(OPENAI_KEY))

    with pytest.raises(ConnectionBeingChecked, match="is being checked"):
        slots.select(account=byok_account, provider=Provider.OPENAI, connection=new, actor=owner)
    assert slot_of(byok_account, Provider.OPENAI).connection == in_use
    assert Check.objects.filter(connection=new).count() == 1

    judge(new, Verdict.VALID)
    slots.select(account=byok_account, provider=Provider.OPENAI, connection=new, actor=owner)
    assert slot_of(byok_account, Provider.OPENAI).connection == new


def test_a_key_that_cannot_be_checked_for_free_may_go_live(byok_account: Account, owner: User, add: Add) -> None:
    new = judge(add(key=another(OPENAI_KEY)), Verdict.RESTRICTED, CANNOT_BE_CHECKED)
    slots.select(account=byok_account, provider=Provider.OPENAI, connection=new, actor=owner)
    assert slot_of(byok_account, Provider.OPENAI).connection == new


def test_a_locked_key_does_not_go_live(
    byok_account: Account, owner: User, add: Add, use_ring: Callable[..., None]
) -> None:
    new = add(key=another(OPENAI_KEY), verdict=Verdict.VALID)
    use_ring(ring_text("k2"))

    with pytest.raises(ConnectionNotReady, match="locked"):
        slots.select(account=byok_account, provider=Provider.OPENAI, connection=new, actor=owner)
    assert slot_of(byok_account, Provider.OPENAI).connection != new
    assert not Check.objects.filter(connection=new, finished_at=None).exists()


@pytest.mark.parametrize("provider", [Provider.OPENAI, Provider.AZURE_SPEECH])
def test_a_required_live_slot_is_never_emptied(byok_account: Account, owner: User, provider: Provider) -> None:
    before = slot_of(byok_account, provider).connection
    with pytest.raises(ConnectionNotReady):
        slots.select(account=byok_account, provider=provider, connection=None, actor=owner)
    assert slot_of(byok_account, provider).connection == before


def test_an_optional_live_slot_takes_a_placeholder_and_may_be_emptied(
    byok_account: Account, owner: User, add: Add
) -> None:
    placeholder = add(Provider.ELEVENLABS, "dummy")
    slots.select(account=byok_account, provider=Provider.ELEVENLABS, connection=placeholder, actor=owner)
    slots.select(account=byok_account, provider=Provider.ELEVENLABS, connection=None, actor=owner)
    assert slot_of(byok_account, Provider.ELEVENLABS).connection is None


def test_one_refused_choice_keeps_all_the_others_out(byok_account: Account, owner: User, add: Add) -> None:
    good = add(key=another(OPENAI_KEY), verdict=Verdict.VALID)
    bad = add(Provider.AZURE_SPEECH, another(AZURE_KEY), verdict=Verdict.INVALID)

    with pytest.raises(ConnectionNotReady) as refusal:
        slots.select_many(
            account=byok_account, choices={Provider.OPENAI: good, Provider.AZURE_SPEECH: bad}, actor=owner
        )
    assert refusal.value.field == Provider.AZURE_SPEECH
    assert slot_of(byok_account, Provider.OPENAI).connection != good


def test_foreign_removed_and_misplaced_connections_are_all_simply_gone(add: Add, account: Account, owner: User) -> None:
    foreign = add(to=factories.make_account(owner=factories.make_user()))
    misplaced = add(Provider.AZURE_SPEECH)
    removed = add()
    connections.remove(connection=removed, actor=owner)
    refusals: set[Any] = set()
    for connection in (foreign, removed, misplaced):
        with pytest.raises(ConnectionGone) as refusal:
            slots.select(account=account, provider=Provider.OPENAI, connection=connection, actor=owner)
        refusals.add(str(refusal.value))
    assert len(refusals) == 1
    assert not Slot.objects.of(account).exclude(connection=None).exists()
