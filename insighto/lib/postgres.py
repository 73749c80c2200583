"""Set-based statements on PostgreSQL, past the ORM: prepared on the server, values never in the text.

Runs on Django's own connection and so inside the caller's transaction. For the few hot statements
whose planning would otherwise cost more than their work; everything else uses the ORM.
"""

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

import psycopg
from django.db import connection


def is_used() -> bool:
    return connection.vendor == "postgresql"


def rows(statement: LiteralString, values: Mapping[str, Any] | Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run one statement that returns rows."""
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor[tuple[Any, ...]](connection.connection) as cursor:
        return cursor.execute(statement, values, prepare=True).fetchall()
