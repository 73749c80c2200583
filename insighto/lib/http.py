"""The one place, beside the relay, that makes outgoing HTTP requests.

Redirects are off, the environment's proxies are not used, certificates are checked against the
system's store, answers are bounded in size and never inflated, and the address that is really
connected to is checked, whatever the name resolved to.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohappyeyeballs import AddrInfoType as AddrInfo

DEADLINE_S: Final = 10.0
CONNECT_S: Final = 3.0

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class RequestFailed(Exception):
    """No readable answer. `kind` is one of `timeout connect tls dropped too_big bad_body`; there is no other text."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class AddressRefused(OSError):
    """The name led to an address inside our own network."""


def session(base_url: str) -> aiohttp.ClientSession:
    """A session for one configured address: no cookies, no proxies, no inflation, no address but a public one.

    It carries no credentials: those belong to the single request.
    """
    connector = aiohttp.TCPConnector(
        ssl=_tls() if base_url.startswith("https:") else True,
        socket_factory=guard(base_url),
        use_dns_cache=False,
        limit=0,
        enable_cleanup_closed=False,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=DEADLINE_S, sock_connect=CONNECT_S),
        headers={"User-Agent": "insighto", "Accept": "application/json", "Accept-Encoding": "identity"},
    )


async def get(
    http: aiohttp.ClientSession, url: str, *, headers: Mapping[str, str], max_bytes: int, deadline_s: float = DEADLINE_S
) -> Answer:
    """One GET within the deadline, from name look-up to the last byte. Raises `RequestFailed`, from nothing:
    what the client raises holds the request with its headers."""
    try:
        async with asyncio.timeout(deadline_s):
            return await _get(http, url, headers, max_bytes)
    except RequestFailed:
        raise
    except TimeoutError:
        kind = "timeout"
    except aiohttp.ClientSSLError:
        kind = "tls"
    except aiohttp.ClientConnectorError:
        kind = "connect"
    except (aiohttp.ClientError, OSError, ValueError):
        kind = "dropped"
    raise RequestFailed(kind) from None


async def _get(http: aiohttp.ClientSession, url: str, headers: Mapping[str, str], max_bytes: int) -> Answer:
    async with http.get(url, headers=headers, allow_redirects=False) as response:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            # We asked for none; what is inflated unasked is a bomb until proven otherwise.
            raise RequestFailed("bad_body")
        if (response.content_length or 0) > max_bytes:
            raise RequestFailed("too_big")
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > max_bytes:
                raise RequestFailed("too_big")
        return Answer(response.status, response.headers, bytes(body))


def guard(base_url: str) -> Callable[[AddrInfo], socket.socket]:
    """A socket factory that refuses addresses of our own network at the moment of connecting.

    The address checked is the address used, so a name that resolves differently the second time gains
    nothing. What the operator wrote into the settings as an address, or as localhost, is allowed exactly.
    """
    host = (urlsplit(base_url).hostname or "").lower()
    configured = _address(host)

    def make(info: AddrInfo) -> socket.socket:
        family, kind, protocol, _, target = info
        address = _address(str(target[0]))
        allowed = address is not None and (
            address == configured or (host == "localhost" and address.is_loopback) or is_public(address)
        )
        if not allowed:
            raise AddressRefused("address refused")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    return make


def is_public(address: Address) -> bool:
    """The address, and the IPv4 address inside it if there is one, belong to the public internet."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """The system's certificates (`SSL_CERT_FILE` honoured). Loading them costs 20 ms: once per process."""
    return ssl.create_default_context()
