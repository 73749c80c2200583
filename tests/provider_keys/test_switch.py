from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import Account, AuditEvent, User
from provider_keys import selectors
from provider_keys.errors import SwitchRefused
from provider_keys.models import CANNOT_BE_CHECKED, Check, Connection, Credential, Provider, Verdict
from provider_keys.services import slots, switch
from tests import factories
from tests.provider_keys.conftest import judge, ring_text, slot_of

Add = Callable[..., Connection]


@pytest.fixture
def ready_account(account: Account, owner: User, add: Add) -> Account:
    """Everything is in order; the switch is still off."""
    for provider in (Provider.OPENAI, Provider.AZURE_SPEECH):
        slots.select(account=account, provider=provider, connection=add(provider, verdict=Verdict.VALID), actor=owner)
    return account


def openai_of(account: Account) -> Connection:
    connection = slot_of(account, Provider.OPENAI).connection
    assert connection
    return connection


def stays_off(account: Account, actor: User) -> list[tuple[str, str | None]]:
    """Try to turn on; prove that nothing happened; say what was in the way."""
    expected = switch.obstacles(account)
    with pytest.raises(SwitchRefused) as refusal:
        switch.turn_on(account=account, actor=actor)
    account.refresh_from_db()
    assert not account.byok_enabled
    assert account.byok_changed_at is None
    assert not AuditEvent.objects.of(account).filter(action="byok.turned_on").exists()
    assert list(refusal.value.obstacles) == expected
    assert all(obstacle.message in str(refusal.value) for obstacle in expected)
    return [(obstacle.code, obstacle.provider) for obstacle in expected]


def test_it_turns_on_and_off_and_says_who_did(ready_account: Account, owner: User) -> None:
    assert switch.obstacles(ready_account) == []

    assert switch.turn_on(account=ready_account, actor=owner).byok_enabled
    switch.turn_on(account=ready_account, actor=owner)
    assert not switch.turn_off(account=ready_account, actor=owner).byok_enabled
    switch.turn_off(account=ready_account, actor=owner)

    ready_account.refresh_from_db()
    assert not ready_account.byok_enabled
    assert ready_account.byok_changed_at
    events = AuditEvent.objects.of(ready_account).filter(action__startswith="byok.").order_by("id")
    assert [(event.action, event.actor) for event in events] == [("byok.turned_on", owner), ("byok.turned_off", owner)]


def test_an_empty_account_is_told_of_both_required_keys(account: Account, owner: User) -> None:
    assert stays_off(account, owner) == [("slot_empty", Provider.OPENAI), ("slot_empty", Provider.AZURE_SPEECH)]
    messages = [obstacle.message for obstacle in switch.obstacles(account)]
    assert messages[0].startswith("OpenAI has no key selected.")
    assert messages[1].startswith("Azure has no key selected.")


def test_a_key_that_is_saved_and_not_submitted_does_not_count(account: Account, owner: User, add: Add) -> None:
    add(verdict=Verdict.VALID)
    assert ("slot_empty", Provider.OPENAI) in stays_off(account, owner)


@pytest.mark.parametrize(
    ("verdict", "reason", "code"),
    [
        (Verdict.UNTESTED, "", "untested"),
        (Verdict.INVALID, "", "invalid"),
        (Verdict.RESTRICTED, "missing_scope", "restricted"),
        (Verdict.QUOTA_EXHAUSTED, "", "quota_exhausted"),
        (Verdict.REGION_MISMATCH, "", "region_mismatch"),
    ],
)
def test_a_verdict_that_is_not_good_keeps_it_off_and_is_looked_at_again(
    ready_account: Account, owner: User, verdict: str, reason: str, code: str
) -> None:
    connection = judge(openai_of(ready_account), verdict, reason)

    assert stays_off(ready_account, owner) == [(code, Provider.OPENAI)]
    assert Check.objects.get(connection=connection, finished_at=None).trigger == Check.Trigger.SWITCH


def test_a_verdict_older_than_a_day_is_renewed_on_the_spot(ready_account: Account, owner: User) -> None:
    connection = judge(openai_of(ready_account), Verdict.VALID, at=timezone.now() - timedelta(hours=24, minutes=1))

    assert stays_off(ready_account, owner) == [("stale", Provider.OPENAI)]
    assert Check.objects.get(finished_at=None).connection == connection
    assert "is being checked again" in switch.obstacles(ready_account)[0].message
    stays_off(ready_account, owner)
    assert Check.objects.filter(finished_at=None).count() == 1

    judge(connection, Verdict.VALID)
    assert switch.turn_on(account=ready_account, actor=owner).byok_enabled


def test_a_verdict_of_yesterday_but_within_the_day_is_good(ready_account: Account, owner: User) -> None:
    judge(openai_of(ready_account), Verdict.VALID, at=timezone.now() - timedelta(hours=23, minutes=59))
    assert switch.turn_on(account=ready_account, actor=owner).byok_enabled


def test_a_rejection_that_waits_for_its_second_look_keeps_it_off(ready_account: Account, owner: User) -> None:
    Connection.objects.filter(pk=openai_of(ready_account).pk).update(
        rejected_at=timezone.now(), rejected_verdict=Verdict.INVALID
    )
    assert stays_off(ready_account, owner) == [("rejected_once", Provider.OPENAI)]


def test_a_failed_attempt_says_nothing_about_a_good_key(ready_account: Account, owner: User) -> None:
    Connection.objects.filter(pk=openai_of(ready_account).pk).update(attempt="unreachable", attempt_at=timezone.now())
    assert switch.turn_on(account=ready_account, actor=owner).byok_enabled


def test_a_key_that_cannot_be_checked_for_free_is_enough(ready_account: Account, owner: User) -> None:
    judge(openai_of(ready_account), Verdict.RESTRICTED, CANNOT_BE_CHECKED)
    assert switch.turn_on(account=ready_account, actor=owner).byok_enabled


@pytest.mark.parametrize("verdict", [Verdict.INVALID, Verdict.UNTESTED])
def test_an_optional_key_is_no_obstacle(ready_account: Account, owner: User, add: Add, verdict: str) -> None:
    connection = judge(add(Provider.ELEVENLABS), verdict)
    slots.select(account=ready_account, provider=Provider.ELEVENLABS, connection=connection, actor=owner)
    assert switch.turn_on(account=ready_account, actor=owner).byok_enabled


def test_a_locked_key_and_one_for_another_address_keep_it_off(
    ready_account: Account, owner: User, use_ring: Callable[..., None]
) -> None:
    Credential.objects.filter(connection=openai_of(ready_account)).update(destination="elsewhere.example")
    assert stays_off(ready_account, owner) == [("elsewhere", Provider.OPENAI)]

    use_ring(ring_text("k2"))
    assert stays_off(ready_account, owner) == [("locked", Provider.OPENAI), ("locked", Provider.AZURE_SPEECH)]
    assert not Check.objects.filter(finished_at=None).exists()


def test_the_plan_has_to_allow_it_and_the_account_to_be_active(ready_account: Account, owner: User) -> None:
    Account.objects.filter(pk=ready_account.pk).update(byok_allowed=False, status=Account.Status.SUSPENDED)
    ready_account.refresh_from_db()

    assert stays_off(ready_account, owner) == [("byok_not_allowed", None), ("account_suspended", None)]


def test_what_the_caller_read_earlier_does_not_count(ready_account: Account, owner: User) -> None:
    """The account object in hand is as old as the page; the row decides."""
    stale = Account.objects.get(pk=ready_account.pk)
    Account.objects.filter(pk=ready_account.pk).update(byok_allowed=False)

    with pytest.raises(SwitchRefused):
        switch.turn_on(account=stale, actor=owner)
    ready_account.refresh_from_db()
    assert not ready_account.byok_enabled


def test_turning_off_works_with_every_key_dead(byok_account: Account, owner: User) -> None:
    Connection.objects.of(byok_account).update(verdict=Verdict.INVALID)
    assert not switch.turn_off(account=byok_account, actor=owner).byok_enabled


def test_a_key_that_dies_later_never_turns_it_off(byok_account: Account) -> None:
    Connection.objects.of(byok_account).update(verdict=Verdict.INVALID)
    page = selectors.settings_page(Account.objects.get(pk=byok_account.pk))
    assert page.byok_enabled
    assert [obstacle.code for obstacle in page.obstacles] == ["invalid", "invalid"]


def test_the_page_tells_everything_in_a_constant_number_of_queries(
    account: Account, owner: User, add: Add, django_assert_num_queries: Callable[..., object]
) -> None:
    for number in range(12):
        add(key=f"sk-proj-abcdefgh{number:04}", verdict=Verdict.VALID)
        add(Provider.ELEVENLABS, f"sk_abcdefgh{number:04}")
    placeholder = add(Provider.ELEVENLABS, "dummy")
    slots.select(account=account, provider=Provider.ELEVENLABS, connection=placeholder, actor=owner)

    fresh = Account.objects.select_related("plan", "parent").get(pk=account.pk)
    with django_assert_num_queries(3):  # type: ignore[attr-defined]
        page = selectors.settings_page(fresh)

    assert [card.provider for card in page.providers] == Provider.values
    assert [card.required for card in page.providers] == [True, True, False]
    card = page.card(Provider.ELEVENLABS)
    assert len(card.connections) == 13
    assert card.selected
    assert card.selected.status.state == "not_used"
    assert sum(item.status.is_checking for item in card.connections) == 12
    assert not page.is_checking  # none of the selected ones


def test_the_page_shows_a_corrupt_row_without_opening_it(account: Account, add: Add) -> None:
    connection = add(verdict=Verdict.VALID)
    Credential.objects.filter(connection=connection).update(ciphertext=b"junk")

    (facts,) = selectors.settings_page(account).card(Provider.OPENAI).connections
    assert (facts.status.state, facts.last_four) == ("valid", "wxyz")


def test_the_page_of_one_account_knows_nothing_of_another(account: Account, add: Add) -> None:
    add(to=factories.make_account(owner=factories.make_user()), name="Theirs")
    assert all(card.connections == () for card in selectors.settings_page(account).providers)
