import pytest
from django.urls import reverse

from accounts.models import User
from billing.models import LedgerAccount, Price, Transfer
from billing.services import ledger
from insighto.lib import ids
from tests.billing.conftest import CREDIT


@pytest.fixture
def operator(client, db):
    user = User.objects.create_superuser("operator@example.com", "a long enough password")
    client.force_login(user)
    return user


@pytest.fixture
def grant_url(account):
    return reverse("admin:billing_wallet_grant", args=[LedgerAccount.objects.of(account).get().pk])


def test_an_operator_grants_with_a_reason_and_a_second_click_grants_nothing(client, operator, account, grant_url):
    form = {"amount": "1,250.5", "reason": "Welcome", "key": str(ids.new())}
    for _ in range(2):
        assert client.post(grant_url, form).status_code == 302

    transfer = Transfer.objects.get(owner=account, reason="Welcome")
    assert (transfer.amount_micros, transfer.actor) == (1_250_500_000, operator)
    assert ledger.balance(account) == 100 * CREDIT + 1_250_500_000


@pytest.mark.parametrize(
    "change", [{"reason": ""}, {"amount": "0"}, {"amount": "-5"}, {"amount": "100000.000001"}, {"key": "x"}]
)
def test_a_grant_without_reason_or_beyond_the_limit_is_refused(client, operator, account, grant_url, change):
    form = {"amount": "5", "reason": "Welcome", "key": str(ids.new())}
    assert client.post(grant_url, {**form, **change}).status_code == 200
    assert ledger.balance(account) == 100 * CREDIT


def test_staff_without_the_permission_grant_nothing(client, account, grant_url):
    client.force_login(User.objects.create_user("staff@example.com", "a long enough password", is_staff=True))
    assert client.post(grant_url, {"amount": "5", "reason": "x", "key": str(ids.new())}).status_code == 403
    assert ledger.balance(account) == 100 * CREDIT


@pytest.mark.parametrize("model", ["ledgeraccount", "transfer", "request", "leg", "price"])
def test_the_lists_show_and_nothing_can_be_deleted(client, operator, account, model):
    assert client.get(reverse(f"admin:billing_{model}_changelist")).status_code == 200
    if model != "price":
        assert client.get(reverse(f"admin:billing_{model}_add")).status_code == 403
    rows = {
        "price": Price.objects.all(),
        "transfer": Transfer.objects.all(),
        "ledgeraccount": LedgerAccount.objects.all(),
    }
    if model in rows:
        key = rows[model].values_list("pk", flat=True)[0]
        assert client.post(reverse(f"admin:billing_{model}_delete", args=[key]), {"post": "yes"}).status_code == 403
        assert client.get(reverse(f"admin:billing_{model}_change", args=[key])).status_code == 200
        assert client.post(reverse(f"admin:billing_{model}_change", args=[key]), {}).status_code == 403
