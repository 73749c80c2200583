from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F
from django.utils import timezone

from billing.errors import WalletFrozen
from billing.leg_records import Opened
from billing.models import LedgerAccount, Leg, Request
from billing.services import ledger, legs, sweeper, verification
from insighto.lib import ids
from tests.billing.conftest import CREDIT, opening, settlement


def drift_wallet_sum(account, asked):
    LedgerAccount.objects.of(account).update(credits_posted=F("credits_posted") + 1)


def drift_held(account, asked):
    LedgerAccount.objects.of(account).update(debits_pending=F("debits_pending") + 1)


def drift_leg_cost(account, asked):
    Leg.objects.filter(pk=asked[0].leg_id).update(cost_micros=F("cost_micros") + 1)


def drift_leg_closed_without_settlement(account, asked):
    Leg.objects.filter(pk=asked[1].leg_id).update(state="settled")


def drift_leg_lost(account, asked):
    Leg.objects.filter(pk=asked[1].leg_id).delete()


def drift_leg_reopened(account, asked):
    Leg.objects.filter(pk=asked[0].leg_id).update(state="dispatched")


def drift_hold_past_deadline(account, asked):
    Leg.objects.filter(pk=asked[1].leg_id).update(deadline_at=timezone.now() - timedelta(hours=1))


def drift_request_ended(account, asked):
    Request.objects.filter(pk=asked[1].request_id).update(
        state="finished", finished_at=timezone.now() - timedelta(hours=1)
    )


DRIFTS = {
    drift_wallet_sum: "wallet_sum",
    drift_held: "wallet_sum",
    drift_leg_cost: "leg_cost",
    drift_leg_closed_without_settlement: "leg_without_settlement",
    drift_leg_lost: "hold_without_leg",
    drift_leg_reopened: "settled_while_open",
    drift_hold_past_deadline: "hold_past_deadline",
    drift_request_ended: "request_ended_leg_open",
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_seeded_drift_of_each_kind_is_found_and_stops_only_that_account(make_account, price, drift):
    wrong, right = make_account(credits=10), make_account(credits=10)
    asked = {}
    for account in (wrong, right):
        asked[account] = [opening(account, price), opening(account, price)]
        legs.open_many(asked[account])
        legs.settle_many([settlement(asked[account][0].leg_id)])
    assert verification.verify() == []

    drift(wrong, asked[wrong])
    found = verification.verify()

    assert {(mismatch.owner_id, mismatch.code) for mismatch in found} == {(wrong.pk, DRIFTS[drift])}
    refused, sent = legs.open_many([opening(wrong, price), opening(right, price)])
    assert isinstance(refused, WalletFrozen)
    assert isinstance(sent, Opened)


def test_the_command_exits_with_an_error_and_prints_what_is_wrong(account):
    call_command("verify_ledger", stdout=StringIO())
    drift_wallet_sum(account, [])
    out = StringIO()
    with pytest.raises(CommandError):
        call_command("verify_ledger", stdout=out)
    assert "wallet_sum" in out.getvalue()
    assert "1 frozen" in out.getvalue()


def test_sums_are_restored_from_history_and_the_account_released(account):
    drift_wallet_sum(account, [])
    verification.verify()
    with pytest.raises(CommandError):
        call_command("verify_ledger", account=account.slug, release=True, stdout=StringIO())
    assert LedgerAccount.objects.of(account).get().frozen_at

    call_command("verify_ledger", account=account.slug, restore_sums=True, release=True, stdout=StringIO())

    assert LedgerAccount.objects.of(account).get().frozen_at is None
    assert ledger.balance(account) == 100 * CREDIT


def test_the_grant_command_grants_once(account):
    for _ in range(2):
        call_command("grant", account.slug, "12.5", reason="Thanks", key="t", stdout=StringIO())
    assert ledger.balance(account) == 112_500_000
    with pytest.raises(CommandError):
        call_command("grant", account.slug, "-1", reason="Thanks", key="u", stdout=StringIO())


def test_holds_that_no_leg_stands_behind_are_given_back(account, monkeypatch):
    ledger.hold_many([ledger.Hold(ids.new(), account.pk, CREDIT)])
    call_command("settle_orphans", stdout=StringIO())
    assert ledger.balance(account) == 99 * CREDIT  # too young to be an orphan

    monkeypatch.setattr(sweeper, "ORPHANED_AFTER", timedelta(seconds=-5))
    call_command("settle_orphans", dry_run=True, stdout=StringIO())
    assert ledger.balance(account) == 99 * CREDIT
    call_command("settle_orphans", stdout=StringIO())
    assert ledger.balance(account) == 100 * CREDIT
