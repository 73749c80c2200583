"""Things to test with, made through the services, so that none is in an impossible state."""

import itertools

from accounts.models import Account, Membership, User
from accounts.services import members, signup

PASSWORD = "correct horse battery staple"

_numbers = itertools.count(1)


def make_user(email: str | None = None, *, password: str = PASSWORD, operator: bool = False) -> User:
    address = email or f"person{next(_numbers)}@example.test"
    if operator:
        return User.objects.create_superuser(address, password)
    return User.objects.create_user(address, password)


def make_account(name: str = "", *, owner: User | None = None, byok_allowed: bool = True) -> Account:
    account = signup.create_account(name=name or f"Account {next(_numbers)}", owner=owner or make_user())
    if not byok_allowed:
        account.byok_allowed = False
        account.save(update_fields=["byok_allowed"])
    return account


def make_subaccount(parent: Account, name: str = "", *, owner: User | None = None) -> Account:
    return signup.create_subaccount(
        parent=parent,
        name=name or f"Subaccount {next(_numbers)}",
        actor=owner_of(parent),
        owner_email=(owner or make_user()).email,
    )


def make_member(account: Account, role: str = Membership.Role.MEMBER, *, user: User | None = None) -> User:
    user = user or make_user()
    members.add(account=account, email=user.email, role=role, actor=owner_of(account))
    return user


def owner_of(account: Account) -> User:
    return Membership.objects.of(account).filter(role=Membership.Role.OWNER).order_by("pk")[0].user
