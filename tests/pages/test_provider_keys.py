"""Settings → Your Provider Keys, as a browser without JavaScript meets it."""

from datetime import timedelta

import pytest
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts.models import Account, AuditEvent, User
from insighto.sandbox import keys
from provider_keys import impact, wording
from provider_keys.models import Check, Connection, Credential, Provider, Slot, Verdict
from provider_keys.readiness import State, Status
from provider_keys.services import connections
from tests import factories
from tests.pages.conftest import SignIn

HOME = "/settings/provider-keys/"
OPENAI_KEY = keys.valid_key(keys.OPENAI, "pages")
AZURE_KEY = keys.valid_key(keys.AZURE, "pages")
KEYS = {Provider.OPENAI: OPENAI_KEY, Provider.AZURE_SPEECH: AZURE_KEY}


def add(
    account: Account, provider: str = Provider.OPENAI, key: str = "", name: str = "", verdict: str = ""
) -> Connection:
    key = key or KEYS[Provider(provider)]
    row = connections.add(account=account, provider=provider, key=key, name=name, region="westeurope", actor=None)
    if verdict:
        Check.objects.of(account).filter(connection=row).update(finished_at=timezone.now())
        Connection.objects.filter(pk=row.pk).update(verdict=verdict, verdict_at=timezone.now(), attempt="ok")
    return row


def choose(account: Account, *rows: Connection) -> None:
    for row in rows:
        Slot.objects.update_or_create(account=account, provider=row.provider, defaults={"connection": row})


def page_of(client: Client) -> str:
    return client.get(HOME).content.decode()


def status_of(**facts: object) -> Status:
    nothing: dict[str, object] = dict.fromkeys(Status.__slots__)
    texts = ("verdict", "verdict_reason", "rejected_verdict", "attempt", "attempt_reason")
    return Status(**(nothing | dict.fromkeys(texts, "") | {"is_checking": False} | facts))  # type: ignore[arg-type]


def test_the_page_names_the_three_providers_as_the_product_does(account: Account, owner: User, sign_in: SignIn) -> None:
    page = page_of(sign_in(owner))

    for label in ("Your Provider Keys", "OpenAI", "Azure Speech", "ElevenLabs", "Use My API Keys", "Check Status"):
        assert label in page
    assert page.count("How to get your API key") == 3
    assert page.count(">Required<") == 2
    assert page.count(">Optional<") == 1
    assert "I don't use ElevenLabs" in page
    for purpose in wording.PURPOSES.values():
        assert purpose in page


@pytest.mark.parametrize("method", ["get", "post"])
def test_nobody_signed_in_is_sent_to_sign_in(db: None, method: str) -> None:
    response = getattr(Client(), method)(reverse("provider_keys:connection_add", args=["openai"]))

    assert response.status_code == 302
    assert "/accounts/login/" in response["location"]


def test_a_member_looks_and_touches_nothing(account: Account, member: User, sign_in: SignIn) -> None:
    row = add(account)
    client = sign_in(member)

    assert "You can look at this page" in page_of(client)
    assert reverse("provider_keys:connection_add", args=["openai"]) not in page_of(client)
    for name, arguments in (
        ("connection_add", ["openai"]),
        ("connection_rename", [row.pk]),
        ("connection_replace", [row.pk]),
        ("connection_remove", [row.pk]),
        ("placeholder_add", []),
        ("slot_submit", []),
        ("check_start", []),
        ("switch_set", []),
    ):
        data = {"key": AZURE_KEY, "name": "x", "to": "on"}
        assert client.post(reverse(f"provider_keys:{name}", args=arguments), data).status_code in (403, 405)
    assert Connection.objects.of(account).count() == 1
    assert not Connection.objects.get().removed_at


def test_another_accounts_connection_is_not_there(account: Account, owner: User, sign_in: SignIn) -> None:
    foreign = add(factories.make_account())
    client = sign_in(owner)

    for name in ("connection_rename", "connection_replace", "connection_remove"):
        assert client.post(reverse(f"provider_keys:{name}", args=[foreign.pk]), {"name": "x"}).status_code == 404
    client.post(reverse("provider_keys:slot_submit"), {"openai": str(foreign.pk)})

    assert not Slot.objects.of(account).exclude(connection=None).exists()
    assert Connection.objects.get(pk=foreign.pk).removed_at is None


def test_submitting_a_key_says_so_and_never_shows_it(account: Account, admin: User, sign_in: SignIn) -> None:
    client = sign_in(admin)

    response = client.post(
        reverse("provider_keys:connection_add", args=["openai"]),
        {"key": f" {OPENAI_KEY}\n", "name": "Production"},
        follow=True,
    )

    page = response.content.decode()
    assert "Your OpenAI key is now saved" in page
    assert "Production" in page
    assert OPENAI_KEY[-4:] in page
    assert OPENAI_KEY not in page
    assert "Saved, not in use" in page
    assert OPENAI_KEY not in str(dict(client.session))


def test_a_key_with_an_error_is_not_rendered_back(account: Account, owner: User, sign_in: SignIn) -> None:
    response = sign_in(owner).post(
        reverse("provider_keys:connection_add", args=["azure_speech"]), {"key": AZURE_KEY, "region": "atlantis"}
    )

    page = response.content.decode()
    assert "field-error" in page
    assert "atlantis" in page
    assert AZURE_KEY not in page
    assert not Connection.objects.of(account).exists()


def test_the_dialog_gets_the_form_alone_and_then_a_new_page(account: Account, owner: User, sign_in: SignIn) -> None:
    client, url = sign_in(owner), reverse("provider_keys:connection_add", args=["openai"])

    refused = client.post(url, {"key": "short"}, headers={"HX-Request": "true"})
    taken = client.post(url, {"key": OPENAI_KEY}, headers={"HX-Request": "true"})

    assert b"<html" not in refused.content
    assert b'aria-invalid="true"' in refused.content
    assert taken["HX-Redirect"] == HOME


@pytest.mark.parametrize("typed", ["dummy", " DUMMY ", "I don't use ElevenLabs"])
def test_elevenlabs_may_be_not_used(account: Account, owner: User, sign_in: SignIn, typed: str) -> None:
    url = reverse("provider_keys:connection_add", args=["elevenlabs"])

    page = sign_in(owner).post(url, {"key": typed}, follow=True).content.decode()

    assert "ElevenLabs is marked as not used" in page
    assert "Not used" in page
    assert not Credential.objects.exists()


def test_the_button_says_that_elevenlabs_is_not_used(account: Account, owner: User, sign_in: SignIn) -> None:
    client = sign_in(owner)
    client.post(reverse("provider_keys:placeholder_add"))

    assert Connection.objects.of(account).get().is_placeholder
    assert reverse("provider_keys:placeholder_add") not in page_of(client)


@pytest.mark.parametrize("provider", [Provider.OPENAI, Provider.AZURE_SPEECH])
def test_a_placeholder_is_an_error_beside_a_required_key(
    account: Account, owner: User, sign_in: SignIn, provider: str
) -> None:
    url = reverse("provider_keys:connection_add", args=[provider])

    page = sign_in(owner).post(url, {"key": "dummy", "region": "westeurope"}).content.decode()

    assert f'id="{provider}-key_error"' in page
    assert not Connection.objects.of(account).exists()


def test_a_provider_we_do_not_have_is_not_there(account: Account, owner: User, sign_in: SignIn) -> None:
    assert sign_in(owner).get(reverse("provider_keys:connection_add", args=["mistral"])).status_code == 404


def test_submit_puts_the_chosen_connections_into_their_slots(account: Account, owner: User, sign_in: SignIn) -> None:
    first, azure = add(account), add(account, Provider.AZURE_SPEECH)

    page = sign_in(owner).post(
        reverse("provider_keys:slot_submit"),
        {"openai": str(first.pk), "azure_speech": str(azure.pk), "elevenlabs": ""},
        follow=True,
    )

    assert "Your selection is now saved" in page.content.decode()
    assert dict(Slot.objects.of(account).exclude(connection=None).values_list("provider", "connection")) == {
        "openai": first.pk,
        "azure_speech": azure.pk,
    }


def test_check_status_works_without_script(account: Account, owner: User, sign_in: SignIn) -> None:
    choose(account, add(account))

    page = sign_in(owner).post(reverse("provider_keys:check_start"), follow=True).content.decode()

    assert "Checking the OpenAI key…" in page
    assert Check.objects.of(account).filter(finished_at=None).count() == 1


def test_messages_arrive_in_parts_and_read_the_same_after_a_reload(
    account: Account, owner: User, sign_in: SignIn
) -> None:
    azure = add(account, Provider.AZURE_SPEECH, verdict=Verdict.INVALID)
    choose(account, add(account, verdict=Verdict.VALID), azure)
    client = sign_in(owner)

    part = client.get(reverse("provider_keys:check_status"), headers={"HX-Request": "true"}).content.decode()

    assert "<html" not in part
    for message in ("OpenAI Key Validated Successfully", "Azure Key Invalid – Please check and re-enter"):
        assert message in part
        assert message in page_of(client)
    assert "hx-trigger" not in part


def test_the_page_asks_again_only_while_a_check_runs(account: Account, owner: User, sign_in: SignIn) -> None:
    row = add(account)
    client = sign_in(owner)
    assert 'hx-trigger="every 1s"' in page_of(client)

    Check.objects.of(account).filter(connection=row).update(finished_at=timezone.now())
    assert "hx-trigger" not in page_of(client)


def test_the_preview_says_what_is_missing_and_the_switch_stays_off(
    account: Account, owner: User, sign_in: SignIn
) -> None:
    client = sign_in(owner)

    page = client.get(reverse("provider_keys:switch_confirm")).content.decode()
    client.post(reverse("provider_keys:switch_set"), {"to": "on"})

    assert "OpenAI has no key selected" in page
    assert "Azure has no key selected" in page
    account.refresh_from_db()
    assert not account.byok_enabled


def test_the_switch_goes_on_and_off_after_its_preview(
    account: Account, owner: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(account, add(account, verdict=Verdict.VALID), add(account, Provider.AZURE_SPEECH, verdict=Verdict.VALID))
    goes = impact.Impact(name="Concierge", runs=True, before="Platform credits", after="OpenAI key")
    stops = impact.Impact(name="Herald", runs=False, before="Platform credits", after="ElevenLabs has no key")
    monkeypatch.setattr(impact, "_FORESEERS", [lambda account, on: [goes, stops]])
    client = sign_in(owner)

    preview = client.get(reverse("provider_keys:switch_confirm")).content.decode()
    assert preview.index("Herald") < preview.index("Concierge")

    for to, expected in (("on", True), ("off", False)):
        client.post(reverse("provider_keys:switch_set"), {"to": to})
        account.refresh_from_db()
        assert account.byok_enabled is expected


def test_a_stale_session_confirms_itself_and_leaves_no_key_behind(
    account: Account, owner: User, sign_in: SignIn
) -> None:
    client = sign_in(owner, seconds_ago=24 * 3600)
    url = reverse("provider_keys:connection_add", args=["openai"])

    for response in (
        client.get(url),
        client.post(url, {"key": OPENAI_KEY}),
        client.post(reverse("provider_keys:switch_set")),
    ):
        assert response.status_code == 302
        assert "/accounts/reauthenticate/" in response["location"]
    assert not Connection.objects.of(account).exists()
    assert OPENAI_KEY not in str(dict(client.session))
    assert "<dialog" not in page_of(client)


def test_a_form_made_for_another_account_is_refused(account: Account, owner: User, sign_in: SignIn) -> None:
    response = sign_in(owner).post(
        reverse("provider_keys:connection_add", args=["openai"]), {"key": OPENAI_KEY, "for_account": "elsewhere"}
    )

    assert response.status_code == 409
    assert not Connection.objects.of(account).exists()


def test_removing_asks_first_and_destroys_the_key(account: Account, owner: User, sign_in: SignIn) -> None:
    row = add(account, name="Old one")
    client, url = sign_in(owner), reverse("provider_keys:connection_remove", args=[row.pk])

    assert "Old one" in client.get(url).content.decode()
    client.post(url)

    assert Connection.objects.get(pk=row.pk).removed_at
    assert bytes(Credential.objects.get(connection=row).ciphertext) == b""
    assert client.get(url).status_code == 404


def test_renaming_keeps_everything_else(account: Account, owner: User, sign_in: SignIn) -> None:
    row = add(account, name="Old name")
    client, url = sign_in(owner), reverse("provider_keys:connection_rename", args=[row.pk])

    client.post(url, {"name": "New name"})
    client.post(url, {"name": "New name"})

    assert Connection.objects.get(pk=row.pk).name == "New name"
    assert AuditEvent.objects.of(account).filter(action="connection.renamed").count() == 1


def test_markup_in_a_name_stays_text(account: Account, owner: User, sign_in: SignIn) -> None:
    add(account, name="<script>alert(1)</script>")

    assert "<script>alert(1)" not in page_of(sign_in(owner))


def test_two_hundred_connections_cost_no_more_queries_than_one(
    account: Account, owner: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS_PER_PROVIDER", 1000)
    client = sign_in(owner)
    add(account, key=keys.valid_key(keys.OPENAI, "first"))
    page_of(client)
    with CaptureQueriesContext(database) as few:
        page_of(client)

    for number in range(199):
        add(account, key=keys.valid_key(keys.OPENAI, f"n{number}"), name=f"Number {number}")
    with CaptureQueriesContext(database) as many:
        page_of(client)

    assert len(many) == len(few)


@pytest.mark.parametrize("provider", list(Provider))
@pytest.mark.parametrize("state", list(State))
def test_every_state_has_words_and_a_tone(provider: str, state: State) -> None:
    words = wording.words(provider, status_of(state=state))

    assert words.tone in ("ok", "bad", "warn", "idle")
    assert words.short
    assert "{" not in words.headline + words.advice


@pytest.mark.parametrize("attempt", ["rate_limited", "unreachable"])
def test_an_attempt_that_taught_nothing_is_amber_and_names_the_verdict_that_stays(attempt: str) -> None:
    seen = status_of(state=State.VALID, attempt=attempt, verdict_at=timezone.now() - timedelta(hours=1))

    words = wording.words(Provider.OPENAI, seen)

    assert words.tone == "warn"
    assert "The last verdict stays: valid." in words.advice


def test_every_page_says_that_the_sandbox_is_on(
    account: Account, owner: User, sign_in: SignIn, settings: pytest.FixtureRequest
) -> None:
    client = sign_in(owner)
    settings.SANDBOX_URL = "http://127.0.0.1:8010"  # type: ignore[attr-defined]
    assert "Providers are simulated" in page_of(client)
    settings.SANDBOX_URL = ""  # type: ignore[attr-defined]
    assert "Providers are simulated" not in page_of(client)
