"""The whole product, started for a test as a user starts it: one command, real processes, an address and a sign-in."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insighto.dev.processes import free_port

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True)
class Product:
    """A running product: where it is, what the runner wrote for scripts, and where it keeps its files."""

    url: str
    sandbox_url: str
    var: Path
    demo: dict[str, Any]
    env: dict[str, str]
    supervisor_pid: int

    def person(self, email: str) -> dict[str, str]:
        found: dict[str, str] = next(person for person in self.demo["people"] if person["email"] == email)
        return found

    def api_key(self, account: str) -> str:
        found: str = next(item["key"] for item in self.demo["api_keys"] if item["account"] == account)
        return found

    def pid_of(self, fragment: str) -> int:
        """The process below the supervisor whose command line holds `fragment`."""
        listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
        parents: dict[int, int] = {}
        commands: dict[int, str] = {}
        for row in listed.splitlines():
            pid, parent, command = row.split(None, 2)
            parents[int(pid)], commands[int(pid)] = int(parent), command
        for candidate, command in commands.items():
            ancestor = candidate
            while ancestor in parents and ancestor != self.supervisor_pid:
                ancestor = parents[ancestor]
            if ancestor == self.supervisor_pid and candidate != ancestor and re.search(fragment, command):
                return candidate
        raise LookupError(fragment)


@contextlib.contextmanager
def running(at: Path | None = None, **extra_env: str) -> Iterator[Product]:
    """`manage.py dev` on a free port in a folder of its own; on the tests' database where that is PostgreSQL.

    `at` names a folder that stays, so that a second run goes on where the first one ended.
    """
    with tempfile.TemporaryDirectory(prefix="insighto-") if at is None else contextlib.nullcontext(at) as folder:
        var = Path(folder) / "var"
        port = free_port()
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        env.pop("REDIS_URL", None)  # the product brings its own Valkey
        if env.get("DATABASE_URL", "").startswith("sqlite"):
            del env["DATABASE_URL"]
        env |= {"VAR_DIR": str(var), "LOG_LEVEL": "DEBUG", "PYTHONUNBUFFERED": "1"} | extra_env
        command = [sys.executable, str(ROOT / "manage.py"), "dev", "--port", str(port)]
        log = Path(folder) / "supervisor.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while "is ready" not in log.read_text():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"The product did not start:\n{log.read_text()}")
                time.sleep(0.1)
            demo = json.loads((var / "demo.json").read_text())
            yield Product(demo["url"], demo["sandbox_url"], var, demo, env, process.pid)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
