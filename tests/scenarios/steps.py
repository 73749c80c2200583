"""What people do in their browsers, in the words of the pages; with script or without, the result is the same."""

import re
from typing import Any, Protocol

import httpx
from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, expect

from insighto.sandbox import keys
from tests.product import Product

NEW_PASSWORD = "correct horse battery staple"
SETTINGS = "/settings/provider-keys/"
LABELS = {"openai": "OpenAI", "azure_speech": "Azure Speech", "elevenlabs": "ElevenLabs"}
BRANDS = {"openai": "OpenAI", "azure_speech": "Azure", "elevenlabs": "ElevenLabs"}
# A violation of the content security policy is a console error too; this one names the directive.
_REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`content security policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""


class Visitor:
    """A person with a browser. `faults` collects what a page complained about; the fixture expects none."""

    def __init__(self, context: BrowserContext, insighto: Product, *, script: bool) -> None:
        self.script = script
        self.insighto = insighto
        self.context = context
        self.faults: list[str] = []
        context.add_init_script(_REPORT_VIOLATIONS)
        self.page = self.open_tab()

    def open_tab(self) -> Page:
        page = self.context.new_page()
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.faults.append(f"{page.url}: {error}"))
        return page

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.faults.append(f"{message.location.get('url')}: {message.text}")

    # Coming in.

    def sign_in(self, email: str, password: str = "") -> None:
        self.page.goto("/")
        self.page.get_by_label("Email").fill(email)
        self.page.get_by_label("Password", exact=True).fill(password or self.insighto.person(email)["password"])
        self.page.get_by_role("button", name="Sign In", exact=True).click()
        expect(self.page).to_have_url(re.compile("/overview/$"))

    def sign_up(self, email: str, account: str) -> None:
        """A new person: their main account is made and they are in it."""
        self.page.goto("/accounts/signup/")
        self.page.get_by_label("Account name").fill(account)
        self.page.get_by_label("Email").fill(email)
        for label in ("Password", "Password (again)"):
            self.page.get_by_label(label, exact=True).fill(NEW_PASSWORD)
        self.page.get_by_role("button", name="Sign Up").click()
        expect(self.page).to_have_url(re.compile("/overview/$"))

    def confirm_email(self, email: str) -> None:
        """Follow the link of the mail that was sent on signing up."""
        mails = [path.read_text() for path in (self.insighto.var / "mail").iterdir()]
        links = [
            link for mail in mails if f"To: {email}" in mail for link in re.findall(r"http\S+/confirm-email/\S+", mail)
        ]
        self.page.goto(links[-1])
        self.page.get_by_role("button", name="Confirm").click()
        expect(self.page.get_by_text(f"You have confirmed {email}")).to_be_visible()

    def confirm_access(self, password: str = NEW_PASSWORD) -> None:
        """What some pages ask for first when signing in was long ago or in another way."""
        if "/reauthenticate/" in self.page.url:
            self.page.get_by_label("Password").fill(password)
            self.page.get_by_role("button", name="Confirm").click()
            expect(self.page).not_to_have_url(re.compile("/reauthenticate/"))

    def switch_to(self, account: str) -> None:
        """Into another account one belongs to."""
        self.page.locator("details.account-switch > summary").click()
        self.page.locator(".account-menu").get_by_role("button", name=account).click()
        self.expect_notice(f"You are now in {account}.")

    def enter_code(self, code: str) -> None:
        """The six digits of an authenticator app."""
        self.page.locator("input[name=code]").fill(code)
        self.page.locator("main form").get_by_role("button").first.click()

    def follow(self, name: str) -> None:
        """The main navigation's link; on a narrow screen it is behind the menu."""
        menu = self.page.get_by_role("button", name="Menu")
        if menu.is_visible():
            menu.click()
        self.page.get_by_role("navigation", name="Main").get_by_role("link", name=name, exact=True).click()

    def expect_notice(self, text: str) -> None:
        expect(self.page.locator(".messages")).to_contain_text(text)

    # Settings → Your Provider Keys.

    def card(self, provider: str) -> Locator:
        return self.page.locator(f"section#{provider}")

    def open_add(self, provider: str) -> Locator:
        """The form that stores a key: a dialog, or without script a page."""
        self.card(provider).get_by_role("link", name=f"Add {LABELS[provider]} connection").click()
        if self.script:
            form = self.page.get_by_role("dialog", name=f"Add {LABELS[provider]} connection")
            expect(form).to_be_visible()
            return form
        expect(self.page).to_have_url(re.compile(f"/{provider}/add/$"))
        return self.page.locator("main form").filter(has=self.page.get_by_role("button", name="Submit"))

    def add(self, provider: str, key: str, *, name: str = "", region: str = "westeurope") -> None:
        form = self.open_add(provider)
        form.get_by_label(f"{BRANDS[provider]} API key", exact=True).fill(key)
        if provider == "azure_speech":
            form.get_by_label("Region").fill(region)
        if name:
            form.get_by_label("Name").fill(name)
        form.get_by_role("button", name="Submit").click()
        self.expect_notice(f"Your {BRANDS[provider]} key is now saved")

    def choose(self, provider: str, name: str) -> None:
        """Pick in the drop-down; nothing is saved before `submit`."""
        drop_down = self.card(provider).get_by_role("combobox")
        label = drop_down.locator("option").filter(has_text=name).first.text_content() or ""
        drop_down.select_option(label=label)

    def submit(self) -> None:
        self.page.get_by_role("button", name="Submit", exact=True).click()

    def check_status(self) -> None:
        self.page.get_by_role("button", name="Check Status").click()

    def expect_status(self, provider: str, headline: str, *, tone: str) -> None:
        """The message arrives by itself; without script after a reload."""
        status = self.page.locator(f"#status-{provider} .status")
        self._await(status.locator(".status-headline"), headline)
        expect(status).to_have_attribute("data-tone", tone)

    def expect_state(self, name: str, short: str) -> None:
        """The same for one connection of the list, selected or not."""
        self._await(self.connection(name).locator(".connection-state"), short)

    def _await(self, place: Locator, text: str) -> None:
        for _ in range(60):
            if self.script or place.inner_text().strip() == text:
                break
            self.page.wait_for_timeout(150)
            self.page.reload()
        expect(place).to_have_text(text)

    def connection(self, name: str) -> Locator:
        return self.page.locator("li.connection").filter(has=self.page.get_by_text(name, exact=True))

    def open_preview(self) -> None:
        """Tick Use My API Keys: the preview says what will change, nothing has changed yet."""
        if self.script:
            self.page.get_by_role("switch", name="Use My API Keys").click()
        else:
            self.page.get_by_role("button", name="Preview the change").click()
        expect(self.page).to_have_url(re.compile("/switch/"))

    # The playground.

    def say(self, text: str) -> Locator:
        """Write to the assistant; the answer's line, complete and with its receipt."""
        before = self.page.locator(".line[data-role=assistant]").count()
        self.page.get_by_label(re.compile("^Message to ")).fill(text)
        self.page.get_by_role("button", name="Send").click()
        answer = self.page.locator(".line[data-role=assistant]").nth(before)
        expect(answer.locator(".receipt").filter(has_text="Chat")).to_be_visible()
        return answer

    def credits(self) -> str:
        """The balance as the page shows it."""
        self.page.goto("/credits/")
        return self.page.locator(".metric").filter(has_text="Available").locator(".figure").inner_text()


class MakeVisitor(Protocol):
    def __call__(self, *, script: bool = True, **options: object) -> Visitor: ...


class Sandbox:
    """The providers' side: what they saw, and how they shall behave."""

    def __init__(self, insighto: Product) -> None:
        self._client = httpx.Client(base_url=insighto.sandbox_url, trust_env=False)
        self._since = 0
        self.forget()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.instruct(reset=True)
        self._client.close()

    def instruct(self, **what: Any) -> None:
        self._client.post("/_control", json=what).raise_for_status()

    def forget(self) -> None:
        """From here on `calls` starts anew."""
        self._since = self._client.get("/_calls", params={"limit": 1}).json()["last"]

    def calls(self, operation: str = "") -> list[dict[str, Any]]:
        found = self._client.get("/_calls", params={"since": self._since}).json()["calls"]
        return [call for call in found if not operation or call["operation"] == operation]


def key(provider: str, outcome: str = "valid", tag: str = "walk") -> str:
    return keys.key(provider, outcome, tag)
