"""One leg from decision to settlement: decide, price and hold, commit, dispatch, relay, settle.

Used by the HTTP endpoints and by the playground alike. No transaction is open while a provider is
talked to. Whatever happens to the caller, `close` leaves a settlement on its way; the sweeper, not this
module, is the guarantee.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import aiohttp
from django.conf import settings

from billing import pricing, routing
from billing.errors import AmountOutOfRange
from billing.leg_records import Opening, Refusal, Settlement
from billing.pricing import PriceRow, Usage
from billing.routing import Decision
from gateway import errors, receipts, relay, uses
from gateway.errors import Refused
from gateway.relay import Failed, Rejected
from gateway.runtime import Runtime
from gateway.store import Admission, Evidence
from gateway.upstreams.base import Meter, Operation, Outgoing
from insighto.lib import ids
from insighto.lib.errors import DomainError
from provider_keys import classify
from provider_keys.classify import Outcome, Reason
from provider_keys.errors import CredentialClosed
from provider_keys.models import Attempt, Verdict
from provider_keys.services import connections

MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
SPARE_S: Final = 30

_REQUEST_STATUSES: Final = frozenset({400, 404, 409, 413, 415, 422})


@dataclass(frozen=True, slots=True)
class Asker:
    """In whose name a leg runs: an API key's, or a person's in the playground."""

    user_id: int | None = None
    assistant_id: UUID | None = None


class Leg:
    """One provider operation. Call `open`, `send`, `pieces`, then one ending; `close` always."""

    def __init__(self, runtime: Runtime, request_id: UUID, operation: Operation, asker: Asker | None = None) -> None:
        self.id = ids.new()
        self.operation = operation
        self.decision: Decision | None = None
        self.cost_micros: int | None = None
        self.estimate_micros: int | None = None
        self.status: int | None = None
        self._runtime = runtime
        self._request_id = request_id
        self._asker = asker or Asker()
        self._price: PriceRow | None = None
        self._verdict = ""
        self._outgoing: Outgoing | None = None
        self._response: aiohttp.ClientResponse | None = None
        self._meter: Meter | None = None
        self._first_byte_at: datetime | None = None
        self._upstream_id = ""
        self._is_open = False
        self._is_sent = False

    @property
    def on_credits(self) -> bool:
        return self.decision is not None and self.decision.funding_source == routing.PLATFORM_CREDITS

    def receipt_headers(self) -> list[tuple[bytes, bytes]]:
        """The receipt so far. The price of speech is known before its last byte; that of text is not."""
        cost_micros = self.cost_micros if self.cost_micros is not None else self._expected_micros()
        return receipts.headers(self._request_id, self.decision, cost_micros)

    # Before anything is sent.

    async def open(self, admission: Admission) -> None:
        """Decide, and make the leg durable with its hold. Raises `Refused`, recorded, and nothing is sent then."""
        facts = admission.facts
        assert facts is not None, "an admission without standing opens no leg"
        decision = self.decision = routing.decide(facts.standing)
        self._price, self._verdict = admission.price, facts.standing.slot_verdict
        if decision.refusal is not None:
            await self._refuse(admission, errors.of_decision(decision.refusal))
        hold_micros = 0
        if self.on_credits:
            hold_micros = await self._hold_micros(admission)
        credential = facts.credential(decision)
        try:
            assert credential is not None, "a decision names a credential"
            secret = connections.open_credential(credential)
            self._outgoing = self.operation.outgoing(secret, credential.region, on_credits=self.on_credits)
        except CredentialClosed:
            await self._refuse(
                admission, errors.of_decision("platform_unavailable" if self.on_credits else "byok_key_locked")
            )
        try:
            await self._runtime.store.open(self._opening(admission, hold_micros))
        except DomainError as error:
            self._decide_refused(error.code)
            raise errors.of_domain(error) from None
        self._is_open = True
        uses.note(self._runtime, api_key_id=admission.api_key_id, connection_id=decision.connection_id)

    async def _hold_micros(self, admission: Admission) -> int:
        problem = self.operation.refuse_on_credits()
        if problem is None and self._price is None:
            problem = errors.of_decision("price_unknown")
        if problem is None:
            assert self._price is not None
            try:
                return self.operation.hold_micros(self._price)
            except AmountOutOfRange:
                problem = Refused("invalid_value", "This request has no bound that credits could cover.")
        await self._refuse(admission, problem)
        raise problem

    async def _refuse(self, admission: Admission, problem: Refused) -> None:
        assert self.decision is not None
        opening = self._opening(admission, 0)
        self._decide_refused(problem.code)
        await self._runtime.store.refuse(Refusal(opening=opening, code=problem.code, http_status=problem.status))
        raise problem

    def _decide_refused(self, code: str) -> None:
        """What the receipt says of a leg that was not sent: nobody pays."""
        assert self.decision is not None
        self.decision = replace(self.decision, funding_source="", payer_id=None, reason=code, refusal=code)

    def _opening(self, admission: Admission, hold_micros: int) -> Opening:
        assert self.decision is not None
        operation = self.operation
        return Opening(
            request_id=self._request_id,
            account_id=admission.account_id,
            api_key_id=admission.api_key_id,
            user_id=self._asker.user_id,
            endpoint=operation.endpoint,
            streamed=operation.streamed,
            assistant_id=self._asker.assistant_id,
            leg_id=self.id,
            kind=operation.kind,
            provider=operation.provider,
            model=operation.model,
            voice=operation.voice,
            decision=self.decision,
            price=self._price,
            hold_micros=hold_micros,
            deadline_s=int(settings.UPSTREAM_FIRST_BYTE_S + settings.UPSTREAM_IDLE_S) + SPARE_S,
        )

    # The call.

    async def send(self) -> list[tuple[bytes, bytes]]:
        """Call the provider; the headers of its success for the client. Raises `Refused`: end the leg with `fail`."""
        outgoing, self._outgoing = self._outgoing, None
        assert outgoing is not None, "a leg is sent once, after it was opened"
        self._is_sent = True
        traces = relay.traces(outgoing)
        try:
            response = await relay.send(self._runtime.pools.of(self.operation.provider), outgoing)
        except Failed as failure:
            raise self._network_refusal(failure.kind) from None
        except Rejected as rejection:
            raise await self._judged(rejection, traces) from None
        self._response, self.status = response, response.status
        self._upstream_id = _short_id(response, traces)
        if not self.operation.accepts(response.content_type):
            raise self._network_refusal("bad_body")
        self._meter = self.operation.meter(response.headers, price=self._price, on_credits=self.on_credits)
        self._runtime.streaming.add(self)
        return relay.passed(response.headers, traces, on_credits=self.on_credits)

    # The same for an exchange that is not one HTTP call: a turn on a socket, whose messages its owner relays.

    def dispatched(self) -> Outgoing:
        """What the exchange needs, once; from now on the leg counts as sent."""
        outgoing, self._outgoing = self._outgoing, None
        assert outgoing is not None, "a leg is sent once, after it was opened"
        self._is_sent = True
        return outgoing

    def answers(self, status: int) -> None:
        """The provider took it on; what comes is shown to `hears`."""
        self.status = status
        self._meter = self.operation.meter({}, price=self._price, on_credits=self.on_credits)
        self._runtime.streaming.add(self)

    def hears(self, sound: bytes) -> None:
        assert self._meter is not None
        if self._first_byte_at is None:
            self._first_byte_at = datetime.now(UTC)
        self._meter.feed(sound)

    @property
    def has_output(self) -> bool:
        return self._has_output()

    def broke(self, kind: str) -> Refused:
        """The refusal for an exchange that ended by itself; `kind` as `relay.Failed` has it."""
        return self._network_refusal(kind)

    async def rejected(self, rejection: Rejected, traces: tuple[str, ...]) -> Refused:
        """The refusal for an answer that is none."""
        return await self._judged(rejection, traces)

    def closed(self, outcome: Outcome) -> None:
        """What the provider's way of closing says about the key."""
        self._learn(outcome)

    async def pieces(self) -> AsyncIterator[bytes]:
        """What the client gets, as it comes. Raises `Refused` when the provider breaks off: end with `fail`."""
        assert self._response is not None
        assert self._meter is not None
        meter = self._meter
        try:
            async for chunk in relay.pieces(self._response):
                if self._first_byte_at is None:
                    self._first_byte_at = datetime.now(UTC)
                passed = meter.feed(chunk)
                if passed:
                    yield passed
        except Failed as failure:
            raise self._network_refusal(failure.kind) from None
        if not meter.is_complete():
            raise Refused("provider_down", "The provider broke off before its answer was complete.")

    async def whole(self) -> bytes:
        """The whole answer of a plain call, at most `MAX_ANSWER_BYTES`. Raises `Refused` as `pieces` does."""
        assert self._response is not None
        assert self._meter is not None
        body = bytearray()
        try:
            async for chunk in relay.pieces(self._response):
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise self._network_refusal("too_big")
        except Failed as failure:
            raise self._network_refusal(failure.kind) from None
        self._first_byte_at = datetime.now(UTC)
        answer = self._meter.feed(bytes(body))
        if not self._meter.is_complete():
            raise self._network_refusal("bad_body")
        return answer

    def _expected_micros(self) -> int | None:
        if self.decision is not None and self.decision.connection_id is not None and not self.decision.is_refused:
            return 0
        if self._meter is None or not self._meter.has_output:
            return None
        if self.operation.kind != "speech" or self._price is None:
            return None
        return pricing.cost_micros(self._price, self._meter.usage()[0])

    def shown_usage(self) -> Usage:
        """What a crash of ours may charge: the work shown so far."""
        if self._meter is None or not self._meter.has_output:
            return Usage()
        return self._meter.usage()[0]

    # The endings. The first one counts.

    async def finish(self) -> bytes:
        """The answer is complete: settle it, and give back the last words of it."""
        assert self._meter is not None
        await self._settle("finished", 200, "")
        if self._verdict not in ("", Verdict.VALID):
            self._learn(classify.worked())
        return self._meter.end()

    async def fail(self, problem: Refused) -> None:
        """The provider broke off or refused. Output that was delivered is paid; otherwise nothing is."""
        self._drop()
        await self._settle("failed", problem.status, problem.code, is_void=not self._has_output())

    async def leave(self) -> None:
        """The client is gone: cancel the provider's work at once, settle what was used."""
        self._drop()
        await self._settle("cancelled", 499, "client_gone", is_void=not self._is_sent)

    def close(self) -> None:
        """Whatever the way out was, the leg ends."""
        self._drop()
        if self._is_open:
            self._runtime.spawn(self.leave())

    async def _settle(self, state: str, http_status: int, code: str, *, is_void: bool = False) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._runtime.streaming.discard(self)
        if self._meter is not None:
            usage, source, is_flagged = self._meter.usage()
        else:
            usage, source, is_flagged = Usage(), "counted", False
        if state == "cancelled" and not self._has_output():
            usage, source = self.operation.abandoned(), "counted"
            is_void = is_void or not (usage.input_units or usage.output_units)
        settled = await self._runtime.store.settle(
            Settlement(
                leg_id=self.id,
                outcome="void" if is_void else "settled",
                usage=Usage() if is_void else usage,
                usage_source=source,
                upstream_status=self.status,
                upstream_request_id=self._upstream_id,
                first_byte_at=self._first_byte_at,
                request_state=state,
                http_status=http_status,
                error_code=code,
                is_flagged=is_flagged and not is_void,
                price=self._price,
            )
        )
        if settled is not None:
            self.cost_micros, self.estimate_micros = settled.cost_micros, settled.estimate_micros

    def _has_output(self) -> bool:
        return self._meter is not None and self._meter.has_output

    def _drop(self) -> None:
        """Let go of the provider's connection; one whose answer was not read to its end is cut."""
        self._outgoing = None
        self._runtime.streaming.discard(self)
        if self._response is not None:
            self._response.close()

    # What a failure means.

    def _network_refusal(self, kind: str) -> Refused:
        self._learn(classify.network_failure(kind))
        if kind == "timeout":
            return Refused("provider_too_slow")
        return Refused("provider_bad_answer" if kind in ("bad_body", "too_big") else "provider_down")

    async def _judged(self, rejection: Rejected, traces: tuple[str, ...]) -> Refused:
        self.status = rejection.status
        outcome = classify.classify(
            self.operation.provider, status=rejection.status, headers=rejection.headers, body=rejection.body
        )
        if relay.echoes(outcome.request_id, traces):
            outcome = replace(outcome, request_id="")
        self._upstream_id = outcome.request_id
        if outcome.reason == Reason.REQUEST_FAULT and rejection.status in _REQUEST_STATUSES:
            return self.operation.fault(rejection.status, rejection.body)
        self._learn(outcome)
        if outcome.verdict in errors.KEY_CODES:
            if self.on_credits:
                return Refused("provider_refused_platform")
            return errors.of_decision(errors.KEY_CODES[outcome.verdict])
        if outcome.attempt == Attempt.RATE_LIMITED:
            return Refused("provider_rate_limited", retry_after_s=outcome.retry_after_s)
        return Refused("provider_down")

    def _learn(self, outcome: Outcome) -> None:
        """Real traffic is evidence about the account's own key, by the rules of the checks."""
        decision = self.decision
        if decision is None or decision.connection_id is None or decision.secret_version is None or self.on_credits:
            return
        evidence = Evidence(decision.connection_id, decision.secret_version, outcome)
        self._runtime.spawn(self._runtime.store.learn(evidence))


def _short_id(response: aiohttp.ClientResponse, traces: tuple[str, ...]) -> str:
    """The provider's name for the request, if it is one and not (part of) the key."""
    for name in ("x-request-id", "request-id", "apim-request-id", "x-requestid"):
        value = response.headers.get(name, "")
        if 0 < len(value) <= 120 and value.isascii() and value.replace("-", "").replace("_", "").isalnum():
            return "" if relay.echoes(value, traces) else value
    return ""
