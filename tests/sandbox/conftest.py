from collections.abc import Iterator

import pytest

from tests import sandbox_server
from tests.sandbox_server import SandboxServer


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[SandboxServer]:
    with sandbox_server.running(hang_s=3) as server:
        yield server


@pytest.fixture
def sandbox(sandbox_process: SandboxServer) -> SandboxServer:
    sandbox_process.reset()
    return sandbox_process
