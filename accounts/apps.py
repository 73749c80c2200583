from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = "Accounts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from accounts import checks  # noqa: F401

        post_migrate.connect(_guard_history, sender=self, dispatch_uid="accounts.guard_history")


def _guard_history(using: str, **_: Any) -> None:
    """After every migrate: SQLite drops triggers when Django rebuilds a table."""
    from accounts import triggers

    triggers.install(connections[using])
