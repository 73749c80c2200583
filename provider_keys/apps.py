from django.apps import AppConfig
from django.core import checks as system_checks


class ProviderKeysConfig(AppConfig):
    name = "provider_keys"
    verbose_name = "Provider keys"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from accounts.models import Account
        from accounts.signals import account_created
        from provider_keys import checks, mfa
        from provider_keys.services import slots

        def create_slots(sender: object, account: Account, **_: object) -> None:
            slots.create_missing(account)

        account_created.connect(create_slots, dispatch_uid="provider_keys.create_slots", weak=False)
        mfa.connect()
        system_checks.register(checks.key_ring)
        system_checks.register(checks.key_ring_matches_database, system_checks.Tags.database)
