"""The outgoing call: sent with bounds, retried within them, and read piece by piece. Knows no provider and no money.

The pools carry no credentials; those belong to the single call. Redirects, cookies, proxies of the
environment and inflation are off, and only addresses outside our own network are connected to.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from io import BytesIO
from typing import Final

import aiohttp
from django.conf import settings

from gateway.upstreams.base import Outgoing, Streamed
from insighto.lib import http

CONNECT_S: Final = 3.0
MAX_RETRIES: Final = 2
LONGEST_PAUSE_S: Final = 1.0  # a provider that asks for more is told to the client, who can wait better
MAX_ERROR_BYTES: Final = 64 * 1024

# What of a provider's headers goes back to the client; never cookies, never what describes the connection.
_PASSED: Final = frozenset(
    {
        "content-type", "x-request-id", "request-id", "history-item-id", "x-trace-id", "x-requestid",
        "apim-request-id", "retry-after", "retry-after-ms", "character-cost", "current-concurrent-requests",
        "maximum-concurrent-requests", "openai-organization", "openai-processing-ms", "openai-version",
        "openai-project",
    }
)  # fmt: skip

# On platform credits these are about the platform's own account at the provider.
_OUR_TENANT: Final = frozenset({"openai-organization", "openai-project"})
SHORTEST_KEY: Final = 16


class Failed(Exception):
    """No answer. `kind`: timeout connect tls dropped bad_body too_big; there is no other text."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Rejected(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body


class Pools:
    """One pool of connections for each provider address."""

    def __init__(self) -> None:
        tls = ssl.create_default_context()
        addresses = {
            "openai": settings.OPENAI_BASE_URL,
            "elevenlabs": settings.ELEVENLABS_BASE_URL,
            "azure_speech": settings.AZURE_SPEECH_TTS_URL,
        }
        self._sessions = {provider: _session(address, tls) for provider, address in addresses.items()}

    def of(self, provider: str) -> aiohttp.ClientSession:
        return self._sessions[provider]

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()


def _session(address: str, tls: ssl.SSLContext) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            ssl=tls, socket_factory=http.guard(address), limit=0, keepalive_timeout=10, ttl_dns_cache=10
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        headers={"User-Agent": "insighto", "Accept-Encoding": "identity"},
    )


async def send(session: aiohttp.ClientSession, outgoing: Outgoing) -> aiohttp.ClientResponse:
    """The provider's success, its body unread. Raises `Failed` or `Rejected`, from nothing: what the client
    library raises holds the request with its headers.

    Repeated at most twice, within one deadline, and only when nothing was connected or the provider said
    429 or 503 before any output.
    """
    deadline = asyncio.get_running_loop().time() + settings.UPSTREAM_FIRST_BYTE_S
    retry = 0
    while True:
        answer = await _attempt(session, outgoing, deadline)
        if isinstance(answer, aiohttp.ClientResponse):
            return answer
        pause_s = _pause(answer, retry)
        if retry == MAX_RETRIES or pause_s is None:
            raise answer
        retry += 1
        await asyncio.sleep(pause_s)


async def _attempt(
    session: aiohttp.ClientSession, outgoing: Outgoing, deadline: float
) -> aiohttp.ClientResponse | Failed | Rejected:
    response: aiohttp.ClientResponse | None = None
    try:
        async with asyncio.timeout_at(deadline):
            response = await session.post(
                outgoing.url, data=_payload(outgoing.body), headers=outgoing.headers, allow_redirects=False
            )
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                response.close()
                return Failed("bad_body")
            if response.status == 200:
                return response
            body = await _start_of(response)
            return Rejected(response.status, response.headers, body)
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
        if response is not None:
            response.close()
        raise
    if response is not None:
        response.close()
    return Failed(kind)


def _payload(body: bytes | Streamed) -> bytes | BytesIO | AsyncIterator[bytes]:
    """A large body is written in pieces, so that it does not hold up the loop."""
    if isinstance(body, Streamed):
        return body.pieces()
    return body if len(body) < 512 * 1024 else BytesIO(body)


async def _start_of(response: aiohttp.ClientResponse) -> bytes:
    """An error's body as far as anybody will read it."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_ERROR_BYTES:
            response.close()
            break
    return bytes(body[:MAX_ERROR_BYTES])


def _pause(failure: Failed | Rejected, retry: int) -> float | None:
    """How long to wait before the next try; None: there is none."""
    if isinstance(failure, Failed):
        return 0.1 * (retry + 1) if failure.kind == "connect" else None
    if failure.status not in (429, 503) or b"insufficient_quota" in failure.body or b"quota_exceeded" in failure.body:
        return None
    asked = failure.headers.get("retry-after", "").strip()
    pause_s = float(asked) if asked.isascii() and asked.isdigit() and len(asked) < 6 else 0.2 * 2**retry
    return pause_s if pause_s <= LONGEST_PAUSE_S else None


async def pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises `Failed`; a silence longer than the idle bound is one.

    Nothing is read ahead of what the consumer takes, beyond one small buffer.
    """
    loop = asyncio.get_running_loop()
    idle_s = settings.UPSTREAM_IDLE_S
    content = response.content
    try:
        while True:
            piece = content.read_nowait()
            if not piece:
                # A timeout costs more than the rest of this loop: only where there is something to wait for.
                async with asyncio.timeout_at(loop.time() + idle_s):
                    piece = await content.readany()
                if not piece:
                    return
            yield piece
    except TimeoutError:
        kind = "timeout"
    except (aiohttp.ClientError, OSError, ValueError):
        kind = "dropped"
    raise Failed(kind) from None


def passed(
    headers: Mapping[str, str], traces: tuple[str, ...] = (), *, on_credits: bool = False
) -> list[tuple[bytes, bytes]]:
    """The provider's headers that the client may see: none that repeats the key, and on credits none that names us."""
    return [
        (lowered.encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in headers.items()
        if ((lowered := name.lower()) in _PASSED or lowered.startswith("x-ratelimit-"))
        and not (on_credits and lowered in _OUR_TENANT)
        and (lowered == "content-type" or not echoes(value, traces))
    ]


def traces(outgoing: Outgoing) -> tuple[str, ...]:
    """Pieces of the key in a call's headers: what an echo of it would contain."""
    found: list[str] = []
    for name, value in outgoing.headers.items():
        key = value.rpartition(" ")[2].lower()
        if len(key) >= SHORTEST_KEY and name.lower() != "content-type":
            found += (key[:12], key[-8:])
    return tuple(found)


def echoes(text: str, traces: tuple[str, ...]) -> bool:
    """A provider sent (part of) the key back where something else should be."""
    lowered = text.lower()
    return any(trace in lowered for trace in traces)
