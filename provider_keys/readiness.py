"""What state a stored key is in, and what keeps Use My API Keys off. Pure: facts in, decisions out."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from provider_keys.models import CANNOT_BE_CHECKED, REQUIRED_PROVIDERS, Provider, Verdict

FRESH_FOR: Final = timedelta(hours=24)

# Messages name the provider as the product does: "Azure Key Invalid", not "Azure Speech Key Invalid".
BRANDS: Final[Mapping[str, str]] = {
    Provider.OPENAI: "OpenAI",
    Provider.AZURE_SPEECH: "Azure",
    Provider.ELEVENLABS: "ElevenLabs",
}


class State(StrEnum):
    """Where a stored key stands. A running check and the last attempt are facts beside it."""

    VALID = "valid"
    CANNOT_BE_CHECKED = "cannot_be_checked"  # recognised, its free calls forbidden: may serve perfectly well
    UNTESTED = "untested"
    REJECTED_ONCE = "rejected_once"  # was good, one definite rejection; the second look is under way
    INVALID = "invalid"
    RESTRICTED = "restricted"
    QUOTA_EXHAUSTED = "quota_exhausted"
    REGION_MISMATCH = "region_mismatch"
    NOT_USED = "not_used"  # a placeholder
    LOCKED = "locked"  # the key ring lacks its KEK version
    ELSEWHERE = "elsewhere"  # stored for another address than the one in use now

    @property
    def is_good(self) -> bool:
        return self in (State.VALID, State.CANNOT_BE_CHECKED)


@dataclass(frozen=True, slots=True)
class Status:
    """Everything a page may say about a stored key."""

    state: State
    is_checking: bool
    verdict: str
    verdict_reason: str
    verdict_at: datetime | None
    rejected_at: datetime | None
    rejected_verdict: str
    attempt: str
    attempt_reason: str
    attempt_at: datetime | None
    retry_at: datetime | None

    def is_stale(self, now: datetime) -> bool:
        """The last verdict is too old to switch on by."""
        return self.verdict_at is None or now - self.verdict_at > FRESH_FOR


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    """One connection as pages show it: nothing sealed, nothing opened."""

    id: UUID
    provider: str
    name: str
    region: str
    is_placeholder: bool
    secret_version: int
    last_four: str  # empty for keys shorter than 12 characters
    key_shape: str
    added_by: str
    added_at: datetime
    replaced_at: datetime | None  # when the present key was stored, if it is not the first
    last_used_at: datetime | None
    is_selected: bool
    status: Status


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One reason why the switch stays off."""

    code: str
    provider: str | None
    message: str
    can_recheck: bool = False  # asking the provider again may clear it


def state_of(*, verdict: str, reason: str, rejected: bool, is_locked: bool, is_elsewhere: bool) -> State:
    """The one order in which facts outweigh each other."""
    if verdict == Verdict.PLACEHOLDER:
        return State.NOT_USED
    if is_locked:
        return State.LOCKED
    if is_elsewhere:
        return State.ELSEWHERE
    if verdict == Verdict.RESTRICTED and reason == CANNOT_BE_CHECKED:
        verdict = State.CANNOT_BE_CHECKED
    state = State(verdict)
    return State.REJECTED_ONCE if rejected and state.is_good else state


def obstacle_of(provider: str, selected: ConnectionFacts | None, now: datetime) -> Obstacle | None:
    """What is wrong with the connection in one required slot, or None."""
    brand = BRANDS[provider]
    if selected is None:
        return Obstacle("slot_empty", provider, f"{brand} has no key selected. Add one, choose it and press Submit.")
    if selected.is_placeholder:
        return Obstacle("placeholder", provider, f"{brand} needs a real key; “{selected.name}” is a placeholder.")
    status = selected.status
    if status.state.is_good and not status.is_stale(now):
        return None
    if status.state.is_good:
        said = "is being checked again" if status.is_checking else "was last checked more than 24 hours ago"
        return Obstacle("stale", provider, f"The {brand} key “{selected.name}” {said}.", can_recheck=True)
    words, can_recheck = _WORDS[status.state]
    if status.state is State.UNTESTED and status.is_checking:
        words = "is being checked; try again in a moment"
    return Obstacle(str(status.state), provider, f"The {brand} key “{selected.name}” {words}.", can_recheck=can_recheck)


def obstacles(
    *, may_use_byok: bool, is_active: bool, selected: Mapping[str, ConnectionFacts | None], now: datetime
) -> list[Obstacle]:
    """Everything that keeps the switch off, in the order of the page."""
    found: list[Obstacle] = []
    if not may_use_byok:
        found.append(Obstacle("byok_not_allowed", None, "Your plan does not include using your own keys."))
    if not is_active:
        found.append(Obstacle("account_suspended", None, "This account is suspended."))
    for provider in Provider:
        if provider in REQUIRED_PROVIDERS:
            obstacle = obstacle_of(provider, selected.get(provider), now)
            if obstacle:
                found.append(obstacle)
    return found


_WORDS: Final[Mapping[State, tuple[str, bool]]] = {
    State.UNTESTED: ("has not been checked yet", True),
    State.REJECTED_ONCE: ("was rejected and is being checked again", True),
    State.INVALID: ("is invalid: re-enter it", True),
    State.RESTRICTED: ("lacks a permission it needs", True),
    State.QUOTA_EXHAUSTED: ("belongs to a provider account without quota", True),
    State.REGION_MISMATCH: ("does not work in the chosen region", True),
    State.LOCKED: ("is locked at the moment; our operators have to unlock it", False),
    State.ELSEWHERE: ("was stored for another provider address: enter it again", False),
}
