"""Every page, for everybody who may see it: no axe violation in either colour scheme, no sideways scrolling on a phone.

The table below is held against the URL resolver, so a page that nobody looked at fails the run.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from allauth.mfa.totp.internal import auth as totp
from axe_playwright_python.sync_playwright import Axe
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from playwright.sync_api import Browser, Page, ViewportSize

from tests.product import Product
from tests.scenarios.conftest import visitors
from tests.scenarios.steps import SETTINGS, Visitor, key

pytestmark = [pytest.mark.browser, pytest.mark.once]

OWNER, MEMBER, MAIN_OWNER, NOBODY, CAREFUL = "owner", "member", "owner of a main account", "nobody", "second factor"
# URL name → who looks at it, and which of the account's things its address names.
PAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "gateway:overview_show": ((OWNER, MEMBER, MAIN_OWNER), ()),
    "gateway:assistant_list": ((OWNER, MEMBER), ()),
    "gateway:assistant_add": ((OWNER,), ()),
    "gateway:assistant_edit": ((OWNER,), ("assistant",)),
    "gateway:playground_show": ((OWNER, MEMBER), ("assistant",)),
    "gateway:usage_list": ((OWNER, MEMBER), ()),
    "gateway:request_show": ((OWNER, MEMBER), ("request",)),
    "billing:credit_show": ((OWNER, MEMBER), ()),
    "provider_keys:connection_list": ((OWNER, MEMBER), ()),
    "provider_keys:connection_add": ((OWNER,), ("provider",)),
    "provider_keys:connection_rename": ((OWNER,), ("connection",)),
    "provider_keys:connection_replace": ((OWNER,), ("connection",)),
    "provider_keys:connection_remove": ((OWNER,), ("connection",)),
    "provider_keys:switch_confirm": ((OWNER,), ()),
    "accounts:api_key_list": ((OWNER,), ()),
    "accounts:api_key_revoke": ((OWNER,), ("api_key",)),
    "accounts:subaccount_list": ((MAIN_OWNER,), ()),
    "accounts:team_list": ((OWNER, MEMBER), ()),
    "accounts:activity_list": ((OWNER,), ()),
    "account_login": ((NOBODY,), ()),
    "account_signup": ((NOBODY,), ()),
    "account_inactive": ((NOBODY,), ()),
    "account_reset_password": ((NOBODY,), ()),
    "account_reset_password_done": ((NOBODY,), ()),
    "account_reset_password_from_key": ((NOBODY,), ("old link's person", "old link's token")),
    "account_reset_password_from_key_done": ((NOBODY,), ()),
    "account_email_verification_sent": ((NOBODY,), ()),
    "account_confirm_email": ((NOBODY,), ("old link's token",)),
    "account_logout": ((OWNER,), ()),
    "account_reauthenticate": ((OWNER,), ()),
    "account_email": ((OWNER,), ()),
    "account_change_password": ((OWNER,), ()),
    "mfa_index": ((OWNER, CAREFUL), ()),
    "mfa_activate_totp": ((OWNER,), ()),
    "mfa_list_webauthn": ((OWNER,), ()),
    "mfa_add_webauthn": ((OWNER,), ()),
    "mfa_deactivate_totp": ((CAREFUL,), ()),
    "mfa_view_recovery_codes": ((CAREFUL,), ()),
    "mfa_generate_recovery_codes": ((CAREFUL,), ()),
    "mfa_reauthenticate": ((CAREFUL,), ()),
}
NOT_PAGES = {
    **dict.fromkeys(("gateway:landing", "accounts:api_key_issue", "account_set_password"), "leads to another page"),
    **dict.fromkeys(("gateway:usage_export", "accounts:activity_export", "mfa_download_recovery_codes"), "a file"),
    **dict.fromkeys(("gateway:line_receipts", "provider_keys:check_status"), "a fragment of a page"),
    **dict.fromkeys(
        (
            *("gateway:assistant_remove", "gateway:line_send", "gateway:line_speak", "gateway:conversation_clear"),
            *("provider_keys:slot_submit", "provider_keys:check_start", "provider_keys:switch_set"),
            *("provider_keys:placeholder_add", "accounts:account_switch", "accounts:subaccount_add"),
            *("accounts:member_add", "accounts:member_change", "accounts:member_remove"),
        ),
        "takes a form; its answer is a page of the table",
    ),
    **dict.fromkeys(
        ("mfa_remove_webauthn", "mfa_edit_webauthn", "mfa_login_webauthn", "mfa_reauthenticate_webauthn"),
        "asks for a passkey, which browsers do not make for a bare IP address",
    ),
    "account_confirm_login_code": "sign-in by code is off",
    "mfa_authenticate": "between password and second factor; the story of the second factor looks at it",
}
AXE = Axe()
ON_A_PHONE: ViewportSize = {"width": 390, "height": 844}


@dataclass(frozen=True)
class World:
    """Somebody signed in for each role of the table, and the things of their account."""

    people: dict[str, Visitor]
    things: dict[str, str]


def test_every_page_is_in_the_table() -> None:
    found = {name for route, name in _patterns(get_resolver()) if not route.startswith("admin/")}

    assert found == PAGES.keys() | NOT_PAGES.keys()
    assert PAGES.keys().isdisjoint(NOT_PAGES)


def _patterns(resolver: URLResolver, prefix: str = "", namespace: str = "") -> Iterator[tuple[str, str]]:
    for entry in resolver.url_patterns:
        route = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            inner = f"{namespace}{entry.namespace}:" if entry.namespace else namespace
            yield from _patterns(entry, route, inner)
        elif isinstance(entry, URLPattern):
            yield route, f"{namespace}{entry.name}"


@pytest.fixture(scope="module")
def world(browser: Browser, insighto: Product) -> Iterator[World]:
    """The subaccount of the demo, with connections of every tone, conversations, receipts, a member and an API key."""
    with visitors(browser, insighto) as make:
        owner, member, main_owner, nobody, careful = (make(reduced_motion="reduce") for _ in range(5))
        things = _furnish(owner)
        member.sign_in("member@northwind.test")
        member.switch_to("Northwind Retail")
        main_owner.sign_in("owner@northwind.test")
        careful.sign_up("careful@example.test", "Careful & Sons")
        careful.confirm_email("careful@example.test")
        _turn_on_second_factor(careful)
        people = {OWNER: owner, MEMBER: member, MAIN_OWNER: main_owner, NOBODY: nobody, CAREFUL: careful}
        yield World(people, things)


def _furnish(owner: Visitor) -> dict[str, str]:
    page = owner.page
    owner.sign_in("retail@northwind.test")
    owner.follow("Assistants")
    href = page.get_by_role("link", name="Nora", exact=True).get_attribute("href") or ""
    page.goto(href)
    answer = owner.say("Who are you?")
    receipt = answer.get_by_role("link", name="Receipt").get_attribute("href") or ""
    page.goto(SETTINGS)
    owner.add("openai", key("openai"), name="Production")
    owner.add("azure_speech", key("azure_speech", "invalid"), name="Typing error")
    owner.add("elevenlabs", key("elevenlabs", "rate_limited"), name="Busy voices")
    owner.submit()
    owner.expect_status("azure_speech", "Azure Key Invalid – Please check and re-enter", tone="bad")
    replace = owner.connection("Production").get_by_role("link", name="Re-enter").get_attribute("href") or ""
    owner.follow("API keys")
    revoke = page.get_by_role("link", name="Revoke").first.get_attribute("href") or ""
    owner.follow("Team")
    page.get_by_label("E-mail").fill("member@northwind.test")
    page.get_by_role("button", name="Add person").click()
    owner.expect_notice("member@northwind.test added")
    return {
        "assistant": href.split("/")[-2],
        "request": receipt.split("/")[-2],
        "connection": replace.split("/")[-3],
        "api_key": revoke.split("/")[-3],
        "provider": "azure_speech",
        "old link's person": "1",
        "old link's token": "set-password",
    }


def _turn_on_second_factor(careful: Visitor) -> None:
    page = careful.page
    page.goto(reverse("mfa_activate_totp"))
    careful.confirm_access()
    secret = page.get_by_role("textbox", name="Authenticator secret").input_value()
    careful.enter_code(_code(secret))
    careful.expect_notice("Authenticator app activated.")


def _code(secret: str) -> str:
    return str(totp.format_hotp_value(totp.hotp_value(secret, int(time.time()) // 30)))


@pytest.mark.parametrize(("name", "who"), [(name, who) for name, (people, _) in PAGES.items() for who in people])
def test_a_page_is_accessible_in_both_schemes_and_fits_a_phone(world: World, name: str, who: str) -> None:
    person = world.people[who]
    person.page.goto(reverse(name, args=[world.things[thing] for thing in PAGES[name][1]]))

    assert _problems(person.page) == []
    assert person.faults == []


# A change of scheme moves colours; what axe sees half-way is nobody's page.
SETTLED = """async () => {
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  await Promise.allSettled(document.getAnimations().map((animation) => animation.finished));
}"""


def _problems(page: Page) -> list[str]:
    page.evaluate("document.querySelectorAll('details:not([data-menu])').forEach((d) => { d.open = true; })")
    found = _violations(page)
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    page.evaluate(SETTLED)
    found += [f"dark: {text}" for text in _violations(page, only="color-contrast")]  # nothing else can differ
    for dialog in page.locator("dialog").all():
        dialog.evaluate("dialog => dialog.showModal()")
        found += _violations(page)
        dialog.evaluate("dialog => dialog.close()")
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    size = page.viewport_size
    page.set_viewport_size(ON_A_PHONE)
    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        found.append("scrolls sideways on a phone")
    assert size is not None
    page.set_viewport_size(size)
    return found


def _violations(page: Page, only: str = "") -> list[str]:
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if only:
        options["runOnly"] = [only]
    response = AXE.run(page, options=options).response
    return [
        f"{violation['id']}: {node['html'][:160]} – {node.get('failureSummary', '')[:300]}"
        for violation in response["violations"]
        for node in violation["nodes"]
    ]
