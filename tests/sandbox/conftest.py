from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import sandbox_server
from tests.sandbox_server import SandboxServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The sandbox has no database: once is enough."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.once)


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[SandboxServer]:
    with sandbox_server.running(hang_s=3) as server:
        yield server


@pytest.fixture
def sandbox(sandbox_process: SandboxServer) -> SandboxServer:
    sandbox_process.reset()
    return sandbox_process
