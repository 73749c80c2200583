"""Start-up check: the database still keeps append-only tables as they are."""

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, register
from django.db import connections

from accounts import triggers


@register(Tags.database)
def check_append_only(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """`check --database default`. A database that was never migrated has no table to guard and passes."""
    return [
        Error(f"The trigger {name} is missing.", hint="Run migrate: it installs them again.", id="accounts.E001")
        for alias in databases or []
        for name in triggers.missing(connections[alias])
    ]
