"""Start the sandbox providers for tests: a process of its own on a free port, gone when this process is."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

_ROOT = Path(__file__).resolve().parent.parent


class SandboxServer:
    """A running sandbox: its addresses, and its control and journal."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.openai_url = f"{url}/openai/v1"
        self.elevenlabs_url = f"{url}/elevenlabs"
        self.azure_url = f"{url}/azure/{{region}}"

    def control(self, **instruction: Any) -> dict[str, Any]:
        """`key` or `provider` with `outcome` (None takes it back), maybe `times`; `reset=True`; `chunk_delay_s`, …"""
        request = urllib.request.Request(  # noqa: S310 - our own http address
            f"{self.url}/_control", json.dumps(instruction).encode(), {"Content-Type": "application/json"}
        )
        return _read(request)

    def reset(self) -> None:
        self.control(reset=True)

    def calls(self, *, provider: str = "", tag: str = "", since: int = 0) -> list[dict[str, Any]]:
        query = urlencode({"provider": provider, "tag": tag, "since": since})
        found: list[dict[str, Any]] = _read(urllib.request.Request(f"{self.url}/_calls?{query}"))["calls"]  # noqa: S310
        return found

    def last_call(self) -> int:
        """The number of the newest call, for `since`."""
        last: int = _read(urllib.request.Request(f"{self.url}/_health"))["calls"]  # noqa: S310
        return last


@contextmanager
def running(*, chunk_delay_ms: int = 0, hang_s: float = 30.0) -> Iterator[SandboxServer]:
    """A sandbox for the length of the block; it also ends when this process is killed."""
    guard, held = os.pipe()
    environment = {name: value for name, value in os.environ.items() if name != "INSIGHTO_ENV"}
    process = subprocess.Popen(
        [sys.executable, "-m", "insighto.sandbox", f"--guard-fd={guard}", f"--chunk-delay-ms={chunk_delay_ms}",
         f"--hang-s={hang_s}"],
        cwd=_ROOT, env=environment, pass_fds=[guard], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(guard)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("sandbox ready "), f"the sandbox did not start: {line!r}"
        yield SandboxServer(line.removeprefix("sandbox ready ").strip())
    finally:
        os.close(held)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _read(request: urllib.request.Request) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as response:
        answer: dict[str, Any] = json.loads(response.read())
        return answer
