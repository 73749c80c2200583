"""Reads of accounts, for pages. Whom a token stands for is read on the hot path: `billing.selectors.known`."""

from django.db.models import Count, QuerySet

from accounts.models import Account, ApiKey, AuditEvent, Membership, User


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
