"""The walk every customer takes (product §1 and §2), in a real browser, with script and without."""

import base64
import re
import time

import pytest
from playwright.sync_api import Locator, expect

from tests.product import Product
from tests.scenarios.steps import SETTINGS, MakeVisitor, Sandbox, Visitor, key

pytestmark = [pytest.mark.browser, pytest.mark.once]

CREDITS = re.compile(r"\d+\.\d+ credits?")
# Somebody whose account nobody else's story touches. The first is who the runner prints.
WALKERS = {True: "owner@northwind.test", False: "owner@contoso.test"}


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_a_customer_stores_keys_has_them_checked_turns_them_on_and_is_served_by_them(
    visitor: MakeVisitor, insighto: Product, script: bool
) -> None:
    walker = visitor(script=script)
    with Sandbox(insighto) as sandbox:
        walker.sign_in(WALKERS[script])
        walker.follow("Your Provider Keys")
        _three_providers_are_listed(walker)
        _placeholders_are_refused_where_a_key_is_required(walker)
        _keys_are_saved_and_checked_by_themselves(walker)
        _check_status_says_it_in_words(walker)
        _the_switch_says_what_is_missing(walker)
        _answers_arrive_as_the_providers_give_them(walker, sandbox)
        _the_preview_says_what_will_change(walker)
        _requests_run_on_the_accounts_own_keys(walker, sandbox)
        _a_live_slot_refuses_a_failed_key(walker)
        _switched_off_credits_pay(walker, sandbox)


def _three_providers_are_listed(walker: Visitor) -> None:
    page = walker.page
    for provider, title, purpose, required, console in [
        ("openai", "OpenAI", "Powers chat and AI responses", "Required", "OpenAI Platform"),
        ("azure_speech", "Azure Speech", "Text-to-speech, Azure voices", "Required", "Azure portal"),
        ("elevenlabs", "ElevenLabs", "Only for ElevenLabs voices on assistants", "Optional", "ElevenLabs dashboard"),
    ]:
        card = walker.card(provider)
        expect(card.get_by_role("heading", level=2)).to_have_text(re.compile(rf"{title}\s+{required}"))
        expect(card).to_contain_text(purpose)
        expect(card.get_by_role("link", name=f"Add {title} connection")).to_be_visible()
        expect(card.get_by_text("No connection selected")).to_be_visible()
        help_text = card.get_by_text("How to get your API key")
        help_text.click()
        expect(card.get_by_role("link", name=f"Open the {console}")).to_be_visible()
        expect(card.get_by_text("Least privilege")).to_be_visible()
        help_text.click()
    missing = page.locator("#switch-panel").get_by_role("listitem")
    expect(missing).to_have_text(
        [
            "OpenAI has no key selected. Add one, choose it and press Submit.",
            "Azure has no key selected. Add one, choose it and press Submit.",
        ]
    )


def _placeholders_are_refused_where_a_key_is_required(walker: Visitor) -> None:
    for provider, label in (("openai", "OpenAI API key"), ("azure_speech", "Azure API key")):
        form = walker.open_add(provider)
        field = form.get_by_label(label, exact=True)
        if walker.script:
            expect(field).to_be_focused()
        field.fill(" Dummy ")
        if provider == "azure_speech":
            form.get_by_label("Region").fill("westeurope")
        form.get_by_role("button", name="Submit").click()
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_value("")
        expect(form.locator(".field-error")).to_have_count(1)
        if walker.script:
            expect(field).to_be_focused()
        form.get_by_role("link", name="Cancel").click()
        expect(walker.card(provider).get_by_text("No connection selected")).to_be_visible()


def _keys_are_saved_and_checked_by_themselves(walker: Visitor) -> None:
    walker.add("openai", key("openai"), name="Production")
    expect(walker.connection("Production")).to_contain_text("Saved, not in use")
    expect(walker.connection("Production")).to_contain_text(key("openai")[-4:])
    walker.expect_status("openai", "OpenAI Key Validated Successfully", tone="ok")

    walker.add("azure_speech", key("azure_speech", "invalid"), name="Typing error")
    walker.expect_status("azure_speech", "Azure Key Invalid – Please check and re-enter", tone="bad")

    form = walker.open_add("elevenlabs")
    form.get_by_label("ElevenLabs API key", exact=True).fill(" Dummy ")
    form.get_by_role("button", name="Submit").click()
    walker.expect_notice("ElevenLabs is marked as not used")
    walker.expect_status("elevenlabs", "ElevenLabs Not Used", tone="idle")
    expect(walker.card("elevenlabs").locator("li.connection .pill", has_text="Not used")).to_be_visible()

    expect(walker.page.get_by_text("Saved, not in use")).to_have_count(3)
    walker.submit()
    walker.expect_notice("Your selection is now saved")
    expect(walker.page.get_by_text("Saved, not in use")).to_have_count(0)


def _check_status_says_it_in_words(walker: Visitor) -> None:
    walker.check_status()
    for _ in ("as it arrives", "after a reload"):
        walker.expect_status("openai", "OpenAI Key Validated Successfully", tone="ok")
        walker.expect_status("azure_speech", "Azure Key Invalid – Please check and re-enter", tone="bad")
        walker.expect_status("elevenlabs", "ElevenLabs Not Used", tone="idle")
        walker.page.reload()


def _the_switch_says_what_is_missing(walker: Visitor) -> None:
    walker.open_preview()
    expect(walker.page.get_by_role("heading", level=1)).to_have_text("Turn Use My API Keys on?")
    missing = walker.page.locator(".notice[data-tone=bad]")
    expect(missing).to_contain_text("It stays off. What is missing:")
    expect(missing.get_by_role("listitem")).to_have_count(1)
    expect(missing.get_by_role("listitem")).to_contain_text("The Azure key “Typing error”")
    expect(walker.page.get_by_role("button", name="Turn on")).to_have_count(0)
    walker.page.get_by_role("link", name="Back to your keys").click()
    if walker.script:
        expect(walker.page.get_by_role("switch", name="Use My API Keys")).not_to_be_checked()


def _answers_arrive_as_the_providers_give_them(walker: Visitor, sandbox: Sandbox) -> None:
    walker.add("azure_speech", key("azure_speech", "slow_300ms"), name="Speech EU")
    walker.expect_state("Speech EU", "Valid")
    walker.add("elevenlabs", key("elevenlabs"), name="Voices")
    walker.expect_state("Voices", "Valid")
    walker.choose("azure_speech", "Speech EU")
    walker.choose("elevenlabs", "Voices")
    walker.submit()
    walker.expect_notice("Your selection is now saved")

    slowest_s = 2.0
    for provider in ("openai", "azure_speech", "elevenlabs"):
        sandbox.instruct(provider=provider, outcome="slow", hang_s=slowest_s)
    sandbox.forget()
    started = time.monotonic()
    walker.check_status()
    walker.expect_status("elevenlabs", "Checking the ElevenLabs key…", tone="busy")
    for provider, brand in (("openai", "OpenAI"), ("azure_speech", "Azure"), ("elevenlabs", "ElevenLabs")):
        walker.expect_status(provider, f"{brand} Key Validated Successfully", tone="ok")
        sandbox.instruct(provider=provider, outcome=None)
    assert time.monotonic() - started < 2.2 * slowest_s, "as long as the slowest provider, not the sum"
    asked = sandbox.calls()
    assert {call["provider"] for call in asked} == {"openai", "azure_speech", "elevenlabs"}
    assert max(call["started_at"] for call in asked) < min(call["ended_at"] for call in asked), "all at once"

    sandbox.instruct(provider="elevenlabs", outcome="slow", hang_s=slowest_s)
    walker.check_status()
    walker.expect_status("azure_speech", "Azure Key Validated Successfully", tone="ok")
    walker.expect_status("openai", "OpenAI Key Validated Successfully", tone="ok")
    walker.expect_status("elevenlabs", "Checking the ElevenLabs key…", tone="busy")
    walker.expect_status("elevenlabs", "ElevenLabs Key Validated Successfully", tone="ok")
    sandbox.instruct(provider="elevenlabs", outcome=None)


def _the_preview_says_what_will_change(walker: Visitor) -> None:
    walker.page.goto(SETTINGS)
    walker.open_preview()
    changes = walker.page.locator(".impact-list > li")
    expect(changes).to_have_count(2)
    nora, elliot = changes.filter(has_text="Nora"), changes.filter(has_text="Elliot")
    for assistant, voice in ((nora, "Speech EU"), (elliot, "Voices")):
        expect(assistant).to_contain_text("Runs")
        expect(assistant).to_contain_text("Production")
        expect(assistant).to_contain_text(voice)
    walker.page.get_by_role("button", name="Turn on").click()
    walker.expect_notice("Use My API Keys is on. Requests now run on your own keys.")


def _requests_run_on_the_accounts_own_keys(walker: Visitor, sandbox: Sandbox) -> None:
    balance = walker.credits()
    sandbox.forget()
    sandbox.instruct(chunk_delay_s=0.03)
    for assistant, connection in (("Nora", "Speech EU"), ("Elliot", "Voices")):
        _open_playground(walker, assistant)
        answer = _say_and_see_it_stream(walker) if walker.script else walker.say("Who are you?")
        chat = answer.locator(".receipt").filter(has_text="Chat")
        expect(chat).to_contain_text("Production")
        expect(chat).to_contain_text("0 credits")
        _speak(walker, answer)
        speech = walker.page.locator(".receipt").filter(has_text="Speech").last
        expect(speech).to_contain_text(connection)
        expect(speech).to_contain_text("0 credits")

    used = sandbox.calls("use")
    assert [call["provider"] for call in used] == ["openai", "azure_speech", "openai", "elevenlabs"]
    assert {call["tag"].removeprefix("slow_300ms:") for call in used} == {"walk"}, "the account's own keys"
    assert walker.credits() == balance

    walker.follow("Usage")
    rows = walker.page.get_by_role("table").last.locator("tbody tr")
    expect(rows).to_have_count(4)
    for connection in ("Production", "Speech EU", "Voices"):
        expect(rows.filter(has_text=connection).first).to_contain_text("0.00")
    expect(walker.page.get_by_text("Every operation settled once")).to_be_visible()


def _open_playground(walker: Visitor, assistant: str) -> None:
    walker.follow("Assistants")
    walker.page.get_by_role("link", name=assistant, exact=True).click()
    expect(walker.page.get_by_role("heading", level=1)).to_have_text(assistant)


def _say_and_see_it_stream(walker: Visitor) -> Locator:
    walker.page.evaluate(
        """() => {
          window.lengths = new Set();
          const look = () => {
            const line = document.querySelector(".line[data-state=writing] [data-text]");
            if (line) window.lengths.add(line.textContent.length);
          };
          new MutationObserver(look).observe(document.body, { childList: true, characterData: true, subtree: true });
        }"""
    )
    answer = walker.say("Who are you?")
    assert walker.page.evaluate("window.lengths.size") > 3, "the answer grew while it was written"
    return answer


def _speak(walker: Visitor, answer: Locator) -> None:
    """The sound is real: it was decoded, has a length, and plays. Without script it is a file to keep."""
    button = answer.get_by_role("button", name="Speak")
    if walker.script:
        button.click()
        sound = answer.locator("audio")
    else:
        with walker.page.expect_download() as spoken:
            button.click()
        assert spoken.value.suggested_filename.endswith(".mp3")
        sound = _play(walker, spoken.value.path().read_bytes())
        walker.page.reload()
    expect(sound).to_be_attached()
    sound.evaluate("audio => audio.currentTime || new Promise((play) => (audio.ontimeupdate = play))")
    assert sound.evaluate("audio => audio.error") is None
    assert 0.3 < sound.evaluate("audio => audio.duration") < 60
    assert sound.evaluate("audio => audio.currentTime") > 0


def _play(walker: Visitor, sound: bytes) -> Locator:
    """In a tab of its own, which belongs to nobody's pages."""
    tab = walker.context.new_page()
    encoded = base64.b64encode(sound).decode()
    tab.set_content(f'<audio autoplay src="data:audio/mpeg;base64,{encoded}"></audio>')
    return tab.locator("audio")


def _a_live_slot_refuses_a_failed_key(walker: Visitor) -> None:
    walker.follow("Your Provider Keys")
    walker.add("openai", key("openai", "invalid"), name="Revoked")
    walker.expect_state("Revoked", "Invalid")
    walker.choose("openai", "Revoked")
    walker.submit()
    expect(walker.card("openai").locator(".field-error")).to_have_text(
        "The OpenAI key “Revoked” failed its check: the key is invalid. The one in use stays."
    )
    walker.page.goto(SETTINGS)
    expect(walker.card("openai").get_by_role("combobox").locator("option:checked")).to_contain_text("Production")


def _switched_off_credits_pay(walker: Visitor, sandbox: Sandbox) -> None:
    balance = walker.credits()
    walker.page.goto(SETTINGS)
    walker.open_preview()
    expect(walker.page.get_by_role("heading", level=1)).to_have_text("Turn Use My API Keys off?")
    walker.page.get_by_role("button", name="Turn off").click()
    walker.expect_notice("Use My API Keys is off. Requests are now paid with platform credits.")

    _open_playground(walker, "Nora")
    sandbox.forget()
    answer = walker.say("And who pays for you?")
    expect(answer.locator(".receipt")).to_contain_text("Use My API Keys is off, so platform credits pay.")
    answer.locator(".receipt").get_by_role("link", name="Receipt").click()
    charged = walker.page.locator("dt:text-is('Charged') + dd").inner_text()
    assert CREDITS.fullmatch(charged)
    assert [call["tag"] for call in sandbox.calls("use")] == ["platform"]
    assert round(float(balance) - float(walker.credits()), 6) == round(float(charged.split()[0]), 6) > 0
