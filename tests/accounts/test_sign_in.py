"""Sign-up, sign-in and reset, and what they must not tell."""

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher, get_hasher
from django.test import Client, override_settings

from accounts.models import Account, Membership, User
from tests import factories
from tests.accounts.conftest import sign_in

SIGN_UP = {"account_name": "Fresh", "password1": factories.PASSWORD, "password2": factories.PASSWORD}


def _shape(client: Client, path: str, data: dict[str, str]) -> tuple[int, str, str]:
    """What a stranger sees of an answer: status, where it leads, and the page without tokens and the address typed."""
    answer = client.post(path, data)
    text = re.sub(r'name="csrfmiddlewaretoken" value="[^"]*"|x-csrftoken": "[^"]*', "", answer.content.decode())
    for value in data.values():
        text = text.replace(value, "…")
    location = answer.get("Location", "")
    page = client.get(location).content.decode() if location else ""
    for value in data.values():
        page = page.replace(value, "…")
    page = re.sub(r'name="csrfmiddlewaretoken" value="[^"]*"|x-csrftoken": "[^"]*', "", page)
    return answer.status_code, location, text + page


@pytest.mark.django_db
def test_sign_up_makes_the_person_and_their_account_together() -> None:
    client = Client()
    answer = client.post("/accounts/signup/", {**SIGN_UP, "email": "fresh@example.test"})
    assert answer.status_code == 302
    place = Membership.objects.get(user__email="fresh@example.test")
    assert (place.account.name, place.account.parent, place.role) == ("Fresh", None, "owner")


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["", "x" * 81, "nul\x00", "line\nbreak"])
def test_without_a_name_there_is_neither_person_nor_account(name: str) -> None:
    answer = Client().post("/accounts/signup/", {**SIGN_UP, "account_name": name, "email": "fresh@example.test"})
    assert answer.status_code == 200
    assert not User.objects.exists()
    assert not Account.objects.exists()


@pytest.mark.django_db
def test_a_failure_of_the_account_takes_the_person_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("accounts.services.signup.create_account", fail)
    with pytest.raises(RuntimeError):
        Client().post("/accounts/signup/", {**SIGN_UP, "email": "fresh@example.test"})
    assert not User.objects.exists()


@override_settings(ACCOUNT_EMAIL_VERIFICATION="mandatory")
@pytest.mark.parametrize("path", ["/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"])
def test_known_and_unknown_addresses_get_the_same_answer(owner: User, account: Account, path: str) -> None:
    forms = {
        "/accounts/login/": {"password": "wrong wrong wrong"},
        "/accounts/signup/": SIGN_UP,
        "/accounts/password/reset/": {},
    }
    field = "login" if path == "/accounts/login/" else "email"
    known = _shape(Client(), path, {**forms[path], field: owner.email})
    unknown = _shape(Client(), path, {**forms[path], field: "nobody@example.test"})
    assert known == unknown
    assert Membership.objects.filter(user=owner).count() == 1


def test_guessing_is_slowed_down(owner: User) -> None:
    client = Client()
    for _ in range(6):
        client.post("/accounts/login/", {"login": owner.email, "password": "wrong"})
    answer = client.post("/accounts/login/", {"login": owner.email, "password": factories.PASSWORD})
    assert answer.status_code in (200, 429)
    assert "_auth_user_id" not in client.session


def test_passwords_are_hashed_with_argon2() -> None:
    from insighto import settings as source

    # The tests' own settings have a quicker hasher, so the file is asked.
    first = Path(source.__file__).read_text().split("PASSWORD_HASHERS = [")[1].split(",")[0]
    assert first.strip() == '"django.contrib.auth.hashers.Argon2PasswordHasher"'
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.Argon2PasswordHasher"]):
        assert isinstance(get_hasher("default"), Argon2PasswordHasher)
    assert settings.AUTH_USER_MODEL == "accounts.User"


@pytest.mark.django_db
def test_operators_without_an_account_land_on_the_administration() -> None:
    operator = factories.make_user(operator=True)
    answer = Client().post("/accounts/login/", {"login": operator.email, "password": factories.PASSWORD})
    assert answer["Location"] == "/admin/"


@pytest.mark.parametrize("page", ["login", "signup", "password/reset", "password/reset/done", "confirm-email"])
def test_pages_before_sign_in_are_ours(db: None, page: str) -> None:
    answer = Client().get(f"/accounts/{page}/")
    assert answer.status_code == 200
    assert b"signed-out-main" in answer.content


@pytest.mark.parametrize(
    "path", ["2fa/", "2fa/totp/activate/", "2fa/webauthn/", "email/", "password/change/", "logout/"]
)
def test_pages_of_a_persons_own_security_are_ours(window: Client, owner: User, path: str) -> None:
    from allauth.account.models import EmailAddress

    EmailAddress.objects.filter(user=owner).update(verified=True)
    assert b"signed-out-main" in window.get("/accounts/reauthenticate/").content
    window.post("/accounts/reauthenticate/", {"password": factories.PASSWORD, "next": "/team/"})
    answer = window.get(f"/accounts/{path}")
    assert answer.status_code == 200, answer.get("Location")
    assert b'class="shell"' in answer.content or path == "logout/"
    assert b"data:image" not in answer.content  # the content security policy would block it


def test_signing_in_gives_the_session_a_new_name_and_signing_out_needs_a_post(owner: User, account: Account) -> None:
    window = sign_in(owner.email)
    assert window.get("/accounts/logout/").status_code == 200
    assert window.get("/team/").status_code == 200
    key = window.session.session_key
    window.post("/accounts/logout/")
    assert window.get("/team/").status_code == 302
    assert window.session.session_key != key


@pytest.mark.parametrize("to", ["https://evil.test/", "//evil.test/", "/\\evil.test"])
def test_sign_in_leads_nowhere_else(owner: User, account: Account, to: str) -> None:
    answer = Client().post("/accounts/login/", {"login": owner.email, "password": factories.PASSWORD, "next": to})
    assert "evil" not in answer["Location"]
