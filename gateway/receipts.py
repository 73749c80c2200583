"""The receipt that goes out with every answer, as headers."""

from urllib.parse import quote
from uuid import UUID

from billing.money import MICROS_PER_CREDIT
from billing.routing import Decision

_SAFE = " !#$&'()*+,/:;=?@[]{}|~^`<>\"-_."


def headers(request_id: UUID, decision: Decision | None, cost_micros: int | None) -> list[tuple[bytes, bytes]]:
    """The `x-insighto-` headers. Without a decision only the id; without a final cost no credits."""
    found = [(b"x-insighto-request-id", str(request_id).encode())]
    if decision is None:
        return found
    found.append((b"x-insighto-funding", (decision.funding_source or "none").encode()))
    if decision.payer_id is not None:
        found.append((b"x-insighto-payer", str(decision.payer_id).encode()))
    if decision.connection_name:
        # A name is any text a person typed; what a header cannot carry is percent-encoded.
        found.append((b"x-insighto-connection", quote(decision.connection_name, safe=_SAFE).encode()))
    found.append((b"x-insighto-reason", decision.reason.encode()))
    if cost_micros is not None:
        found.append((b"x-insighto-credits", credits_text(cost_micros).encode()))
    return found


def credits_text(micros: int) -> str:
    """Credits as a machine reads them: no grouping, no trailing zeros, exact."""
    whole, rest = divmod(micros, MICROS_PER_CREDIT)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")
