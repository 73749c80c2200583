from collections.abc import Callable

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from provider_keys.models import Check, Connection, Credential, PlatformCredential, Provider, Verdict
from provider_keys.services import connections, platform_credentials
from tests import factories
from tests.provider_keys.conftest import AZURE_KEY, KEYS, OPENAI_KEY, another
from tests.provider_keys.test_vault_dump import leaks

Add = Callable[..., Connection]


@pytest.fixture
def operator(db: None, client: Client) -> Client:
    client.force_login(factories.make_user(operator=True))
    return client


def pages(connection: Connection) -> list[str]:
    return [
        reverse("admin:provider_keys_connection_changelist"),
        reverse("admin:provider_keys_connection_change", args=[connection.pk]),
        reverse("admin:provider_keys_connection_history", args=[connection.pk]),
        reverse("admin:provider_keys_check_changelist"),
        reverse("admin:provider_keys_check_change", args=[Check.objects.all()[0].pk]),
        reverse("admin:provider_keys_platformcredential_changelist"),
        reverse("admin:provider_keys_platformcredential_add"),
        reverse("admin:provider_keys_platformcredential_change", args=[PlatformCredential.objects.get().pk]),
    ]


def test_no_admin_page_shows_a_key_or_anything_sealed(operator: Client, add: Add) -> None:
    for provider in Provider.values:
        connection = add(provider)
    platform_credentials.put(provider=Provider.OPENAI, key=another(OPENAI_KEY), actor=None)
    sealed = [bytes(row.ciphertext) for row in Credential.objects.all()]
    marks = [bytes(row.fingerprint) for row in Credential.objects.all()]

    for page in pages(connection):
        answer = operator.get(page)
        assert answer.status_code == 200, page
        assert leaks(answer.content, [*KEYS.values(), another(OPENAI_KEY)]) == []
        for blob in (*sealed, *marks):
            assert blob.hex()[:32].encode() not in answer.content
            assert b"memory at 0x" not in answer.content
    assert KEYS[Provider.ELEVENLABS][-4:] in operator.get(pages(connection)[1]).content.decode()


def test_a_row_that_does_not_open_breaks_no_page(operator: Client, add: Add) -> None:
    connection = add()
    platform_credentials.put(provider=Provider.OPENAI, key=another(OPENAI_KEY), actor=None)
    Credential.objects.update(ciphertext=b"junk", kek_id="gone")
    PlatformCredential.objects.update(ciphertext=b"junk", kek_id="gone")

    assert [operator.get(page).status_code for page in pages(connection)] == [200] * len(pages(connection))


def test_connections_and_checks_are_seen_and_not_touched(operator: Client, add: Add) -> None:
    connection = add()
    for page in (
        reverse("admin:provider_keys_connection_add"),
        reverse("admin:provider_keys_connection_delete", args=[connection.pk]),
        reverse("admin:provider_keys_check_add"),
    ):
        assert operator.get(page).status_code == 403
        assert operator.post(page, {"post": "yes"}).status_code == 403
    answer = operator.post(
        reverse("admin:provider_keys_connection_change", args=[connection.pk]), {"name": "Changed", "verdict": "valid"}
    )
    assert answer.status_code == 403
    connection.refresh_from_db()
    assert (connection.name, connection.verdict) == ("OpenAI", Verdict.UNTESTED)


def test_an_operator_has_a_key_checked_again(operator: Client, add: Add) -> None:
    connection = add(verdict=Verdict.INVALID)
    placeholder = add(Provider.ELEVENLABS, "dummy")

    operator.post(
        reverse("admin:provider_keys_connection_changelist"),
        {"action": "check_again", "_selected_action": [str(connection.pk), str(placeholder.pk)]},
    )

    assert Check.objects.get(finished_at=None).connection == connection


def test_the_platforms_key_goes_in_and_never_comes_out(operator: Client) -> None:
    page = reverse("admin:provider_keys_platformcredential_add")
    answer = operator.post(
        page, {"provider": Provider.AZURE_SPEECH, "region": "West Europe", "key": f" {AZURE_KEY}\n"}, follow=True
    )

    row = PlatformCredential.objects.get()
    assert row.region == "westeurope"
    assert connections.open_credential(row.sealed()).reveal() == AZURE_KEY
    assert leaks(answer.content, [AZURE_KEY]) == []
    assert leaks(str(list(LogEntry.objects.values())).encode(), [AZURE_KEY]) == []

    change = reverse("admin:provider_keys_platformcredential_change", args=[row.pk])
    operator.post(change, {"region": "uksouth", "key": another(AZURE_KEY)})
    row.refresh_from_db()
    assert (row.region, row.secret_version) == ("uksouth", 2)
    assert connections.open_credential(row.sealed()).reveal() == another(AZURE_KEY)


@pytest.mark.parametrize(
    ("region", "key"), [("evil?", AZURE_KEY), ("", AZURE_KEY), ("westeurope", "dummy"), ("westeurope", "a b c d e f g")]
)
def test_a_refused_platform_key_is_not_shown_again(operator: Client, region: str, key: str) -> None:
    answer = operator.post(
        reverse("admin:provider_keys_platformcredential_add"),
        {"provider": Provider.AZURE_SPEECH, "region": region, "key": key},
    )
    assert answer.status_code == 200
    assert leaks(answer.content, [AZURE_KEY]) == []
    assert b"errorlist" in answer.content
    assert not PlatformCredential.objects.exists()


def test_nobody_else_gets_there(client: Client, owner: object, add: Add) -> None:
    connection = add()
    client.force_login(owner)  # type: ignore[arg-type]
    answer = client.get(reverse("admin:provider_keys_connection_change", args=[connection.pk]))
    assert answer.status_code == 302
