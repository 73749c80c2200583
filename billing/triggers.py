"""The database's own guards of the ledger: append-only history, and holds that pin their resolution.

On PostgreSQL the pin is a composite foreign key (migration 0002); SQLite cannot add one to a table
Django made, so there a trigger compares the same columns.
"""

from django.db.backends.base.base import BaseDatabaseWrapper

from accounts import triggers

PIN = "billing_transfer_pinned_to_hold"

_PIN_ON_SQLITE = """
CREATE TRIGGER IF NOT EXISTS billing_transfer_pinned_to_hold BEFORE INSERT ON billing_transfer
WHEN new.hold_id IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM billing_transfer AS held
    WHERE held.id = new.hold_id AND held.kind = 'hold' AND held.debit_id = new.debit_id
      AND held.credit_id = new.credit_id AND held.amount_micros = new.hold_amount_micros
)
BEGIN SELECT RAISE(ABORT, 'billing_transfer_pinned_to_hold'); END
"""


def register() -> None:
    triggers.register("billing_transfer")
    triggers.register("billing_price")


def install(connection: BaseDatabaseWrapper) -> None:
    """After every migrate: SQLite drops triggers when Django rebuilds a table."""
    triggers.install(connection)
    if connection.vendor == "sqlite" and "billing_transfer" in connection.introspection.table_names():
        with connection.cursor() as cursor:
            cursor.execute(_PIN_ON_SQLITE)


def missing(connection: BaseDatabaseWrapper) -> list[str]:
    """What should guard the ledger and is not there."""
    gone = triggers.missing(connection)
    if connection.vendor == "sqlite" and "billing_transfer" in connection.introspection.table_names():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name = %s", [PIN])
            if cursor.fetchone() is None:
                gone.append(PIN)
    return gone
