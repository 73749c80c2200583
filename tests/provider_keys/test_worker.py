"""A real worker, the tests' Valkey and the sandbox: a check the whole way, and the planted keys looked for after."""

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import current_app
from django.conf import settings as live
from django.db import connection as database

from accounts.models import Account, OutboxEntry, User
from accounts.services import outbox
from insighto.sandbox import keys
from provider_keys.models import Attempt, Check, Connection, Provider, Verdict
from provider_keys.services import checks, connections
from tests import sandbox_server
from tests.provider_keys.conftest import ring_text
from tests.sandbox_server import SandboxServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with sandbox_server.running(hang_s=30) as server:
        yield server


class Worker:
    """A worker process with a scheduler inside, on the tests' database and broker."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "worker.log"

    def start(self) -> None:
        ready = self._folder / "ready"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "celery", "-A", "insighto.celery", "worker", "--beat", "--loglevel", "DEBUG"]
        command += ["--pool", "threads", "--concurrency", "4", "--schedule", str(self._folder / "schedule")]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        environment = self._environment | {"INSIGHTO_READY_FILE": str(ready)}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        _until(ready.exists, 30)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def worker(sandbox: SandboxServer, tmp_path: Path, settings: Any) -> Iterator[Worker]:
    sandbox.reset()
    name = str(database.settings_dict["NAME"])
    if database.vendor == "sqlite":
        url = f"sqlite:///{name}"
    else:
        url = f"postgres://{database.settings_dict['USER']}@127.0.0.1:{database.settings_dict['PORT']}/{name}"
    addresses = {
        "OPENAI_BASE_URL": sandbox.openai_url,
        "ELEVENLABS_BASE_URL": sandbox.elevenlabs_url,
        "AZURE_SPEECH_TTS_URL": sandbox.azure_url,
        "AZURE_SPEECH_STS_URL": sandbox.azure_url,
    }
    for setting, address in addresses.items():
        setattr(settings, setting, address)
    ring = tmp_path / "ring"
    ring.write_text(ring_text("k1"))
    ring.chmod(0o400)
    environment = (
        os.environ | addresses | {"DATABASE_URL": url, "CREDENTIAL_KEYS_FILE": str(ring), "LOG_LEVEL": "DEBUG"}
    )
    running = Worker(tmp_path, environment)
    _broker().flushdb()
    try:
        yield running
    finally:
        running.kill()


def _broker() -> "redis.Redis":
    return redis.Redis.from_url(live.REDIS_URL)


def _until(is_so: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _all_finished() -> bool:
    return not Check.objects.filter(finished_at=None).exists()


def _store(account: Account, owner: User, outcome: str = "valid", tag: str = "") -> list[Connection]:
    return [
        connections.add(
            account=account,
            provider=provider,
            key=keys.key(provider, outcome, tag),
            region="westeurope",
            name=f"{outcome} {tag}",
            actor=owner,
        )
        for provider in Provider
    ]


def _press(account: Account, owner: User, rows: list[Connection]) -> None:
    """Check Status, from the press to the last answer on the page."""
    checks.request(account=account, connections=rows, trigger=Check.Trigger.PERSON, actor=owner)
    _until(_all_finished, 15)


def test_a_check_goes_through_broker_worker_and_provider_and_leaves_the_key_nowhere(
    worker, sandbox, account, owner, add
):
    worker.start()
    rows = _store(account, owner, "slow_300ms", "planted")
    _until(_all_finished, 15)
    asked_before = sandbox.last_call()
    _press(account, owner, rows)
    for row in rows:
        row.refresh_from_db()

    assert [row.verdict for row in rows] == [Verdict.VALID] * 3
    calls = sandbox.calls(since=asked_before)
    assert len(calls) >= 3
    # All at once: the last provider was asked before the first had answered.
    assert max(call["started_at"] for call in calls) < min(call["ended_at"] for call in calls)
    worker.kill()
    log = worker.log.read_bytes()
    stored = b"".join(_dump(_broker()))
    for provider in Provider:
        key = keys.key(provider, "slow_300ms", "planted").encode()
        for spelling in (key, base64.b64encode(key)[:-4], key[8:28]):
            assert spelling not in log
            assert spelling not in stored


def _dump(broker: "redis.Redis") -> Iterator[bytes]:
    for name in broker.scan_iter("*"):
        assert isinstance(name, bytes)
        yield name + (broker.dump(name) or b"")


def test_a_flushed_broker_costs_seconds(worker, account, owner):
    rows = _store(account, owner)
    _broker().flushdb()
    assert OutboxEntry.objects.filter(done_at=None).count() == 1

    worker.start()
    _until(_all_finished, 15)

    for row in rows:
        row.refresh_from_db()
        assert row.verdict == Verdict.VALID


def test_a_worker_killed_in_the_middle_is_replaced_by_the_next(worker, account, owner):
    worker.start()
    rows = _store(account, owner, "slow")
    _until(lambda: OutboxEntry.objects.filter(attempts=1, done_at=None).exists(), 10)
    worker.kill()
    assert not _all_finished()

    OutboxEntry.objects.update(locked_until=None)  # its lease ends
    worker.start()
    _until(_all_finished, 30)

    for row in rows:
        row.refresh_from_db()
        assert (row.verdict, row.attempt, row.attempt_reason) == (Verdict.UNTESTED, Attempt.UNREACHABLE, "timeout")


def test_duplicates_and_forged_messages_do_nothing_more(worker, sandbox, account, owner):
    since = sandbox.last_call()
    _store(account, owner)
    entry = OutboxEntry.objects.get()
    worker.start()
    for argument in [str(entry.pk)] * 5 + ["x", str(account.pk), "", "' OR 1=1"]:
        current_app.send_task(checks.CHECK_ACCOUNT, args=[argument])
    current_app.send_task(checks.CHECK_ACCOUNT, args=[{"key": "value"}, 1, 2])
    _until(_all_finished, 15)
    _until(lambda: OutboxEntry.objects.get().done_at is not None, 5)

    assert len(sandbox.calls(since=since)) == 3
    assert outbox.due() == []
