import pytest

from accounts.models import AuditEvent, User
from provider_keys.errors import CredentialUnreadable, EntryRefused, RegionRefused
from provider_keys.models import Credential, PlatformCredential, Provider
from provider_keys.services import connections, platform_credentials
from tests.provider_keys.conftest import AZURE_KEY, OPENAI_KEY, another


def test_the_platforms_key_is_put_replaced_and_audited(owner: User) -> None:
    platform_credentials.put(provider=Provider.OPENAI, key=OPENAI_KEY, actor=owner)
    platform_credentials.put(provider=Provider.OPENAI, key=f" {another(OPENAI_KEY)} ", actor=owner)

    row = PlatformCredential.objects.get()
    assert (row.secret_version, row.last_four, row.kek_id) == (2, another(OPENAI_KEY)[-4:], "k1")
    assert connections.open_credential(row.sealed()).reveal() == another(OPENAI_KEY)
    assert AuditEvent.objects.filter(action="platform_credential.put", account=None).count() == 2


def test_azure_needs_its_region(owner: User) -> None:
    with pytest.raises(RegionRefused):
        platform_credentials.put(provider=Provider.AZURE_SPEECH, key=AZURE_KEY, region="evil?", actor=owner)
    assert not PlatformCredential.objects.exists()

    row = platform_credentials.put(provider=Provider.AZURE_SPEECH, key=AZURE_KEY, region="West Europe", actor=owner)
    assert row.region == "westeurope"


@pytest.mark.parametrize("typed", ["", "dummy", "I don't use ElevenLabs", "YOUR_API_KEY", "a b c d e f g h"])
@pytest.mark.parametrize("provider", Provider.values)
def test_the_platform_takes_no_placeholder(owner: User, provider: str, typed: str) -> None:
    with pytest.raises(EntryRefused):
        platform_credentials.put(provider=provider, key=typed, region="westeurope", actor=owner)
    assert not PlatformCredential.objects.exists()
    assert not AuditEvent.objects.filter(action="platform_credential.put").exists()


def test_a_customers_ciphertext_does_not_open_as_the_platforms(owner: User, add: object) -> None:
    row = platform_credentials.put(provider=Provider.OPENAI, key=OPENAI_KEY, actor=owner)
    add()  # type: ignore[operator]
    PlatformCredential.objects.filter(pk=row.pk).update(ciphertext=bytes(Credential.objects.get().ciphertext))

    with pytest.raises(CredentialUnreadable):
        connections.open_credential(PlatformCredential.objects.get().sealed())
