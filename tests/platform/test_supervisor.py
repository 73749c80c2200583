"""`manage.py dev`: it starts everything, says so in one line, and leaves nothing behind however it ends."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from insighto.dev import processes

_ROOT = Path(__file__).resolve().parent.parent.parent
_START_TIMEOUT_S = 90
pytestmark = pytest.mark.once


class Run:
    """A started supervisor and what it printed."""

    def __init__(self, var: Path, port: int) -> None:
        env = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "dev", "--port", str(port)],
            cwd=_ROOT,
            env={**env, "VAR_DIR": str(var)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._lines.put(line)

    def ready_line(self) -> str:
        return self._lines.get(timeout=_START_TIMEOUT_S)

    def output(self) -> str:
        self._reader.join(10)
        return "".join(self._lines.queue)

    def family(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self) -> None:
        """However the test went: wait for the supervisor and close what we hold of it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        self._reader.join(10)


@pytest.fixture
def start(tmp_path):
    runs = []

    def start(port: int | None = None, var: Path = tmp_path) -> Run:
        run = Run(var, port or processes.free_port())
        runs.append(run)
        return run

    yield start
    for run in runs:
        run.end()


def _left(family: list[psutil.Process], *, within_s: float) -> list[str]:
    _, alive = psutil.wait_procs(family, timeout=within_s)
    return [" ".join(process.cmdline()) for process in alive if process.is_running()]


def test_a_run_serves_refuses_a_second_start_and_ends_cleanly_on_ctrl_c(start, tmp_path):
    port = processes.free_port()
    run = start(port)
    line = run.ready_line()
    assert line.startswith(f"Insighto is ready: http://127.0.0.1:{port}")
    assert "sign in as" in line
    assert (tmp_path / "demo.json").stat().st_mode & 0o777 == 0o600
    logs = {path.name for path in (tmp_path / "logs").iterdir()}
    assert logs >= {"valkey.log", "sandbox.log", "worker.log", "scheduler.log", "web.log"}

    second = start(processes.free_port())
    assert second.process.wait(30) == 1
    assert "already running" in second.output()

    family = run.family()
    assert len(family) >= 10  # five children and their guards
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(30) == 0
    assert _left(family, within_s=1) == []


def test_a_port_in_use_is_named_together_with_a_free_one(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = start(port)
        assert run.process.wait(30) == 1
    output = run.output().strip()
    assert len(output.splitlines()) == 1
    assert f"Port {port} is in use" in output
    assert "dev.py run --port" in output


def test_a_child_that_dies_ends_the_run_with_its_exit_code(start):
    run = start()
    run.ready_line()
    family = run.family()
    worker = next(p for p in family if "worker" in p.cmdline() and "guard.py" not in " ".join(p.cmdline()))
    worker.send_signal(signal.SIGKILL)
    assert run.process.wait(30) == 128 + signal.SIGKILL
    assert "worker stopped with exit code 137" in run.output()
    assert _left(family, within_s=1) == []


def test_killing_the_supervisor_leaves_no_child_behind(start, tmp_path):
    run = start()
    run.ready_line()
    family = run.family()
    began = time.monotonic()
    run.process.send_signal(signal.SIGKILL)
    run.process.wait(5)
    assert _left(family, within_s=5) == []
    assert time.monotonic() - began < 5.5
