"""Server-sent events on their way through: whole ones go on as they come, the last word stays until settlement."""

from abc import ABC, abstractmethod
from typing import Any, Final

from gateway.errors import Refused
from gateway.upstreams import base

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024


class EventMeter(ABC):
    """Splits a stream into events and asks `_passes` about each. A subclass reads them and counts."""

    def __init__(self) -> None:
        self._kept = b""
        self._tail = b""
        self.has_output = False

    def feed(self, chunk: bytes) -> bytes:
        buffer = self._kept + chunk if self._kept else chunk
        cut = max(buffer.rfind(b"\n\n") + 2, buffer.rfind(b"\r\n\r\n") + 4)
        if cut < 4 and not buffer.endswith(b"\n\n"):
            cut = 0
        self._kept = buffer[cut:]
        if len(self._kept) > MAX_EVENT_BYTES:
            raise Refused("provider_bad_answer")
        if not cut:
            return b""
        events = buffer[:cut]
        if b"\r" in events:
            events = events.replace(b"\r\n", b"\n")
        passed = [event for event in events.split(b"\n\n") if event and self._passes(event)]
        return b"\n\n".join(passed) + b"\n\n" if passed else b""

    @abstractmethod
    def _passes(self, event: bytes) -> bool:
        """The client gets this event."""

    def end(self) -> bytes:
        return self._tail

    def is_complete(self) -> bool:
        return bool(self._tail)


class TypedEventMeter(EventMeter):
    """Events whose JSON names its own type. `_see` is told each; the one in `ENDS` is the last word."""

    ENDS: frozenset[str] = frozenset()

    def _passes(self, event: bytes) -> bool:
        if self._tail:
            return False
        lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
        if not lines:
            return True
        if lines == [b"[DONE]"]:
            return False
        data = base.decoded(b"\n".join(lines))
        if not isinstance(data, dict):
            raise Refused("provider_bad_answer")
        kind = data.get("type")
        if kind == "error" or (data.get("error") is not None and not isinstance(kind, str)):
            raise Refused("provider_down")
        self._see(kind if isinstance(kind, str) else "", data)
        if kind in self.ENDS:
            self._tail = event + b"\n\n"
            return False
        return True

    @abstractmethod
    def _see(self, kind: str, data: dict[str, Any]) -> None:
        """One event, by the type it names."""
