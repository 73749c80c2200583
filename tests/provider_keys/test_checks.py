import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import time_machine
from django.core.management import call_command

from accounts.models import Account, AuditEvent, OutboxEntry, User
from accounts.services import outbox
from insighto.lib.secret import Secret
from provider_keys import classify, probes, tasks
from provider_keys.classify import Outcome
from provider_keys.errors import TooManyChecks
from provider_keys.models import Attempt, Check, Connection, Provider, Slot, Verdict
from provider_keys.probes import Probed
from provider_keys.services import checks, connections
from tests import factories
from tests.provider_keys.conftest import AZURE_KEY, ELEVENLABS_KEY, OPENAI_KEY, another, judge, line
from tests.provider_keys.hostile import answer, listening, silence

pytestmark = pytest.mark.django_db

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KEYS = {Provider.OPENAI: OPENAI_KEY, Provider.AZURE_SPEECH: AZURE_KEY, Provider.ELEVENLABS: ELEVENLABS_KEY}

VALID = classify.Outcome(Verdict.VALID, Attempt.OK, "ok", 200)
INVALID = Outcome(Verdict.INVALID, Attempt.OK, "wrong_key", 401, "invalid_api_key")
NO_QUOTA = Outcome(Verdict.QUOTA_EXHAUSTED, Attempt.OK, "no_quota", 429, "insufficient_quota")
UNCHECKABLE = Outcome(Verdict.RESTRICTED, Attempt.OK, "cannot_be_checked", 403)
RATE_LIMITED = Outcome(None, Attempt.RATE_LIMITED, "rate_limited", 429, retry_after_s=20)
DOWN = classify.network_failure("timeout")


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


class Providers:
    """What the three providers say at the moment; who was asked with which key."""

    def __init__(self) -> None:
        self.says: dict[str, Outcome] = dict.fromkeys(Provider.values, VALID)
        self.asked: list[tuple[str, str]] = []
        self.meanwhile: Callable[[], object] = lambda: None

    async def ask(self, provider: str, *, region: str, secret: Secret) -> Probed:
        self.asked.append((provider, secret.reveal()))
        return Probed(self.says[provider], {"models": ["m"]} if self.says[provider].is_usable else None)


@pytest.fixture
def providers(monkeypatch: pytest.MonkeyPatch) -> Providers:
    fake = Providers()
    monkeypatch.setattr(probes, "ask", fake.ask)
    return fake


def check(connection: Connection, trigger: Check.Trigger = Check.Trigger.RECHECK) -> Connection:
    """Ask for a check and let the worker do it."""
    checks.request(account=connection.account, connections=[connection], trigger=trigger)
    work()
    connection.refresh_from_db()
    return connection


def work() -> None:
    """What a worker does that hears every ring."""
    handlers = {
        checks.CHECK_ACCOUNT: tasks.check_account,
        checks.CONFIRM_CONNECTION: tasks.confirm_connection,
    }
    for _ in range(3):
        for entry in outbox.due():
            handlers[entry.kind](str(entry.pk))


@pytest.fixture
def good(add: Callable[..., Connection]) -> Connection:
    return add(Provider.OPENAI, verdict=Verdict.VALID)


# --- asking -----------------------------------------------------------------------------------------------------


def test_a_new_connection_is_checked_by_itself(add, providers):
    connection = add(Provider.OPENAI)
    work()

    connection.refresh_from_db()
    assert (connection.verdict, connection.attempt) == (Verdict.VALID, Attempt.OK)
    assert connection.verdict_at is not None
    assert connection.capabilities == {"models": ["m"]}
    assert providers.asked == [(Provider.OPENAI, OPENAI_KEY)]


def test_the_work_list_and_the_messages_hold_ids_only(add, providers):
    connection = add(Provider.OPENAI)

    entry = OutboxEntry.objects.get()
    assert (entry.kind, entry.subject) == (checks.CHECK_ACCOUNT, str(connection.account_id))


def test_check_status_asks_about_every_selected_connection_and_no_other(account, owner, add, providers):
    for provider in (Provider.OPENAI, Provider.AZURE_SPEECH):
        Slot.objects.of(account).filter(provider=provider).update(connection=add(provider, verdict=Verdict.VALID))
    add(Provider.OPENAI, another(OPENAI_KEY), verdict=Verdict.VALID)

    asked = checks.request_selected(account=account, actor=owner)
    work()

    assert {check.connection.provider for check in asked} == {Provider.OPENAI, Provider.AZURE_SPEECH}
    assert sorted(provider for provider, _ in providers.asked) == [Provider.AZURE_SPEECH, Provider.OPENAI]


def test_a_press_while_a_check_runs_joins_it(good, account, owner, providers):
    first = checks.request(account=account, connections=[good], trigger=Check.Trigger.PERSON, actor=owner)
    second = checks.request(account=account, connections=[good], trigger=Check.Trigger.PERSON, actor=owner)
    work()

    assert [row.pk for row in first] == [row.pk for row in second]
    assert len(providers.asked) == 1


def test_pressing_too_often_is_refused_and_asks_nothing(good, account, owner, clock, providers):
    for _ in range(checks.PRESSES_PER_MINUTE):
        check(good, Check.Trigger.PERSON)
        clock.shift(timedelta(seconds=1))
    before = len(providers.asked)

    with pytest.raises(TooManyChecks):
        checks.request(account=account, connections=[good], trigger=Check.Trigger.PERSON, actor=owner)

    work()
    assert len(providers.asked) == before
    clock.shift(timedelta(minutes=1))
    check(good, Check.Trigger.PERSON)
    assert len(providers.asked) == before + 1


def test_a_foreign_or_removed_connection_is_passed_over(good, account, owner, providers):
    other = factories.make_account(owner=factories.make_user())
    assert checks.request(account=other, connections=[good], trigger=Check.Trigger.PERSON) == []

    connections.remove(connection=good, actor=owner)
    assert checks.request(account=account, connections=[good], trigger=Check.Trigger.PERSON) == []

    work()
    assert providers.asked == []


def test_a_placeholder_is_judged_without_asking_anybody(account, owner, providers):
    connection = connections.add(account=account, provider=Provider.ELEVENLABS, key="dummy", name="None", actor=owner)

    (done,) = checks.request(account=account, connections=[connection], trigger=Check.Trigger.PERSON, actor=owner)
    work()

    assert (done.verdict, done.finished_at is not None) == (Verdict.PLACEHOLDER, True)
    assert providers.asked == []
    assert not OutboxEntry.objects.exists()


def test_a_lost_check_is_ended_by_the_next_press(good, account, owner, clock, providers):
    (lost,) = checks.request(account=account, connections=[good], trigger=Check.Trigger.PERSON, actor=owner)
    OutboxEntry.objects.update(dead_at=START)
    clock.shift(timedelta(minutes=11))

    check(good, Check.Trigger.PERSON)

    lost.refresh_from_db()
    assert (lost.attempt, lost.reason) == (Attempt.UNREACHABLE, "gave_up")
    assert len(providers.asked) == 1


# --- what answers do --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome",
    [RATE_LIMITED, DOWN, *(classify.network_failure(kind) for kind in ("connect", "tls", "dropped", "bad_body"))],
    ids=lambda outcome: outcome.reason,
)
@pytest.mark.parametrize("verdict", [Verdict.VALID, Verdict.INVALID, Verdict.UNTESTED, Verdict.QUOTA_EXHAUSTED])
def test_an_answer_that_says_nothing_changes_only_the_last_attempt(outcome, verdict, add, clock, providers):
    connection = add(Provider.OPENAI, verdict=verdict)
    providers.says[Provider.OPENAI] = outcome
    clock.shift(timedelta(hours=1))

    check(connection)

    assert (connection.verdict, connection.verdict_at, connection.rejected_at) == (verdict, START, None)
    assert (connection.attempt, connection.attempt_reason) == (outcome.attempt, outcome.reason)
    assert connection.attempt_at == START + timedelta(hours=1)
    assert (connection.retry_at is None) == (outcome.retry_after_s is None)


def test_a_key_that_never_was_good_is_judged_at_once(add, providers):
    providers.says[Provider.OPENAI] = INVALID
    connection = check(add(Provider.OPENAI))

    assert (connection.verdict, connection.verdict_reason) == (Verdict.INVALID, "wrong_key")
    done = Check.objects.get()
    assert (done.verdict, done.http_status, done.provider_code) == (Verdict.INVALID, 401, "invalid_api_key")


def test_a_good_key_needs_two_rejections_a_minute_apart(good, clock, providers):
    providers.says[Provider.OPENAI] = INVALID

    check(good, Check.Trigger.PERSON)
    assert (good.verdict, good.rejected_at, good.rejected_verdict) == (Verdict.VALID, START, Verdict.INVALID)

    clock.shift(timedelta(seconds=30))
    check(good, Check.Trigger.PERSON)
    assert (good.verdict, good.rejected_at) == (Verdict.VALID, START)

    clock.shift(timedelta(seconds=30))
    work()  # the second look comes by itself
    good.refresh_from_db()
    assert (good.verdict, good.rejected_at, good.rejected_verdict) == (Verdict.INVALID, None, "")
    assert Check.objects.filter(trigger=Check.Trigger.CONFIRM).count() == 1
    assert AuditEvent.objects.filter(action="connection.rejected").count() == 1


def test_a_rejection_that_is_not_confirmed_is_forgotten(good, clock, providers):
    providers.says[Provider.OPENAI] = INVALID
    check(good)
    providers.says[Provider.OPENAI] = VALID

    clock.shift(timedelta(seconds=61))
    work()

    good.refresh_from_db()
    assert (good.verdict, good.rejected_at, good.rejected_verdict) == (Verdict.VALID, None, "")


def test_a_second_look_that_meets_an_outage_is_repeated_until_something_definite_is_said(good, clock, providers):
    providers.says[Provider.OPENAI] = INVALID
    check(good)
    providers.says[Provider.OPENAI] = DOWN
    for _ in range(10):
        clock.shift(timedelta(minutes=2))
        work()
        good.refresh_from_db()
        assert (good.verdict, good.rejected_at) == (Verdict.VALID, START)

    providers.says[Provider.OPENAI] = INVALID
    clock.shift(timedelta(hours=1))
    work()

    good.refresh_from_db()
    assert good.verdict == Verdict.INVALID


def test_a_bad_key_recovers_at_once(add, providers):
    connection = add(Provider.OPENAI, verdict=Verdict.INVALID)

    assert check(connection).verdict == Verdict.VALID


def test_an_old_check_cannot_judge_a_new_key(add, owner, providers, monkeypatch):
    connection = add(Provider.OPENAI, verdict=Verdict.INVALID)
    providers.says[Provider.OPENAI] = INVALID
    (asked,) = checks.request(
        account=connection.account, connections=[connection], trigger=Check.Trigger.PERSON, actor=owner
    )

    class Slow(probes.Panel):
        def answers(self, *, within_s: float) -> Any:
            for found in list(super().answers(within_s=within_s)):
                if found[0] == asked.pk:  # the provider has spoken of the old key; now it is replaced
                    connections.replace_secret(connection=connection, key=another(OPENAI_KEY), actor=owner)
                    providers.says[Provider.OPENAI] = DOWN
                yield found

    monkeypatch.setattr(probes, "Panel", Slow)
    work()

    connection.refresh_from_db()
    asked.refresh_from_db()
    assert connection.current_version == 2
    assert connection.verdict == Verdict.UNTESTED
    assert (asked.verdict, asked.reason) == ("", "superseded")


def test_a_check_of_a_replaced_key_sends_neither_key(add, owner, providers):
    connection = add(Provider.OPENAI, verdict=Verdict.VALID)
    checks.request(account=connection.account, connections=[connection], trigger=Check.Trigger.PERSON, actor=owner)
    connections.replace_secret(connection=connection, key=another(OPENAI_KEY), actor=owner)

    work()

    assert providers.asked == [(Provider.OPENAI, another(OPENAI_KEY))]


def test_a_result_is_written_once(good, providers):
    checks.request(account=good.account, connections=[good], trigger=Check.Trigger.PERSON)

    assert checks.run_for_account(good.account_id) == 1
    assert checks.run_for_account(good.account_id) == 0


def test_a_locked_key_is_locked_and_not_invalid_and_comes_back_with_the_ring(good, clock, providers, use_ring):
    use_ring("\n".join([line("k2"), line("fingerprint")]))
    check(good)
    assert (good.verdict, good.verdict_reason, providers.asked) == (Verdict.LOCKED, "locked", [])

    use_ring("\n".join([line("k1"), line("k2"), line("fingerprint")]), primary="k1")
    clock.shift(timedelta(minutes=11))
    work()

    good.refresh_from_db()
    assert good.verdict == Verdict.VALID


def test_work_that_is_given_up_leaves_no_check_running(good, account, providers, clock, monkeypatch):
    checks.request(account=account, connections=[good], trigger=Check.Trigger.PERSON)

    def broken(_: object) -> None:
        raise RuntimeError(OPENAI_KEY)

    monkeypatch.setattr(checks, "_open", broken)
    for _ in range(7):
        work()
        clock.shift(timedelta(minutes=10))

    good.refresh_from_db()
    assert not Check.objects.filter(finished_at=None).exists()
    assert good.verdict == Verdict.VALID
    assert OutboxEntry.objects.get(kind=checks.CHECK_ACCOUNT).dead_at is not None


# --- real traffic -----------------------------------------------------------------------------------------------


def learn(connection: Connection, outcome: Outcome) -> Connection:
    checks.record_evidence(connection_id=connection.pk, secret_version=connection.current_version, outcome=outcome)
    connection.refresh_from_db()
    return connection


def test_real_traffic_demotes_by_the_same_rules(good, clock, providers):
    assert learn(good, NO_QUOTA).verdict == Verdict.VALID
    clock.shift(timedelta(seconds=59))
    assert learn(good, NO_QUOTA).verdict == Verdict.VALID
    clock.shift(timedelta(seconds=1))
    assert learn(good, NO_QUOTA).verdict == Verdict.QUOTA_EXHAUSTED


def test_a_free_call_does_not_clear_what_it_cannot_see_too_early(good, clock, providers):
    learn(good, NO_QUOTA)
    clock.shift(timedelta(seconds=30))
    check(good)
    assert good.rejected_at == START

    clock.shift(timedelta(seconds=40))
    assert learn(good, NO_QUOTA).verdict == Verdict.QUOTA_EXHAUSTED


def test_a_rejection_in_use_that_is_never_met_again_is_forgotten(good, clock, providers):
    learn(good, NO_QUOTA)
    clock.shift(timedelta(minutes=10))
    work()

    good.refresh_from_db()
    assert (good.verdict, good.rejected_at) == (Verdict.VALID, None)


def test_a_request_that_is_served_clears_a_rejection_and_proves_a_key_that_cannot_be_checked(add, clock, providers):
    providers.says[Provider.OPENAI] = UNCHECKABLE
    connection = check(add(Provider.OPENAI))
    assert (connection.verdict, connection.verdict_reason) == (Verdict.RESTRICTED, "cannot_be_checked")

    assert learn(connection, classify.worked()).verdict == Verdict.VALID
    clock.shift(timedelta(hours=2))
    assert check(connection).verdict == Verdict.VALID
    assert connection.verdict_at == START + timedelta(hours=2)

    learn(connection, INVALID)
    assert connection.rejected_at is not None
    assert learn(connection, classify.worked()).rejected_at is None


def test_evidence_about_an_old_version_is_ignored(good, owner, providers):
    connections.replace_secret(connection=good, key=another(OPENAI_KEY), actor=owner)

    checks.record_evidence(connection_id=good.pk, secret_version=1, outcome=INVALID)

    good.refresh_from_db()
    assert good.verdict == Verdict.UNTESTED
    checks.record_evidence(connection_id=uuid4(), secret_version=1, outcome=INVALID)


def test_evidence_that_repeats_itself_costs_one_read(good, clock, django_assert_num_queries):
    learn(good, classify.worked())
    with django_assert_num_queries(1):
        checks.record_evidence(connection_id=good.pk, secret_version=1, outcome=classify.worked())
    learn(good, INVALID)
    with django_assert_num_queries(1):
        checks.record_evidence(connection_id=good.pk, secret_version=1, outcome=INVALID)


# --- the breaker ------------------------------------------------------------------------------------------------


def many_good(count: int, owner: User) -> list[Connection]:
    found = []
    for number in range(count):
        account = factories.make_account(owner=factories.make_user())
        key = f"sk-proj-{number:04}" + "Kx7Qw2Zt9Lm4Rb8Vn3Hd6Pf1" * 2
        row = connections.add(account=account, provider=Provider.OPENAI, key=key, name="One", actor=owner)
        found.append(judge(row, Verdict.VALID))
    OutboxEntry.objects.all().delete()
    return found


def test_when_the_keys_of_many_accounts_are_rejected_together_none_is_demoted(owner, clock, providers):
    rows = many_good(checks.BREAKER_ACCOUNTS, owner)
    providers.says[Provider.OPENAI] = INVALID
    for row in rows:
        check(row)
    for _ in range(4):
        clock.shift(timedelta(minutes=5))
        work()

    for row in rows:
        row.refresh_from_db()
        assert (row.verdict, row.rejected_verdict) == (Verdict.VALID, Verdict.INVALID)
    assert checks.is_breaker_open(Provider.OPENAI, START + timedelta(minutes=20))
    assert not checks.is_breaker_open(Provider.AZURE_SPEECH, START + timedelta(minutes=20))
    assert AuditEvent.objects.filter(action="checks.breaker_open", account=None).count() == 1

    providers.says[Provider.OPENAI] = VALID
    clock.shift(timedelta(hours=1))
    work()
    for row in rows:
        row.refresh_from_db()
        assert (row.verdict, row.rejected_at) == (Verdict.VALID, None)
    assert not checks.is_breaker_open(Provider.OPENAI, START + timedelta(hours=2))


def test_many_bad_keys_among_more_good_ones_are_demoted(owner, clock, providers):
    rows = many_good(checks.BREAKER_ACCOUNTS * 2 + 1, owner)
    bad, fine = rows[: checks.BREAKER_ACCOUNTS], rows[checks.BREAKER_ACCOUNTS :]
    providers.says[Provider.OPENAI] = INVALID
    for row in bad:
        check(row)
    providers.says[Provider.OPENAI] = VALID
    for row in fine:
        check(row)
    providers.says[Provider.OPENAI] = INVALID
    clock.shift(timedelta(minutes=1))
    work()

    for row in bad:
        row.refresh_from_db()
        assert row.verdict == Verdict.INVALID


# --- over real sockets ------------------------------------------------------------------------------------------

GOOD_BODIES = {
    Provider.OPENAI: {"object": "list", "data": [{"id": "gpt-6-luna"}]},
    Provider.AZURE_SPEECH: [{"ShortName": "en-US-AvaNeural"}],
    Provider.ELEVENLABS: {"tier": "creator", "character_count": 1, "character_limit": 10},
}


def body(provider: str) -> bytes:
    return json.dumps(GOOD_BODIES[Provider(provider)]).encode()


def after(seconds: float, script: Any) -> Any:
    def late(peer: Any) -> None:
        time.sleep(seconds)
        script(peer)

    return late


def test_all_three_take_as_long_as_the_slowest_and_each_answer_is_there_as_it_arrives(account, owner, add, settings):
    waits = {Provider.OPENAI: 0.6, Provider.AZURE_SPEECH: 0.3, Provider.ELEVENLABS: 0.45}
    took = []
    with (
        listening(after(waits[Provider.OPENAI], answer(200, body(Provider.OPENAI)))) as openai,
        listening(after(waits[Provider.AZURE_SPEECH], answer(200, body(Provider.AZURE_SPEECH)))) as azure,
        listening(after(waits[Provider.ELEVENLABS], answer(200, body(Provider.ELEVENLABS)))) as elevenlabs,
    ):
        settings.OPENAI_BASE_URL = f"{openai.url}/v1"
        settings.AZURE_SPEECH_TTS_URL = azure.url
        settings.ELEVENLABS_BASE_URL = elevenlabs.url
        rows = [add(provider) for provider in Provider]
        for _ in range(3):  # the best of three: a busy machine adds to any one of them; bench/ measures closer
            asked = checks.request(account=account, connections=rows, trigger=Check.Trigger.RECHECK)
            began = time.monotonic()
            assert checks.run_for_account(account.pk) == 3
            took.append(time.monotonic() - began)

    done = Check.objects.filter(pk__in=[check.pk for check in asked]).order_by("finished_at")
    assert [check.connection.provider for check in done] == [
        Provider.AZURE_SPEECH,
        Provider.ELEVENLABS,
        Provider.OPENAI,
    ]
    assert min(took) < sum(waits.values())
    for row in rows:
        row.refresh_from_db()
        assert row.verdict == Verdict.VALID


def test_a_provider_that_hangs_keeps_the_others_from_nothing(account, owner, add, settings, monkeypatch):
    monkeypatch.setattr(probes, "DEADLINE_S", 1.0)
    with listening(silence(5)) as openai, listening(answer(200, body(Provider.ELEVENLABS))) as elevenlabs:
        settings.OPENAI_BASE_URL = f"{openai.url}/v1"
        settings.ELEVENLABS_BASE_URL = elevenlabs.url
        hanging = add(Provider.OPENAI)
        answering: list[Connection] = []
        original = probes.Panel.answers

        def add_meanwhile(self: probes.Panel, *, within_s: float) -> Iterator[tuple[UUID, Probed]]:
            if not answering:  # a person adds another key while the first check hangs
                answering.append(add(Provider.ELEVENLABS))
            yield from original(self, within_s=within_s)

        monkeypatch.setattr(probes.Panel, "answers", add_meanwhile)
        began = time.monotonic()
        checks.run_for_account(account.pk)
        took = time.monotonic() - began

    hanging.refresh_from_db()
    done = Check.objects.order_by("finished_at")
    assert [row.connection_id for row in done] == [answering[0].pk, hanging.pk]
    assert (hanging.verdict, hanging.attempt_reason) == (Verdict.UNTESTED, "timeout")
    assert took < 4  # the deadline of one second, not the five that the provider hangs


@pytest.mark.parametrize(
    "script",
    [
        answer(200, b"<html>Welcome</html>"),
        answer(200, b'{"object": "list", "data": [[['),
        answer(401, json.dumps({"error": {"message": f"Unknown: {OPENAI_KEY}"}}).encode(), X_Request_Id=OPENAI_KEY),
        answer(307, b"", Location="http://127.0.0.1:9/"),
        lambda peer: None,
    ],
    ids=["html", "garbage", "echo", "redirect", "drop"],
)
def test_a_valid_key_stays_valid_and_its_key_is_in_no_log_and_no_row(script, good, settings, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    with listening(script) as listener:
        settings.OPENAI_BASE_URL = f"{listener.url}/v1"
        check(good)

    assert (good.verdict, good.attempt) == (Verdict.VALID, Attempt.UNREACHABLE)
    shown = capsys.readouterr()
    rows = repr([list(model.objects.values()) for model in (Check, Connection, OutboxEntry, AuditEvent)])
    for text in (caplog.text, shown.out, shown.err, rows):
        assert OPENAI_KEY not in text
        assert OPENAI_KEY[8:24] not in text


def test_azure_is_asked_in_its_own_region(add, settings):
    with listening(answer(200, body(Provider.AZURE_SPEECH))) as listener:
        settings.AZURE_SPEECH_TTS_URL = f"{listener.url}/{{region}}"
        check(add(Provider.AZURE_SPEECH, region="northeurope"))

    assert listener.heard[0].startswith(b"GET /northeurope/cognitiveservices/voices/list ")


# --- the command ------------------------------------------------------------------------------------------------


def test_recheck_keys_asks_for_every_stored_key_and_says_how_many(account, add, owner, capsys, providers):
    good = add(Provider.OPENAI, verdict=Verdict.VALID)
    connections.add(account=account, provider=Provider.ELEVENLABS, key="dummy", name="None", actor=owner)

    call_command("recheck_keys", "--dry-run")
    assert "1 checks would be asked for, for 1 accounts." in capsys.readouterr().out
    assert not Check.objects.filter(finished_at=None).exists()

    call_command("recheck_keys")
    assert "1 checks asked for, for 1 accounts." in capsys.readouterr().out
    work()
    assert providers.asked == [(Provider.OPENAI, OPENAI_KEY)]

    call_command("recheck_keys", "--older-than", "1", "--account", account.slug)
    assert "0 checks asked for" in capsys.readouterr().out
    assert good.account == account


# --- races ------------------------------------------------------------------------------------------------------


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_two_workers_with_the_same_message_write_one_result(good, providers):
    from django.db import connections as databases

    checks.request(account=good.account, connections=[good], trigger=Check.Trigger.PERSON)
    written: list[int] = []

    def run() -> None:
        try:
            written.append(checks.run_for_account(good.account_id))
        finally:
            databases.close_all()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(written) == 1


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_presses_at_the_same_time_join(account: Account, good: Connection, owner: User):
    from django.db import connections as databases

    def press() -> None:
        try:
            checks.request(account=account, connections=[good], trigger=Check.Trigger.PERSON, actor=owner)
        finally:
            databases.close_all()

    threads = [threading.Thread(target=press) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Check.objects.filter(finished_at=None).count() == 1
