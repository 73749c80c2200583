"""The contract between the pipeline and the provider modules.

An `Operation` is one judged request to one provider: what it is called in the books, the bound its hold
covers, the fields credits cannot pay for, and the outgoing call it becomes once a credential is chosen. A
`Meter` watches the answer go by and says at any moment what was used. Neither opens connections nor
knows who pays; the relay and the pipeline know no provider by name.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
from django.conf import settings

from billing.errors import AmountOutOfRange
from billing.pricing import MAX_UNITS, PriceRow, Usage
from gateway.errors import Refused
from insighto.lib import redact
from insighto.lib.secret import Secret

BYTES_PER_TOKEN: Final = 6

# How an answer reaches the client: judged whole before any of it, as events that can end in an error, or as bytes.
WHOLE: Final = "whole"
EVENTS: Final = "events"
BYTES: Final = "bytes"


@dataclass(frozen=True, slots=True)
class Streamed:
    """A body too large for memory: its size, and its pieces, from the beginning as often as they are asked for."""

    size: int
    pieces: Callable[[], AsyncIterator[bytes]]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """The call itself. `headers` carry the credential: never logged, never kept."""

    url: str
    headers: Mapping[str, str]
    body: bytes | Streamed

    def __repr__(self) -> str:
        return "Outgoing(…)"


@dataclass(frozen=True, slots=True)
class Question:
    """One call that costs nothing and is no leg. `url` is made from a stored region only."""

    provider: str
    url: Callable[[str], str]
    headers: Callable[[Secret], dict[str, str]]
    is_answer: Callable[[str, bytes], bool]  # (content type, body): well-formed, not only a 200
    fault: Callable[[int, bytes], Refused]
    name: str = ""  # what it asks, where the answer may be remembered on credits
    method: str = "GET"


class Meter(Protocol):
    """Watches one answer. Parsing is a courtesy: whatever arrives, `usage` has an answer."""

    has_output: bool

    def feed(self, chunk: bytes) -> bytes:
        """What of `chunk` (and of what was kept back) goes to the client now."""

    def end(self) -> bytes:
        """What is still to be sent once the leg is settled."""

    def is_complete(self) -> bool:
        """The answer said itself that it was finished."""

    def usage(self) -> tuple[Usage, str, bool]:
        """What was used so far, "provider" or "counted", and whether the provider's own figure was unusable."""


class Operation(Protocol):
    """One provider operation, judged and ready to be routed."""

    provider: str
    kind: str
    endpoint: str
    model: str  # as the books name it
    price_model: str
    voice: str
    streamed: bool
    delivery: str  # WHOLE, EVENTS or BYTES

    def refuse_on_credits(self) -> Refused | None:
        """The field whose price is not known, if there is one."""

    def hold_micros(self, price: PriceRow) -> int:
        """The most this can cost."""

    def outgoing(self, secret: Secret, region: str, *, on_credits: bool) -> Outgoing:
        """The call, to the provider's configured address."""

    def meter(self, headers: Mapping[str, str], *, price: PriceRow | None, on_credits: bool) -> Meter:
        """A meter for an answer with these headers. `price` says in which unit the books count."""

    def accepts(self, content_type: str) -> bool:
        """An answer of this type is what was asked for; a web page never is."""

    def abandoned(self) -> Usage:
        """What is charged when the client left after the call was sent and before anything came back."""

    def fault(self, status: int, body: bytes) -> Refused:
        """The provider's refusal of the request itself, to be handed on without its secrets."""


def tokens_of(byte_count: int) -> int:
    """How many tokens are charged for text nobody counted for us: fewer than any tokenizer makes of it.

    English makes a token of 4 to 4.5 bytes, other scripts of fewer; six errs in the payer's favour.
    """
    return 0 if byte_count <= 0 else max(1, byte_count // BYTES_PER_TOKEN)


def require_unit(price: PriceRow, *units: str) -> None:
    """A model sold by another unit than this operation counts in has no bound here: `AmountOutOfRange`."""
    if price.unit not in units:
        raise AmountOutOfRange


def clean(text: object, limit: int = 300) -> str | None:
    """A provider's words without anything that looks like a secret, or None."""
    return redact.scrub(text, limit=limit) if isinstance(text, str) and text else None


def whole(value: object) -> int | None:
    """`value` if it is a count the books can hold."""
    return value if type(value) is int and 0 <= value <= MAX_UNITS else None


def decoded(body: bytes) -> object:
    """The JSON in `body`, or None; never raises, whatever a stranger sent."""
    try:
        value: object = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    return value


def address(setting: str, path: str, region: str = "") -> str:
    """An address below a configured one. `region` comes from a stored connection only."""
    base: str = getattr(settings, setting)
    return base.replace("{region}", region).rstrip("/") + path
