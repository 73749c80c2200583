"""Set-based statements on PostgreSQL, past the ORM: prepared on the server, values never in the text.

`rows` and `document` run on Django's own connection and so inside the caller's transaction. For the few hot
statements whose planning would otherwise cost more than their work; everything else uses the ORM.
"""

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

import psycopg
from django.db import connection
from psycopg import pq

# A lane's statement touches a few rows by their keys and is planned once, perhaps while the tables are still empty.
_BY_INDEX = b"SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off"


def is_used() -> bool:
    return connection.vendor == "postgresql"


def rows(statement: LiteralString, values: Mapping[str, Any] | Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run one statement that returns rows."""
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor[tuple[Any, ...]](connection.connection) as cursor:
        return cursor.execute(statement, values, prepare=True).fetchall()


def document(statement: LiteralString, payload: bytes) -> bytes:
    """Run one statement with `$1` as its JSON parameter, that answers with one JSON text: what a `Lane` runs."""
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.RawCursor[tuple[str]](connection.connection) as cursor:
        found = cursor.execute(statement, [payload.decode()], prepare=True).fetchone()
    assert found is not None
    return found[0].encode()


def connected(statement: bytes) -> psycopg.Connection:
    """A connection of one's own, not Django's, that has prepared `statement` as "lane" and never blocks. Blocking."""
    settings = connection.get_connection_params()
    for name in ("context", "cursor_factory", "prepare_threshold"):  # of psycopg's cursors, which a lane does not use
        settings.pop(name, None)
    made = psycopg.connect(**settings, autocommit=True)
    for result in (made.pgconn.exec_(_BY_INDEX), made.pgconn.prepare(b"lane", statement)):
        if result.status != pq.ExecStatus.COMMAND_OK:
            made.close()
            raise psycopg.errors.error_from_result(result)
    made.pgconn.nonblocking = 1
    return made
