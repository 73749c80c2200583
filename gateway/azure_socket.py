"""The WebSocket that Azure's native SDK opens for synthesis: its messages both ways, and one leg for each turn.

A turn is one SSML document. It is judged, decided and held for before anything of it is sent; the answer's
messages pass as they come, and the last one (`turn.end`) when the turn is settled. The connection to the
provider stays for the next turn only while the same version of the same credential serves it.
"""

import asyncio
import contextlib
import re
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import aiohttp
import structlog
from django.conf import settings

from accounts.services import api_keys
from gateway import errors, incoming, receipts, relay, runtime
from gateway.errors import Refused
from gateway.incoming import Message, Receive, Send
from gateway.legs import Leg
from gateway.runtime import Runtime
from gateway.store import Admission, Ask
from gateway.upstreams.azure_speech import SocketSpeech
from gateway.upstreams.base import Outgoing
from insighto.lib import http, ids
from insighto.lib.batcher import Overloaded
from insighto.lib.errors import DomainError
from provider_keys import classify

PATHS: Final = frozenset({"/cognitiveservices/websocket/v1", "/tts/cognitiveservices/websocket/v1"})
IDLE_S: Final = 120.0
MAX_MESSAGE_CHARACTERS: Final = 128 * 1024
MAX_UPSTREAM_BYTES: Final = 4 * 1024 * 1024
MAX_WAITING: Final = 16
MAX_HEAD_CHARACTERS: Final = 4096
_LINE: Final = re.compile(r"([A-Za-z\-]{1,60}):([ -~]*)")
_PROTOCOL: Final = "USP"
# What a client may say besides SSML. Anything else might ask for work that nobody counted.
_BEFORE: Final = ("speech.config", "synthesis.context")
_ASIDE: Final = frozenset({"telemetry"})

log = structlog.get_logger(__name__)


class _Gone(Exception):
    """The client is not there any more."""


async def serve(scope: Message, receive: Receive, send: Send) -> None:
    running = runtime.current()
    await receive()  # websocket.connect
    running.in_flight += 1
    try:
        if running.in_flight > settings.GATEWAY_MAX_IN_FLIGHT:
            raise Refused("too_many_requests", retry_after_s=1)
        digest = api_keys.digest(incoming.token(scope)[0])
        if digest is None or await running.store.admit(Ask(digest=digest)) is None:
            raise Refused("invalid_api_key")
        await send({"type": "websocket.accept", "subprotocol": _PROTOCOL if _offered(scope) else None})
        await _Socket(running, digest, receive, send).run()
    except DomainError as error:
        await _reject(scope, send, errors.of_domain(error))
    except Overloaded:
        await _reject(scope, send, Refused("overloaded"))
    except Exception as error:
        log.error("gateway_failed", error=type(error).__name__, place="azure_socket")
        await _reject(scope, send, Refused("internal_error"))
    finally:
        running.in_flight -= 1


def _offered(scope: Message) -> bool:
    return _PROTOCOL in scope.get("subprotocols", ())


async def _reject(scope: Message, send: Send, problem: Refused) -> None:
    """No to the handshake, with its status where the server can say it."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"application/json"), *receipts.headers(ids.new(), None, None)]
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": errors.body(errors.AZURE, problem, "")})


@dataclass(frozen=True, slots=True)
class _Upstream:
    """An open connection, and the credential it was opened with."""

    socket: "aiohttp.ClientWebSocketResponse[bool]"
    session: aiohttp.ClientSession
    credential: tuple[UUID, int]

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self.socket.close()
        await self.session.close()


class _Socket:
    """One client's connection: its turns one after another."""

    def __init__(self, running: Runtime, digest: bytes, receive: Receive, send: Send) -> None:
        self._runtime = running
        self._digest = digest
        self._receive = receive
        self._send = send
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        self._gone = asyncio.Event()
        self._before: dict[str, str] = {}  # what the next connection to the provider has to hear first
        self._upstream: _Upstream | None = None

    async def run(self) -> None:
        listener = asyncio.create_task(self._listen())
        turns = asyncio.create_task(self._turns())
        gone = asyncio.create_task(self._gone.wait())
        try:
            await asyncio.wait({turns, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (turns, listener, gone):
                task.cancel()
            await asyncio.gather(turns, listener, gone, return_exceptions=True)
            await self._hang_up()
        if not turns.cancelled() and (error := turns.exception()) is not None and not isinstance(error, _Gone):
            log.error("gateway_failed", error=type(error).__name__, place="azure_socket")
            await self._close(1011, "internal_error")

    async def _listen(self) -> None:
        """The client's messages into the queue, which is bounded; its leaving into the event."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._gone.set()
                return
            text = message.get("text")
            if text is None or len(text) > MAX_MESSAGE_CHARACTERS or self._waiting.full():
                await self._close(1007, "This socket takes text messages, one turn at a time.")
                self._gone.set()
                return
            self._waiting.put_nowait(text)

    async def _turns(self) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    text = await self._waiting.get()
            except TimeoutError:
                await self._close(1000, "")
                return
            path = _path(text)
            if path in _BEFORE:
                self._before[path] = text
                if self._upstream is not None:
                    await self._tell(self._upstream, text)
            elif path == "ssml":
                problem = await self._turn(text)
                if problem is not None:
                    await self._close(_close_code(problem), f"{problem.code}: {problem}")
                    return
            elif path not in _ASIDE:
                await self._close(1007, "invalid_request: this message is not one of speech synthesis.")
                return

    async def _turn(self, text: str) -> Refused | None:
        """One document spoken, or why it was not. Whatever ends it, the leg is settled."""
        leg: Leg | None = None
        try:
            operation = SocketSpeech(text.partition("\r\n\r\n")[2].encode("utf-8", "surrogatepass"))
            ask = Ask(operation.provider, operation.price_model, self._digest)
            admission = await self._runtime.store.admit(ask)
            if admission is None:
                raise Refused("invalid_api_key")
            request_id = ids.new()
            leg = Leg(self._runtime, request_id, operation)
            await leg.open(admission)
            await self._speak(leg, admission, text, request_id)
        except Refused as problem:
            if leg is not None:
                await leg.fail(problem)
            await self._hang_up()
            return problem
        except DomainError as error:
            return errors.of_domain(error)
        except Overloaded:
            return Refused("overloaded")
        finally:
            if leg is not None:
                leg.close()  # a client that left pays for what it heard
        return None

    async def _speak(self, leg: Leg, admission: Admission, text: str, request_id: UUID) -> None:
        upstream = await self._connected(leg, admission)
        if not await self._tell(upstream, text):  # it had gone since the last turn: once more, on a new connection
            await self._hang_up()
            raise leg.broke("dropped")
        wait_s = settings.UPSTREAM_FIRST_BYTE_S
        while True:
            try:
                async with asyncio.timeout(wait_s):
                    message = await upstream.socket.receive()
            except TimeoutError:
                raise leg.broke("timeout") from None
            if message.type is aiohttp.WSMsgType.TEXT:
                if _path(message.data) == "turn.end":
                    break
                answer = message.data
                if _path(answer) == "turn.start":
                    answer = _with_receipt(answer, leg)
                await self._pass({"type": "websocket.send", "text": answer})
            elif message.type is aiohttp.WSMsgType.BINARY:
                wait_s = settings.UPSTREAM_IDLE_S
                if sound := _sound(message.data):
                    leg.hears(sound)
                await self._pass({"type": "websocket.send", "bytes": message.data})
            else:
                raise _ended(leg, message, upstream)
        if not leg.has_output:
            raise leg.broke("bad_body")
        await leg.finish()
        await self._pass({"type": "websocket.send", "text": message.data})

    # The provider's side.

    async def _connected(self, leg: Leg, admission: Admission) -> _Upstream:
        """The connection for this leg's credential. What was open with another is closed first."""
        assert admission.facts is not None
        assert leg.decision is not None
        credential = admission.facts.credential(leg.decision)
        assert credential is not None
        wanted = (credential.credential_id, credential.secret_version)
        outgoing = leg.dispatched()
        upstream = self._upstream
        if upstream is None or upstream.credential != wanted or upstream.socket.closed:
            await self._hang_up()
            upstream = await self._connect(leg, outgoing, wanted)
            self._upstream = upstream
            for name in _BEFORE:
                if name in self._before:
                    await self._tell(upstream, self._before[name])
        leg.answers(101)
        return upstream

    async def _connect(self, leg: Leg, outgoing: Outgoing, credential: tuple[UUID, int]) -> _Upstream:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=http.guard(settings.AZURE_SPEECH_TTS_URL), limit=1),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=relay.CONNECT_S),
            middlewares=(_only_a_socket,),
        )
        kind = "dropped"
        try:
            async with asyncio.timeout(settings.UPSTREAM_FIRST_BYTE_S):
                socket = await session.ws_connect(
                    outgoing.url, headers=outgoing.headers, protocols=(_PROTOCOL,), max_msg_size=MAX_UPSTREAM_BYTES
                )
            return _Upstream(socket, session, credential)
        except relay.Rejected as rejection:
            await session.close()
            raise await leg.rejected(rejection, relay.traces(outgoing)) from None
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorDNSError):
            kind = "connect"
        except TimeoutError:
            kind = "timeout"
        except aiohttp.ClientSSLError:
            kind = "tls"
        except aiohttp.ClientConnectorError:
            kind = "connect"
        except (aiohttp.ClientError, OSError, ValueError):
            kind = "dropped"
        except BaseException:
            await session.close()
            raise
        await session.close()
        raise leg.broke(kind) from None

    async def _tell(self, upstream: _Upstream, text: str) -> bool:
        try:
            await upstream.socket.send_str(text)
        except (aiohttp.ClientError, OSError, RuntimeError):
            return False
        return True

    async def _hang_up(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            await upstream.close()

    # The client's side.

    async def _pass(self, message: Message) -> None:
        try:
            await self._send(message)
        except (OSError, RuntimeError):
            self._gone.set()
            raise _Gone from None

    async def _close(self, code: int, reason: str) -> None:
        shown = reason.encode()[:120].decode("utf-8", "ignore")  # a close frame has room for no more
        with contextlib.suppress(OSError, RuntimeError, _Gone):
            await self._pass({"type": "websocket.close", "code": code, "reason": shown})


async def _only_a_socket(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Any other answer to the handshake ends here with its body, a redirect above all: it would take the key along."""
    response = await handler(request)
    if response.status != 101:
        body = b""
        with contextlib.suppress(aiohttp.ClientError, OSError):
            body = await response.content.read(relay.MAX_ERROR_BYTES)
        response.close()
        raise relay.Rejected(response.status, response.headers, body)
    return response


def _path(text: str) -> str:
    """The name of a message: its `Path` header. Empty when it has none, or can be read in another way than ours."""
    lines = [_LINE.fullmatch(line) for line in text[:MAX_HEAD_CHARACTERS].partition("\r\n\r\n")[0].split("\r\n")]
    names = [line[2].strip().lower() for line in lines if line is not None and line[1].lower() == "path"]
    return names[0] if len(names) == 1 and None not in lines and "\r\n\r\n" in text[:MAX_HEAD_CHARACTERS] else ""


def _sound(data: bytes) -> bytes:
    """What a binary message carries after its headers, whose length its first two bytes say."""
    head = int.from_bytes(data[:2], "big")
    return data[2 + head :] if b"path:audio" in data[2 : 2 + head].lower() else b""


def _with_receipt(text: str, leg: Leg) -> str:
    """The receipt as headers of the first message of the answer; the SDK reads those it knows."""
    head, separator, body = text.partition("\r\n\r\n")
    lines = [f"{name.decode()}:{value.decode()}" for name, value in leg.receipt_headers()]
    return "\r\n".join([head, *lines]) + separator + body


def _ended(leg: Leg, message: Any, upstream: _Upstream) -> Refused:
    """The provider closed in mid-turn: its code says why."""
    code = upstream.socket.close_code or 1006
    if message.type is aiohttp.WSMsgType.CLOSE and isinstance(message.data, int):
        code = message.data
    outcome = classify.azure_close(code)
    if code == 1007:
        return Refused("invalid_request", "Azure Speech refused the SSML, the voice or the output format.", status=400)
    if code not in (1008, 4429):
        return leg.broke("dropped")
    leg.closed(outcome)
    if code == 4429:
        return Refused("provider_rate_limited")
    return Refused("provider_refused_platform") if leg.on_credits else errors.of_decision("byok_key_restricted")


def _close_code(problem: Refused) -> int:
    """The code the native SDK understands: its request, its rate, its permission, or the service."""
    if problem.status == 429:
        return 4429
    if problem.status in (401, 402, 403, 424):
        return 1008
    return 1007 if problem.status < 500 else 1011
