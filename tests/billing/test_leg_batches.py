"""The statements of the usual case, alone: what they do is what `legs` does, and what they leave is untouched."""

import pytest

from billing import pricing
from billing.leg_records import Opened, Settled
from billing.models import LedgerAccount, Leg, Request, Transfer
from billing.pricing import Usage
from billing.routing import Decision
from billing.services import ledger, leg_batches, legs, verification
from insighto.lib import postgres
from insighto.lib.lane import LEFT
from tests.billing.conftest import CREDIT, opening, settlement

pytestmark = pytest.mark.postgres

SAME = ("state", "funding_source", "cost_micros", "estimate_micros", "input_units", "output_units", "reason")


def open_usual(openings):
    return leg_batches.open_read(postgres.document(leg_batches.OPEN, leg_batches.open_ask(openings)), openings)


def settle_usual(settlements):
    document = postgres.document(leg_batches.SETTLE, leg_batches.settle_ask(settlements))
    return leg_batches.settle_read(document, settlements)


@pytest.fixture
def own_key(account, connect):
    link = connect(account)
    return Decision("own_key", account.pk, link.pk, link.name, 1, "own_key_ready")


@pytest.mark.parametrize("outcome", ["settled", "void"])
@pytest.mark.parametrize("funding", ["credits", "own key"])
def test_the_usual_case_writes_what_the_long_way_writes(account, price, own_key, funding, outcome):
    fields = {"decision": own_key, "hold_micros": 0} if funding == "own key" else {}
    long, usual = opening(account, price, **fields), opening(account, price, **fields)
    usage = Usage(1000, 200, 0, 100)

    [opened] = open_usual([usual])
    assert [opened] == [Opened(usual.leg_id, usual.leg_id if funding == "credits" else None)]
    legs.open_many([long])
    assert ledger.balance(account) == (98 if funding == "credits" else 100) * CREDIT
    [settled] = settle_usual([settlement(usual.leg_id, usage, outcome=outcome, price=price, error_code="x")])
    [first] = legs.settle_many([settlement(long.leg_id, usage, outcome=outcome, error_code="x")])

    assert settled == first
    assert Leg.objects.filter(pk__in=[long.leg_id, usual.leg_id]).values(*SAME).distinct().count() == 1
    told = Request.objects.filter(pk__in=[long.request_id, usual.request_id])
    assert told.values("state", "http_status", "error_code", "endpoint").distinct().count() == 1
    moved = Transfer.objects.filter(reference__in=[str(long.leg_id), str(usual.leg_id)])
    kept = ("kind", "owner", "debit", "credit", "amount_micros", "hold_amount_micros", "price_id", "reason")
    assert moved.values(*kept).distinct().count() * 2 == moved.count()
    assert verification.verify() == []


def test_what_a_wallet_cannot_pay_together_is_left_whole(account, price):
    big = [opening(account, price, hold_micros=60 * CREDIT) for _ in range(2)]
    assert open_usual(big) == [LEFT, LEFT]
    assert not Leg.objects.exists()
    assert not Request.objects.exists()
    assert ledger.balance(account) == 100 * CREDIT


def test_a_frozen_wallet_and_one_that_is_missing_are_left(make_account, account, price):
    LedgerAccount.objects.filter(owner=account).update(frozen_at="2026-01-01T00:00:00Z")
    assert open_usual([opening(account, price), opening(make_account(), price)]) == [LEFT, LEFT]
    assert not Transfer.objects.filter(kind="hold").exists()


def test_a_poor_account_does_not_hold_up_its_neighbours(make_account, account, price):
    poor = opening(make_account(), price)
    [left, opened] = open_usual([poor, opening(account, price)])
    assert left is LEFT
    assert isinstance(opened, Opened)


def test_repeats_are_left_and_change_nothing(account, price):
    asked = opening(account, price)
    ended = settlement(asked.leg_id, price=price)
    open_usual([asked])
    assert open_usual([asked]) == [LEFT]
    assert isinstance(settle_usual([ended])[0], Settled)
    assert settle_usual([ended]) == [LEFT]
    assert ledger.balance(account) == 100 * CREDIT - pricing.cost_micros(price, ended.usage)
    assert verification.verify() == []


@pytest.mark.parametrize("unusual", ["another price", "no price", "above the hold", "not sane"])
def test_what_needs_a_look_at_the_leg_is_left_open(account, price, unusual):
    asked = opening(account, price, hold_micros=10 if unusual == "above the hold" else CREDIT)
    open_usual([asked])
    pinned = {"another price": pricing.PriceRow(asked.leg_id, "openai", "x", "tokens", 1), "no price": None}
    usage = Usage(-1) if unusual == "not sane" else Usage(1000, 0, 0, 100)
    assert settle_usual([settlement(asked.leg_id, usage, price=pinned.get(unusual, price))]) == [LEFT]
    assert Leg.objects.get(pk=asked.leg_id).state == "dispatched"
    assert verification.verify() == []
