"""Start-up checks: the database still guards the ledger."""

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import connections

from billing import triggers


@register(Tags.database)
def check_guards(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Part of `check --database default`. A warning, because `migrate` must run to put the guard back."""
    return [
        Warning(f"{name} is missing: run migrate.", id="billing.W001")
        for alias in databases or []
        for name in triggers.missing(connections[alias])
    ]
