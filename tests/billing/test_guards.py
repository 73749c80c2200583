"""History is append-only and holds are pinned, by the database and after every migrate."""

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction

from accounts import triggers as append_only
from billing import triggers
from billing.checks import check_guards
from billing.models import Price, Transfer

TABLES = {"billing_transfer": "amount_micros", "billing_price": "input_micros"}


def refuses(statement):
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def history(account):
    return account


@pytest.mark.parametrize("table", TABLES)
def test_history_cannot_be_changed_or_deleted(history, table):
    refuses(f"UPDATE {table} SET {TABLES[table]} = 1")  # noqa: S608
    refuses(f"DELETE FROM {table}")  # noqa: S608


@pytest.mark.parametrize("model", [Transfer, Price])
def test_the_orm_cannot_change_history_either(history, model):
    row = model.objects.first()
    for attempt in (row.save, row.delete):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            attempt()


@pytest.mark.parametrize("table", TABLES)
def test_history_cannot_be_replaced_or_emptied(history, table):
    if connection.vendor == "sqlite":
        refuses(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")  # noqa: S608
    else:
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # else this transaction's own rows already forbid it
        refuses(f"TRUNCATE {table} CASCADE")


def test_the_guards_come_back_after_a_migrate(history):
    drop = "DROP TRIGGER billing_transfer_no_update"
    with connection.cursor() as cursor:
        cursor.execute(f"{drop} ON billing_transfer" if connection.vendor == "postgresql" else drop)
        if connection.vendor == "sqlite":
            cursor.execute(f"DROP TRIGGER {triggers.PIN}")
    assert check_guards(databases=["default"])

    call_command("migrate", verbosity=0, skip_checks=True)

    assert triggers.missing(connection) == []
    assert check_guards(databases=["default"]) == []
    refuses("UPDATE billing_transfer SET amount_micros = 1")


def test_installing_twice_changes_nothing(db):
    triggers.install(connection)
    triggers.install(connection)
    assert append_only.missing(connection) == []
