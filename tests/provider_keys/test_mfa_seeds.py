import json
from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.adapter import get_adapter
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value, yield_hotp_counters_from_time
from django.core.cache import cache
from django.db import connection

from accounts.models import User
from provider_keys import mfa
from provider_keys.errors import CredentialLocked, CredentialUnreadable
from provider_keys.services import rewrap
from tests import factories
from tests.provider_keys.conftest import ring_text

SEED = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


def code() -> str:
    return str(format_hotp_value(hotp_value(SEED, next(iter(yield_hotp_counters_from_time())))))


@pytest.fixture
def totp(owner: User) -> Authenticator:
    cache.clear()
    return TOTP.activate(owner, SEED).instance


def raw() -> list[Any]:
    """The column as the database holds it, past the model."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT data FROM mfa_authenticator ORDER BY id")
        return [json.loads(row[0]) if isinstance(row[0], str) else row[0] for row in cursor.fetchall()]


def test_the_adapter_of_the_product_is_the_sealing_one() -> None:
    assert isinstance(get_adapter(), mfa.MFAAdapter)


def test_a_seed_is_stored_sealed_for_its_owner_and_still_checks_codes(totp: Authenticator, owner: User) -> None:
    (stored,) = raw()
    assert stored["secret"].startswith(f"sealed:{owner.pk}:")
    assert SEED not in json.dumps(stored)
    assert TOTP(Authenticator.objects.get(pk=totp.pk)).validate_code(code())
    assert not TOTP(Authenticator.objects.get(pk=totp.pk)).validate_code("000000x")


def test_recovery_codes_are_sealed_and_used_once(owner: User) -> None:
    codes = RecoveryCodes.activate(owner)
    first = codes.get_unused_codes()[0]
    assert raw()[0]["seed"].startswith(f"sealed:{owner.pk}:")

    again = RecoveryCodes(Authenticator.objects.get())
    assert again.validate_code(first)
    assert not RecoveryCodes(Authenticator.objects.get()).validate_code(first)


def test_a_seed_moved_to_another_persons_row_does_not_load(totp: Authenticator) -> None:
    other = factories.make_user()
    theirs = TOTP.activate(other, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").instance
    Authenticator.objects.filter(pk=theirs.pk).update(data=raw()[0])

    with pytest.raises(CredentialUnreadable):
        Authenticator.objects.get(pk=theirs.pk)

    # Nor with the owner's name in the text changed to fit the row.
    forged = raw()[0]["secret"].replace(f"sealed:{totp.user_id}:", f"sealed:{other.pk}:")
    Authenticator.objects.filter(pk=theirs.pk).update(data={"secret": forged})
    with pytest.raises(CredentialUnreadable):
        TOTP(Authenticator.objects.get(pk=theirs.pk)).validate_code(code())


@pytest.mark.parametrize("stored", [SEED, "sealed:", "sealed:1", "sealed:1:!!", "sealed:1:AAAA", ""])
def test_what_was_never_sealed_is_not_taken_for_a_seed(stored: str) -> None:
    with pytest.raises(CredentialUnreadable):
        mfa.unseal_text(stored)


def test_a_text_that_belongs_to_nobody_is_refused_from_the_database(totp: Authenticator) -> None:
    Authenticator.objects.filter(pk=totp.pk).update(data={"secret": mfa.seal_text(SEED)})
    with pytest.raises(CredentialUnreadable):
        Authenticator.objects.get(pk=totp.pk)


def test_rotation_reaches_the_seeds(totp: Authenticator, owner: User, use_ring: Callable[..., None]) -> None:
    RecoveryCodes.activate(owner)
    before = RecoveryCodes(Authenticator.objects.get(type="recovery_codes")).generate_codes()
    use_ring(ring_text("k1", "k2"), primary="k2")
    assert rewrap.references("k1") == {"mfa.authenticator.data": 2}

    report = next(report for report in rewrap.run() if report.label == "mfa.authenticator.data")

    assert (report.moved, report.left) == (2, 0)
    rewrap.retire("k1")
    use_ring(ring_text("k2"))
    assert TOTP(Authenticator.objects.get(type="totp")).validate_code(code())
    assert RecoveryCodes(Authenticator.objects.get(type="recovery_codes")).generate_codes() == before


def test_without_its_key_a_seed_is_locked_and_not_wrong(totp: Authenticator, use_ring: Callable[..., None]) -> None:
    use_ring(ring_text("k2"))
    with pytest.raises(CredentialLocked):
        TOTP(Authenticator.objects.get()).validate_code(code())
