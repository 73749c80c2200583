"""Who is in an account, and with which role."""

from typing import Final

from django.db import transaction

from accounts.errors import AlreadyMember, LastOwner, OwnersOnly
from accounts.models import Account, Membership, User
from accounts.services import audit, outbox

INVITATION: Final = "accounts.send_invitation"


def person(email: str) -> User:
    """The user of this address; a new one cannot sign in until they choose a password by e-mail."""
    address = User.objects.normalize_email(email).strip().lower()
    found = User.objects.filter(email=address).first()
    return found or User.objects.create_user(address)


def invite(membership: Membership) -> None:
    """Owe the mail that tells the person about their place, in the caller's transaction."""
    outbox.add(kind=INVITATION, subject=str(membership.pk), account=membership.account)


@transaction.atomic
def add(*, account: Account, email: str, role: str, actor: User) -> Membership:
    """Put a person into the account and tell them by e-mail.

    Raises `AlreadyMember`, and `OwnersOnly` when somebody who is no owner adds an owner.
    """
    _lock(account)
    if role == Membership.Role.OWNER:
        _require_owner(account, actor)
    user = person(email)
    if Membership.objects.of(account).filter(user=user).exists():
        raise AlreadyMember(field="email")
    membership = Membership.objects.create(account=account, user=user, role=role)
    audit.record(account=account, actor=actor, action="member.added", target=user, detail={"role": role})
    invite(membership)
    return membership


@transaction.atomic
def change_role(*, membership: Membership, role: str, actor: User) -> Membership:
    """Give the member another role; the same role changes nothing. Raises `OwnersOnly` and `LastOwner`."""
    _lock(membership.account)
    membership.refresh_from_db(fields=["role"])
    before = membership.role
    if before == role:
        return membership
    if Membership.Role.OWNER in (before, role):
        _require_owner(membership.account, actor)
    if before == Membership.Role.OWNER:
        _require_another_owner(membership)
    membership.role = role
    membership.save(update_fields=["role"])
    detail = {"from": before, "to": role}
    audit.record(
        account=membership.account, actor=actor, action="member.role_changed", target=membership.user, detail=detail
    )
    return membership


@transaction.atomic
def remove(*, membership: Membership, actor: User) -> None:
    """Take the person out of the account; their user stays. Raises `OwnersOnly` and `LastOwner`."""
    _lock(membership.account)
    membership.refresh_from_db(fields=["role"])
    if membership.role == Membership.Role.OWNER:
        _require_owner(membership.account, actor)
        _require_another_owner(membership)
    user = membership.user
    membership.delete()
    audit.record(account=membership.account, actor=actor, action="member.removed", target=user)


def _lock(account: Account) -> None:
    """Changes of one account's team wait for each other, so that two owners cannot remove one another."""
    Account.objects.select_for_update().get(pk=account.pk)


def _require_owner(account: Account, actor: User) -> None:
    if not Membership.objects.of(account).filter(user=actor, role=Membership.Role.OWNER).exists():
        raise OwnersOnly


def _require_another_owner(membership: Membership) -> None:
    owners = Membership.objects.of(membership.account).filter(role=Membership.Role.OWNER)
    if not owners.exclude(pk=membership.pk).exists():
        raise LastOwner
