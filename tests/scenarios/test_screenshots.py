"""The pictures of the README, taken from a product with something in it: run with INSIGHTO_SCREENSHOTS=1."""

import pytest
from playwright.sync_api import expect

from tests.product import ROOT, Product
from tests.scenarios.steps import SETTINGS, MakeVisitor, Sandbox, Visitor, key

pytestmark = [pytest.mark.browser, pytest.mark.once]

FOLDER = ROOT / "static" / "readme"
LARGEST_BYTES = 250_000


def test_pictures_are_taken(visitor: MakeVisitor, insighto: Product) -> None:
    person = visitor(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
    person.sign_in("owner@northwind.test")
    with Sandbox(insighto) as sandbox:
        _furnish(person, sandbox)
    _take(person, "settings-light")
    _take(person, "settings-dark", scheme="dark")
    _talk(person, "And where do they find us?")
    _take(person, "playground")
    person.faults.clear()  # taking a picture adds a style of its own, which the pages' policy refuses


def _furnish(person: Visitor, sandbox: Sandbox) -> None:
    person.page.goto(SETTINGS)
    person.add("openai", key("openai", tag="staging"), name="Staging")
    person.add("openai", key("openai"), name="Production")
    person.add("azure_speech", key("azure_speech"), name="Speech West Europe")
    person.add("elevenlabs", key("elevenlabs"), name="Brand voices")
    person.choose("openai", "Production")
    person.submit()
    for name in ("Staging", "Production", "Speech West Europe", "Brand voices"):
        person.expect_state(name, "Valid")
    person.open_preview()
    person.page.get_by_role("button", name="Turn on").click()
    person.expect_notice("Use My API Keys is on.")
    _talk(person, "We open the new studio on Friday. What should visitors know?")
    sandbox.instruct(provider="elevenlabs", outcome="rate_limited")
    person.page.goto(SETTINGS)
    person.check_status()
    person.expect_state("Brand voices", "Rate-limited")
    person.page.goto(SETTINGS)


def _talk(person: Visitor, line: str) -> None:
    person.follow("Assistants")
    person.page.get_by_role("link", name="Nora", exact=True).click()
    answer = person.say(line)
    answer.get_by_role("button", name="Speak").click()
    expect(answer.locator(".receipt")).to_have_count(2)


def _take(person: Visitor, name: str, *, scheme: str = "light") -> None:
    """The whole page in one window, so that what sticks to its end covers nothing."""
    person.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    person.page.set_viewport_size({"width": 1280, "height": 800})
    height = person.page.evaluate("document.querySelector('main').scrollHeight")
    person.page.set_viewport_size({"width": 1280, "height": max(800, height)})
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.png"
    person.page.screenshot(path=path, animations="disabled")
    assert path.stat().st_size < LARGEST_BYTES
