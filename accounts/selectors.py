"""Reads of accounts. `callers` is on the API's hot path: one query, plain values."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from accounts.models import Account, ApiKey, AuditEvent, Membership, User


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a token stands for."""

    api_key_id: UUID
    account_id: UUID
    account_active: bool
    api_key_name: str


def callers(digests: Sequence[bytes]) -> dict[bytes, Caller]:
    """The callers of these digests in one query; unknown, expired and revoked ones are absent."""
    rows = (
        ApiKey.objects.filter(
            Q(expires_at=None) | Q(expires_at__gt=timezone.now()), digest__in=list(digests), revoked_at=None
        )
        .order_by()
        .values_list("digest", "pk", "account_id", "account__status", "name")
    )
    return {
        bytes(digest): Caller(api_key_id, account_id, status == Account.Status.ACTIVE, name)
        for digest, api_key_id, account_id, status, name in rows
    }


def memberships_of(user: User) -> list[Membership]:
    """Every account the person belongs to, the oldest membership first, in one query."""
    return list(
        Membership.objects.filter(user=user)
        .select_related("account__plan", "account__parent")
        .order_by("created_at", "pk")
    )


def api_keys_of(account: Account) -> QuerySet[ApiKey]:
    return ApiKey.objects.of(account).select_related("created_by").defer("digest").order_by("revoked_at", "-created_at")


def team_of(account: Account) -> QuerySet[Membership]:
    return Membership.objects.of(account).select_related("user").order_by("created_at", "pk")


def subaccounts_of(account: Account) -> QuerySet[Account]:
    return Account.objects.filter(parent=account).annotate(people=Count("memberships")).order_by("name", "pk")


def activity_of(account: Account) -> QuerySet[AuditEvent]:
    return AuditEvent.objects.of(account).order_by("-id")
