"""System checks: the process refuses to start on a key ring that would lose or expose keys."""

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error
from django.db import DatabaseError

from provider_keys import keyring
from provider_keys.errors import KeyRingUnusable


def key_ring(app_configs: object, **_: Any) -> list[CheckMessage]:
    try:
        keyring.load()
    except KeyRingUnusable as error:
        return [Error(str(error), id="provider_keys.E001")]
    return []


def key_ring_matches_database(
    app_configs: object, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """Runs before migrate too, when there may be no table to ask."""
    if "default" not in (databases or ()):
        return []
    try:
        keyring.verify()
    except KeyRingUnusable as error:
        return [Error(str(error), id="provider_keys.E002")]
    except DatabaseError:
        return []
    return []
