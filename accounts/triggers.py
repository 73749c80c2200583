"""Append-only tables, enforced by the database: rows are inserted and never changed, deleted or replaced.

Tables join by `register`. The triggers are installed again after every migrate, because SQLite loses
them whenever Django rebuilds a table, and a system check reports any that is missing.
"""

from collections.abc import Iterator
from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper

APPEND_ONLY: Final[list[str]] = ["accounts_auditevent"]

_REFUSE = """
CREATE OR REPLACE FUNCTION insighto_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$
"""


def register(table: str) -> None:
    """Make `table` append-only from the next migrate on."""
    if table not in APPEND_ONLY:
        APPEND_ONLY.append(table)


def install(connection: BaseDatabaseWrapper) -> None:
    """Create what is missing, for the tables that exist. Repeating it changes nothing."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_REFUSE)
        for table in _existing(connection):
            for name, event, level in _events(connection, table):
                if connection.vendor == "postgresql":
                    cursor.execute(
                        f"CREATE OR REPLACE TRIGGER {name} BEFORE {event} ON {table} "
                        f"FOR EACH {level} EXECUTE FUNCTION insighto_refuse_change()"
                    )
                else:
                    cursor.execute(
                        f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE {event} ON {table} "
                        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
                    )


def missing(connection: BaseDatabaseWrapper) -> list[str]:
    """The names of triggers that should guard an existing table and do not."""
    catalogue = (
        "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'"
        if connection.vendor == "postgresql"
        else "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    )
    with connection.cursor() as cursor:
        cursor.execute(catalogue)
        there = {name for (name,) in cursor.fetchall()}
    expected = [name for table in _existing(connection) for name, _, _ in _events(connection, table)]
    return [name for name in expected if name not in there]


def _existing(connection: BaseDatabaseWrapper) -> list[str]:
    tables = set(connection.introspection.table_names())
    return [table for table in APPEND_ONLY if table in tables]


def _events(connection: BaseDatabaseWrapper, table: str) -> Iterator[tuple[str, str, str]]:
    yield f"{table}_no_update", "UPDATE", "ROW"
    yield f"{table}_no_delete", "DELETE", "ROW"
    if connection.vendor == "postgresql":
        yield f"{table}_no_truncate", "TRUNCATE", "STATEMENT"
