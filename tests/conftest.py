"""The ground every test stands on: an environment of its own, its own servers, no network, tables emptied safely.

The environment is made before Django reads its settings: SQLite by default, PostgreSQL with
INSIGHTO_TEST_DB=postgres; Valkey always. Workers of xdist share the servers that their controller started.
"""

import atexit
import contextlib
import ipaddress
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from insighto.dev import processes
from tests import servers

ON_POSTGRES = os.environ.get("INSIGHTO_TEST_DB", "sqlite") == "postgres"
_ROOT = Path(__file__).resolve().parent.parent
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
# What a developer's shell or machine may carry, and what the product or its drivers would follow.
_STRAY_PREFIXES = ("PG", "OPENAI_", "ELEVENLABS_", "AZURE_", "SPEECH_", "CELERY_", "DJANGO_", "EMAIL_", "CREDENTIAL_")
_STRAY = {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "API_KEY_PEPPER", "SANDBOX", "SANDBOX_URL", "PUBLIC_URL", "DEBUG"}
_STRAY |= {"ALLOWED_HOSTS", "INSIGHTO_ENV", "METRICS_TOKEN", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"}

SHARING_A_PRODUCT = {f"tests/scenarios/test_{name}.py" for name in ("walk", "people", "pages_accessible")}

_stack = ExitStack()


def _prepare_environment() -> None:
    """Once per run, in the process that was started first; workers find everything in their environment."""
    if _WORKER:
        number = int(_WORKER.removeprefix("gw") or 0) % 15 + 1
        os.environ["REDIS_URL"] = os.environ["REDIS_URL"].replace("?db=0", f"?db={number}")
        os.environ["DJANGO_SETTINGS_MODULE"] = "insighto.settings"
        return
    for name in list(os.environ):
        if name in _STRAY or name.removesuffix("_FILE") in _STRAY or name.startswith(_STRAY_PREFIXES):
            del os.environ[name]
    folder = processes.short_folder()
    _stack.callback(shutil.rmtree, folder, ignore_errors=True)
    os.environ |= {
        "ENV_FILE": os.devnull,
        "VAR_DIR": str(folder),
        "DATABASE_URL": f"sqlite:///{folder / 'main.sqlite3'}",
        "DJANGO_SETTINGS_MODULE": "insighto.settings",
        "LOG_LEVEL": "WARNING",
    }
    os.environ |= _stack.enter_context(servers.running(postgres=ON_POSTGRES))


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: whatever library dials out, only this machine answers a test."""
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # a unix socket's address is a path
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if host in (None, "", "localhost", b"localhost"):
        return
    name = host.decode() if isinstance(host, bytes) else str(host)
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(name).is_loopback or ipaddress.ip_address(name).is_unspecified:
            return
    message = f"A test tried to reach {name}. Tests use this machine only."
    raise RuntimeError(message)


_prepare_environment()
atexit.register(_stack.close)

from django.conf import settings  # noqa: E402

settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # tests sign in hundreds of times
if not ON_POSTGRES:
    # A file, not memory: threads with connections of their own must meet the locks that they meet in life.
    settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = str(settings.VAR_DIR / "test.sqlite3")

import django  # noqa: E402

django.setup()  # conftest files below import models
sys.addaudithook(_refuse_network)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Races prove nothing on SQLite; a browser sees the same pages on either database."""
    left_out = set() if ON_POSTGRES else {"postgres"}
    if os.environ.get("INSIGHTO_TEST_ONCE") == "off":
        left_out |= {"browser", "once"}
    deselected = [item for item in items if any(item.get_closest_marker(name) for name in left_out)]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in set(deselected)]
    # The long stories first: a worker that starts one last would keep the others waiting.
    items.sort(key=lambda item: "scenarios" not in item.path.parts)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """A worker's settings wait for its own conftest; found in its environment, they would be read before it."""
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One worker per file, which makes the file's ground once; the browser's files share a product, so also a worker.

    `--dist loadgroup` would say the same with marks, but its way of passing them on ended with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "product" if file in SHARING_A_PRODUCT else file

    config.option.loadscopereorder = False  # our order, not that of the files with most tests
    return Scheduling(config, log)


def pytest_unconfigure(config: pytest.Config) -> None:
    _stack.close()


@contextlib.contextmanager
def _append_only_lifted() -> Iterator[None]:
    """Emptying tables is the one thing the append-only triggers must let a test do."""
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET session_replication_role = replica")
            try:
                yield
            finally:
                cursor.execute("SET session_replication_role = DEFAULT")
            return
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        triggers = cursor.fetchall()
        for name, _ in triggers:
            cursor.execute(f'DROP TRIGGER "{name}"')
        try:
            yield
        finally:
            for _, sql in triggers:
                cursor.execute(sql)


def _count_on_from_what_is_there() -> None:
    """Rows put back with their numbers leave PostgreSQL's counters behind; they go on from the highest."""
    from django.apps import apps
    from django.core.management.color import no_style
    from django.db import connection

    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), apps.get_models(include_auto_created=True)):
            cursor.execute(statement)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """After a test that commits: empty every table, then put back what the migrations had put there."""
    from django.core.management import call_command
    from django.db import connection
    from django.test import TransactionTestCase

    with django_db_blocker.unblock():
        migrated = connection.creation.serialize_db_to_string()

    def empty_tables(case: TransactionTestCase) -> None:
        with _append_only_lifted():
            call_command("flush", verbosity=0, interactive=False, inhibit_post_migrate=True)
            connection.creation.deserialize_db_from_string(migrated)
            _count_on_from_what_is_there()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", empty_tables)
        yield
