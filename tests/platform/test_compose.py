"""`docker-compose.yml` held to the truth: every service's own command, environment and probe, on the tests' servers.

There is no Docker here. What stays untested is the image's file system; what is tested is everything the file says.
"""

import base64
import hashlib
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import redis
import yaml
from django.conf import settings

from insighto.dev import processes
from insighto.dev.processes import Child, Lifeline

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if service.get("image") == "insighto"}
GIVEN = {
    "PUBLIC_URL": "https://insighto.invalid",
    "ALLOWED_HOSTS": "insighto.invalid",
    "DEFAULT_FROM_EMAIL": "no-reply@insighto.invalid",
}


def _interpolate(value: str) -> str:
    def replace(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if name in GIVEN:
            return GIVEN[name]
        assert operator == ":-", f"{name} has no value and no default"
        return rest

    return re.sub(r"\$\{(\w+)(:-|:\?)([^}]*)\}", replace, str(value))


def _random(name: str) -> str:
    return hashlib.sha256(os.urandom(32) + name.encode()).hexdigest()


def _sealing() -> str:
    return base64.b64encode(os.urandom(32)).decode()


class Deployment:
    """The file's services as processes of this machine: its hosts and /run/secrets are replaced, nothing else."""

    def __init__(self, folder: Path, database_url: str, redis_url: str) -> None:
        self.folder = folder
        self.port = processes.free_port()
        self.redis_url = redis_url
        self.lifeline = Lifeline()
        self.children: list[Child] = []
        self.secrets = {
            "secret_key": _random("session"),
            "api_key_pepper": _random("pepper"),
            "metrics_token": _random("metrics"),
            "credential_keys": f"2026-11:{_sealing()}\nfingerprint:{_sealing()}",
            "database_url": database_url,
            "email_url": "smtp://127.0.0.1:9",
        }
        (folder / "secrets").mkdir()
        for name, value in self.secrets.items():
            path = folder / "secrets" / name
            path.write_text(value + "\n")
            path.chmod(0o400)

    def env(self, name: str) -> dict[str, str]:
        found = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "VAR_DIR": str(self.folder / "var")}
        for variable, value in OURS[name]["environment"].items():
            text = _interpolate(value).replace("/run/secrets/", f"{self.folder}/secrets/")
            found[variable] = text.replace("redis://valkey:6379/0", self.redis_url)
        if "PROMETHEUS_MULTIPROC_DIR" in found:
            found["PROMETHEUS_MULTIPROC_DIR"] = str(self.folder / "metrics")
            (self.folder / "metrics").mkdir(exist_ok=True)
        return found | {"INSIGHTO_READY_FILE": str(self.folder / f"{name}.ready")}

    def command(self, words: list[str]) -> list[str]:
        there = {"python": sys.executable, "8000": str(self.port), "/tmp/beat": str(self.folder / "beat")}
        there["0.0.0.0"] = "127.0.0.1"
        return [there.get(word, word).replace("127.0.0.1:8000", f"127.0.0.1:{self.port}") for word in words]

    def start(self, name: str) -> Child:
        command = self.command(OURS[name]["command"])
        log = self.folder / f"{name}.log"
        child = Child(name, command, lifeline=self.lifeline, env=self.env(name), log=log, cwd=ROOT)
        self.children.append(child)
        return child

    def probe(self, name: str) -> bool:
        """The service's own health check."""
        kind, *words = OURS[name]["healthcheck"]["test"]
        assert kind == "CMD"
        result = subprocess.run(self.command(words), env=self.env(name), capture_output=True, check=False)
        return result.returncode == 0

    def stop(self) -> None:
        processes.stop(self.children)
        self.lifeline.close()


def _wait(is_ready, child: Child) -> None:
    deadline = time.monotonic() + 40
    while not is_ready():
        assert child.exit_code() is None, child.last_lines()
        assert time.monotonic() < deadline, child.last_lines()
        time.sleep(0.2)


@pytest.fixture
def deployment(tmp_path):
    server = settings.DATABASES["default"]
    address = f"host={server['HOST']} port={server['PORT']} user={server['USER']}"
    name = f"compose_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    with psycopg.connect(f"{address} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        found = Deployment(
            tmp_path,
            f"postgres://{server['USER']}@{server['HOST']}:{server['PORT']}/{name}",
            re.sub(r"db=\d+", "db=0", settings.REDIS_URL),
        )
        yield found
        found.stop()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    client = redis.Redis.from_url(found.redis_url)
    client.flushdb()
    client.close()


@pytest.mark.postgres
def test_every_service_starts_with_the_environment_its_file_names(deployment):
    migrate = deployment.start("migrate")
    assert migrate.wait(60) == 0, migrate.last_lines()

    # The image collects these; here they go where STATIC_ROOT would be.
    web, worker, scheduler = (deployment.start(name) for name in ("web", "worker", "scheduler"))
    _wait(lambda: deployment.probe("web"), web)
    _wait((deployment.folder / "worker.ready").exists, worker)
    _wait((deployment.folder / "scheduler.ready").exists, scheduler)

    assert all(child.exit_code() is None for child in (web, worker, scheduler))
    logs = "".join(child.log.read_text() for child in deployment.children)
    assert not [name for name, value in deployment.secrets.items() if value.splitlines()[0] in logs]


@pytest.mark.once
def test_the_file_runs_what_production_needs_and_leaks_nothing_into_the_environment():
    assert set(OURS) == {"migrate", "web", "worker", "scheduler"}
    for service in OURS.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        for variable, value in service["environment"].items():
            if re.search("SECRET|PEPPER|KEYS|TOKEN|DATABASE|EMAIL_URL", variable):
                assert variable.endswith("_FILE")
                assert str(value).removeprefix("/run/secrets/") in COMPOSE["secrets"]
    assert set(COMPOSE["secrets"]) >= {name for service in OURS.values() for name in service["secrets"]}


@pytest.mark.once
def test_the_image_runs_as_nobody_special_and_without_the_embedded_servers():
    text = (ROOT / "Dockerfile").read_text()
    instructions = re.findall(r"^(FROM|USER|CMD|COPY) (.*)$", text, flags=re.MULTILINE)
    assert ("FROM", "python:3.11-slim") in instructions
    assert ("USER", "insighto") in instructions
    assert "requirements/base.txt" in text
    assert "local.txt" not in text
    copied = {shlex.split(rest)[0] for word, rest in instructions if word == "COPY"}
    assert copied >= {"accounts", "provider_keys", "billing", "gateway", "insighto", "templates", "static", "manage.py"}
