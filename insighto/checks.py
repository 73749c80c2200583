"""System checks of the whole site: what must hold before any process serves or works.

Each app adds its own (append-only triggers, key check values); these are nobody's in particular.
"""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connection


@register(Tags.security)
def check_local_secrets(app_configs: Any, **_: Any) -> Sequence[CheckMessage]:
    """Secrets kept in files are their owner's alone."""
    found: list[CheckMessage] = []
    folder = settings.VAR_DIR / "secrets"
    if not settings.PRODUCTION and folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.stat().st_mode & 0o077:
                found.append(Warning(f"{path} can be read by others.", hint="chmod 600", id="insighto.W001"))
    return found


@register(Tags.database)
def check_sqlite_options(app_configs: Any, databases: Sequence[str] | None = None, **_: Any) -> Sequence[CheckMessage]:
    """SQLite without these settings loses the append-only rule or the durability the ledger counts on."""
    if not databases or connection.vendor != "sqlite":
        return []
    expected = {"foreign_keys": 1, "recursive_triggers": 1, "secure_delete": 1, "synchronous": 2}
    found: list[CheckMessage] = []
    with connection.cursor() as cursor:
        for name, value in expected.items():
            cursor.execute(f"PRAGMA {name}")
            row = cursor.fetchone()
            if row is None or row[0] != value:
                found.append(Error(f"SQLite runs without {name}.", id="insighto.E001"))
    return found
