"""Stories told to the running product: web, worker, scheduler, Valkey and sandbox as real processes."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests import product
from tests.product import Product
from tests.scenarios.steps import MakeVisitor, Visitor

PATIENCE_MS = 10_000


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Pictures are taken only when asked for."""
    if os.environ.get("INSIGHTO_SCREENSHOTS") != "1":
        pictures = [item for item in items if item.path.name == "test_screenshots.py"]
        config.hook.pytest_deselected(items=pictures)
        items[:] = [item for item in items if item not in set(pictures)]


@pytest.fixture(scope="session")
def insighto() -> Iterator[Product]:
    with product.running() as running:
        yield running


@pytest.fixture
def http(insighto: Product) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=insighto.url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def browser_type_launch_args() -> dict[str, object]:
    """The machine's Chromium, else Playwright's own; it may run as root and must not call home."""
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    sound = ["--autoplay-policy=no-user-gesture-required", "--mute-audio"]
    found: dict[str, object] = {"args": ["--no-sandbox", "--disable-gpu", "--disable-quic", *quiet, *sound]}
    if binary := os.environ.get("BROWSER_BIN") or shutil.which("chromium"):
        found["executable_path"] = binary
    return found


@pytest.fixture(scope="module")
def browser(browser_type_launch_args: dict[str, object]) -> Iterator[Browser]:
    """Of one module, not of the session: while Playwright runs, Django refuses the database to its thread."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(**browser_type_launch_args)  # type: ignore[arg-type]
        yield chromium
        chromium.close()


@contextlib.contextmanager
def visitors(browser: Browser, insighto: Product) -> Iterator[MakeVisitor]:
    """Makes people with a browser of their own; in the end none of them may have seen a fault."""
    made: list[Visitor] = []

    def make(*, script: bool = True, **options: object) -> Visitor:
        context = browser.new_context(
            base_url=insighto.url,
            java_script_enabled=script,
            locale="en-US",
            **options,  # type: ignore[arg-type]
        )
        context.set_default_timeout(PATIENCE_MS)
        made.append(Visitor(context, insighto, script=script))
        return made[-1]

    try:
        yield make
        assert [fault for person in made for fault in person.faults] == []
    finally:
        for person in made:
            person.context.close()


@pytest.fixture
def visitor(browser: Browser, insighto: Product) -> Iterator[MakeVisitor]:
    with visitors(browser, insighto) as make:
        yield make
