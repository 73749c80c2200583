"""Coming in: a new person's first minutes, and somebody who belongs to two accounts."""

import re

import pytest
from playwright.sync_api import expect

from tests.scenarios.steps import SETTINGS, MakeVisitor, key

pytestmark = [pytest.mark.browser, pytest.mark.once]

EMPTY = {
    "Overview": "Nothing processed yet",
    "Playground": "No assistants yet",
    "Usage": "Nothing here",
    "Credits": "No movements yet",
    "API keys": "No API keys yet",
    "Subaccounts": "No subaccounts yet",
}


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_a_new_person_gets_a_main_account_and_pages_that_say_what_to_do(visitor: MakeVisitor, script: bool) -> None:
    email = f"new-{script}@example.test".lower()
    newcomer = visitor(script=script)
    newcomer.sign_up(email, "Tailwind Toys")
    newcomer.confirm_email(email)
    page = newcomer.page

    expect(page.get_by_role("heading", level=1)).to_have_text("Tailwind Toys")
    expect(page.get_by_text("Main account")).to_be_visible()
    for link, words in EMPTY.items():
        newcomer.follow(link)
        expect(page.get_by_role("heading", name=words)).to_be_visible()
    assert newcomer.credits() == "0.00"

    page.goto(SETTINGS)
    newcomer.add("openai", key("openai", tag="newcomer"))
    newcomer.expect_status("openai", "OpenAI Key Validated Successfully", tone="ok")


def test_who_belongs_to_two_accounts_switches_and_no_old_tab_acts_on_the_wrong_one(visitor: MakeVisitor) -> None:
    host, guest = visitor(), visitor()
    host.sign_up("host@example.test", "Fabrikam")
    host.follow("Team")
    host.page.get_by_label("E-mail").fill("member@northwind.test")
    host.page.get_by_label("Role", exact=True).select_option("Admin")
    host.page.get_by_role("button", name="Add person").click()
    host.expect_notice("member@northwind.test added")

    guest.sign_in("member@northwind.test")
    guest.switch_to("Northwind Studio")
    guest.page.goto(SETTINGS)
    expect(guest.page.get_by_text("You can look at this page.")).to_be_visible()
    expect(guest.page.get_by_role("link", name=re.compile("^Add "))).to_have_count(0)

    guest.switch_to("Fabrikam")
    expect(guest.page.get_by_role("heading", level=1)).to_have_text("Fabrikam")
    old_tab = guest.open_tab()
    old_tab.goto("/team/")
    old_tab.get_by_label("E-mail").fill("nobody@example.test")
    guest.switch_to("Northwind Studio")
    old_tab.get_by_role("button", name="Add person").click()
    expect(old_tab.get_by_role("heading", level=1)).to_have_text(re.compile("Northwind Studio"))
    assert guest.faults.pop().endswith("409 (Conflict)"), "what the browser's console says of any refusal"
    guest.switch_to("Fabrikam")
    guest.follow("Team")
    expect(guest.page.get_by_role("row", name="nobody@example.test")).to_have_count(0)
