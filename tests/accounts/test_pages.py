"""The pages of an account, as a browser without script uses them."""

import csv
import re

import pytest
from django.test import Client
from django.utils import timezone

from accounts import csv_export
from accounts.models import Account, ApiKey, AuditEvent, Membership, User
from accounts.services import api_keys, audit
from billing.selectors import Asking, known
from tests import factories
from tests.accounts.conftest import sign_in

PAGES = ["/api-keys/", "/subaccounts/", "/team/", "/activity/", "/activity.csv"]
ADMIN_PAGES = [page for page in PAGES if page != "/team/"]


@pytest.mark.parametrize("page", PAGES)
def test_pages_open_for_the_owner_and_send_strangers_to_sign_in(window: Client, page: str) -> None:
    assert window.get(page).status_code == 200
    refused = Client().get(page)
    assert refused.status_code == 302
    assert refused["Location"].startswith("/accounts/login/")


@pytest.mark.parametrize("page", ADMIN_PAGES)
def test_members_are_refused_what_admins_see(account: Account, page: str) -> None:
    window = sign_in(factories.make_member(account).email)
    assert window.get(page).status_code == 403
    assert window.get("/team/").status_code == 200


@pytest.mark.parametrize("page", PAGES)
def test_somebody_in_no_account_finds_nothing(db: None, page: str) -> None:
    assert sign_in(factories.make_user().email).get(page).status_code == 404


def test_a_token_is_in_one_answer_and_nowhere_after(window: Client, account: Account) -> None:
    answer = window.post("/api-keys/issue/", {"name": "Server", "expires": "30", "for_account": account.slug})
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    token = re.findall(r"in-[0-9A-Za-z]{50}", answer.content.decode())[0]
    digest = api_keys.digest(token)
    assert digest is not None
    [found] = known([Asking(digest=digest)])
    assert found is not None
    assert found.account_id == account.pk

    later = window.get("/api-keys/").content.decode() + window.get("/activity/").content.decode()
    assert token[15:] not in later
    assert token[15:] not in repr(dict(window.session)) + repr(window.cookies)

    api_key = ApiKey.objects.get()
    assert window.get(f"/api-keys/{api_key.pk}/revoke/").status_code == 200
    assert known([Asking(digest=digest)]) != [None]
    window.post(f"/api-keys/{api_key.pk}/revoke/", {"for_account": account.slug})
    assert known([Asking(digest=digest)]) == [None]


def test_a_session_that_is_not_fresh_reaches_no_token(window: Client, account: Account) -> None:
    session = window.session
    session["account_authentication_methods"] = [{"method": "password", "at": timezone.now().timestamp() - 86_400}]
    session.save()
    answer = window.post("/api-keys/issue/", {"name": "Server", "expires": ""})
    assert answer.status_code == 302
    assert answer["Location"].startswith("/accounts/reauthenticate/")
    assert not ApiKey.objects.exists()


def test_a_foreign_key_and_an_unknown_one_answer_alike(window: Client, stranger: User) -> None:
    foreign = Account.objects.get(name="Elsewhere")
    api_key, _ = api_keys.issue(account=foreign, name="Theirs", actor=stranger)
    place = Membership.objects.of(foreign).get()
    for method in ("get", "post"):
        theirs = getattr(window, method)(f"/api-keys/{api_key.pk}/revoke/")
        unknown = getattr(window, method)("/api-keys/01900000-0000-7000-8000-000000000000/revoke/")
        assert (theirs.status_code, theirs.content) == (unknown.status_code, unknown.content)
        assert theirs.status_code == 404
    assert window.post(f"/team/{place.pk}/remove/").status_code == 404
    assert window.post(f"/team/{place.pk}/role/", {"role": "member"}).status_code == 404
    api_key.refresh_from_db()
    place.refresh_from_db()
    assert (api_key.revoked_at, place.role) == (None, "owner")


def test_switching_reaches_only_ones_own_accounts(window: Client, owner: User, account: Account) -> None:
    second = factories.make_account("Second", owner=owner)
    foreign = factories.make_account("Foreign")
    assert window.post("/account/switch/", {"account": second.slug}).status_code == 302
    assert window.get("/team/").context["account"] == second

    for wanted in (foreign.slug, str(foreign.pk), "", "nobody", "' OR 1=1"):
        assert window.post("/account/switch/", {"account": wanted}).status_code == 404
    assert window.get("/account/switch/").status_code == 405
    assert window.get("/team/").context["account"] == second

    Membership.objects.of(second).filter(user=owner).delete()  # out at once, without signing out
    assert window.get("/team/").context["account"] == account


def test_no_parameter_or_header_chooses_the_account(window: Client, account: Account) -> None:
    foreign = factories.make_account("Foreign")
    names = ["account", "account_id", "org", "tenant", "slug", "parent"]
    smuggled = dict.fromkeys(names, str(foreign.pk))
    headers = {f"X-{name}": str(foreign.pk) for name in names}
    assert window.get("/team/", smuggled, headers=headers).context["account"] == account
    window.post("/subaccounts/add/", {"name": "Branch", **smuggled, "status": "suspended"}, headers=headers)
    made = Account.objects.get(name="Branch")
    assert (made.parent, made.status) == (account, "active")
    assert not AuditEvent.objects.of(foreign).filter(action="subaccount.created").exists()


def test_a_form_made_for_another_account_does_nothing(window: Client, owner: User, account: Account) -> None:
    second = factories.make_account("Second", owner=owner)
    answer = window.post("/team/add/", {"email": "x@example.test", "role": "member", "for_account": second.slug})
    assert answer.status_code == 409
    assert b"You switched" in answer.content
    assert Membership.objects.of(account).count() == Membership.objects.of(second).count() == 1


def test_subaccounts_have_no_subaccounts_page(account: Account) -> None:
    person = factories.make_user()
    sub = factories.make_subaccount(account, owner=person)
    window = sign_in(person.email)
    assert window.get("/subaccounts/").status_code == 404
    assert window.post("/subaccounts/add/", {"name": "Deeper"}).status_code == 404
    assert window.get("/team/").context["account"] == sub
    assert not Account.objects.filter(name="Deeper").exists()


def test_the_last_owner_is_told_so_on_the_page(window: Client, owner: User, account: Account) -> None:
    place = Membership.objects.of(account).get(user=owner)
    answer = window.post(f"/team/{place.pk}/remove/", follow=True)
    assert b"keeps at least one owner" in answer.content
    assert Membership.objects.of(account).filter(user=owner).exists()


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", " ="])
def test_the_export_runs_no_formula(window: Client, account: Account, owner: User, start: str) -> None:
    Account.objects.filter(pk=account.pk).update(name=f'{start}HYPERLINK("http://x.test")')
    account.refresh_from_db()
    audit.record(account=account, actor=owner, action="test.named", target=account)
    body = b"".join(window.get("/activity.csv").streaming_content).decode()  # type: ignore[attr-defined]
    cells = [cell for row in csv.reader(body.splitlines()) for cell in row]
    assert any("HYPERLINK" in cell for cell in cells)
    assert not [cell for cell in cells if cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert csv_export.defused("plain") == "plain"


def test_scripts_in_names_are_text(window: Client, account: Account, owner: User) -> None:
    api_keys.issue(account=account, name="<script>alert(1)</script>", actor=owner)
    for page in PAGES[:-1]:
        assert b"<script>alert" not in window.get(page).content


def test_lists_take_the_same_queries_for_one_row_and_for_many(window: Client, account: Account, owner: User) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    def queries(page: str) -> int:
        with CaptureQueriesContext(connection) as caught:
            assert window.get(page).status_code == 200
        return len(caught)

    api_keys.issue(account=account, name="One", actor=owner)
    factories.make_subaccount(account)
    window.get("/team/")  # the greeting of signing in is shown and forgotten
    few = {page: queries(page) for page in PAGES}
    for number in range(8):
        api_keys.issue(account=account, name=f"Key {number}", actor=owner)
        factories.make_member(account)
        factories.make_subaccount(account)
    assert {page: queries(page) for page in PAGES} == few
