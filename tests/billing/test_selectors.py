import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.services import api_keys
from billing import routing, selectors
from billing.leg_records import Refusal
from billing.services import legs
from insighto.lib import ids, postgres
from provider_keys.models import Credential
from tests import factories
from tests.billing.conftest import CREDIT, opening, settle_all, settlement


@pytest.fixture
def count_statements(monkeypatch):
    """How many statements ran, whichever way they took."""
    counted: list[str] = []

    def counting(real):
        def run(statement, *values):
            counted.append(statement)
            return real(statement, *values)

        return run

    monkeypatch.setattr(postgres, "rows", counting(postgres.rows))
    monkeypatch.setattr(postgres, "document", counting(postgres.document))

    def count(function):
        counted.clear()
        with CaptureQueriesContext(connection) as through_django:
            function()
        return len(counted) + len(through_django)

    return count


@pytest.mark.django_db
def test_the_api_keys_of_a_whole_batch_take_one_query(count_statements):
    account = factories.make_account()
    owner = factories.owner_of(account)
    tokens = [api_keys.issue(account=account, name=f"Key {n}", actor=owner)[1].reveal() for n in range(5)]
    asks = [selectors.Asking(digest=digest) for digest in [*map(api_keys.digest, tokens), b"x" * 32]]

    assert count_statements(lambda: selectors.known(asks)) == 1
    assert [each is None for each in selectors.known(asks)] == [False] * 5 + [True]


def test_the_facts_of_a_whole_batch_take_one_query(make_account, connect, platform_key, count_statements):
    accounts = [make_account(credits=number) for number in range(5)]
    connect(accounts[0])
    asks = [(account.pk, provider) for account in accounts for provider in ("openai", "elevenlabs")]

    assert count_statements(lambda: selectors.standings(asks)) == 1
    facts = selectors.standings(asks)

    assert [(each.standing.account_id, each.standing.provider) for each in facts] == asks
    assert [each.balance_micros for each in facts[::2]] == [number * CREDIT for number in range(5)]
    assert facts[0].own is not None
    assert facts[0].own.ciphertext == b"sealed"
    assert facts[0].own.account_id == accounts[0].pk
    assert facts[0].standing.slot_secret_version == 1
    assert facts[1].own is None
    assert (facts[0].platform is not None, facts[1].platform is None) == (True, True)


def test_each_decision_gets_its_own_credential_and_no_other(account, connect, platform_key):
    connect(account)
    facts = selectors.standing(account, "openai")
    assert facts.credential(routing.decide(facts.standing)) == facts.platform

    account.byok_enabled = True
    account.save()
    facts = selectors.standing(account, "openai")
    assert facts.credential(routing.decide(facts.standing)) == facts.own

    Credential.objects.update(destroyed_at=timezone.now(), ciphertext=b"")
    facts = selectors.standing(account, "openai")
    decision = routing.decide(facts.standing)
    assert (decision.refusal, facts.credential(decision)) == ("byok_key_missing", None)


def test_a_removed_connection_counts_as_no_key(account, connect, platform_key):
    link = connect(account)
    account.byok_enabled = True
    account.save()
    link.removed_at = timezone.now()
    link.save()
    assert routing.decide(selectors.standing(account, "openai").standing).refusal == "byok_key_missing"


def test_a_slot_that_names_a_foreign_connection_uses_nothing_of_it(account, make_account, connect, platform_key):
    foreign = connect(make_account())
    connect(account)
    account.slots.update(connection=foreign)
    account.byok_enabled = True
    account.save()
    facts = selectors.standing(account, "openai")
    assert facts.own is None
    assert routing.decide(facts.standing).refusal == "byok_key_missing"


def test_an_unknown_account_and_one_under_a_suspended_parent_are_refused(make_account, platform_key):
    parent = make_account(status="suspended")
    child = make_account(parent=parent)
    for account_id in (ids.new(), parent.pk, child.pk):
        [facts] = selectors.standings([(account_id, "openai")])
        assert routing.decide(facts.standing).refusal == "account_suspended"


def test_a_plan_or_parent_that_forbids_byok_is_a_refusal_and_not_a_charge(make_account, connect, platform_key):
    parent = make_account(byok_allowed=False)
    child = make_account(credits=5, parent=parent, byok_enabled=True)
    connect(child)
    assert routing.decide(selectors.standing(child, "openai").standing).refusal == "byok_not_allowed"


@pytest.mark.parametrize("verdict", ["valid", "invalid", "quota_exhausted", "restricted"])
@pytest.mark.parametrize("enabled", [True, False])
def test_explain_says_what_the_router_does(account, connect, platform_key, verdict, enabled):
    connect(account, verdict=verdict)
    account.byok_enabled = enabled
    account.save()
    explained = selectors.explain(account=account, provider="openai", model="gpt-4o-mini")
    assert explained.decision == routing.decide(selectors.standing(account, "openai").standing)
    assert explained.why == routing.REASONS[explained.decision.reason]
    assert explained.remedy


def test_explain_says_when_credits_cannot_pay(make_account, platform_key):
    account = make_account()
    assert selectors.explain(account=account, provider="openai").decision.refusal == "insufficient_credits"
    rich = make_account(credits=1)
    unpriced = selectors.explain(account=rich, provider="openai", model="no-such-model")
    assert unpriced.decision.refusal == "price_unknown"
    assert unpriced.as_dict()["refusal"] == "price_unknown"


def test_a_receipt_says_who_paid_what_and_why_and_is_nobody_elses(account, make_account, price):
    asked = opening(account, price)
    legs.open_many([asked])
    [settled] = settle_all([settlement(asked.leg_id)])

    found = selectors.receipt(asked.request_id, account)
    assert found is not None
    receipt = found.as_dict()

    assert receipt["cost_micros"] == settled.cost_micros
    [leg] = receipt["legs"]
    assert (leg["funding_source"], leg["payer"], leg["reason"]) == ("platform_credits", str(account), "byok_off")
    assert leg["price"]["source"] == "OpenAI list price"
    assert selectors.receipt(asked.request_id, make_account()) is None
    assert selectors.receipt(ids.new(), account) is None


def test_the_receipt_of_a_refusal_names_its_code(account):
    refused = routing.Decision("", None, None, "", None, "byok_key_missing", "byok_key_missing")
    asked = opening(account, None, decision=refused)
    legs.refuse_many([Refusal(opening=asked, code="byok_key_missing", http_status=424)])
    found = selectors.receipt(asked.request_id, account)
    assert found is not None
    receipt = found.as_dict()
    assert (receipt["state"], receipt["error_code"], receipt["cost_micros"]) == ("refused", "byok_key_missing", 0)
