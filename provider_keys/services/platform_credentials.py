"""The platform's own keys: put in by an operator, used by platform-funded legs, never shown."""

from django.db import transaction
from django.utils import timezone

from accounts.models import User
from accounts.services import audit
from insighto.lib.secret import Secret
from provider_keys import destinations, keyring, pasted
from provider_keys.models import PlatformCredential, Provider
from provider_keys.services import vault


def put(*, provider: str, key: str, region: str = "", actor: User | None) -> PlatformCredential:
    """Store the platform's key for one provider, in place of any before it. Raises an `EntryRefused`."""
    provider = Provider(provider)
    secret = Secret(pasted.key(key))
    region = destinations.normalised_region(region) if provider == Provider.AZURE_SPEECH else ""
    with transaction.atomic():
        ring = keyring.for_sealing()
        row = PlatformCredential.objects.select_for_update().filter(provider=provider).first()
        is_new = row is None
        row = row or PlatformCredential(provider=provider, secret_version=0)
        row.secret_version += 1
        row.region = region
        row.last_four = pasted.last_four(secret.reveal())
        row.sealed_at = timezone.now()
        for column, value in vault.seal(secret, ring=ring, into=row.sealed()).items():
            setattr(row, column, value)
        row.save(force_insert=is_new)
        vault.flush_destroyed()
        audit.record(
            account=None,
            actor=actor,
            action="platform_credential.put",
            target=row,
            detail={"provider": str(provider), "region": region, "secret_version": row.secret_version},
        )
    return row
