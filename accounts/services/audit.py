"""The audit trail: one event per thing a person, or the platform itself, did. Rows are never changed."""

from typing import Any

from django.db.models import Model

from accounts.models import Account, AuditEvent, User


def record(
    *,
    account: Account | None,
    actor: User | None,
    action: str,
    target: Model | None = None,
    detail: dict[str, Any] | None = None,
) -> AuditEvent:
    """Add an event in the caller's transaction. `actor` None is the platform; `detail` holds no secret."""
    return AuditEvent.objects.create(
        account=account,
        actor=actor,
        actor_label=(actor.email if actor else "Insighto")[:120],
        action=action,
        target_kind=target._meta.model_name or "" if target is not None else "",
        target_id=str(target.pk) if target is not None else "",
        target_label=str(target)[:120] if target is not None else "",
        detail=detail or {},
    )
