"""One HTTP call of a client as raw ASGI: its headers, token and body, and the answer that goes back.

Reads no database and knows no provider. Everything that is read has a bound in size and time.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final
from uuid import UUID

from gateway.errors import Refused
from insighto.lib import ids

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

BODY_TIMEOUT_S: Final = 30.0
UPLOAD_TIMEOUT_S: Final = 300.0
MAX_HEADER_BYTES: Final = 32 * 1024

# The three ways an API key arrives, and whose SDK sends it that way.
_TOKEN_HEADERS: Final = {
    b"authorization": "openai",
    b"xi-api-key": "elevenlabs",
    b"ocp-apim-subscription-key": "azure_speech",
}


class ClientGone(Exception):
    """The client closed the connection."""


class Call:
    """A request being served. `shape` is the provider whose errors the caller's SDK understands."""

    __slots__ = ("_gone", "_receive", "_send", "_task", "_watcher", "id", "method", "path", "scope", "shape", "started")

    def __init__(self, scope: Message, receive: Receive, send: Send, shape: str) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.shape = shape
        self.id: UUID = ids.new()
        self.started = False
        self._receive = receive
        self._send = send
        self._gone = False
        self._task: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None

    def header(self, name: bytes) -> str:
        """The header's only value; empty when it is missing or sent twice."""
        found = [value for key, value in self.scope["headers"] if key == name]
        return found[0].decode("latin-1") if len(found) == 1 else ""

    async def read_body(self, limit: int) -> bytes:
        """The whole body. Raises `Refused` when it is too large or too slow, `ClientGone` when it never ends."""
        declared = self.header(b"content-length")
        if declared.isascii() and declared.isdigit() and (len(declared) > 12 or int(declared) > limit):
            raise Refused("body_too_large")
        message = await self._receive_in_time()
        if not message.get("more_body"):
            body: bytes = message.get("body", b"")
            self._check(len(body), limit)
            return body
        pieces = bytearray(message.get("body", b""))
        deadline = asyncio.get_running_loop().time() + BODY_TIMEOUT_S
        while message.get("more_body"):
            message = await self._receive_in_time(deadline)
            pieces += message.get("body", b"")
            self._check(len(pieces), limit)
        return bytes(pieces)

    async def body_pieces(self, limit: int) -> AsyncIterator[bytes]:
        """The body as it arrives; the bounds and refusals of `read_body`, but for a longer whole time."""
        declared = self.header(b"content-length")
        if declared.isascii() and declared.isdigit() and (len(declared) > 12 or int(declared) > limit):
            raise Refused("body_too_large")
        size = 0
        deadline = asyncio.get_running_loop().time() + UPLOAD_TIMEOUT_S
        more = True
        while more:
            silence = asyncio.get_running_loop().time() + BODY_TIMEOUT_S
            message = await self._receive_in_time(min(deadline, silence))
            piece: bytes = message.get("body", b"")
            size += len(piece)
            self._check(size, limit)
            if piece:
                yield piece
            more = bool(message.get("more_body"))

    async def _receive_in_time(self, deadline: float | None = None) -> Message:
        if deadline is None:
            deadline = asyncio.get_running_loop().time() + BODY_TIMEOUT_S
        try:
            async with asyncio.timeout_at(deadline):
                message = await self._receive()
        except TimeoutError:
            raise Refused("request_timeout") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message

    @staticmethod
    def _check(size: int, limit: int) -> None:
        if size > limit:
            raise Refused("body_too_large")

    # The client's presence. Inside `async with call:` its leaving interrupts whatever is awaited, as `ClientGone`.

    async def __aenter__(self) -> "Call":
        self._task = asyncio.current_task()
        if self._gone:
            raise ClientGone
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        task, self._task = self._task, None
        if self._gone and kind is asyncio.CancelledError and task is not None and task.uncancel() <= 0:
            raise ClientGone from None

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._task is not None:
            self._task.cancel()

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()

    # The answer.

    async def start(self, status: int, headers: RawHeaders) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, body: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """A whole answer of known length."""
        await self.start(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self.send(body, more=False)


def token(scope: Message) -> tuple[str, str]:
    """(API key, whose header carried it) from whichever of the three headers the caller's SDK uses.

    The only place that looks for an API key. None, or several that differ, is `invalid_api_key`: a
    second key in another header must not slip past what was judged of the first.
    """
    found: list[tuple[str, str]] = []
    size = 0
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        owner = _TOKEN_HEADERS.get(name)
        if owner is None:
            continue
        text = value.decode("latin-1").strip()
        if name == b"authorization":
            scheme, _, text = text.partition(" ")
            text = text.strip() if scheme.lower() == "bearer" else ""
        if text:
            found.append((text, owner))
    if size > MAX_HEADER_BYTES:
        raise Refused("header_too_large")
    if not found or any(text != found[0][0] for text, _ in found) or len(found[0][0]) > 200:
        raise Refused("invalid_api_key")
    return found[0]
