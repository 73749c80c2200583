import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connections, transaction

from accounts.models import OutboxEntry
from accounts.services import outbox
from accounts.services.outbox import Claim
from insighto.lib import queue

KIND = "tests.some_work"
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LEASE = timedelta(seconds=60)


@pytest.fixture
def dead() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def kind(monkeypatch: pytest.MonkeyPatch, dead: list[str]) -> None:
    monkeypatch.setattr(outbox, "_kinds", {})
    outbox.register(KIND, task=KIND, lease=LEASE, on_dead=dead.append)


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...]]]:
    heard: list[tuple[str, tuple[Any, ...]]] = []
    monkeypatch.setattr(queue, "_send", lambda name, args: heard.append((name, args)))
    return heard


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


def claimed(entry: OutboxEntry) -> Claim:
    held = outbox.claim(KIND, entry.pk)
    assert held is not None
    return held


def owe(subject: str = "one", **options: Any) -> OutboxEntry:
    return outbox.add(kind=KIND, subject=subject, **options)


@pytest.mark.django_db
def test_work_is_rung_for_when_the_transaction_that_owes_it_commits(rings, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        entry = owe()
        assert rings == []

    assert rings == [(KIND, (str(entry.pk),))]


@pytest.mark.django_db
def test_what_is_rolled_back_is_neither_owed_nor_rung_for(rings, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
        owe()
        transaction.set_rollback(True)

    assert rings == []
    assert not OutboxEntry.objects.exists()


@pytest.mark.django_db
def test_an_attempt_is_counted_before_the_work_and_the_lease_keeps_others_away(clock):
    entry = owe()

    held = claimed(entry)

    entry.refresh_from_db()
    assert (held.attempt, entry.attempts, entry.locked_until) == (1, 1, START + LEASE)
    assert outbox.claim(KIND, entry.pk) is None
    assert outbox.finish(held)
    entry.refresh_from_db()
    assert entry.done_at == START
    assert outbox.claim(KIND, entry.pk) is None


@pytest.mark.django_db
def test_a_killed_workers_work_is_rung_for_again_when_its_lease_ends(clock, rings, django_capture_on_commit_callbacks):
    entry = owe()
    claimed(entry)  # and the worker is gone

    clock.shift(LEASE - timedelta(seconds=1))
    assert outbox.ring_due() == 0
    clock.shift(timedelta(seconds=2))
    with django_capture_on_commit_callbacks(execute=True):
        assert outbox.ring_due() == 1

    assert rings[-1] == (KIND, (str(entry.pk),))
    assert claimed(entry).attempt == 2


@pytest.mark.django_db
def test_a_worker_that_comes_back_after_its_lease_does_not_finish_the_work_of_another(clock):
    entry = owe()
    late = claimed(entry)
    clock.shift(LEASE)
    other = claimed(entry)

    assert not outbox.finish(late)
    assert not outbox.fail(late)

    entry.refresh_from_db()
    assert entry.done_at is None
    assert outbox.finish(other)


@pytest.mark.django_db
def test_the_same_work_is_owed_once(clock):
    first = owe(available_at=START + timedelta(minutes=5))

    second = owe()

    assert second.pk == first.pk
    assert second.available_at == START
    assert OutboxEntry.objects.count() == 1


@pytest.mark.django_db
def test_work_added_while_it_runs_is_done_once_more(clock, rings, django_capture_on_commit_callbacks):
    entry = owe()
    held = claimed(entry)
    owe()

    with django_capture_on_commit_callbacks(execute=True):
        assert not outbox.finish(held)

    assert rings[-1] == (KIND, (str(entry.pk),))
    again = claimed(entry)
    assert again.attempt == 1
    assert outbox.finish(again)


@pytest.mark.django_db
def test_work_for_later_added_while_it_runs_waits_for_its_time(clock):
    entry = owe()
    held = claimed(entry)
    owe(available_at=START + timedelta(minutes=1))

    assert not outbox.finish(held)

    assert outbox.claim(KIND, entry.pk) is None
    clock.shift(timedelta(minutes=1))
    assert outbox.claim(KIND, entry.pk) is not None


@pytest.mark.django_db
def test_work_for_later_is_not_done_early(clock):
    entry = owe(available_at=START + timedelta(seconds=60))

    assert outbox.claim(KIND, entry.pk) is None
    assert outbox.due() == []
    clock.shift(timedelta(seconds=60))
    assert [row.pk for row in outbox.due()] == [entry.pk]


@pytest.mark.django_db
def test_a_duplicate_message_does_the_work_once(clock):
    entry = owe()
    done: list[str] = []

    assert outbox.work(KIND, str(entry.pk), done.append)
    assert not outbox.work(KIND, str(entry.pk), done.append)

    assert done == ["one"]


@pytest.mark.django_db
def test_messages_out_of_order_reach_the_same_end(clock):
    entries = [owe(f"subject {number}") for number in range(5)]
    done: list[str] = []

    for entry in [*reversed(entries), *entries]:
        outbox.work(KIND, str(entry.pk), done.append)

    assert sorted(done) == [f"subject {number}" for number in range(5)]
    assert not OutboxEntry.objects.filter(done_at=None).exists()


@pytest.mark.django_db
def test_a_flushed_broker_costs_seconds(clock, rings, django_capture_on_commit_callbacks):
    entry = owe()  # the message is lost: nobody executes the callback

    with django_capture_on_commit_callbacks(execute=True):
        assert outbox.ring_due() == 1

    assert rings == [(KIND, (str(entry.pk),))]


@pytest.mark.django_db
def test_poison_is_dead_after_five_attempts_and_operators_see_it(clock, dead):
    entry = owe()
    tried: list[str] = []

    def poison(subject: str) -> None:
        tried.append(subject)
        raise RuntimeError("sk-secret-in-an-exception")

    for _ in range(20):
        outbox.work(KIND, str(entry.pk), poison)
        clock.shift(timedelta(minutes=10))

    entry.refresh_from_db()
    assert len(tried) == 5
    assert entry.dead_at is not None
    assert dead == ["one"]
    assert outbox.due() == []


@pytest.mark.django_db
def test_work_that_kills_its_worker_each_time_is_dead_after_five_attempts(clock, dead):
    entry = owe()
    for _ in range(5):
        assert outbox.claim(KIND, entry.pk) is not None
        clock.shift(LEASE)

    assert outbox.ring_due() == 0

    entry.refresh_from_db()
    assert entry.dead_at is not None
    assert dead == ["one"]
    assert outbox.claim(KIND, entry.pk) is None
    assert owe().pk != entry.pk  # the dead one does not stand in the way of new work


@pytest.mark.django_db
def test_an_exception_of_the_work_is_told_by_its_type_only(caplog, capsys):
    entry = owe()

    def leak(_: str) -> None:
        raise RuntimeError("sk-secret-in-an-exception")

    with caplog.at_level(logging.DEBUG):
        assert not outbox.work(KIND, str(entry.pk), leak)

    shown = capsys.readouterr()
    assert "sk-secret" not in caplog.text + shown.out + shown.err


@pytest.mark.django_db
@pytest.mark.parametrize(
    "forged", ["5f0c2f2e-6d7e-4f6e-9d55-0d6c5a1b7a10", "", "1", "../../x", "' OR 1=1 --", 7, None, ["a"], {"a": 1}]
)
def test_a_forged_message_does_nothing(forged):
    entry = owe()
    done: list[str] = []

    assert not outbox.work(KIND, forged, done.append)

    entry.refresh_from_db()
    assert done == []
    assert entry.attempts == 0


@pytest.mark.django_db
def test_a_message_to_the_wrong_task_does_nothing():
    entry = owe()
    outbox.register("tests.other_work", task="tests.other_work", lease=LEASE)
    done: list[str] = []

    assert not outbox.work("tests.other_work", str(entry.pk), done.append)
    assert done == []


@pytest.mark.django_db
def test_a_broker_that_is_down_is_no_trouble_for_whoever_owes_the_work(monkeypatch, django_capture_on_commit_callbacks):
    class Down:
        def send_task(self, *_: object, **__: object) -> None:
            raise ConnectionError("redis://user:password@host is down")

    monkeypatch.setattr(queue, "current_app", Down())

    with django_capture_on_commit_callbacks(execute=True):
        entry = owe()

    assert [row.pk for row in outbox.due()] == [entry.pk]


@pytest.mark.django_db
def test_finished_work_is_forgotten_after_days_and_dead_work_is_kept(clock):
    outbox.work(KIND, str(owe("done").pk), lambda _: None)
    OutboxEntry.objects.filter(pk=owe("dead").pk).update(dead_at=START)
    clock.shift(timedelta(days=3))

    assert outbox.forget_done() == 1
    assert list(OutboxEntry.objects.values_list("subject", flat=True)) == ["dead"]


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_of_many_workers_that_hear_the_same_ring_one_works():
    entry = owe()
    won = _together(8, lambda: outbox.claim(KIND, entry.pk))

    assert len([held for held in won if held is not None]) == 1
    entry.refresh_from_db()
    assert entry.attempts == 1


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_the_same_work_owed_by_many_at_once_is_one_entry():
    _together(8, owe)

    assert OutboxEntry.objects.count() == 1


def _together(count: int, act: Callable[[], Any]) -> list[Any]:
    results: list[Any] = []
    barrier = threading.Barrier(count)

    def run() -> None:
        try:
            barrier.wait()
            results.append(act())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
