"""An account with an owner, an admin and a member, and browsers that are signed in."""

import time
from collections.abc import Callable

import pytest
from django.test import Client

from accounts.models import Account, Membership, User
from tests import factories

SignIn = Callable[..., Client]


@pytest.fixture
def owner(db: None) -> User:
    return factories.make_user()


@pytest.fixture
def account(owner: User) -> Account:
    return factories.make_account("Northwind", owner=owner)


@pytest.fixture
def member(account: Account) -> User:
    return factories.make_member(account)


@pytest.fixture
def admin(account: Account) -> User:
    return factories.make_member(account, Membership.Role.ADMIN)


@pytest.fixture
def sign_in() -> SignIn:
    """A browser in which `user` proved who they are `seconds_ago`."""

    def sign_in(user: User, *, seconds_ago: float = 0) -> Client:
        client = Client()
        client.force_login(user)
        session = client.session
        session["account_authentication_methods_user"] = str(user.pk)
        session["account_authentication_methods"] = [{"method": "password", "at": time.time() - seconds_ago}]
        session.save()
        return client

    return sign_in
