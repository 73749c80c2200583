"""Accounts, subaccounts and who is in them."""

import threading
from typing import Any

import pytest
from django.core import mail
from django.db import connection

from accounts import tasks
from accounts.errors import AlreadyMember, LastOwner, NestedSubaccount, OwnersOnly
from accounts.models import Account, AuditEvent, Membership, OutboxEntry, User
from accounts.services import members, signup
from accounts.signals import account_created
from insighto.lib.errors import DomainError
from tests import factories

Role = Membership.Role


def _place(account: Account, user: User) -> Membership:
    return Membership.objects.of(account).get(user=user)


def test_a_main_account_has_its_owner_and_tells_the_other_apps(owner: User) -> None:
    told: list[Account] = []

    def hear(account: Account, **_: Any) -> None:
        told.append(account)

    account_created.connect(hear)
    try:
        account = signup.create_account(name="  Northwind  ", owner=owner)
    finally:
        account_created.disconnect(hear)
    assert (account.name, told) == ("Northwind", [account])
    assert _place(account, owner).role == Role.OWNER
    assert AuditEvent.objects.of(account).filter(action="account.created").exists()


def test_a_subaccount_belongs_to_the_person_named_and_not_to_the_parents_people(account: Account, owner: User) -> None:
    sub = signup.create_subaccount(parent=account, name="Branch", actor=owner, owner_email="New@Example.test")
    assert [place.user.email for place in Membership.objects.of(sub)] == ["new@example.test"]
    assert not User.objects.get(email="new@example.test").has_usable_password()
    with pytest.raises(NestedSubaccount):
        signup.create_subaccount(parent=sub, name="Deeper", actor=owner)
    assert not Account.objects.filter(name="Deeper").exists()


def test_an_invited_person_is_told_by_mail_once(account: Account, owner: User) -> None:
    members.add(account=account, email="new@example.test", role=Role.MEMBER, actor=owner)
    entry = OutboxEntry.objects.get(kind=members.INVITATION)
    tasks.send_invitation(str(entry.pk))
    tasks.send_invitation(str(entry.pk))
    assert [(message.to, "password" in message.body) for message in mail.outbox] == [(["new@example.test"], True)]


def test_the_last_owner_can_neither_leave_nor_step_down(account: Account, owner: User) -> None:
    place = _place(account, owner)
    with pytest.raises(LastOwner):
        members.remove(membership=place, actor=owner)
    with pytest.raises(LastOwner):
        members.change_role(membership=place, role=Role.ADMIN, actor=owner)
    assert _place(account, owner).role == Role.OWNER
    assert not AuditEvent.objects.of(account).filter(action__in=["member.removed", "member.role_changed"]).exists()


def test_an_admin_neither_makes_nor_touches_owners(account: Account, owner: User) -> None:
    admin = factories.make_member(account, Role.ADMIN)
    member = factories.make_member(account)
    refused: list[Any] = [
        lambda: members.add(account=account, email="x@example.test", role=Role.OWNER, actor=admin),
        lambda: members.change_role(membership=_place(account, member), role=Role.OWNER, actor=admin),
        lambda: members.change_role(membership=_place(account, admin), role=Role.OWNER, actor=admin),
        lambda: members.remove(membership=_place(account, owner), actor=admin),
    ]
    before = list(Membership.objects.of(account).order_by("pk").values())
    for attempt in refused:
        with pytest.raises(OwnersOnly):
            attempt()
    assert list(Membership.objects.of(account).order_by("pk").values()) == before
    assert not User.objects.filter(email="x@example.test").exists()


def test_nobody_is_in_an_account_twice(account: Account, owner: User) -> None:
    with pytest.raises(AlreadyMember):
        members.add(account=account, email="OWNER@example.test", role=Role.MEMBER, actor=owner)
    assert Membership.objects.of(account).count() == 1


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_two_owners_who_remove_each_other_leave_one() -> None:
    first = factories.make_user()
    account = factories.make_account(owner=first)
    second = factories.make_member(account, Role.OWNER)
    barrier = threading.Barrier(2)
    refusals: list[str] = []

    def remove(actor: User, other: User) -> None:
        try:
            place = _place(account, other)
            barrier.wait(timeout=10)
            members.remove(membership=place, actor=actor)
        except DomainError as refusal:
            refusals.append(refusal.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=remove, args=pair) for pair in ((first, second), (second, first))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert Membership.objects.of(account).filter(role=Role.OWNER).count() == 1
    assert len(refusals) == 1
