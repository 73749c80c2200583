"""People at the running product: a browser without a screen, the product's database as it lies, its processes."""

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg

from insighto.sandbox import keys
from tests.product import Product

KEYS = "/settings/provider-keys/"
PROVIDERS = ("openai", "azure_speech", "elevenlabs")
Found = TypeVar("Found")


@contextlib.contextmanager
def own_database(name: str) -> Iterator[dict[str, str]]:
    """The environment of a product that shares no database with another one: its own SQLite file comes by itself."""
    base = os.environ["DATABASE_URL"]
    if base.startswith("sqlite"):
        yield {}
        return
    with psycopg.connect(base, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"'.encode())
    try:
        yield {"DATABASE_URL": f"{base.rpartition('/')[0]}/{name}"}
    finally:
        with psycopg.connect(base, autocommit=True) as server:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


class Database:
    """The product's database, read (and for faults, changed) behind its back."""

    def __init__(self, product: Product) -> None:
        address = product.env.get("DATABASE_URL", "")
        self.is_postgres = address.startswith("postgres")
        self._address = address if self.is_postgres else str(product.var / "insighto.sqlite3")

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        if self.is_postgres:
            with psycopg.connect(self._address, autocommit=True) as server:
                yield server
            return
        with contextlib.closing(sqlite3.connect(self._address, timeout=20, isolation_level=None)) as file:
            yield file

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self._open() as connection:
            return list(connection.execute(statement).fetchall())

    def value(self, statement: str) -> Any:
        return self.rows(statement)[0][0]

    def run(self, *statements: str) -> None:
        with self._open() as connection:
            for statement in statements:
                connection.execute(statement)

    def dump(self) -> Iterator[tuple[str, bytes]]:
        """Every value of every row, by its table."""
        if self.is_postgres:
            listed = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        else:
            listed = "SELECT name FROM sqlite_master WHERE type = 'table'"
        for (table,) in self.rows(listed):
            values = (value for row in self.rows(f'SELECT * FROM "{table}"') for value in row)  # noqa: S608
            found = (bytes(v) if isinstance(v, bytes | memoryview) else str(v).encode() for v in values)
            yield table, b"\n".join(found)


@dataclass
class Page:
    """One answer and the question it belongs to."""

    asked: str
    response: httpx.Response

    def everything(self) -> bytes:
        headers = b"\n".join(name + b": " + value for name, value in self.response.headers.raw)
        return headers + b"\n\n" + self.response.content


@dataclass
class Visitor:
    """A person with a browser: cookies, forms with their tokens, and a memory of everything that was shown."""

    product: Product
    who: str = ""
    seen: list[Page] = field(default_factory=list)
    _hidden: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.product.url, timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def _keep(self, response: httpx.Response) -> httpx.Response:
        self.seen.append(Page(f"{response.request.method} {response.request.url.path}", response))
        return response

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._keep(self.http.get(path, **options))

    def post(self, path: str, data: dict[str, str] | None = None, *, of: str = KEYS, **options: Any) -> httpx.Response:
        """Send a form as the page `of` would: with its token and the account it was rendered for."""
        if of not in self._hidden:
            shown = self.get(of).text
            self._hidden[of] = dict(re.findall(r'name="(csrfmiddlewaretoken|for_account)" value="([^"]*)"', shown))
        hidden = self._hidden[of]
        return self._keep(self.http.post(path, data=hidden | (data or {}), **options))

    def sign_in(self, email: str, password: str) -> Self:
        self.who = email
        answer = self.post("/accounts/login/", {"login": email, "password": password}, of="/accounts/login/")
        assert answer.status_code == 302, answer.text[:500]
        self.forget_tokens()
        return self

    def forget_tokens(self) -> None:
        """A new session has new ones."""
        self._hidden.clear()

    def add(self, provider: str, key: str, **data: str) -> httpx.Response:
        region = {"region": keys.DEFAULT_REGION} if provider == "azure_speech" else {}
        return self.post(f"{KEYS}{provider}/add/", {"key": key} | region | data)

    def select(self, **choices: str) -> httpx.Response:
        return self.post(f"{KEYS}slots/", choices)

    def switch(self, to: str) -> httpx.Response:
        return self.post(f"{KEYS}switch/set/", {"to": to}, of=f"{KEYS}switch/")

    def newest(self, provider: str) -> str:
        """The connection added last, as the provider's drop-down offers it."""
        choices = re.search(rf'<select name="{provider}".*?</select>', self.get(KEYS).text, re.S)
        assert choices is not None
        found: list[str] = re.findall(r'<option value="([0-9a-f-]{36})"', choices[0])
        return found[-1]

    def crawl(self, start: str, *, below: str = "/", limit: int = 200) -> set[str]:
        """Every page that links lead to, from `start`; the paths, all of them `below` one."""
        found, waiting = {start}, [start]
        while waiting and len(found) < limit:
            page = self.get(waiting.pop(0), follow_redirects=True)
            if "html" not in page.headers.get("content-type", ""):
                continue
            for link in re.findall(r'(?:href|hx-get)="([^"#]*)', page.text):
                path = urlsplit(str(page.url.join(link.replace("&amp;", "&")))).path
                is_ours = urlsplit(str(page.url.join(link))).netloc == page.url.netloc.decode()
                if (
                    is_ours
                    and path.startswith(below)
                    and path not in found
                    and not re.match("/static/|.*/logout/", path)
                ):
                    found.add(path)
                    waiting.append(path)
        return found


def visit(product: Product, email: str) -> Visitor:
    """Signed in as one of the demo's people, or as its operator."""
    operator: dict[str, str] = product.demo["operator"]
    person = operator if email == operator["email"] else product.person(email)
    return Visitor(product).sign_in(email, person["password"])


def eventually(fact: Callable[[], Found], within_s: float = 20.0, every_s: float = 0.1) -> Found:
    """What `fact` says once it says something true."""
    deadline = time.monotonic() + within_s
    while not (found := fact()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(every_s)
    return found


def processes_of(product: Product) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(product.supervisor_pid).children(recursive=True)
    return found


def process_of(product: Product, word: str) -> psutil.Process:
    """The process that was started with `word` on its command line; not its guard."""
    for process in processes_of(product):
        words = process.cmdline()
        if word in words and not any(part.endswith("guard.py") for part in words):
            return process
    raise LookupError(word)


def valkey_socket(product: Product) -> Path:
    for process in processes_of(product):
        words = process.cmdline()
        if "--unixsocket" in words:
            return Path(words[words.index("--unixsocket") + 1])
    raise LookupError("valkey")
