"""History stays as it was written, on both databases."""

import pytest
from django.core import checks
from django.db import DatabaseError, connection, transaction

from accounts import triggers
from accounts.models import Account, AuditEvent, User
from accounts.services import audit


def _statements() -> list[str]:
    statements = [
        "UPDATE accounts_auditevent SET action = 'forged'",
        "DELETE FROM accounts_auditevent",
    ]
    if connection.vendor == "postgresql":
        return [
            *statements,
            "TRUNCATE accounts_auditevent",
            (
                "INSERT INTO accounts_auditevent SELECT * FROM accounts_auditevent"
                " ON CONFLICT (id) DO UPDATE SET action = 'forged'"
            ),
        ]
    return [
        *statements,
        "INSERT OR REPLACE INTO accounts_auditevent SELECT * FROM accounts_auditevent",
        "REPLACE INTO accounts_auditevent SELECT * FROM accounts_auditevent",
        "UPDATE OR REPLACE accounts_auditevent SET action = 'forged'",
    ]


def test_no_statement_changes_removes_or_replaces_an_event(account: Account, owner: User) -> None:
    event = audit.record(account=account, actor=owner, action="test.happened", target=account, detail={"n": 1})
    before = list(AuditEvent.objects.order_by("pk").values())

    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:  # pending foreign keys would refuse TRUNCATE before the trigger could
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for statement in _statements():
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    with pytest.raises(DatabaseError), transaction.atomic():
        event.delete()

    assert list(AuditEvent.objects.order_by("pk").values()) == before


@pytest.mark.django_db
def test_a_missing_trigger_is_reported_and_comes_back_with_install() -> None:
    name = "accounts_auditevent_no_update"
    on = " ON accounts_auditevent" if connection.vendor == "postgresql" else ""
    assert triggers.missing(connection) == []
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER {name}{on}")

    assert triggers.missing(connection) == [name]
    found = checks.run_checks(tags=[checks.Tags.database], databases=["default"])
    assert any(message.id == "accounts.E001" and name in message.msg for message in found)

    triggers.install(connection)
    assert triggers.missing(connection) == []


@pytest.mark.django_db
def test_what_the_platform_does_by_itself_has_its_name() -> None:
    event = audit.record(account=None, actor=None, action="checks.breaker_open")
    assert event.actor_label == "Insighto"
