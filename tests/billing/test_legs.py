import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone

from billing import pricing
from billing.errors import InsufficientCredits, LegUnknown, WalletFrozen
from billing.leg_records import Opened, Refusal
from billing.models import LedgerAccount, Leg, Price, Request, Transfer
from billing.pricing import Usage
from billing.routing import Decision
from billing.services import ledger, leg_statements, legs, prices, sweeper, verification
from insighto.lib import ids
from tests.billing.conftest import CREDIT, open_all, opening, settle_all, settlement, usual_open, usual_settle

USED = Usage(1000, 0, 0, 100)


def open_one(account, price, **fields):
    asked = opening(account, price, **fields)
    [answer] = open_all([asked])
    return asked, answer


def overdue(*leg_ids):
    Leg.objects.filter(pk__in=leg_ids).update(deadline_at=timezone.now() - timedelta(seconds=1))


def own_key(account, link):
    return Decision("own_key", account.pk, link.pk, link.name, 1, "own_key_ready")


def test_a_leg_on_credits_is_held_sent_and_charged_its_price(account, price):
    asked, answer = open_one(account, price)
    assert answer == Opened(asked.leg_id, asked.leg_id)
    assert ledger.balance(account) == 99 * CREDIT
    leg = Leg.objects.get(pk=asked.leg_id)
    assert (leg.state, leg.hold_id, leg.price_id) == ("dispatched", asked.leg_id, price.id)
    assert leg.deadline_at == leg.dispatched_at + timedelta(seconds=180)  # type: ignore[operator]

    [settled] = settle_all([settlement(asked.leg_id, upstream_request_id="req_1", upstream_status=200)])

    cost = pricing.cost_micros(price, USED)
    assert (settled.cost_micros, settled.estimate_micros) == (cost, None)
    assert ledger.balance(account) == 100 * CREDIT - cost
    leg.refresh_from_db()
    assert (leg.state, leg.cost_micros, leg.input_units, leg.output_units) == ("settled", cost, 1000, 100)
    request = Request.objects.get(pk=asked.request_id)
    assert (request.state, request.http_status) == ("finished", 200)
    assert request.finished_at is not None
    assert verification.verify() == []


def test_settling_twice_gives_the_first_result(account, price):
    asked, _ = open_one(account, price)
    [first] = settle_all([settlement(asked.leg_id)])
    again = settle_all(
        [settlement(asked.leg_id, Usage(9, 0, 0, 9)), settlement(asked.leg_id, outcome="void", request_state="failed")]
    )

    assert [(each.cost_micros, each.is_repeat) for each in again] == [(first.cost_micros, True)] * 2
    assert Request.objects.get(pk=asked.request_id).state == "finished"
    assert ledger.balance(account) == 100 * CREDIT - first.cost_micros


def test_two_settlements_of_one_leg_in_one_batch_count_once(account, price):
    asked, _ = open_one(account, price)
    first, second = settle_all([settlement(asked.leg_id), settlement(asked.leg_id, Usage(5))])
    assert (first.is_repeat, second.is_repeat) == (False, True)
    assert first.cost_micros == second.cost_micros == pricing.cost_micros(price, USED)


def test_explicit_zero_usage_costs_nothing(account, price):
    asked, _ = open_one(account, price)
    [settled] = settle_all([settlement(asked.leg_id, Usage(0, 0, 0, 0))])
    assert settled.cost_micros == 0
    assert ledger.balance(account) == 100 * CREDIT


def test_a_void_leg_costs_nothing_whatever_it_used(account, price):
    asked, _ = open_one(account, price)
    [settled] = settle_all(
        [settlement(asked.leg_id, outcome="void", request_state="failed", http_status=502, error_code="provider_down")]
    )
    assert settled.cost_micros == 0
    assert ledger.balance(account) == 100 * CREDIT
    assert Leg.objects.get(pk=asked.leg_id).state == "void"
    assert Transfer.objects.get(hold_id=asked.leg_id).kind == "void"


def test_opening_again_changes_nothing_and_says_so(account, price):
    asked, _ = open_one(account, price)
    [again] = open_all([asked])
    assert again == Opened(asked.leg_id, asked.leg_id, is_repeat=True)
    assert ledger.balance(account) == 99 * CREDIT
    assert Leg.objects.count() == Request.objects.count() == 1


def test_without_credits_the_request_is_recorded_as_refused_and_nothing_is_sent(make_account, price):
    account = make_account()
    asked, answer = open_one(account, price)

    assert isinstance(answer, InsufficientCredits)
    leg = Leg.objects.get(pk=asked.leg_id)
    assert (leg.state, leg.reason, leg.hold, leg.dispatched_at) == ("refused", "insufficient_credits", None, None)
    request = Request.objects.get(pk=asked.request_id)
    assert (request.state, request.http_status, request.error_code) == ("refused", 402, "insufficient_credits")
    assert not Transfer.objects.filter(owner=account).exists()

    ledger.grant(account=account, amount_micros=CREDIT, reason="", actor=None, idempotency_key="late")
    [again] = open_all([asked])
    assert isinstance(again, InsufficientCredits)
    assert ledger.balance(account) == CREDIT


def test_a_frozen_wallet_refuses_platform_legs(account, price):
    LedgerAccount.objects.of(account).update(frozen_at=timezone.now())
    asked, answer = open_one(account, price)
    assert isinstance(answer, WalletFrozen)
    assert Leg.objects.get(pk=asked.leg_id).state == "refused"


def test_a_leg_on_an_own_key_holds_nothing_and_works_at_zero_balance(make_account, connect, price):
    account = make_account()
    link = connect(account)
    asked, answer = open_one(account, price, decision=own_key(account, link))
    assert answer == Opened(asked.leg_id, None)

    [settled] = settle_all([settlement(asked.leg_id)])

    assert (settled.cost_micros, settled.estimate_micros) == (0, pricing.cost_micros(price, USED))
    assert not Transfer.objects.filter(owner=account).exists()
    assert verification.verify() == []


def test_an_own_key_leg_of_a_model_without_a_price_has_no_estimate(make_account, connect):
    account = make_account()
    asked, _ = open_one(account, None, decision=own_key(account, connect(account)))
    [settled] = settle_all([settlement(asked.leg_id)])
    assert (settled.cost_micros, settled.estimate_micros) == (0, None)


def test_the_database_refuses_to_charge_an_own_key_leg(account, connect, price):
    asked, _ = open_one(account, price, decision=own_key(account, connect(account)))
    with pytest.raises(IntegrityError, match="billing_leg_own_key_costs_nothing"), transaction.atomic():
        Leg.objects.filter(pk=asked.leg_id).update(cost_micros=1)


def test_the_database_refuses_a_sent_leg_that_nobody_funds(account, price):
    asked, _ = open_one(account, price)
    with pytest.raises(IntegrityError, match="billing_leg_sent_is_funded"), transaction.atomic():
        Leg.objects.filter(pk=asked.leg_id).update(hold=None)


def test_refusals_are_recorded_with_their_code(account):
    refused = Decision("", None, None, "", None, "byok_key_missing", "byok_key_missing")
    asked = opening(account, None, decision=refused)
    legs.refuse_many([Refusal(opening=asked, code="byok_key_missing", http_status=424)] * 2)
    leg = Leg.objects.get(pk=asked.leg_id)
    assert (leg.state, leg.funding_source, leg.payer, leg.reason) == ("refused", "", None, "byok_key_missing")
    assert Request.objects.get(pk=asked.request_id).http_status == 424


def test_a_price_that_changes_in_mid_request_does_not_change_the_charge(account, price):
    asked, _ = open_one(account, price)
    Price.objects.create(
        provider="openai",
        model="gpt-4o-mini",
        unit="tokens",
        input_micros=price.input_micros * 100,
        output_micros=price.output_micros * 100,
        valid_from=timezone.now() - timedelta(seconds=1),
        source="test",
        source_date=timezone.now().date(),
    )
    prices.forget()
    assert prices.in_force("openai", "gpt-4o-mini") != price

    [settled] = settle_all([settlement(asked.leg_id)])
    assert settled.cost_micros == pricing.cost_micros(price, USED)


def test_above_the_hold_the_rest_is_taken_from_the_balance(account, price):
    asked, _ = open_one(account, price, hold_micros=1)
    [settled] = settle_all([settlement(asked.leg_id)])
    assert settled.cost_micros == pricing.cost_micros(price, USED)
    assert ledger.balance(account) == 100 * CREDIT - settled.cost_micros
    assert verification.verify() == []


def test_above_the_hold_and_beyond_the_balance_the_rest_is_written_off(make_account, price):
    account = make_account(credits=1)
    asked, _ = open_one(account, price)
    [settled] = settle_all([settlement(asked.leg_id, Usage(1_000_000))])
    assert settled.cost_micros == CREDIT
    assert ledger.balance(account) == 0
    assert Transfer.objects.get(owner=account, kind="writeoff").amount_micros == 14 * CREDIT
    assert verification.verify() == []


def test_usage_that_cannot_be_true_is_charged_as_the_checkpoint_and_flagged(account, price):
    asked, _ = open_one(account, price)
    legs.checkpoint_many([(asked.leg_id, USED)])
    [settled] = settle_all([settlement(asked.leg_id, Usage(-5))])
    assert settled.cost_micros == pricing.cost_micros(price, USED)
    assert Leg.objects.get(pk=asked.leg_id).is_flagged


def test_checkpoints_never_go_back_and_keep_a_living_leg_from_the_sweeper(account, price):
    asked, _ = open_one(account, price)
    overdue(asked.leg_id)
    legs.checkpoint_many([(asked.leg_id, Usage(10, 0, 0, 50)), (ids.new(), Usage(1))])
    legs.checkpoint_many([(asked.leg_id, Usage(10, 0, 0, 40))])
    leg = Leg.objects.get(pk=asked.leg_id)
    assert (leg.output_units, leg.usage_source) == (50, "checkpoint")
    assert sweeper.sweep() == 0


def test_an_unknown_leg_cannot_be_settled(db):
    [answer] = settle_all([settlement(ids.new())])
    assert isinstance(answer, LegUnknown)


def test_a_batch_of_many_is_answered_in_order(make_account, price):
    account = make_account(credits=5)
    asked = [opening(account, price) for _ in range(8)]
    answers = open_all(asked)
    assert [isinstance(answer, Opened) for answer in answers] == [True] * 5 + [False] * 3
    assert [answer.leg_id for answer in answers[:5]] == [each.leg_id for each in asked[:5]]
    settled = settle_all([settlement(each.leg_id, Usage(index)) for index, each in enumerate(asked[:5])])
    assert [each.cost_micros for each in settled] == [15 * index for index in range(5)]
    assert verification.verify() == []


# --- The sweeper ------------------------------------------------------------------------------------------------


def test_the_sweeper_charges_what_the_checkpoint_shows_and_flags_it(account, price):
    asked, _ = open_one(account, price)
    legs.checkpoint_many([(asked.leg_id, USED)])
    overdue(asked.leg_id)

    assert sweeper.sweep() == 1

    cost = pricing.cost_micros(price, USED)
    leg = Leg.objects.get(pk=asked.leg_id)
    assert (leg.state, leg.cost_micros, leg.is_flagged, leg.usage_source) == ("expired", cost, True, "checkpoint")
    assert Request.objects.get(pk=asked.request_id).state == "crashed"
    assert ledger.balance(account) == 100 * CREDIT - cost
    assert verification.verify() == []


def test_a_crash_that_showed_no_work_costs_nothing(account, price):
    asked, _ = open_one(account, price)
    overdue(asked.leg_id)
    assert sweeper.sweep() == 1
    assert ledger.balance(account) == 100 * CREDIT
    assert Transfer.objects.get(hold_id=asked.leg_id).kind == "expire"
    assert sweeper.sweep() == 0


def test_the_sweeper_never_takes_more_than_the_hold(account, price):
    asked, _ = open_one(account, price, hold_micros=10)
    legs.checkpoint_many([(asked.leg_id, USED)])
    overdue(asked.leg_id)
    sweeper.sweep()
    assert ledger.balance(account) == 100 * CREDIT - 10
    assert verification.verify() == []


def test_a_settlement_that_comes_after_the_sweeper_changes_nothing(account, price):
    asked, _ = open_one(account, price)
    overdue(asked.leg_id)
    sweeper.sweep()
    [late] = settle_all([settlement(asked.leg_id)])
    assert (late.cost_micros, late.is_repeat) == (0, True)
    assert ledger.balance(account) == 100 * CREDIT


def test_own_key_legs_are_swept_without_a_charge(make_account, connect, price):
    account = make_account()
    asked, _ = open_one(account, price, decision=own_key(account, connect(account)))
    overdue(asked.leg_id)
    assert sweeper.sweep() == 1
    assert Leg.objects.get(pk=asked.leg_id).cost_micros == 0


def test_more_than_one_batch_is_swept_and_stranded_requests_are_closed(account, price):
    asked = [opening(account, price, hold_micros=1) for _ in range(5)]
    legs.open_many(asked)
    overdue(*(each.leg_id for each in asked))
    stranded = Request.objects.create(
        account=account, endpoint="/v1/chat/completions", created_at=timezone.now() - timedelta(hours=1)
    )
    assert sweeper.sweep(batch=2) == 6
    stranded.refresh_from_db()
    assert stranded.state == "crashed"


# --- Crashes and races --------------------------------------------------------------------------------------------


class Crash(Exception):
    """The process dies here."""


OPENING_STEPS = [(ledger, "hold_many"), (leg_statements, "insert")]
SETTLING_STEPS = [(leg_statements, "lock"), (ledger, "resolve_many"), (leg_statements, "close")]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("module", "name"), OPENING_STEPS + SETTLING_STEPS)
def test_a_crash_at_any_step_leaves_all_or_nothing(account, price, monkeypatch, module, name, moment):
    asked = opening(account, price)
    if (module, name) in SETTLING_STEPS:
        legs.open_many([asked])
    before = (ledger.balance(account), Transfer.objects.count(), Leg.objects.values_list("state").first())
    step = getattr(module, name)

    def crash(*arguments, **keywords):
        if moment == "after":
            step(*arguments, **keywords)
        raise Crash

    monkeypatch.setattr(module, name, crash)
    with pytest.raises(Crash):
        legs.open_many([asked]) if (module, name) in OPENING_STEPS else settle_all([settlement(asked.leg_id)])
    monkeypatch.undo()

    assert before == (ledger.balance(account), Transfer.objects.count(), Leg.objects.values_list("state").first())
    assert verification.verify() == []
    legs.open_many([asked])
    [settled] = settle_all([settlement(asked.leg_id)])
    assert ledger.balance(account) == 100 * CREDIT - settled.cost_micros


def closing_connection(function):
    def run(argument):
        try:
            return function(argument)
        finally:
            connection.close()

    return run


@pytest.mark.postgres
def test_of_64_at_once_exactly_the_40_that_were_paid_for_are_sent(transactional_db, make_account, price):
    account = make_account(credits=40)
    batches = [[opening(account, price) for _ in range(4)] for _ in range(16)]

    with ThreadPoolExecutor(16) as pool:
        answers = [answer for batch in pool.map(closing_connection(legs.open_many), batches) for answer in batch]

    sent = [answer for answer in answers if isinstance(answer, Opened)]
    assert len(sent) == 40
    assert sum(isinstance(answer, InsufficientCredits) for answer in answers) == 24
    assert ledger.balance(account) == 0
    assert verification.verify() == []


@pytest.mark.postgres
def test_the_same_leg_from_many_senders_is_held_once(transactional_db, account, price):
    asked = opening(account, price)

    def send(_):
        try:
            return open_all([asked])[0]
        except DatabaseError:
            return open_all([asked])[0]  # as the batcher does: once more, alone

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(closing_connection(send), range(24)))

    assert sum(not answer.is_repeat for answer in answers) == 1
    assert ledger.balance(account) == 99 * CREDIT


@pytest.mark.postgres
def test_torture_holds_settlements_voids_and_sweepers_at_once(transactional_db, make_account, price):
    accounts = [make_account(credits=20) for _ in range(3)]
    dice = random.Random(20261123)
    open_ids: list[UUID] = []

    def live(number):
        asked = [opening(dice.choice(accounts), price, hold_micros=dice.randint(1, 2 * CREDIT)) for _ in range(5)]
        answers = usual_open(asked) if number % 2 else open_all(asked)
        sent = [answer.leg_id for answer in answers if isinstance(answer, Opened)]
        dice.shuffle(sent)
        abandoned, kept = sent[:2], sent[2:]
        if abandoned:
            legs.checkpoint_many([(leg_id, Usage(100)) for leg_id in abandoned])
            overdue(*sorted(abandoned))
        open_ids.extend(sent)
        ends = [settlement(leg_id, Usage(dice.randint(0, 200_000)), price=price) for leg_id in kept + abandoned[:1]]
        usual_settle(ends) if number % 3 else legs.settle_many(ends)
        legs.settle_many([settlement(each.leg_id, outcome="void") for each in ends])
        return len(sent)

    def work(number):
        return sweeper.sweep(batch=3) if number % 4 == 0 else live(number)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(closing_connection(work), range(160)))
    overdue(*open_ids)
    sweeper.sweep()

    assert not Leg.objects.filter(state="dispatched").exists()
    assert verification.verify() == []
    for wallet in LedgerAccount.objects.filter(kind="wallet"):
        assert wallet.balance_micros >= 0
        assert wallet.debits_pending == 0
    held = Transfer.objects.filter(kind="hold").count()
    assert Transfer.objects.filter(hold__isnull=False).count() == held == len(open_ids)


@pytest.mark.postgres
def test_many_sweepers_end_each_leg_once(transactional_db, account, price):
    asked = [opening(account, price, hold_micros=CREDIT) for _ in range(60)]
    legs.open_many(asked)
    legs.checkpoint_many([(each.leg_id, USED) for each in asked])
    overdue(*(each.leg_id for each in asked))

    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(closing_connection(lambda _: sweeper.sweep(batch=7)), range(8)))

    assert sum(ended) == 60
    assert ledger.balance(account) == 100 * CREDIT - 60 * pricing.cost_micros(price, USED)
    assert verification.verify() == []
