"""A resolution repeats the kind, both sides and the amount of its hold, by foreign key (PostgreSQL).

SQLite compares the same columns in a trigger, see `billing/triggers.py`.
"""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

PIN = """
ALTER TABLE billing_transfer
    ADD COLUMN hold_kind varchar(8) GENERATED ALWAYS AS (CASE WHEN hold_id IS NOT NULL THEN 'hold' END) STORED,
    ADD CONSTRAINT billing_transfer_hold_target UNIQUE (id, kind, debit_id, credit_id, amount_micros);
ALTER TABLE billing_transfer
    ADD CONSTRAINT billing_transfer_pinned_to_hold
    FOREIGN KEY (hold_id, hold_kind, debit_id, credit_id, hold_amount_micros)
    REFERENCES billing_transfer (id, kind, debit_id, credit_id, amount_micros)
"""

UNPIN = """
ALTER TABLE billing_transfer DROP CONSTRAINT billing_transfer_pinned_to_hold;
ALTER TABLE billing_transfer DROP CONSTRAINT billing_transfer_hold_target, DROP COLUMN hold_kind
"""


def pin(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(PIN)


def unpin(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(UNPIN)


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial")]

    operations = [migrations.RunPython(pin, unpin)]
