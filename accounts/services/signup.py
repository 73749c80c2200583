"""New accounts: a main account with its owner, and subaccounts under it."""

import secrets
from typing import Final

from django.db import transaction
from django.utils.text import slugify

from accounts import names
from accounts.errors import NestedSubaccount
from accounts.models import Account, Membership, Plan, User
from accounts.services import audit, members
from accounts.signals import account_created

FIRST_PLAN: Final = "standard"


def first_plan() -> Plan:
    """The plan of those who sign up by themselves; made when it is first needed."""
    return Plan.objects.get_or_create(code=FIRST_PLAN, defaults={"name": "Standard"})[0]


@transaction.atomic
def create_account(*, name: str, owner: User, plan: Plan | None = None) -> Account:
    """A main account owned by `owner`, on the first plan unless told. Every call makes another one."""
    clean_name = names.clean(name, limit=80)
    account = Account.objects.create(name=clean_name, slug=_free_slug(clean_name), plan=plan or first_plan())
    Membership.objects.create(account=account, user=owner, role=Membership.Role.OWNER)
    audit.record(account=account, actor=owner, action="account.created", target=account)
    account_created.send(sender=Account, account=account)
    return account


@transaction.atomic
def create_subaccount(*, parent: Account, name: str, actor: User, owner_email: str | None = None) -> Account:
    """A subaccount under `parent`, on its plan, owned by the person of `owner_email` or else by `actor`.

    The person may be new: they are sent an invitation. Raises `NestedSubaccount`. The event is
    recorded in both accounts, because both have reason to know.
    """
    if parent.parent_id is not None:
        raise NestedSubaccount
    clean_name = names.clean(name, limit=80)
    account = Account.objects.create(
        name=clean_name, slug=_free_slug(clean_name), plan_id=parent.plan_id, parent=parent
    )
    owner = members.person(owner_email) if owner_email else actor
    membership = Membership.objects.create(account=account, user=owner, role=Membership.Role.OWNER)
    for told in (account, parent):
        audit.record(account=told, actor=actor, action="subaccount.created", target=account)
    account_created.send(sender=Account, account=account)
    if owner != actor:
        members.invite(membership)
    return account


def _free_slug(name: str) -> str:
    """Readable, and never taken: a random tail makes it unique and keeps it from telling who else is here."""
    return f"{slugify(name)[:50] or 'account'}-{secrets.token_hex(4)}"
