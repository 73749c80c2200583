"""Shared by the platform's tests: what a deployment sets, and a way to ask a fresh process about it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dev import production_like_environment

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def production() -> dict[str, str]:
    return production_like_environment()


@pytest.fixture
def load_settings(tmp_path):
    """Import the settings in a fresh process with exactly this environment; give what it printed and its exit code."""

    def load(env: dict[str, str], expression: str = "'fine'") -> subprocess.CompletedProcess[str]:
        base = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "VAR_DIR": str(tmp_path / "var")}
        code = f"from insighto import settings as s; print(({expression}))"
        return subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=base | env, capture_output=True, text=True, check=False
        )

    return load
