"""What the product costs on the way: requests per CPU-second through us, against a bare relay and going direct.

    python -m bench.run [--seconds 4] [--callers 64] [--streams]

Starts its own PostgreSQL, a fake provider, the product's server and a bare relay (same ASGI server, same
client library, no product), and prints CPU time per request, ratios of one run and the goals they are held
against. Absolute figures belong to the machine; CPU time and ratios also hold on a busy one, waits do not.
"""

import argparse
import asyncio
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parent.parent
ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-mini","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Hello there, and welcome."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":12,"completion_tokens":6,"total_tokens":18}}'
)
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini",'
    b'"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}],"usage":null}\n\n'
)
EVENTS = 40
GOAL = 0.7  # of what a bare relay serves with the same CPU time
LAST = b'data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":40,"total_tokens":52}}\n\ndata: [DONE]\n\n'


async def provider(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The fake provider: one answer, plain or as forty events."""
    if scope["type"] != "http":
        return
    body = await _body(receive)
    is_stream = b'"stream":true' in body
    content_type = b"text/event-stream" if is_stream else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})
    if is_stream:
        for _ in range(EVENTS):
            await send({"type": "http.response.body", "body": EVENT, "more_body": True})
        await send({"type": "http.response.body", "body": LAST})
    else:
        await send({"type": "http.response.body", "body": ANSWER})


_sessions: list[aiohttp.ClientSession] = []


async def relay(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The bare relay: what any Python gateway with this client must do, and nothing else."""
    if scope["type"] != "http":
        return
    body = await _body(receive)
    if not _sessions:
        _sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False))
    url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
    async with _sessions[0].post(url, data=body, headers={"Content-Type": "application/json"}) as response:
        kind = response.headers["content-type"].encode()
        await send({"type": "http.response.start", "status": response.status, "headers": [(b"content-type", kind)]})
        async for piece in response.content.iter_any():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _body(receive: Any) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--streams", action="store_true")
    options = parser.parse_args()
    from insighto.dev.processes import free_port
    from tests import servers

    ports = {name: free_port() for name in ("provider", "relay", "product")}
    with servers.running(postgres=True, durable=True) as found:
        os.environ |= found | {
            "DJANGO_SETTINGS_MODULE": "insighto.settings",
            "ENV_FILE": os.devnull,
            "LOG_LEVEL": "WARNING",
            "VAR_DIR": str(Path(found["REDIS_URL"].removeprefix("unix://").partition("?")[0]).parent),
            "OPENAI_BASE_URL": f"http://127.0.0.1:{ports['provider']}",
        }
        keys = _customers()
        with (
            _server("bench.run:provider", ports["provider"]),
            _server("bench.run:relay", ports["relay"]) as bare,
            _server("insighto.asgi:application", ports["product"]) as product,
        ):
            _measure(options, ports, keys, bare, product)


def _measure(
    options: argparse.Namespace,
    ports: dict[str, int],
    keys: dict[str, str],
    bare: subprocess.Popen[bytes],
    product: subprocess.Popen[bytes],
) -> None:
    path = "/chat/completions"
    ways = {
        "direct": (f"http://127.0.0.1:{ports['provider']}{path}", "", None),
        "bare relay": (f"http://127.0.0.1:{ports['relay']}{path}", "", bare),
        "own key": (f"http://127.0.0.1:{ports['product']}/v1{path}", keys["own"], product),
        "credits": (f"http://127.0.0.1:{ports['product']}/v1{path}", keys["credits"], product),
    }
    for streamed in (False, True) if options.streams else (False,):
        per_cpu: dict[str, float] = {}
        p50: dict[str, float] = {}
        for name, (url, token, process) in ways.items():
            asyncio.run(_load(url, token, 8, 0.7, streamed=streamed))  # warm
            before = _cpu_s(process)
            count, waits = asyncio.run(_load(url, token, options.callers, options.seconds, streamed=streamed))
            cpu_s = _cpu_s(process) - before
            _, alone = asyncio.run(_load(url, token, 1, 1.0, streamed=streamed))
            line = f"{'streams' if streamed else 'plain':8}{name:12}{count / options.seconds:9,.0f} req/s"
            line += (
                f"   c1 p50 {alone[len(alone) // 2] * 1e3:6.2f} ms p99 {alone[int(len(alone) * 0.99)] * 1e3:6.2f} ms"
            )
            line += f"   p50 {waits[len(waits) // 2] * 1e3:7.2f} ms"
            if process is not None:
                per_cpu[name] = count / cpu_s
                line += f"   {cpu_s / count * 1e6:6,.0f} µs CPU/req   RSS {_rss_mb(process):4.0f} MB"
            p50[name] = alone[len(alone) // 2] * 1e3
            print(line)  # noqa: T201
        for name, added_goal_ms in (("own key", 0.4), ("credits", 1.0)):
            ratio, added_ms = per_cpu[name] / per_cpu["bare relay"], p50[name] - p50["bare relay"]
            line = (
                f"        {name} / bare relay: {ratio:.0%} of its requests per CPU-second (goal: at least {GOAL:.0%})"
            )
            line += f", {added_ms:+.2f} ms p50 at one caller (goal: at most {added_goal_ms:+.1f} ms)"
            print(line)  # noqa: T201


async def _load(url: str, token: str, callers: int, seconds: float, *, streamed: bool) -> tuple[int, list[float]]:
    body = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello"}],"max_tokens":50'
    body += b',"stream":true}' if streamed else b"}"
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    waits: list[float] = []
    deadline = time.perf_counter() + seconds

    async def caller(session: aiohttp.ClientSession) -> None:
        while (began := time.perf_counter()) < deadline:
            async with session.post(url, data=body, headers=headers) as response:
                assert response.status == 200, await response.text()
                await response.read()
            waits.append(time.perf_counter() - began)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(caller(session) for _ in range(callers)))
    waits.sort()
    return len(waits), waits


def _customers() -> dict[str, str]:
    """One account on its own key and one on credits; their API keys."""
    import django

    django.setup()
    from django.core.management import call_command

    from accounts.models import Account
    from accounts.services import api_keys
    from billing.services import ledger
    from insighto.sandbox.keys import valid_key
    from provider_keys.models import Connection, Slot
    from provider_keys.services import connections, platform_credentials
    from tests import factories

    call_command("migrate", verbosity=0)
    platform_credentials.put(provider="openai", key=valid_key("openai", "platform"), actor=None)
    found = {}
    for way in ("own", "credits"):
        owner = factories.make_user()
        account = factories.make_account(owner=owner)
        if way == "own":
            made = connections.add(account=account, provider="openai", key=valid_key("openai", "own"), actor=owner)
            Connection.objects.filter(pk=made.pk).update(verdict="valid")
            Slot.objects.update_or_create(account=account, provider="openai", defaults={"connection": made})
            Account.objects.filter(pk=account.pk).update(byok_enabled=True)
        else:
            ledger.grant(account=account, amount_micros=10**12, reason="Bench", actor=None, idempotency_key="bench")
        found[way] = api_keys.issue(account=account, name="Bench", actor=owner)[1].reveal()
    from django.db import connection

    connection.close()
    return found


@contextmanager
def _server(application: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        application,
        "--port",
        str(port),
        "--no-access-log",
        "--log-level",
        "error",
    ]
    process = subprocess.Popen(command, cwd=ROOT)  # noqa: S603 - our own servers
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait()


def _cpu_s(process: subprocess.Popen[bytes] | None) -> float:
    if process is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_utime
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(process: subprocess.Popen[bytes]) -> float:
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
