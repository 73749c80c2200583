"""What the switch would change for things this app does not know: apps above register what they see.

The preview asks every registered function; each answers for one account and one direction.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from accounts.models import Account


@dataclass(frozen=True, slots=True)
class Impact:
    """One thing (an assistant, say) and how it fares: runs on which key, or stops and why."""

    name: str
    runs: bool
    before: str  # "Platform credits"
    after: str  # "OpenAI key “Production”, Azure key “Speech”", or what stops it
    href: str = ""


# Given the account and whether the switch is being turned on.
Foreseer = Callable[[Account, bool], Iterable[Impact]]

_FORESEERS: Final[list[Foreseer]] = []


def register(foresee: Foreseer) -> Foreseer:
    """Let `foresee` contribute to the preview; usable as a decorator. Registering twice is once."""
    if foresee not in _FORESEERS:
        _FORESEERS.append(foresee)
    return foresee


def foresee(account: Account, *, turning_on: bool) -> list[Impact]:
    """Everything that would change, in the order of registration; what stops comes first."""
    found = [impact for foreseer in _FORESEERS for impact in foreseer(account, turning_on)]
    return sorted(found, key=lambda impact: impact.runs)
