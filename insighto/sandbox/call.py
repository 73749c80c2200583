"""One call at the sandbox, from its arrival to the last byte, and the sandbox's own state.

Provider modules only know their protocol: what they refuse and what they answer. Everything that can go wrong
below the protocol is in `faults`.
"""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from insighto.sandbox import faults, journal, keys
from insighto.sandbox.keys import Outcome

CHECK = "check"  # what a provider answers for free
USE = "use"  # what it bills


@dataclass(slots=True)
class Sandbox:
    """What can be changed while it runs; `reset()` is the state of a fresh start."""

    url: str = ""
    chunk_delay_s: float = 0.0
    hang_s: float = 30.0
    slow_stream_s: float = 0.25
    redirect_to: str = ""
    calls: journal.Journal = field(default_factory=journal.Journal)
    outcomes: dict[str, Outcome] = field(default_factory=dict)  # by key text
    outages: dict[str, Outcome] = field(default_factory=dict)  # by provider
    left: dict[str, int] = field(default_factory=dict)  # calls until one of these ends, where it does
    _started_with: dict[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        self._started_with = {
            name: getattr(self, name) for name in ("chunk_delay_s", "hang_s", "slow_stream_s", "redirect_to")
        }

    def reset(self) -> None:
        self.outcomes.clear()
        self.outages.clear()
        self.left.clear()
        self.calls.clear()
        for name, value in self._started_with.items():
            setattr(self, name, value)

    def outcome_of(self, provider: str, text: str) -> Outcome:
        """An outage of the provider goes before what was said about the key, and that before the key itself."""
        for table, place in ((self.outages, provider), (self.outcomes, text)):
            if place in table:
                return self._take(table, place)
        known = keys.read(provider, text)
        return known.outcome if known else Outcome.INVALID

    def _take(self, table: dict[str, Outcome], place: str) -> Outcome:
        outcome = table[place]
        if place in self.left:
            self.left[place] -= 1
            if self.left[place] <= 0:
                del self.left[place], table[place]
        return outcome


STATE: web.AppKey[Sandbox] = web.AppKey("sandbox", Sandbox)


@dataclass(slots=True)
class Call:
    request: web.Request
    sandbox: Sandbox
    provider: str
    operation: str
    presented: str
    known: keys.SandboxKey | None
    outcome: Outcome
    entry: journal.Entry
    headers: dict[str, str]

    @property
    def account(self) -> str:
        """The provider's account behind the key; one per tag."""
        return (self.known.tag if self.known else "") or "sandbox"


@dataclass(frozen=True, slots=True)
class Provider:
    """What the generic part asks of a provider module."""

    name: str
    presented: Callable[[web.Request], str]
    refuse: Callable[[Call], web.Response | None]
    headers: Callable[[str], dict[str, str]]


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def endpoint(provider: Provider, operation: str, answer: Callable[[Call], Awaitable[web.StreamResponse]]) -> Handler:
    """Wrap a provider's answer: journal the call, let faults and refusals go first."""

    async def handle(request: web.Request) -> web.StreamResponse:
        sandbox = request.app[STATE]
        presented = provider.presented(request)[:512]
        outcome = sandbox.outcome_of(provider.name, presented)
        request_id = secrets.token_hex(16)
        entry = sandbox.calls.open(
            provider=provider.name,
            operation=operation,
            method=request.method,
            path=request.path,
            tag=keys.name(provider.name, presented),
            outcome=outcome,
            request_id=request_id,
        )
        call = Call(
            request=request,
            sandbox=sandbox,
            provider=provider.name,
            operation=operation,
            presented=presented,
            known=keys.read(provider.name, presented),
            outcome=outcome,
            entry=entry,
            headers=provider.headers(request_id),
        )
        try:
            response = await faults.before(call) or provider.refuse(call) or await answer(call)
        except faults.Cut as cut:
            journal.close(entry, status=cut.status, state="broken")
            return cut.response
        except (asyncio.CancelledError, ConnectionError):
            journal.close(entry, status=0, state="left")
            raise
        except web.HTTPException as refusal:
            journal.close(entry, status=refusal.status)
            raise
        except Exception:
            journal.close(entry, status=500, state="broken")
            raise
        journal.close(entry, status=response.status)
        return response

    return handle


def answer_json(
    call: Call, body: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.json_response(body, status=status, headers={**call.headers, **(headers or {})})


async def read_body(call: Call) -> bytes:
    """The whole body (the application bounds its size); its digest goes into the journal."""
    body = await call.request.read()
    call.entry.body_sha256 = hashlib.sha256(body).hexdigest()
    return body


async def read_object(call: Call) -> dict[str, Any] | None:
    """The body as a JSON object, or None when it is none; the names of its fields go into the journal."""
    try:
        body = json.loads(await read_body(call))
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    call.entry.fields = sorted(str(name)[:60] for name in body)[:60]
    return body
