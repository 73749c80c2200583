"""What goes wrong below the protocol: slowness, cut lines, strangers' pages, redirects; and how bodies are sent."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from aiohttp import web

from insighto.sandbox.keys import Outcome

if TYPE_CHECKING:
    from insighto.sandbox.call import Call

USE = "use"
_GUEST_PAGE = (
    "<!doctype html><html lang=en><title>Welcome to GuestNet</title>"
    "<h1>Welcome to GuestNet</h1><p>Accept the terms to go online.</p></html>"
)


class Cut(Exception):
    """The connection was cut on purpose; `response` only satisfies the server's bookkeeping."""

    def __init__(self, response: web.StreamResponse, status: int) -> None:
        super().__init__()
        self.response = response
        self.status = status


async def before(call: "Call") -> web.Response | None:
    """What happens instead of, or ahead of, any answer of the provider."""
    outcome = call.outcome
    if outcome is Outcome.SLOW:
        await asyncio.sleep(call.sandbox.hang_s)
    elif outcome is Outcome.SLOW_300MS:
        await asyncio.sleep(0.3)
    elif outcome is Outcome.DROPS:
        cut(call, web.Response(), status=0, flush=False)
    elif outcome is Outcome.HTML:
        return web.Response(text=_GUEST_PAGE, content_type="text/html")
    elif outcome is Outcome.GARBAGE:
        return web.Response(body=b'{"object":"list","data":[{"id":"gp\xff\x00t', content_type="application/json")
    elif outcome is Outcome.EMPTY:
        return web.json_response({})
    elif outcome is Outcome.REDIRECTS:
        return web.Response(status=307, headers={"Location": _elsewhere(call)})
    return None


def echo_headers(call: "Call") -> dict[str, str]:
    """The key in headers, plain and percent-encoded, as a careless proxy would send it."""
    printable = "".join(character for character in call.presented if " " <= character <= "~")
    return {
        "x-debug-authorization": f"Bearer {printable}",
        "x-debug-key": quote(printable, safe=""),
        "x-debug-key-every-byte": "".join(f"%{ord(character):02X}" for character in printable),
    }


def echo_text(call: "Call") -> str:
    """The key in an error message: plain and with every byte percent-encoded."""
    encoded = "".join(f"%{byte:02X}" for byte in call.presented.encode("utf-8", "surrogateescape"))
    return f"The key {call.presented} (encoded: {encoded}) did not please us."


def cut(call: "Call", response: web.StreamResponse, *, status: int, flush: bool = True) -> None:
    transport = call.request.transport
    if transport is not None:
        if flush:
            transport.close()
        else:
            transport.abort()
    raise Cut(response, status)


async def send(
    call: "Call",
    pieces: Iterable[bytes] | AsyncIterator[bytes],
    *,
    content_type: str,
    headers: Mapping[str, str] | None = None,
    length: int | None = None,
    pause_s: float = 0.0,
    break_after: int = 4,
) -> web.StreamResponse:
    """Send a billable answer piece by piece, with whatever fault the key asks for on the way.

    A `length` makes it an ordinary answer of known size; without one it is chunked.
    """
    response = web.StreamResponse(headers={**call.headers, **(headers or {}), "Content-Type": content_type})
    if length is not None:
        response.content_length = length
    else:
        response.enable_chunked_encoding()
        call.entry.streamed = True
    await response.prepare(call.request)
    if call.outcome is Outcome.DIES_BEFORE_FIRST_BYTE:
        cut(call, response, status=response.status)
    if call.outcome is Outcome.SLOW_STREAM:
        pause_s = call.sandbox.slow_stream_s
    count = 0
    async for piece in _each(pieces):
        if count and pause_s:
            await asyncio.sleep(pause_s)
        if call.outcome is Outcome.BREAKS_MID_STREAM and count >= break_after:
            cut(call, response, status=response.status)
        await response.write(piece)
        call.entry.sent_bytes += len(piece)
        count += 1
    if call.outcome is Outcome.BREAKS_MID_STREAM:
        cut(call, response, status=response.status)
    await response.write_eof()
    return response


async def send_whole(
    call: "Call", body: bytes, *, content_type: str, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """An ordinary answer; a key that breaks gets half of it."""
    if call.outcome in (Outcome.BREAKS_MID_STREAM, Outcome.DIES_BEFORE_FIRST_BYTE):
        half = [body[: len(body) // 2]]
        return await send(call, half, content_type=content_type, headers=headers, length=len(body))
    call.entry.sent_bytes += len(body)
    return web.Response(body=body, headers={**call.headers, **(headers or {}), "Content-Type": content_type})


async def _each(pieces: Iterable[bytes] | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(pieces, AsyncIterator):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece


def _elsewhere(call: "Call") -> str:
    """Another host: the configured one, else this server under the other name of this machine."""
    if call.sandbox.redirect_to:
        return call.sandbox.redirect_to
    here = urlsplit(call.sandbox.url)
    other = "localhost" if here.hostname == "127.0.0.1" else "127.0.0.1"
    return f"http://{other}:{here.port}/_sink/{call.provider}"
