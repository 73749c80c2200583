"""The API keys we issue: made, found by digest, revoked. A token is shown once and never stored.

Token: `in-`, 12 characters of public id, 32 of secret, 6 of checksum, all base62. The checksum
refuses slips and random strings before anything is looked up; the digest is keyed with a pepper that
the database does not hold.
"""

import hmac
import secrets
import string
import zlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from accounts import names
from accounts.errors import ExpiryInPast
from accounts.models import Account, ApiKey, User
from accounts.services import audit
from insighto.lib.secret import Secret

PREFIX: Final = "in-"
PUBLIC_LENGTH: Final = 12
SECRET_LENGTH: Final = 32
CHECKSUM_LENGTH: Final = 6
TOKEN_LENGTH: Final = len(PREFIX) + PUBLIC_LENGTH + SECRET_LENGTH + CHECKSUM_LENGTH
TOUCH_EVERY: Final = timedelta(minutes=1)

_BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase


@transaction.atomic
def issue(*, account: Account, name: str, actor: User, expires_at: datetime | None = None) -> tuple[ApiKey, Secret]:
    """A new API key and its token, which nobody can read again. Raises `NameRejected`, `ExpiryInPast`."""
    clean_name = names.clean(name, limit=60)
    if expires_at is not None and expires_at <= timezone.now():
        raise ExpiryInPast(field="expires_at")
    public_id = _random(PUBLIC_LENGTH)
    body = PREFIX + public_id + _random(SECRET_LENGTH)
    token = body + _checksum(body)
    api_key = ApiKey.objects.create(
        account=account,
        name=clean_name,
        public_id=public_id,
        digest=_digest(token),
        created_by=actor,
        expires_at=expires_at,
    )
    audit.record(account=account, actor=actor, action="api_key.issued", target=api_key, detail={"public_id": public_id})
    return api_key, Secret(token)


@transaction.atomic
def revoke(*, api_key: ApiKey, actor: User) -> ApiKey:
    """The key stops working at once and stays listed. Revoking it again changes nothing."""
    now = timezone.now()
    if ApiKey.objects.filter(pk=api_key.pk, revoked_at=None).update(revoked_at=now):
        api_key.revoked_at = now
        detail = {"public_id": api_key.public_id}
        audit.record(account=api_key.account, actor=actor, action="api_key.revoked", target=api_key, detail=detail)
    return api_key


def touch(ids: Iterable[UUID]) -> int:
    """Note that these keys were used just now; each row is written at most once a minute."""
    now = timezone.now()
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - TOUCH_EVERY)
    return ApiKey.objects.filter(stale, pk__in=set(ids)).update(last_used_at=now)


def digest(token: str) -> bytes | None:
    """What finds the token's row; None for anything that is not one of our tokens. No database."""
    if len(token) != TOKEN_LENGTH or not token.startswith(PREFIX):
        return None
    if not token.isascii() or not token[len(PREFIX) :].isalnum():
        return None
    if not hmac.compare_digest(token[-CHECKSUM_LENGTH:], _checksum(token[:-CHECKSUM_LENGTH])):
        return None
    return _digest(token)


def _digest(token: str) -> bytes:
    return hmac.digest(settings.API_KEY_PEPPER.encode(), token.encode(), "sha256")


def _random(length: int) -> str:
    return "".join(secrets.choice(_BASE62) for _ in range(length))


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = []
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
