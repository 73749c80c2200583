"""One process that starts the whole product on this machine, waits until it serves, and stops it again.

Order: folder lock, Valkey and sandbox, migrations, worker, scheduler, web, demo seed. A child that dies
ends the run with its exit code. This process opens no database and serves nothing.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from insighto.dev import processes
from insighto.dev.processes import Child, Lifeline

_READY_TIMEOUT_S = 60.0
_TICK_S = 0.05


class Refused(Exception):
    """The run cannot start; the message is the one line to print."""


class ChildDied(Exception):
    def __init__(self, child: Child, code: int) -> None:
        super().__init__(f"{child.name} stopped with exit code {code}; see {child.log}\n{child.last_lines()}")
        self.code = code or 1


class Stopped(Exception):
    """Ctrl-C or a polite request to end."""


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@contextlib.contextmanager
def _folder_lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused("Insighto is already running in this folder.") from None
        yield


class Supervisor:
    """One run. `sandbox` says whether to start the sandbox providers; `redis_url` is empty for our own Valkey."""

    def __init__(self, *, base: Path, var: Path, port: int, sandbox: bool, redis_url: str) -> None:
        self.base = base
        self.var = var
        self.port = port
        self.sandbox = sandbox
        self.redis_url = redis_url
        self.url = f"http://127.0.0.1:{port}"
        self.env = {**os.environ, "PUBLIC_URL": self.url, "PYTHONUNBUFFERED": "1", "INSIGHTO_RUN": "dev"}
        self.children: list[Child] = []
        self._lifeline = Lifeline()
        self._folder = processes.short_folder()
        self._asked_to_stop = threading.Event()

    def run(self) -> int:
        """Serve until Ctrl-C (0) or until a child dies (its exit code)."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self._asked_to_stop.set())
        try:
            with _folder_lock(self.var / "run.lock"):
                if not processes.is_free(self.port):
                    message = f"Port {self.port} is in use. Try: python3 dev.py run --port {processes.free_port()}"
                    raise Refused(message)
                try:
                    self._start()
                    while True:
                        self._tick()
                finally:
                    self._stop()
        except Stopped:
            return 0
        except ChildDied as death:
            print(death, file=sys.stderr)
            return death.code
        except Refused as refusal:
            print(refusal, file=sys.stderr)
            return 1
        finally:
            self._lifeline.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        if not self.redis_url:
            self._start_valkey()
        if self.sandbox:
            port = processes.free_port()
            self.env["SANDBOX_URL"] = f"http://127.0.0.1:{port}"
            self._spawn("sandbox", self._manage("sandbox", "--port", str(port)))
        self._run_once("migrate", self._manage("migrate", "--noinput", "--verbosity", "0"))
        if not self.redis_url:
            self._wait(lambda: processes.valkey_answers(self._folder / "valkey.sock"), "Valkey")
        if not self.redis_url:
            self.env["REDIS_URL"] = f"unix://{self._folder / 'valkey.sock'}?db=0"
        celery = [sys.executable, "-m", "celery", "-A", "insighto.celery"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        # Threads: quick to start, and the tasks wait for networks. Production uses prefork (docker-compose.yml).
        worker = [*celery, "worker", "--pool", "threads", "--concurrency", "8", *quiet]
        self._spawn("worker", worker, INSIGHTO_READY_FILE=str(self._folder / "worker"))
        beat = [*celery, "beat", "--pidfile="]
        self._spawn("scheduler", beat, INSIGHTO_READY_FILE=str(self._folder / "scheduler"))
        self._spawn("web", [sys.executable, "-m", "insighto.server", "--port", str(self.port)])
        self._run_once("seed", self._manage("seed_demo"))
        for name in ("worker", "scheduler"):
            self._wait((self._folder / name).exists, f"the {name}")
        if self.sandbox:
            self._wait(lambda: _answers(self.env["SANDBOX_URL"] + "/"), "the sandbox")
        self._wait(lambda: _answers(self.url + "/readyz"), "the web server")
        self._greet()

    def _start_valkey(self) -> None:
        data = self.var / "valkey"
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        socket_path = self._folder / "valkey.sock"
        self._spawn("valkey", processes.valkey_command(socket_path=socket_path, data=data, appendonly=True))

    def _manage(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.base / "manage.py"), *arguments]

    def _child(self, name: str, command: list[str], **extra: str) -> Child:
        log = self.var / "logs" / f"{name}.log"
        return Child(name, command, lifeline=self._lifeline, env={**self.env, **extra}, log=log, cwd=self.base)

    def _spawn(self, name: str, command: list[str], **extra: str) -> None:
        self.children.append(self._child(name, command, **extra))

    def _run_once(self, name: str, command: list[str]) -> None:
        child = self._child(name, command)
        try:
            while (code := child.exit_code()) is None:
                self._tick()
        finally:
            child.kill()
        if code:
            raise ChildDied(child, code)

    def _wait(self, is_ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not is_ready():
            self._tick()
            if time.monotonic() > deadline:
                message = f"{what[0].upper()}{what[1:]} was not ready after {_READY_TIMEOUT_S:.0f} s."
                raise Refused(f"{message} See {self.var / 'logs'}.")

    def _tick(self) -> None:
        """Wait a moment; notice Ctrl-C and deaths."""
        if self._asked_to_stop.wait(_TICK_S):
            raise Stopped
        for child in self.children:
            code = child.exit_code()
            if code is not None:
                raise ChildDied(child, code)

    def _greet(self) -> None:
        sign_in = ""
        demo = self.var / "demo.json"
        if demo.exists():
            found = json.loads(demo.read_text(encoding="utf-8"))
            found |= {"url": self.url, "sandbox_url": self.env.get("SANDBOX_URL", "")}
            draft = demo.with_suffix(".new")
            draft.touch(mode=0o600)
            draft.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
            draft.replace(demo)
            if found.get("people"):
                person = found["people"][0]
                sign_in = f"  sign in as {person['email']} with the password {person['password']}"
        print(f"Insighto is ready: {self.url}{sign_in}  (Ctrl-C stops it)", flush=True)

    def _stop(self) -> None:
        """Those who use Valkey first, then Valkey."""
        servers = [child for child in self.children if child.name == "valkey"]
        processes.stop([child for child in self.children if child not in servers])
        processes.stop(servers)
