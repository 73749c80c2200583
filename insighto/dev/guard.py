"""Runs one command and ends it when the other end of an inherited pipe closes, however its holder died.

A script of its own, standard library only: `python guard.py FD USER COMMAND…` (USER may be `-`). The command
shares the guard's process group, so nothing it started outlives it.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

GRACE_S = 3.0


def main(pipe: int, user: str, command: list[str]) -> int:
    os.set_inheritable(pipe, False)
    ended, ending = os.pipe()
    os.set_blocking(ending, False)
    signal.set_wakeup_fd(ending, warn_on_full_buffer=False)
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _: object) -> None:
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    if user == "-":
        child = subprocess.Popen(command)
    else:
        import pwd

        entry = pwd.getpwnam(user)
        child = subprocess.Popen(command, user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])
    while child.poll() is None:
        readable, _, _ = select.select([pipe, ended], [], [], 1.0)
        if ended in readable:
            os.read(ended, 512)
        if pipe in readable and not os.read(pipe, 1):
            _end_group(child)
    code = child.returncode
    return 128 - code if code < 0 else code


def _end_group(child: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
