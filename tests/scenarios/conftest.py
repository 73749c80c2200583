"""Stories told to the running product: web, worker, scheduler, Valkey and sandbox as real processes."""

import os
from collections.abc import Iterator

import httpx
import pytest

from tests import product
from tests.product import Product


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One product serves all stories, so one worker tells them all."""
    for item in items:
        if "/scenarios/" in str(item.path):
            item.add_marker(pytest.mark.xdist_group("product"))


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
    """Debian's Chromium, which may run as root and must not call home."""
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    found: dict[str, object] = {"args": ["--no-sandbox", "--disable-gpu", "--disable-quic", *quiet]}
    if binary := os.environ.get("BROWSER_BIN"):
        found["executable_path"] = binary
    return found
