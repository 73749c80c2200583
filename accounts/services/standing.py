"""What operators decide about an account: its plan, its permission for BYOK, and whether it may work at all."""

from django.db import transaction

from accounts.models import Account, Plan, User
from accounts.services import audit


@transaction.atomic
def set_terms(*, account: Account, plan: Plan, byok_allowed: bool, actor: User) -> Account:
    """Put the account on `plan` and allow or forbid BYOK beside it; what is so already leaves no event.

    Taking the permission away does not turn the switch off: that would move spend to credits.
    """
    stored = Account.objects.select_for_update().get(pk=account.pk)
    detail: dict[str, object] = {}
    if stored.plan_id != plan.pk:
        detail["plan"] = plan.code
    if stored.byok_allowed != byok_allowed:
        detail["byok_allowed"] = byok_allowed
    if detail:
        stored.plan, stored.byok_allowed = plan, byok_allowed
        stored.save(update_fields=["plan", "byok_allowed"])
        audit.record(account=stored, actor=actor, action="account.terms_changed", target=stored, detail=detail)
    return stored


def suspend(*, account: Account, actor: User) -> bool:
    """Stop the account's requests; False when it was suspended already."""
    return _move(account, Account.Status.SUSPENDED, "account.suspended", actor)


def reactivate(*, account: Account, actor: User) -> bool:
    return _move(account, Account.Status.ACTIVE, "account.reactivated", actor)


@transaction.atomic
def _move(account: Account, status: Account.Status, action: str, actor: User) -> bool:
    if not Account.objects.filter(pk=account.pk).exclude(status=status).update(status=status):
        return False
    audit.record(account=account, actor=actor, action=action, target=account)
    return True
