"""When an API key and a connection were last used, for the pages: noted beside the hot path, at most once a minute."""

import time
from functools import partial
from typing import Final
from uuid import UUID

from accounts.services import api_keys
from gateway.runtime import Runtime
from provider_keys.services import connections

_EVERY_S: Final = 60.0
_REMEMBERED_AT_MOST: Final = 100_000

# In front of the database's own rule, so that a busy key costs a look into a dict.
_noted_at: dict[UUID, float] = {}


def note(runtime: Runtime, *, api_key_id: UUID | None, connection_id: UUID | None) -> None:
    """Note the use later; silent for what was noted within the last minute."""
    api_key, connection = _due(api_key_id), _due(connection_id)
    if api_key or connection:
        runtime.spawn(runtime.store.read(partial(_write, api_key, connection)))


def _due(one: UUID | None) -> UUID | None:
    now = time.monotonic()
    if one is None or now - _noted_at.get(one, -_EVERY_S) < _EVERY_S:
        return None
    if len(_noted_at) >= _REMEMBERED_AT_MOST:
        _noted_at.clear()
    _noted_at[one] = now
    return one


def _write(api_key_id: UUID | None, connection_id: UUID | None) -> None:
    if api_key_id:
        api_keys.touch([api_key_id])
    if connection_id:
        connections.touch([connection_id])
