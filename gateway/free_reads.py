"""Calls to a provider that cost nothing and are no legs: voices, the subscription, a token.

The route is decided by the same function and shown on the same headers, but nothing is booked. On
credits the answer is the same for everybody, so it is asked for once in a while, not once per caller.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import aiohttp

from billing import routing
from billing.routing import Decision
from billing.selectors import RouteFacts
from gateway import errors, relay
from gateway.errors import Refused
from gateway.incoming import RawHeaders
from gateway.runtime import Runtime
from gateway.store import Evidence
from gateway.upstreams.base import Outgoing, Question
from provider_keys import classify
from provider_keys.classify import Outcome, Reason
from provider_keys.errors import CredentialClosed
from provider_keys.models import Attempt, Verdict
from provider_keys.services import connections

DEADLINE_S: Final = 15.0
MAX_BYTES: Final = 8 * 1024 * 1024
REMEMBER_S: Final = 30.0
_REMEMBERED: Final = 16
_REQUEST_STATUSES: Final = frozenset({400, 404, 409, 413, 415, 422})


@dataclass(frozen=True, slots=True)
class Answer:
    headers: RawHeaders
    body: bytes


_remembered: dict[tuple[UUID, int, str], tuple[float, Answer]] = {}


def decided(facts: RouteFacts | None) -> Decision:
    """Who would serve this. Raises `Refused` as a leg would be refused."""
    assert facts is not None, "an admission for a provider has its standing"
    decision = routing.decide(facts.standing)
    if decision.refusal is not None:
        raise errors.of_decision(decision.refusal)
    return decision


async def ask(runtime: Runtime, facts: RouteFacts, decision: Decision, question: Question) -> Answer:
    """The provider's answer on the credential of this decision. Raises `Refused`."""
    on_credits = decision.funding_source == routing.PLATFORM_CREDITS
    credential = facts.credential(decision)
    assert credential is not None, "a decision names a credential"
    key = (credential.credential_id, credential.secret_version, question.name)
    known = _remembered.get(key) if on_credits and question.name else None
    if known is not None and known[0] > time.monotonic():
        return known[1]
    try:
        secret = connections.open_credential(credential)
    except CredentialClosed:
        raise errors.of_decision("platform_unavailable" if on_credits else "byok_key_locked") from None
    try:
        outgoing = Outgoing(question.url(credential.region), question.headers(secret), b"")
        answer = await _exchange(runtime, question, outgoing, on_credits=on_credits)
    except relay.Failed as failure:
        _learn(runtime, decision, classify.network_failure(failure.kind))
        if failure.kind == "timeout":
            raise Refused("provider_too_slow") from None
        bad = failure.kind in ("bad_body", "too_big")
        raise Refused("provider_bad_answer" if bad else "provider_down") from None
    except relay.Rejected as rejection:
        raise _judged(runtime, decision, question, rejection, on_credits=on_credits) from None
    if on_credits and question.name:
        if len(_remembered) >= _REMEMBERED:
            _remembered.clear()
        _remembered[key] = time.monotonic() + REMEMBER_S, answer
    return answer


async def _exchange(runtime: Runtime, question: Question, outgoing: Outgoing, *, on_credits: bool) -> Answer:
    session = runtime.pools.of(question.provider)
    traces = relay.traces(outgoing)
    try:
        async with (
            asyncio.timeout(DEADLINE_S),
            session.request(
                question.method,
                outgoing.url,
                headers=outgoing.headers,
                data=b"" if question.method == "POST" else None,
                allow_redirects=False,
            ) as response,
        ):
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise relay.Failed("bad_body")
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > MAX_BYTES:
                    raise relay.Failed("too_big")
            if response.status != 200:
                raise relay.Rejected(response.status, response.headers, bytes(body[: relay.MAX_ERROR_BYTES]))
            right = question.is_answer(response.content_type, bytes(body))
            if not right or relay.echoes(body.decode("utf-8", "replace"), traces):
                raise relay.Failed("bad_body")
            return Answer(relay.passed(response.headers, traces, on_credits=on_credits), bytes(body))
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
    raise relay.Failed(kind) from None


def _judged(
    runtime: Runtime, decision: Decision, question: Question, rejection: relay.Rejected, *, on_credits: bool
) -> Refused:
    outcome = classify.classify(
        question.provider, status=rejection.status, headers=rejection.headers, body=rejection.body
    )
    if outcome.reason == Reason.REQUEST_FAULT and rejection.status in _REQUEST_STATUSES:
        return question.fault(rejection.status, rejection.body)
    code = errors.KEY_CODES.get(outcome.verdict) if outcome.verdict else None
    # A key that may not list things may speak perfectly well: that is no evidence against it.
    if outcome.verdict != Verdict.RESTRICTED:
        _learn(runtime, decision, outcome)
    if code is not None:
        return Refused("provider_refused_platform") if on_credits else errors.of_decision(code)
    if outcome.attempt == Attempt.RATE_LIMITED:
        return Refused("provider_rate_limited", retry_after_s=outcome.retry_after_s)
    return Refused("provider_down")


def _learn(runtime: Runtime, decision: Decision, outcome: Outcome) -> None:
    if decision.connection_id is not None and decision.secret_version is not None:
        evidence = Evidence(decision.connection_id, decision.secret_version, outcome)
        runtime.spawn(runtime.store.learn(evidence))
