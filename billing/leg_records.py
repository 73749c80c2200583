"""What goes into and comes out of `services/legs.py`: plain records, light enough for the hot path."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from billing.pricing import NOTHING, PriceRow, Usage
from billing.routing import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A leg about to be sent (or refused). Its ids were made by the caller, before asking."""

    request_id: UUID
    account_id: UUID
    api_key_id: UUID | None
    user_id: int | None
    endpoint: str
    streamed: bool
    assistant_id: UUID | None = None
    leg_id: UUID
    kind: str
    provider: str
    model: str
    voice: str = ""
    decision: Decision
    price: PriceRow | None  # for own-key legs too, where known: the estimate
    hold_micros: int = 0  # platform credits: the upper bound
    deadline_s: int = 180


@dataclass(frozen=True, slots=True)
class Opened:
    """The leg is durable and may be sent now. `is_repeat`: it was opened before, so somebody else is sending it."""

    leg_id: UUID
    hold_id: UUID | None
    is_repeat: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A leg that is not sent: what was asked and the code, HTTP status and decision it is refused with."""

    opening: Opening
    code: str
    http_status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How a leg ended. `outcome` "void": the provider gave nothing and nothing is charged."""

    leg_id: UUID
    outcome: str = "settled"  # settled, void
    usage: Usage = NOTHING
    usage_source: str = "provider"  # provider, counted
    upstream_status: int | None = None
    upstream_request_id: str = ""
    first_byte_at: datetime | None = None
    request_state: str = "finished"  # empty: the request goes on with another leg
    http_status: int | None = 200
    error_code: str = ""
    is_flagged: bool = False
    price: PriceRow | None = None  # the one the leg was opened with, where still at hand; saves looking it up


@dataclass(frozen=True, slots=True)
class Settled:
    """What the leg cost: taken from credits, and (own key) at list price."""

    cost_micros: int
    estimate_micros: int | None
    is_repeat: bool = False


@dataclass(frozen=True, slots=True)
class LegRow:
    """A leg as it is first written: dispatched, or refused with a code."""

    opening: Opening
    state: str
    code: str = ""
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class LockedLeg:
    """What ending a leg needs to know of it, read under its lock."""

    id: UUID
    request_id: UUID
    state: str
    payer_id: UUID | None
    price_id: UUID | None
    hold_id: UUID | None
    hold_micros: int
    checkpoint: Usage
    cost_micros: int
    estimate_micros: int | None


@dataclass(frozen=True, slots=True)
class Closing:
    """A leg as it is last written."""

    leg: LockedLeg
    settlement: Settlement
    state: str
    usage: Usage
    cost_micros: int
    estimate_micros: int | None
    is_doubtful: bool
