"""The tokens we issue: what finds a caller and what never does."""

import string
from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from accounts.errors import ExpiryInPast, NameRejected
from accounts.models import Account, ApiKey, AuditEvent, User
from accounts.services import api_keys
from billing.selectors import Asking, Known, known


def _found(token: str) -> Known | None:
    """Whom the gateway takes the token for."""
    digest = api_keys.digest(token)
    return known([Asking("openai", digest=digest)])[0] if digest else None


def test_a_token_has_the_published_shape_and_finds_its_account(account: Account, owner: User) -> None:
    api_key, token = api_keys.issue(account=account, name="Server", actor=owner)
    text = token.reveal()

    assert len(text) == 53
    assert text.startswith(f"in-{api_key.public_id}")
    assert set(text[3:]) <= set(string.ascii_letters + string.digits)
    found = _found(text)
    assert found is not None
    assert (found.api_key_id, found.account_id) == (api_key.pk, account.pk)
    assert found.facts is not None
    assert found.facts.standing.account_active


def test_the_database_and_the_audit_trail_hold_no_part_of_the_secret(account: Account, owner: User) -> None:
    api_key, token = api_keys.issue(account=account, name="Server", actor=owner)
    secret = token.reveal()[15:]

    stored = ApiKey.objects.filter(pk=api_key.pk).values().get()
    events = list(AuditEvent.objects.of(account).values())
    assert secret not in repr(stored)
    assert secret not in repr(events)
    assert bytes(stored["digest"]) == api_keys.digest(token.reveal())


def test_a_digest_is_no_token(account: Account, owner: User) -> None:
    api_key, _ = api_keys.issue(account=account, name="Server", actor=owner)
    digest = bytes(api_key.digest)
    for text in (digest.hex(), f"in-{digest.hex()}", f"in-{digest.hex()[:50]}", digest.decode("latin-1")):
        assert _found(text) is None


def test_near_misses_of_a_token_find_nobody(account: Account, owner: User) -> None:
    token = api_keys.issue(account=account, name="Server", actor=owner)[1].reveal()
    misses = [
        token[:-1],
        token + "0",
        token[1:],
        token.swapcase(),
        token.replace("in-", "IN-"),
        token + " ",
        " " + token,
    ]
    for place in range(len(token)):
        other = "b" if token[place] == "a" else "a"
        misses.append(token[:place] + other + token[place + 1 :])
    assert [miss for miss in misses if _found(miss)] == []


def test_another_secret_with_the_same_public_id_and_a_right_checksum_finds_nobody(
    account: Account, owner: User
) -> None:
    token = api_keys.issue(account=account, name="Server", actor=owner)[1].reveal()
    body = token[:15] + "A" * 32
    forged = body + api_keys._checksum(body)
    assert api_keys.digest(forged) is not None
    assert _found(forged) is None


HOSTILE = ["", "in-", "' OR 1=1 --", "Bearer in-" + "a" * 50, "in-" + "a" * 50, "in-" + "a" * 10**6]
HOSTILE += [f"in-{character * 50}" for character in ("'", "%", "_", "\x00", "٣", "é", "\n", "\ud800")]
HOSTILE += ["{{7*7}}".ljust(53, "a"), "in-../../etc/passwd".ljust(53, "0")]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_injection_strings_are_no_tokens_and_reach_no_database(text: str) -> None:
    assert api_keys.digest(text) is None  # this test has no database: a query would fail it


def test_another_pepper_finds_nobody(account: Account, owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token = api_keys.issue(account=account, name="Server", actor=owner)[1].reveal()
    monkeypatch.setattr(settings, "API_KEY_PEPPER", "another-pepper-another-pepper-another")
    assert _found(token) is None


def test_revoking_works_at_once_and_a_repeat_changes_nothing(account: Account, owner: User) -> None:
    api_key, token = api_keys.issue(account=account, name="Server", actor=owner)
    api_keys.revoke(api_key=api_key, actor=owner)
    assert _found(token.reveal()) is None

    revoked_at = ApiKey.objects.get(pk=api_key.pk).revoked_at
    api_keys.revoke(api_key=api_key, actor=owner)
    assert ApiKey.objects.get(pk=api_key.pk).revoked_at == revoked_at
    assert AuditEvent.objects.of(account).filter(action="api_key.revoked").count() == 1


def test_an_expired_key_is_absent_and_one_that_never_worked_is_not_made(account: Account, owner: User) -> None:
    api_key, token = api_keys.issue(
        account=account, name="Server", actor=owner, expires_at=timezone.now() + timedelta(days=1)
    )
    assert _found(token.reveal())
    ApiKey.objects.filter(pk=api_key.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert _found(token.reveal()) is None
    with pytest.raises(ExpiryInPast):
        api_keys.issue(account=account, name="Late", actor=owner, expires_at=timezone.now())
    assert not ApiKey.objects.filter(name="Late").exists()


def test_a_suspended_account_is_told_apart_by_its_caller(account: Account, owner: User) -> None:
    _, token = api_keys.issue(account=account, name="Server", actor=owner)
    Account.objects.filter(pk=account.pk).update(status=Account.Status.SUSPENDED)
    found = _found(token.reveal())
    assert found is not None
    assert found.facts is not None
    assert not found.facts.standing.account_active


def test_use_is_noted_at_most_once_a_minute(account: Account, owner: User) -> None:
    api_key, _ = api_keys.issue(account=account, name="Server", actor=owner)
    assert api_keys.touch([api_key.pk, api_key.pk]) == 1
    assert api_keys.touch([api_key.pk]) == 0
    ApiKey.objects.filter(pk=api_key.pk).update(last_used_at=timezone.now() - timedelta(seconds=61))
    assert api_keys.touch([api_key.pk]) == 1


@pytest.mark.parametrize("name", ["", "  ", "x" * 61, "a\x00b", "line\nbreak", "zero\u200bwidth", "bidi\u202e"])
def test_names_are_printable_and_bounded(account: Account, owner: User, name: str) -> None:
    with pytest.raises(NameRejected):
        api_keys.issue(account=account, name=name, actor=owner)
    assert not ApiKey.objects.of(account).exists()
    assert not AuditEvent.objects.of(account).filter(action="api_key.issued").exists()
