#!/usr/bin/env python3
"""The two commands of this project, for a machine with nothing but Python 3.11 or newer.

    python3 dev.py run [--port 8000]        start everything and print the address and the demo sign-in
    python3 dev.py test [pytest options]    static checks, then the tests on SQLite and on PostgreSQL
    python3 dev.py lock                     resolve requirements/*.in again

Standard library only. Each command first makes `.venv` match the locked requirements.
"""

import argparse
import base64
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

BASE = Path(__file__).resolve().parent
VENV = BASE / ".venv"
PYTHON = VENV / "bin" / "python"
REQUIREMENTS = BASE / "requirements"
PYTHON_FLOOR = "3.11"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


Part = str | Path


def run(*command: Part, env: dict[str, str] | None = None) -> int:
    """The command's exit code; its output is the terminal's."""
    return subprocess.run([str(part) for part in command], cwd=BASE, env=env, check=False).returncode


def must(*command: Part) -> None:
    if code := run(*command):
        sys.exit(code)


# --- Environment ------------------------------------------------------------------------------------------------


def ensure_environment(lock_name: str) -> None:
    """`.venv` holds what `requirements/<lock_name>.txt` locks; nothing is done when it already does."""
    VENV.mkdir(exist_ok=True)
    with (VENV / ".dev.lock").open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)  # two commands started together install once
        lock = REQUIREMENTS / f"{lock_name}.txt"
        stamp = VENV / f".installed-{lock_name}"
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        wanted = hashlib.sha256(f"{version}\n".encode() + lock.read_bytes()).hexdigest()
        if PYTHON.exists() and stamp.exists() and stamp.read_text() == wanted:
            return
        print("Installing the locked packages into .venv …", flush=True)
        if not PYTHON.exists():
            venv.create(VENV, with_pip=True, symlinks=True)
        _install(lock)
        for other in VENV.glob(".installed-*"):
            other.unlink()
        stamp.write_text(wanted)


def _install(lock: Path) -> None:
    pip: list[Part] = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--require-hashes"]
    uv = VENV / "bin" / "uv"
    if uv.exists() or run(*pip, "-r", REQUIREMENTS / "uv.txt") == 0:
        # Compiled now: pages of a first start should not wait for it, whatever PYTHONDONTWRITEBYTECODE says.
        install: list[Part] = [
            "pip",
            "install",
            "--quiet",
            "--require-hashes",
            "--compile-bytecode",
            "--python",
            str(PYTHON),
        ]
        if run(uv, *install, "-r", lock) == 0:
            return
    must(*pip, "--compile", "-r", lock)


# --- Commands ---------------------------------------------------------------------------------------------------


def command_run(rest: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="dev.py run")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(rest)
    ensure_environment("dev" if (VENV / ".installed-dev").exists() else "local")
    os.chdir(BASE)
    # Replaced, not started: Ctrl-C and kill reach the supervisor itself.
    os.execv(PYTHON, [str(PYTHON), str(BASE / "manage.py"), "dev", "--port", str(options.port)])


def command_lock(rest: Sequence[str]) -> int:
    """Every lock file anew, for every platform, with hashes and without the name of any host."""
    ensure_environment("dev" if (VENV / ".installed-dev").exists() else "local")
    for name in ("uv", "base", "local", "dev"):
        must(
            *(VENV / "bin" / "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header"),
            *("--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--python-version", PYTHON_FLOOR),
            *rest,
            *(f"requirements/{name}.in", "-o", f"requirements/{name}.txt"),
        )
    return 0


def find_browser() -> str:
    """Chromium of this machine, else Debian's when we may install it, else Playwright's own ("")."""
    chosen = os.environ.get("BROWSER_BIN", "")
    if chosen:
        return chosen
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    mac = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
    if mac.exists():
        return str(mac)
    if os.geteuid() == 0 and shutil.which("apt-get"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        quiet = ("-qq", "-o", "Dpkg::Use-Pty=0")
        with contextlib.suppress(OSError):
            run("apt-get", "update", *quiet, env=env)
            run("apt-get", "install", "-y", *quiet, "--no-install-recommends", "chromium", env=env)
        if found := shutil.which("chromium"):
            return found
    must(PYTHON, "-m", "playwright", "install", "chromium")
    return ""


def static_checks() -> int:
    """Everything that judges the code without running the product. The first failure's exit code, or 0."""
    tools = VENV / "bin"
    templates = [str(path.relative_to(BASE)) for path in sorted((BASE / "templates").rglob("*.html"))]
    manage = [PYTHON, BASE / "manage.py"]
    development = {**os.environ, "ENV_FILE": os.devnull}
    checks: list[tuple[str, list[Part], dict[str, str]]] = [
        ("ruff check", [tools / "ruff", "check", "."], development),
        ("ruff format", [tools / "ruff", "format", "--check", "."], development),
        ("mypy", [tools / "mypy", "."], development),
        ("import layers", [tools / "lint-imports"], development),
        ("templates", [tools / "djade", "--check", "--target-version", "5.2", *templates], development),
        ("migrations", [*manage, "makemigrations", "--check", "--dry-run"], development),
        ("deploy check", [*manage, "check", "--deploy", "--fail-level", "WARNING"], production_like_environment()),
    ]
    failed = 0
    for name, command, env in checks:
        result = subprocess.run(
            [str(part) for part in command], cwd=BASE, env=env, check=False, capture_output=True, text=True
        )
        print(f"{name}: {'ok' if result.returncode == 0 else 'FAILED'}", flush=True)
        if result.returncode:
            print(result.stdout + result.stderr, flush=True)
            failed = failed or result.returncode
    return failed


def production_like_environment() -> dict[str, str]:
    """What a deployment sets, with random secrets; nothing is contacted by the checks that use it."""

    def secret(name: str) -> str:
        return hashlib.sha256(f"{os.urandom(32).hex()}{name}".encode()).hexdigest()

    def sealing() -> str:
        return base64.b64encode(os.urandom(32)).decode()

    return {
        **{name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}},
        "ENV_FILE": os.devnull,
        "INSIGHTO_ENV": "production",
        "SECRET_KEY": secret("session"),
        "API_KEY_PEPPER": secret("pepper"),
        "CREDENTIAL_KEYS": f"check:{sealing()}\nfingerprint:{sealing()}",
        "DATABASE_URL": "postgres://insighto@database/insighto",
        "REDIS_URL": "redis://valkey:6379/0",
        "PUBLIC_URL": "https://insighto.invalid",
        "ALLOWED_HOSTS": "insighto.invalid",
        "EMAIL_URL": "smtp://mail:25",
    }


def command_test(rest: Sequence[str]) -> int:
    """Static checks, then pytest twice. The first failure ends it, so the last lines are those that matter."""
    ensure_environment("dev")
    browser = find_browser()
    if code := static_checks():
        return code
    env = {**os.environ, "BROWSER_BIN": browser}
    chosen = any(option.startswith(("-n", "--numprocesses", "--pdb")) for option in rest)
    parallel = [] if chosen else ["-n", "3"]  # on two cores: tests wait as much as they work
    nothing_collected = 5
    results = []
    for database, once in (("sqlite", "on"), ("postgres", "off")):
        print(f"\nTests on {database}", flush=True)
        env |= {
            "INSIGHTO_TEST_DB": database,
            "INSIGHTO_TEST_ONCE": os.environ.get("INSIGHTO_TEST_ONCE", once),
        }
        code = run(PYTHON, "-m", "pytest", *parallel, *rest, env=env)
        if code not in {0, nothing_collected}:
            return code
        results.append(code)
    return 0 if 0 in results else nothing_collected


def main() -> int:
    commands = {"run": command_run, "test": command_test, "lock": command_lock}
    if sys.version_info < (3, 11):  # noqa: UP036  (this file is what a too old Python meets first)
        print("Insighto needs Python 3.11 or newer.")
        return 1
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        print(__doc__)
        return 0 if sys.argv[1:] in ([], ["--help"], ["-h"]) else 2
    return commands[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
