"""The sandbox's one process on one port: the three protocols, the page, the journal and the control."""

import asyncio
import contextlib
import ipaddress
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from aiohttp import web

from insighto.sandbox import azure_speech, azure_websocket, elevenlabs, journal, keys, openai, page
from insighto.sandbox.call import STATE, Sandbox
from insighto.sandbox.keys import Outcome

LARGEST_BODY = 27 * 1024 * 1024
LONGEST_HANG_S = 60.0


def application(sandbox: Sandbox) -> web.Application:
    app = web.Application(client_max_size=LARGEST_BODY, middlewares=[_bounded])
    app[STATE] = sandbox
    sandbox.start()
    for method, path, handler in [
        *openai.routes(),
        *elevenlabs.routes(),
        *azure_speech.routes(),
        *azure_websocket.routes(),
    ]:
        app.router.add_route(method, path, handler)
    app.router.add_get("/", page.show)
    app.router.add_get("/_health", _health)
    app.router.add_get("/_calls", _calls)
    app.router.add_post("/_control", _control)
    app.router.add_route("*", "/_sink/{provider}", _sink)
    return app


@contextlib.asynccontextmanager
async def _running(sandbox: Sandbox, *, host: str, port: int) -> Any:
    runner = web.AppRunner(
        application(sandbox), access_log=None, handler_cancellation=True, shutdown_timeout=1.0, keepalive_timeout=75
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=1024)
        await site.start()
        bound = runner.addresses[0][1]
        sandbox.url = f"http://{host}:{bound}"
        yield sandbox.url
    finally:
        await runner.cleanup()


async def serve(
    sandbox: Sandbox, *, port: int, ready: Callable[[str], None], guard_fd: int | None = None, host: str = "127.0.0.1"
) -> None:
    """Serve on this machine until a signal comes, or until the other end of the `guard_fd` pipe is closed."""
    if not ipaddress.ip_address(host).is_loopback:
        message = "the sandbox only listens on this machine"
        raise ValueError(message)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if guard_fd is not None:
        os.set_blocking(guard_fd, False)
        loop.add_reader(guard_fd, _watch, guard_fd, stop)
    async with _running(sandbox, host=host, port=port) as url:
        ready(url)
        await stop.wait()


def _watch(guard_fd: int, stop: asyncio.Event) -> None:
    with contextlib.suppress(BlockingIOError):
        if not os.read(guard_fd, 1):
            asyncio.get_running_loop().remove_reader(guard_fd)
            stop.set()


def run(
    *, port: int, chunk_delay_ms: int = 12, hang_s: float = 30.0, guard_fd: int | None = None, out: Any = None
) -> None:
    """Run the sandbox in this process and say on one line when it answers."""
    stream = out or sys.stdout

    def ready(url: str) -> None:
        stream.write(f"sandbox ready {url}\n")
        stream.flush()

    sandbox = Sandbox(chunk_delay_s=chunk_delay_ms / 1_000, hang_s=min(hang_s, LONGEST_HANG_S))
    asyncio.run(serve(sandbox, port=port, ready=ready, guard_fd=guard_fd))


@web.middleware
async def _bounded(request: web.Request, handler: Any) -> web.StreamResponse:
    """Only this machine, and no call for ever."""
    remote = request.remote or ""
    if not remote or not ipaddress.ip_address(remote).is_loopback:
        return web.Response(status=403)
    async with asyncio.timeout(300):
        response: web.StreamResponse = await handler(request)
        return response


async def _health(request: web.Request) -> web.Response:
    return web.json_response({"ok": True, "calls": request.app[STATE].calls.last})


async def _calls(request: web.Request) -> web.Response:
    query = request.query
    try:
        since, limit = int(query.get("since", "0")), int(query.get("limit", str(journal.KEPT)))
    except ValueError:
        return web.json_response({"error": "since and limit are whole numbers"}, status=400)
    calls = request.app[STATE].calls
    found = calls.find(provider=query.get("provider", ""), tag=query.get("tag", ""), since=since, limit=limit)
    return web.json_response({"last": calls.last, "calls": [journal.as_json(entry) for entry in found]})


async def _control(request: web.Request) -> web.Response:
    """Change what happens next. JSON only, so that no foreign page can post it without asking."""
    if request.content_type != "application/json":
        return web.json_response({"error": "send application/json"}, status=415)
    sandbox = request.app[STATE]
    try:
        body = await request.json()
        if not isinstance(body, dict):
            raise TypeError
        _apply(sandbox, body)
    except (ValueError, TypeError, KeyError):
        return web.json_response({"error": "not an instruction the sandbox knows"}, status=400)
    return web.json_response(
        {
            "outages": sandbox.outages,
            "keys": {keys.name(_provider_of(text), text): outcome for text, outcome in sandbox.outcomes.items()},
            "chunk_delay_s": sandbox.chunk_delay_s,
            "hang_s": sandbox.hang_s,
            "slow_stream_s": sandbox.slow_stream_s,
            "redirect_to": sandbox.redirect_to,
            "last": sandbox.calls.last,
        }
    )


def _apply(sandbox: Sandbox, body: dict[str, Any]) -> None:
    if body.get("reset") is True:
        sandbox.reset()
    for name in ("chunk_delay_s", "hang_s", "slow_stream_s"):
        if name in body:
            setattr(sandbox, name, min(max(float(body[name]), 0.0), LONGEST_HANG_S))
    if "redirect_to" in body:
        target = str(body["redirect_to"])
        if target and not target.startswith(("http://127.0.0.1:", "http://localhost:")):
            raise ValueError
        sandbox.redirect_to = target
    if "outcome" not in body:
        return
    outcome = None if body["outcome"] is None else Outcome(body["outcome"])
    table: dict[str, Outcome] = sandbox.outcomes if "key" in body else sandbox.outages
    place = str(body["key"])[:512] if "key" in body else str(body["provider"])
    if table is sandbox.outages and place not in keys.PROVIDERS:
        raise ValueError
    sandbox.left.pop(place, None)
    if outcome is None:
        table.pop(place, None)
    elif len(table) < 1_000 or place in table:
        table[place] = outcome
        if "times" in body:
            sandbox.left[place] = max(1, int(body["times"]))


async def _sink(request: web.Request) -> web.Response:
    """Where redirects lead. It notes which key, if any, came along, in any header, query or body."""
    provider = request.match_info["provider"]
    body = await request.read()
    arrived = "none"
    texts = [*request.headers.values(), *request.query.values(), body[:200_000].decode("utf-8", "replace")]
    for word in (word for text in texts for word in text.replace('"', " ").split()):
        for name in keys.PROVIDERS:
            if keys.read(name, word):
                arrived = keys.name(name, word)
    entry = request.app[STATE].calls.open(
        provider="sink", operation=provider[:20], method=request.method, path=request.path, tag=arrived, outcome="",
        request_id="",
    )  # fmt: skip
    entry.units = len(body)
    journal.close(entry, status=200)
    return web.Response(body=json.dumps({"sink": provider[:20]}), content_type="application/json")


def _provider_of(text: str) -> str:
    return next((name for name in keys.PROVIDERS if keys.read(name, text)), keys.OPENAI)
