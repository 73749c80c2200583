"""What arrived at the sandbox: a bounded list of calls, by key name, never by key."""

import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

KEPT = 1_000


@dataclass(slots=True)
class Entry:
    """One call. `state` goes from running to done, broken (we cut it) or left (the caller did)."""

    seq: int
    provider: str
    operation: str
    method: str
    path: str
    tag: str
    outcome: str
    started_at: float
    request_id: str
    region: str = ""
    model: str = ""
    voice: str = ""
    units: int = 0
    streamed: bool = False
    fields: list[str] = field(default_factory=list)
    body_sha256: str = ""
    status: int = 0
    sent_bytes: int = 0
    state: str = "running"
    ended_at: float | None = None


class Journal:
    """The last thousand calls, oldest first. Numbers go on after a reset, so `since` stays meaningful."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._seq = 0

    def open(
        self, *, provider: str, operation: str, method: str, path: str, tag: str, outcome: str, request_id: str
    ) -> Entry:
        self._seq += 1
        entry = Entry(
            seq=self._seq,
            provider=provider,
            operation=operation,
            method=method,
            path=path[:300],
            tag=tag,
            outcome=outcome,
            started_at=time.time(),
            request_id=request_id,
        )
        self._entries.append(entry)
        return entry

    @property
    def last(self) -> int:
        return self._seq

    def clear(self) -> None:
        self._entries.clear()

    def find(self, *, provider: str = "", tag: str = "", since: int = 0, limit: int = KEPT) -> list[Entry]:
        found = [
            entry
            for entry in self._entries
            if entry.seq > since and (not provider or entry.provider == provider) and (not tag or entry.tag == tag)
        ]
        return found[-limit:] if limit > 0 else []


def close(entry: Entry, *, status: int, state: str = "done") -> None:
    """The first ending counts."""
    if entry.ended_at is None:
        entry.status, entry.state, entry.ended_at = status, state, time.time()


def as_json(entry: Entry) -> dict[str, Any]:
    return asdict(entry)
