from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import IntegrityError, connection, transaction

from billing.errors import AmountOutOfRange, HoldNotOpen, IdempotencyConflict, InsufficientCredits, WalletFrozen
from billing.models import LedgerAccount, Transfer
from billing.services import ledger
from insighto.lib import ids
from tests.billing.conftest import CREDIT


def wallet(account):
    return LedgerAccount.objects.of(account).get()


def hold(account, credits, hold_id=None):
    [answer] = ledger.hold_many([ledger.Hold(hold_id or ids.new(), account.pk, credits * CREDIT)])
    return answer


def test_a_grant_is_one_transfer_and_its_repeat_is_the_same_one(make_account):
    account = make_account()
    grant = {"account": account, "amount_micros": 5 * CREDIT, "reason": "Hello", "actor": None, "idempotency_key": "g"}

    assert ledger.grant(**grant) == ledger.grant(**grant)

    assert ledger.balance(account) == 5 * CREDIT
    assert Transfer.objects.filter(owner=account).count() == 1


def test_the_same_key_for_another_grant_is_a_conflict(make_account):
    account = make_account()
    ledger.grant(account=account, amount_micros=5, reason="Hello", actor=None, idempotency_key="g")

    with pytest.raises(IdempotencyConflict):
        ledger.grant(account=account, amount_micros=6, reason="Hello", actor=None, idempotency_key="g")

    assert ledger.balance(account) == 5


@pytest.mark.parametrize("amount", [-1, 2**62 + 1, 1.5])
def test_an_impossible_grant_is_refused(account, amount):
    with pytest.raises(AmountOutOfRange):
        ledger.grant(account=account, amount_micros=amount, reason="", actor=None, idempotency_key="g")
    assert ledger.balance(account) == 100 * CREDIT


def test_grants_cannot_pile_up_beyond_what_a_wallet_can_count(account):
    with pytest.raises(AmountOutOfRange):
        ledger.grant(account=account, amount_micros=2**62, reason="", actor=None, idempotency_key="g")


def test_credits_move_between_accounts_once(account, make_account):
    other = make_account()
    move = {"source": account, "target": other, "amount_micros": 40 * CREDIT, "reason": "", "actor": None}
    ledger.move(**move, idempotency_key="m")
    ledger.move(**move, idempotency_key="m")

    assert (ledger.balance(account), ledger.balance(other)) == (60 * CREDIT, 40 * CREDIT)
    with pytest.raises(InsufficientCredits):
        ledger.move(**{**move, "amount_micros": 61 * CREDIT}, idempotency_key="n")
    assert (ledger.balance(account), ledger.balance(other)) == (60 * CREDIT, 40 * CREDIT)


def test_an_adjustment_goes_both_ways_and_never_below_zero(account):
    ledger.adjust(account=account, amount_micros=-100 * CREDIT, reason="Wrong", actor=None, idempotency_key="a")
    with pytest.raises(InsufficientCredits):
        ledger.adjust(account=account, amount_micros=-1, reason="Wrong", actor=None, idempotency_key="b")
    ledger.adjust(account=account, amount_micros=7, reason="Wrong", actor=None, idempotency_key="c")
    assert ledger.balance(account) == 7


def test_a_hold_sets_aside_and_its_settlement_takes_what_was_used(account):
    held = hold(account, 10)
    assert ledger.balance(account) == 90 * CREDIT

    resolved = ledger.settle(hold_id=held.hold_id, amount_micros=3 * CREDIT)

    assert (resolved.kind, resolved.amount_micros, resolved.is_repeat) == ("settle", 3 * CREDIT, False)
    assert ledger.balance(account) == 97 * CREDIT
    assert wallet(account).debits_pending == 0


@pytest.mark.parametrize("end", [ledger.void, ledger.expire])
def test_a_hold_given_back_takes_nothing(account, end):
    held = hold(account, 10)
    assert end(hold_id=held.hold_id).amount_micros == 0
    assert ledger.balance(account) == 100 * CREDIT


def test_the_second_resolution_of_a_hold_gets_the_first_result(account):
    held = hold(account, 10)
    ledger.settle(hold_id=held.hold_id, amount_micros=3 * CREDIT)

    for repeat in (
        ledger.void(hold_id=held.hold_id),
        ledger.expire(hold_id=held.hold_id),
        ledger.settle(hold_id=held.hold_id, amount_micros=9 * CREDIT),
    ):
        assert (repeat.kind, repeat.amount_micros, repeat.is_repeat) == ("settle", 3 * CREDIT, True)
    assert ledger.balance(account) == 97 * CREDIT


def test_a_settlement_never_takes_more_than_the_hold(account):
    held = hold(account, 10)
    assert ledger.settle(hold_id=held.hold_id, amount_micros=50 * CREDIT).amount_micros == 10 * CREDIT


def test_an_unknown_hold_cannot_be_resolved(account):
    with pytest.raises(HoldNotOpen):
        ledger.settle(hold_id=ids.new(), amount_micros=1)


def test_the_same_hold_again_is_the_first_and_another_amount_is_a_conflict(account):
    first = hold(account, 10)
    assert hold(account, 10, first.hold_id).is_repeat
    assert isinstance(hold(account, 11, first.hold_id), IdempotencyConflict)
    assert ledger.balance(account) == 90 * CREDIT


def test_a_batch_is_judged_in_turn_and_a_small_hold_may_fit_behind_a_large_one(account):
    asked = [60, 50, 30, 11, 10, 1]
    answers = ledger.hold_many([ledger.Hold(ids.new(), account.pk, credits * CREDIT) for credits in asked])

    assert [isinstance(answer, ledger.Held) for answer in answers] == [True, False, True, False, True, False]
    assert isinstance(answers[1], InsufficientCredits)
    assert ledger.balance(account) == 0


def test_accounts_in_one_batch_do_not_pay_for_each_other(account, make_account):
    poor = make_account(credits=1)
    asks = [(poor, 2), (account, 100), (poor, 1), (account, 1)]
    answers = ledger.hold_many([ledger.Hold(ids.new(), owner.pk, credits * CREDIT) for owner, credits in asks])
    assert [isinstance(answer, ledger.Held) for answer in answers] == [False, True, True, False]


def test_a_frozen_wallet_holds_nothing_but_settles_what_was_held(account):
    held = hold(account, 10)
    LedgerAccount.objects.of(account).update(frozen_at="2026-11-01T00:00:00Z")

    assert isinstance(hold(account, 1), WalletFrozen)
    assert ledger.settle(hold_id=held.hold_id, amount_micros=CREDIT).amount_micros == CREDIT


def test_the_database_itself_refuses_to_go_below_zero(account):
    with pytest.raises(IntegrityError), transaction.atomic():
        LedgerAccount.objects.of(account).update(debits_pending=101 * CREDIT)


@pytest.mark.parametrize(
    "change",
    [
        {"hold_amount_micros": 11 * CREDIT},
        {"hold_amount_micros": 9 * CREDIT},
        {"amount_micros": 11 * CREDIT},
        {"credit_id": ledger.WRITEOFF_ID},
        {"kind": "hold"},
        {"kind": "grant"},
        {"kind": "void"},
        {"hold_amount_micros": None},
    ],
)
def test_a_resolution_that_differs_from_its_hold_is_refused_by_the_database(account, change):
    held = hold(account, 10)
    own = wallet(account)
    row = {
        "kind": "settle",
        "owner": account,
        "debit_id": own.pk,
        "credit_id": ledger.REVENUE_ID,
        "amount_micros": CREDIT,
        "hold_id": held.hold_id,
        "hold_amount_micros": 10 * CREDIT,
        "idempotency_key": "x",
    }
    with pytest.raises(IntegrityError), transaction.atomic():
        Transfer.objects.create(**{**row, **change})
    Transfer.objects.create(**row)


def test_a_resolution_cannot_resolve_a_resolution(account):
    held = hold(account, 10)
    ledger.settle(hold_id=held.hold_id, amount_micros=CREDIT)
    settle = Transfer.objects.get(hold_id=held.hold_id)
    with pytest.raises(IntegrityError), transaction.atomic():
        Transfer.objects.create(
            kind="settle",
            owner=account,
            debit=settle.debit,
            credit=settle.credit,
            amount_micros=0,
            hold=settle,
            hold_amount_micros=CREDIT,
            idempotency_key="y",
        )


def test_only_as_much_as_there_is_is_taken_beyond_a_hold(account):
    held = hold(account, 95)
    ledger.settle(hold_id=held.hold_id, amount_micros=95 * CREDIT)
    beyond = {"owner_id": account.pk, "amount_micros": 8 * CREDIT, "reference": "leg", "price_id": ids.new()}

    assert ledger.charge_beyond_hold(**beyond) == 5 * CREDIT
    assert ledger.charge_beyond_hold(**beyond) == 5 * CREDIT

    assert ledger.balance(account) == 0
    assert Transfer.objects.get(owner=account, kind="writeoff").amount_micros == 3 * CREDIT


@pytest.mark.postgres
def test_many_holds_at_once_spend_exactly_what_there_is(transactional_db, make_account):
    account = make_account(credits=40)

    def one(_):
        try:
            return hold(account, 1)
        finally:
            connection.close()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(64)))

    assert sum(isinstance(answer, ledger.Held) for answer in answers) == 40
    assert sum(isinstance(answer, InsufficientCredits) for answer in answers) == 24
    assert ledger.balance(account) == 0


@pytest.mark.postgres
def test_racing_resolutions_of_one_hold_move_credits_once(transactional_db, account):
    held = hold(account, 10)
    ends = [
        lambda: ledger.settle(hold_id=held.hold_id, amount_micros=4 * CREDIT),
        lambda: ledger.void(hold_id=held.hold_id),
        lambda: ledger.expire(hold_id=held.hold_id),
    ] * 8

    def one(end):
        try:
            return end()
        finally:
            connection.close()

    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(one, ends))

    assert len({(result.kind, result.amount_micros) for result in results}) == 1
    assert sum(not result.is_repeat for result in results) == 1
    assert ledger.balance(account) == 100 * CREDIT - results[0].amount_micros
    assert wallet(account).debits_pending == 0


@pytest.mark.postgres
def test_one_idempotency_key_from_many_senders_grants_once(transactional_db, make_account):
    account = make_account()

    def one(_):
        try:
            return ledger.grant(account=account, amount_micros=CREDIT, reason="", actor=None, idempotency_key="k").pk
        finally:
            connection.close()

    with ThreadPoolExecutor(12) as pool:
        assert len(set(pool.map(one, range(24)))) == 1
    assert ledger.balance(account) == CREDIT
