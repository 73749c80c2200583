from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate


class BillingConfig(AppConfig):
    name = "billing"
    verbose_name = "Billing"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from accounts.signals import account_created
        from billing import checks, triggers

        assert checks
        triggers.register()
        post_migrate.connect(_after_migrate, sender=self, dispatch_uid="billing.after_migrate")
        account_created.connect(_open_wallet, dispatch_uid="billing.open_wallet")


def _after_migrate(using: str, apps: Any, **_: Any) -> None:
    """Put the guards back that a rebuilt table lost, and add prices that are new in the book."""
    from billing import triggers
    from billing.services import prices

    triggers.install(connections[using])
    if using == "default" and "billing_price" in connections[using].introspection.table_names():
        prices.load_book()


def _open_wallet(account: Any, **_: Any) -> None:
    from billing.services import ledger

    ledger.open_wallets([account.pk])
