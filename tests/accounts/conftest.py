import pytest
from django.core.cache import cache
from django.test import Client

from accounts.models import Account, User
from tests import factories


@pytest.fixture(autouse=True)
def _fresh_limits() -> None:
    cache.clear()


@pytest.fixture
def owner(db: None) -> User:
    return factories.make_user("owner@example.test")


@pytest.fixture
def account(owner: User) -> Account:
    return factories.make_account("Northwind", owner=owner)


@pytest.fixture
def stranger(db: None) -> User:
    user = factories.make_user("stranger@example.test")
    factories.make_account("Elsewhere", owner=user)
    return user


def sign_in(email: str) -> Client:
    """Through the page, as people do: what a test's force_login leaves out is part of being signed in."""
    client = Client()
    answer = client.post("/accounts/login/", {"login": email, "password": factories.PASSWORD})
    assert answer.status_code == 302, answer.content
    return client


@pytest.fixture
def window(account: Account, owner: User) -> Client:
    return sign_in(owner.email)
