"""Keys of each provider planted through every door of the running product, then looked for wherever it writes.

Doors: the dialogs and their mistakes, check and replace, real use with every fault, the operators' form, the second
factor, API keys, and failures forced into the middle of it. Sinks: files, database, Valkey, pages, headers,
cookies, metrics, processes. `test_a_leak_is_found…` plants leaks in the same sinks and expects them to be found.
"""

import base64
import gzip
import hashlib
import hmac
import json
import quopri
import re
import secrets
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import pytest
import redis

from insighto.sandbox import keys
from tests import product
from tests.product import Product
from tests.sandbox_server import SandboxServer
from tests.scenarios import visitor
from tests.scenarios.searching import Searcher
from tests.scenarios.visitor import KEYS, PROVIDERS, Database, Visitor, eventually, own_database

CONTOSO = "Contoso Labs"
PUBLIC_PART = 15  # of an API key: "in-" and the id by which pages name it
ALPHABET = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
SPEECH = (
    '<speak version="1.0" xmlns="http://www.w3.org/2001/10/synthesis" xml:lang="en-US">'
    '<voice name="en-US-AvaNeural">Good morning</voice></speak>'
)


def shapeless(length: int = 40) -> str:
    """A secret that no pattern for keys would catch: whatever hides it, it is not the last net."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


@dataclass
class Haunted:
    """A product in which secrets went through every door."""

    product: Product
    database: Database
    people: dict[str, Visitor]
    planted: dict[str, str] = field(default_factory=dict)
    shown_once: set[int] = field(default_factory=set)  # the answers whose very purpose is to show a secret
    halfway: list[tuple[str, bytes]] = field(default_factory=list)  # the database, while sessions hold the most

    def plant(self, name: str, secret: str) -> str:
        assert name not in self.planted
        self.planted[name] = secret
        return secret

    def forgive(self, person: Visitor) -> None:
        self.shown_once.add(id(person.seen[-1]))


@pytest.fixture(scope="module")
def haunted() -> Iterator[Haunted]:
    with ExitStack() as stack:
        env = stack.enter_context(own_database("leaks"))
        running = stack.enter_context(product.running(None, **env, UPSTREAM_FIRST_BYTE_S="2", UPSTREAM_IDLE_S="2"))
        emails = [person["email"] for person in running.demo["people"]] + [running.demo["operator"]["email"]]
        people = {email: stack.enter_context(visitor.visit(running, email)) for email in emails}
        people["nobody"] = stack.enter_context(Visitor(running))
        world = Haunted(running, Database(running), people)
        for name, known in {
            **{f"API key of {item['account']}": item["key"][PUBLIC_PART:] for item in running.demo["api_keys"]},
            **{f"password of {item['email']}": item["password"] for item in running.demo["people"]},
            **{f"platform's {provider} key": keys.valid_key(provider, "platform") for provider in PROVIDERS},
        }.items():
            world.plant(name, known)
        _through_the_dialogs(world)
        _through_what_people_get_wrong(world)
        _through_the_operators_form(world)
        _through_sign_in(world)
        _through_use(world)
        _through_failures(world)
        _through_checks(world)
        yield world


def _through_the_dialogs(world: Haunted) -> None:
    """Good keys, keys of every outcome that a check can meet, strange ones, and their replacements."""
    owner = world.people["owner@northwind.test"]
    met = ("echoes", "invalid", "html", "garbage", "drops", "redirects", "unknown_401", "rate_limited")
    for provider in PROVIDERS:
        for outcome in met:
            key = world.plant(f"{provider} {outcome}", keys.key(provider, outcome, f"leak-{provider[:3]}"))
            assert owner.add(provider, key, name=f"{outcome} one").status_code == 302
        strange = world.plant(f"{provider} of no known shape", shapeless())
        assert owner.add(provider, strange, name="strange").status_code == 302
        key = world.plant(f"{provider} replaced", keys.valid_key(provider, f"old-{provider[:3]}"))
        assert owner.add(provider, key, name="main", **{"HX-Request": "true"}).status_code == 302
        change = {"key": world.plant(f"{provider} replacement", keys.valid_key(provider, f"new-{provider[:3]}"))}
        change |= {"region": keys.DEFAULT_REGION} if provider == "azure_speech" else {}
        path = f"{KEYS}connections/{owner.newest(provider)}/replace/"
        assert owner.post(path, change, of=path).status_code == 302
    owner.select(**{provider: owner.newest(provider) for provider in PROVIDERS})
    owner.post(f"{KEYS}check/", {})


def _through_what_people_get_wrong(world: Haunted) -> None:
    owner = world.people["owner@northwind.test"]
    part, rest = shapeless(20), shapeless(20)
    wrong = {
        "newline": f"{part}\n{rest}", "NUL": f"{part}\0{rest}", "zero width": f"{part}\u200b{rest}",
        "non-ASCII": f"{part}é{rest}", "a header": f"{part}\r\nx-evil: {rest}", "too long": f"{part}{rest}" * 8,
        "far too long": f"{part}{rest}" * 150,
    }  # fmt: skip
    world.plant("malformed, first part", part)
    world.plant("malformed, second part", rest)
    for provider in PROVIDERS:
        for text in wrong.values():
            for headers in ({}, {"HX-Request": "true"}):
                answer = owner.post(f"{KEYS}{provider}/add/", _fields(provider, key=text), headers=headers)
                assert answer.status_code == 200  # the form again, with its error
        path = f"{KEYS}connections/{owner.newest(provider)}/replace/"
        assert owner.post(path, _fields(provider, key=wrong["newline"]), of=path).status_code == 200
        # In the wrong field, beside a good key or an empty one; nothing that shows it again is stored.
        for place in ("name", "region"):
            for shape, lost in (("shaped", keys.valid_key(provider, f"{place}-{provider[:3]}")), ("odd", shapeless())):
                world.plant(f"{provider} {shape} in the {place} field", lost)
                for key in (keys.valid_key(provider, "beside"), ""):
                    owner.post(f"{KEYS}{provider}/add/", _fields(provider, key=key) | {place: lost})
        lost = world.plant(f"{provider} in a slot", keys.valid_key(provider, f"slot-{provider[:3]}"))
        owner.select(**{provider: lost})
        owner.post(f"{KEYS}slots/", {"for_account": lost})
        owner.post(f"{KEYS}switch/set/", {"to": lost})
        path = f"{KEYS}connections/{owner.newest(provider)}/rename/"
        owner.post(path, {"name": lost}, of=path)
        lost = world.plant(f"{provider} in an address", keys.valid_key(provider, f"query-{provider[:3]}"))
        odd = world.plant(f"{provider} odd one in an address", shapeless())
        for text in (lost, odd):
            for path in (KEYS, f"{KEYS}{provider}/add/", f"{KEYS}status/", "/usage/", "/activity/", "/nothing/here/"):
                owner.get(path, params={"key": text, "q": text})
            owner.http.get("/v1/models", params={"api_key": text}, headers={"Authorization": f"Bearer {text}"})
            owner.http.post("/v1/chat/completions", headers={"xi-api-key": text}, content=text)


def _fields(provider: str, **data: str) -> dict[str, str]:
    return ({"region": keys.DEFAULT_REGION} if provider == "azure_speech" else {}) | {"name": ""} | data


def _through_the_operators_form(world: Haunted) -> None:
    operator = world.people["operator@insighto.test"]
    place = "/admin/provider_keys/platformcredential/"
    listed = operator.get(place).text
    ids = dict(re.findall(r'platformcredential/([0-9a-f-]+)/change/">\s*([A-Za-z ]+?)\s*<', listed))
    assert len(ids) == len(PROVIDERS)
    for row, label in ids.items():
        provider = {"OpenAI": "openai", "ElevenLabs": "elevenlabs"}.get(label, "azure_speech")
        path = f"{place}{row}/change/"
        wrong = world.plant(f"{provider} in a refused operator form", shapeless())
        odd_region = world.plant(f"{provider} in the operator's region field", shapeless(30))
        for mistake in ({"key": f"{wrong}\n{wrong}"}, {"key": f"{wrong}é"}, {"key": wrong, "region": odd_region}):
            operator.post(path, {"region": ""} | mistake, of=path)
        operator.post(f"{place}add/", {"provider": "none", "key": wrong, "region": ""}, of=f"{place}add/")
        good = world.plant(f"new platform key for {provider}", keys.valid_key(provider, f"ours-{provider[:3]}"))
        region = keys.DEFAULT_REGION if provider == "azure_speech" else ""
        assert operator.post(path, {"key": good, "region": region}, of=path).status_code == 302


def _through_sign_in(world: Haunted) -> None:
    """The second factor's seed, an API key's only showing, passwords that were mistyped."""
    member, owner = world.people["member@northwind.test"], world.people["owner@northwind.test"]
    nobody = world.people["nobody"]
    wrong = world.plant("mistyped password", shapeless(24))
    nobody.post("/accounts/login/", {"login": "owner@contoso.test", "password": wrong}, of="/accounts/login/")
    stray = world.plant("key as a password", keys.valid_key("openai", "password"))
    nobody.post("/accounts/login/", {"login": "stray@example.test", "password": stray}, of="/accounts/login/")

    place = "/accounts/2fa/totp/activate/"
    member.get(place)
    password = world.product.person("member@northwind.test")["password"]
    member.post("/accounts/reauthenticate/", {"password": password}, of=f"/accounts/reauthenticate/?next={place}")
    page = member.get(place).text
    world.forgive(member)
    seed = re.search(r'id="authenticator_secret"[^>]*value="([A-Z2-7]+)"', page)
    assert seed is not None
    world.plant("seed of the second factor", seed[1])
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert token is not None
    world.halfway = list(world.database.dump())
    code = {"csrfmiddlewaretoken": token[1], "code": _totp(seed[1])}
    assert member.http.post(place, data=code).status_code == 302

    issued = owner.post("/api-keys/issue/", {"name": "Only once", "expires": ""}, of="/api-keys/")
    world.forgive(owner)
    shown = re.search(r"in-[A-Za-z0-9]{50}", issued.text)
    assert shown is not None
    world.plant("API key shown once", shown[0][PUBLIC_PART:])


def _totp(seed: str) -> str:
    digest = hmac.new(
        base64.b32decode(seed + "=" * (-len(seed) % 8)), struct.pack(">Q", int(time.time()) // 30), "sha1"
    )
    spot = digest.digest()[-1] & 15
    return f"{(struct.unpack('>I', digest.digest()[spot : spot + 4])[0] & 0x7FFFFFFF) % 1_000_000:06d}"


def _through_use(world: Haunted) -> None:
    """Real requests on an account's own keys, while its provider does everything a provider can do."""
    buyer, sandbox = world.people["owner@contoso.test"], SandboxServer(world.product.sandbox_url)
    own = {}
    for provider in PROVIDERS:
        own[provider] = world.plant(f"{provider} in use", keys.valid_key(provider, f"live-{provider[:3]}"))
        assert buyer.add(provider, own[provider]).status_code == 302
    buyer.select(**{provider: buyer.newest(provider) for provider in PROVIDERS})
    good = "SELECT count(*) FROM provider_keys_connection c JOIN provider_keys_slot s ON s.connection_id = c.id "
    eventually(lambda: world.database.value(f"{good} WHERE c.verdict = 'valid' AND c.name <> 'main'") == 3)
    buyer.switch("on")
    assert world.database.value("SELECT count(*) FROM accounts_account WHERE byok_enabled") == 1

    sandbox.control(slow_stream_s=0.02, chunk_delay_s=0)
    with ThreadPoolExecutor(8) as pool:
        for outcome in keys.Outcome:
            meets = [provider for provider in PROVIDERS if outcome in keys.OUTCOMES[provider]]
            for provider in meets:
                sandbox.control(key=own[provider], outcome=outcome)
            asked = [pool.submit(_use, world, provider, streamed) for provider in meets for streamed in (False, True)]
            assert {answer.result() for answer in asked} <= {200, 400, 424, 429, 502, 503, 504, 0}
    for provider in PROVIDERS:
        sandbox.control(key=own[provider], outcome=None)


def _use(world: Haunted, provider: str, streamed: bool) -> int:
    token, url = world.product.api_key(CONTOSO), world.product.url
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        if provider == "openai":
            body: Any = {"model": "gpt-4o-mini", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}
            path, options = "/v1/chat/completions", {"json": body | {"stream": streamed}}
            headers = {"Authorization": f"Bearer {token}"}
        elif provider == "elevenlabs":
            path = "/v1/text-to-speech/SandboxVoiceFlint001" + ("/stream" if streamed else "")
            options, headers = {"json": {"text": "Hello", "model_id": "eleven_flash_v2_5"}}, {"xi-api-key": token}
        else:
            path, options = "/cognitiveservices/v1", {"content": SPEECH}
            headers = {"Content-Type": "application/ssml+xml", "Ocp-Apim-Subscription-Key": token}
            headers["X-Microsoft-OutputFormat"] = "audio-24khz-48kbitrate-mono-mp3"
        try:
            answer = client.post(path, headers=headers, **options)
        except httpx.HTTPError:
            return 0  # broken off in the middle, as the provider did
    world.people["nobody"].seen.append(visitor.Page(f"POST {path}", answer))
    return answer.status_code


def _through_failures(world: Haunted) -> None:
    """Refusals of the framework, and a database that breaks while keys and tokens are in everybody's hands."""
    owner, nobody = world.people["owner@northwind.test"], world.people["nobody"]
    lost = world.plant("in a form without its token", shapeless())
    stale = owner.http.post(f"{KEYS}openai/add/", data={"key": lost, "name": lost, "csrfmiddlewaretoken": lost})
    assert stale.status_code == 403
    owner.seen.append(visitor.Page("POST without token", stale))
    lost = world.plant("in a form of another account", shapeless())
    assert owner.post(f"{KEYS}openai/add/", {"key": lost, "for_account": "contoso-labs"}).status_code == 409
    lost = world.plant("of a stranger", shapeless())
    nobody.post(f"{KEYS}openai/add/", {"key": lost}, of="/accounts/login/")
    assert owner.post(f"{KEYS}nobody/add/", {"key": lost}).status_code == 404
    assert owner.get("/nothing/here/").status_code == 404
    lost = world.plant("in a form far too big", shapeless())
    assert owner.post(f"{KEYS}openai/add/", {"key": lost, "name": "n" * 2_000_000}).status_code in {400, 413}

    _break(world, "provider_keys_credential", "INSERT")
    lost = world.plant("while storing broke", keys.valid_key("openai", "broken"))
    odd = world.plant("odd one while storing broke", shapeless())
    for key in (lost, odd):
        assert owner.add("openai", key, name="broken").status_code == 500
    _mend(world, "provider_keys_credential")
    _break(world, "billing_leg", "INSERT")
    assert _use(world, "openai", streamed=False) == 500
    assert _use(world, "elevenlabs", streamed=True) == 500
    _mend(world, "billing_leg")
    _break(world, "provider_keys_check", "UPDATE")
    key = world.plant("while its check broke", keys.key("openai", "echoes", "broken-check"))
    assert owner.add("openai", key, name="check breaks").status_code == 302
    eventually(lambda: "outbox.attempt_failed" in (world.product.var / "logs" / "worker.log").read_text())
    _mend(world, "provider_keys_check")


def _break(world: Haunted, table: str, verb: str) -> None:
    if not world.database.is_postgres:
        world.database.run(
            f"CREATE TRIGGER broken_{table} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
        return
    world.database.run(
        "CREATE OR REPLACE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'broken: %', NEW; END $$",
        f"CREATE TRIGGER broken_{table} BEFORE {verb} ON {table} FOR EACH ROW EXECUTE FUNCTION broken()",
    )


def _mend(world: Haunted, table: str) -> None:
    world.database.run(f"DROP TRIGGER broken_{table}" + (f" ON {table}" if world.database.is_postgres else ""))


def _through_checks(world: Haunted) -> None:
    """Nothing is looked for before everything that was asked has been answered."""
    eventually(lambda: not world.database.value("SELECT count(*) FROM provider_keys_check WHERE finished_at IS NULL"))
    for person in world.people.values():
        person.get(KEYS)
    for email in ("owner@northwind.test", "member@northwind.test", "retail@northwind.test", "owner@contoso.test"):
        reached = world.people[email].crawl("/")
        assert {"/overview/", KEYS, "/usage/", "/credits/"} <= reached
    operator = world.people["operator@insighto.test"]
    operated: set[str] = set()
    for index in [path for path in operator.crawl("/admin/", below="/admin/", limit=40) if path.count("/") == 4]:
        operated |= operator.crawl(index, below=index, limit=12)
    assert any(re.fullmatch(r"/admin/provider_keys/connection/[^/]+/change/", path) for path in operated)
    assert any(path.endswith("/history/") for path in operated)


# Where it could be.

Sink = Callable[[Haunted], Iterator[tuple[str, bytes]]]


def files(world: Haunted) -> Iterator[tuple[str, bytes]]:
    """All of `var`, but for the file whose purpose is to hold the demo's passwords and API keys."""
    for path in sorted(world.product.var.rglob("*")):
        if path.is_file() and path.name != "demo.json":
            yield str(path.relative_to(world.product.var)), path.read_bytes()


def pages(world: Haunted) -> Iterator[tuple[str, bytes]]:
    for person in world.people.values():
        for page in person.seen:
            if id(page) not in world.shown_once:
                yield f"{page.asked} {page.response.status_code} for {person.who}", page.everything()


def cookies(world: Haunted) -> Iterator[tuple[str, bytes]]:
    for person in world.people.values():
        for cookie in person.http.cookies.jar:
            yield f"cookie {cookie.name}", f"{cookie.name}={cookie.value}".encode()


def database(world: Haunted) -> Iterator[tuple[str, bytes]]:
    """Sessions and their messages, audit rows, the outbox and every other table; also as it was halfway."""
    yield from world.database.dump()
    yield from world.halfway


def valkey(world: Haunted) -> Iterator[tuple[str, bytes]]:
    # Not by DUMP, which may compress in a way of Valkey's own.
    with redis.Redis(unix_socket_path=str(visitor.valkey_socket(world.product))) as client:
        readers: dict[bytes, Callable[[bytes], Any]] = {
            b"string": client.get, b"list": lambda name: client.lrange(name, 0, -1), b"hash": client.hgetall,
            b"set": client.smembers, b"zset": lambda name: client.zrange(name, 0, -1), b"none": lambda _: b"",
        }  # fmt: skip
        for name in client.scan_iter(count=500):
            yield f"Valkey {name!r}", name + b"\n" + b"\n".join(_flat(readers[client.type(name)](name)))


def _flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    yield from value if isinstance(value, list | set) else [value or b""]


def processes(world: Haunted) -> Iterator[tuple[str, bytes]]:
    for process in visitor.processes_of(world.product):
        try:
            words, variables = process.cmdline(), process.environ()
        except psutil.NoSuchProcess:
            continue
        yield f"process {words[:3]}", "\n".join([*words, *variables, *variables.values()]).encode()


def metrics(world: Haunted) -> Iterator[tuple[str, bytes]]:
    for path in ("/metrics", "/readyz", "/healthz"):
        yield path, httpx.get(world.product.url + path, trust_env=False).content


SINKS: dict[str, Sink] = {
    "files": files, "pages": pages, "cookies": cookies, "database": database, "Valkey": valkey,
    "processes": processes, "metrics": metrics,
}  # fmt: skip


@pytest.mark.parametrize("sink", SINKS)
def test_what_was_planted_through_every_door_is_in_no_sink(haunted: Haunted, sink: str) -> None:
    searcher = Searcher(haunted.planted)
    pieces = list(SINKS[sink](haunted))
    found = {place: names for place, data in pieces if (names := searcher.leaks(data))}

    assert pieces
    assert found == {}


def test_the_demo_file_and_the_greeting_hold_no_provider_key(haunted: Haunted) -> None:
    searcher = Searcher(
        {name: key for name, key in haunted.planted.items() if not name.startswith(("API key of", "password of"))}
    )
    for path in (haunted.product.var / "demo.json", haunted.product.var.parent / "supervisor.log"):
        assert searcher.leaks(path.read_bytes()) == set()


def test_the_sinks_are_the_right_ones(haunted: Haunted) -> None:
    """What may be seen is seen: the doors led somewhere, and the search looks at the right places."""
    texts = {name: b"\n".join(data for _, data in collect(haunted)) for name, collect in SINKS.items()}
    names = {place for place, _ in files(haunted)}
    last_four = haunted.planted["openai echoes"][-4:].encode()

    assert last_four in texts["pages"]
    assert last_four in texts["database"]
    assert {"logs/web.log", "logs/worker.log", "logs/scheduler.log", "celerybeat-schedule.dat"} <= names
    assert any(name.startswith("valkey/") for name in names)
    assert any(name.startswith("mail/") for name in names)
    assert haunted.database.is_postgres or "insighto.sqlite3" in names
    assert b"provider_keys.check_account" in b"".join(data for name, data in files(haunted) if "valkey/" in name)
    assert b"sessionid" in texts["cookies"]
    assert b"SANDBOX_URL" in texts["processes"]
    assert b"# HELP" in texts["metrics"]
    assert {b"403", b"404", b"409", b"500"} <= {
        str(page.response.status_code).encode() for person in haunted.people.values() for page in person.seen
    }
    assert "Traceback" in (haunted.product.var / "logs" / "web.log").read_text()
    assert any(table == "django_session" for table, _ in database(haunted))


# The search itself.


def _base64_at(text: str, shift: int) -> bytes:
    return base64.b64encode(b"?" * shift + text.encode() + b"!")


DISGUISES: dict[str, Callable[[str], bytes]] = {
    "clear": str.encode,
    "the middle of it": lambda text: text[9:23].encode(),
    "upper case": lambda text: text.upper().encode(),
    "base64": lambda text: _base64_at(text, 0),
    "base64, one off": lambda text: _base64_at(text, 1),
    "base64, two off": lambda text: _base64_at(text, 2),
    "base64 for addresses": lambda text: base64.urlsafe_b64encode(b"\xfb\xff" + text.encode()).rstrip(b"="),
    "hex": lambda text: text.encode().hex().encode(),
    "hex, one digit off": lambda text: b"a" + text.encode().hex().upper().encode(),
    "zlib": lambda text: zlib.compress(b"some text before " + text.encode()),
    "zlib at its hardest": lambda text: zlib.compress(text.encode(), 9),
    "gzip": lambda text: gzip.compress(text.encode()),
    "deflate without a head": lambda text: zlib.compress(text.encode())[2:-4],
    "zlib in base64, as in sessions": lambda text: base64.urlsafe_b64encode(zlib.compress(text.encode())),
    "percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()).encode(),
    "percent twice": lambda text: quote("".join(f"%{byte:02x}" for byte in text.encode())).encode(),
    "unicode escapes": lambda text: "".join(f"\\u{ord(char):04x}" for char in text).encode(),
    "escaped bytes": lambda text: "".join(f"\\x{ord(char):02x}" for char in text).encode(),
    "JSON in JSON": lambda text: json.dumps(json.dumps({"key": f'"{text}\n'})).encode(),
    "entities": lambda text: "".join(f"&#{ord(char)};" for char in text).encode(),
    "quoted-printable": lambda text: quopri.encodestring(b"=" * 20 + text.encode() * 3),
    "every byte quoted": lambda text: "".join(f"={byte:02X}" for byte in text.encode()).encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, other way": lambda text: text.encode("utf-16-be"),
    "sha256": lambda text: hashlib.sha256(text.encode()).hexdigest().encode(),
    "md5 as bytes": lambda text: hashlib.md5(text.encode(), usedforsecurity=False).digest(),
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_leak_is_found_in_every_disguise(provider: str, disguise: str) -> None:
    key = keys.valid_key(provider, "canary")
    data = b'{"event": "noise", "at": "2026-11-23"}\n' * 50 + DISGUISES[disguise](key) + b'\n{"event": "more"}' * 50

    assert Searcher({"canary": key}).leaks(data)
    assert not Searcher({"another": keys.valid_key(provider, "other")}).leaks(data)


def _into_a_log(world: Haunted, leak: bytes) -> None:
    with (world.product.var / "logs" / "worker.log").open("ab") as log:
        log.write(b"\n" + leak + b"\n")


def _into_a_new_file(world: Haunted, leak: bytes) -> None:
    (world.product.var / "mail" / "canary.log").write_bytes(leak)


def _into_a_session(world: Haunted, leak: bytes) -> None:
    text = base64.urlsafe_b64encode(zlib.compress(leak)).decode()
    world.database.run(
        "INSERT INTO django_session (session_key, session_data, expire_date) "  # noqa: S608 - our own text
        f"VALUES ('{secrets.token_hex(8)}', '.{text}:signature', '2030-01-01')"
    )


def _into_an_audit_row(world: Haunted, leak: bytes) -> None:
    account = world.database.value("SELECT id FROM accounts_account LIMIT 1")
    text = json.dumps({"note": leak.decode("latin-1").replace("\0", "")}).replace("'", "''")
    world.database.run(
        "INSERT INTO accounts_auditevent "  # noqa: S608 - our own text
        "(account_id, actor_label, action, target_kind, target_id, target_label, "
        f"detail, created_at) VALUES ('{account}', 'canary', 'canary', '', '', '', '{text}', CURRENT_TIMESTAMP)"
    )


def _into_valkey(world: Haunted, leak: bytes) -> None:
    with redis.Redis(unix_socket_path=str(visitor.valkey_socket(world.product))) as client:
        client.set("canary:" + secrets.token_hex(4), leak, ex=60)


def _into_a_page(world: Haunted, leak: bytes) -> None:
    """Whatever a page may show back: here a text that the product itself takes and shows."""
    owner = world.people["retail@northwind.test"]
    path = next(path for path in owner.crawl("/assistants/", below="/assistants/") if path.count("/") == 3)
    form = {"name": "Canary", "instructions": base64.b64encode(leak).decode(), "chat_model": "gpt-6-luna"}
    owner.post(path, form | {"language": "nothing"}, of=path)


def _into_a_cookie(world: Haunted, leak: bytes) -> None:
    world.people["nobody"].http.cookies.set("canary", quote(leak))


PLANTERS: dict[str, tuple[str, str, Callable[[Haunted, bytes], None]]] = {
    "a log": ("files", "logs/worker.log", _into_a_log),
    "a mail": ("files", "mail/canary.log", _into_a_new_file),
    "Valkey": ("Valkey", "canary", _into_valkey),
    "Valkey's file": ("files", "incr.aof", _into_valkey),
    "a session": ("database", "django_session", _into_a_session),
    "an audit row": ("database", "accounts_auditevent", _into_an_audit_row),
    "a page": ("pages", "POST /assistants/", _into_a_page),
    "a cookie": ("cookies", "cookie canary", _into_a_cookie),
}


@pytest.mark.parametrize("disguise", ["clear", "base64, one off", "zlib in base64, as in sessions", "percent"])
@pytest.mark.parametrize("place", PLANTERS)
def test_a_leak_is_found_where_it_was_planted(haunted: Haunted, place: str, disguise: str) -> None:
    canary = shapeless(32)
    sink, where, plant = PLANTERS[place]
    plant(haunted, DISGUISES[disguise](canary))
    searcher = Searcher({"canary": canary})

    assert eventually(lambda: any(searcher.leaks(data) for name, data in SINKS[sink](haunted) if where in name), 5)


def test_a_leak_in_a_command_line_or_environment_is_found(haunted: Haunted) -> None:
    canary = shapeless(32)
    for words, extra in (([canary], {}), ([], {"CANARY": canary})):
        command = [sys.executable, "-c", "import sys; sys.stdin.read()", *words]
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=haunted.product.env | extra) as leaky:
            process = psutil.Process(leaky.pid)
            seen = "\n".join([*process.cmdline(), *process.environ().values()]).encode()
            assert leaky.stdin is not None
            leaky.stdin.close()
        assert Searcher({"canary": canary}).leaks(seen)
