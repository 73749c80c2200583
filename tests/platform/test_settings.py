"""Settings read loudly, and production refuses to start insecurely."""

import hashlib
import os
import stat

import pytest
from django.core.exceptions import ImproperlyConfigured

from insighto import production as rules
from insighto.env import Environment, local_secret

pytestmark = pytest.mark.once
GOOD = hashlib.sha256(os.urandom(32)).hexdigest()


def test_production_starts_with_what_a_deployment_sets(load_settings, production):
    found = load_settings(
        production, "s.SESSION_COOKIE_NAME, s.SESSION_COOKIE_SECURE, s.SECURE_SSL_REDIRECT, s.SANDBOX"
    )
    assert found.stdout.strip() == "('__Host-session', True, True, False)", found.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY is missing"),
        ({"SECRET_KEY": "Zq8v3nXw"}, "SECRET_KEY is shorter than 40 characters"),
        ({"SECRET_KEY": "a" * 64}, "SECRET_KEY repeats itself"),
        ({"SECRET_KEY": "abcdefghijklmnop" * 4}, "SECRET_KEY repeats itself"),
        ({"SECRET_KEY": "django-insecure-" + GOOD}, "SECRET_KEY looks like a sample"),
        ({"SECRET_KEY": "change-me-" + GOOD}, "SECRET_KEY looks like a sample"),
        ({"API_KEY_PEPPER": ""}, "API_KEY_PEPPER is missing"),
        ({"API_KEY_PEPPER": "0123456789" * 5}, "API_KEY_PEPPER repeats itself"),
        ({"SECRET_KEY": GOOD, "API_KEY_PEPPER": GOOD}, "SECRET_KEY and API_KEY_PEPPER share one value"),
        ({"SECRET_KEY": GOOD, "METRICS_TOKEN": GOOD}, "SECRET_KEY and METRICS_TOKEN share one value"),
        ({"METRICS_TOKEN": "letmein"}, "METRICS_TOKEN is shorter"),
        (
            {"SECRET_KEY": GOOD, "DATABASE_URL": f"postgres://insighto:{GOOD}@database/insighto"},
            "SECRET_KEY and the database's password share one value",
        ),
        (
            {"CREDENTIAL_KEYS": f"k1:{GOOD}", "SECRET_KEY": GOOD},
            "SECRET_KEY appears in CREDENTIAL_KEYS",
        ),
        ({"CREDENTIAL_KEYS": ""}, "CREDENTIAL_KEYS_FILE or CREDENTIAL_KEYS is missing"),
        ({"DEBUG": "on"}, "DEBUG must be off"),
        ({"SANDBOX": "on"}, "SANDBOX must be off"),
        ({"SANDBOX_URL": "http://127.0.0.1:8010"}, "SANDBOX must be off"),
        ({"DATABASE_URL": "sqlite:////tmp/insighto.sqlite3"}, "DATABASE_URL must name a PostgreSQL database"),
        ({"DATABASE_URL": ""}, "DATABASE_URL must name a PostgreSQL database"),
        ({"REDIS_URL": ""}, "REDIS_URL is missing"),
        ({"PUBLIC_URL": "http://insighto.invalid"}, "PUBLIC_URL must be the https address"),
        ({"PUBLIC_URL": ""}, "PUBLIC_URL must be the https address"),
        ({"PUBLIC_URL": "https://localhost"}, "PUBLIC_URL must be the https address"),
        ({"PUBLIC_URL": "https://other.invalid"}, "ALLOWED_HOSTS lacks the host of PUBLIC_URL"),
        ({"ALLOWED_HOSTS": ""}, "ALLOWED_HOSTS is missing"),
        ({"ALLOWED_HOSTS": "insighto.invalid,*"}, "ALLOWED_HOSTS must name exact hosts"),
        ({"ALLOWED_HOSTS": "insighto.invalid,.invalid"}, "ALLOWED_HOSTS must name exact hosts"),
        ({"CSRF_TRUSTED_ORIGINS": "http://insighto.invalid"}, "CSRF_TRUSTED_ORIGINS must be https"),
        ({"OPENAI_BASE_URL": "http://proxy.invalid/v1"}, "OPENAI_BASE_URL must be https"),
        ({"EMAIL_URL": ""}, "EMAIL_URL must name an SMTP server"),
    ],
)
def test_production_refuses_to_start(load_settings, production, changes, said):
    found = load_settings(production | changes)
    assert found.returncode != 0
    assert "Refusing to start in production" in found.stderr
    assert said in found.stderr
    assert GOOD not in found.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"INSIGHTO_ENV": "prod"}, "INSIGHTO_ENV must be one of"),
        ({"DEBUG": "maybe"}, "DEBUG must be on or off"),
        ({"TRUSTED_PROXY_COUNT": "-1"}, "TRUSTED_PROXY_COUNT must be a whole number"),
        ({"TRUSTED_PROXY_COUNT": "many"}, "TRUSTED_PROXY_COUNT must be a whole number"),
        ({"DATABASE_URL": "mysql://a@b/c"}, "DATABASE_URL must be sqlite:///path or postgres://"),
        ({"REDIS_URL": "localhost:6379"}, "REDIS_URL must be redis://"),
        ({"PUBLIC_URL": "ftp://insighto.invalid"}, "PUBLIC_URL must be a plain http or https address"),
        ({"OPENAI_BASE_URL": "https://user:word@host/v1"}, "OPENAI_BASE_URL must be a plain http or https address"),
        ({"EMAIL_URL": "mail.invalid"}, "EMAIL_URL must be smtp://"),
        ({"SECRET_KEY_FILE": "/nowhere/at/all"}, "SECRET_KEY_FILE cannot be read"),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL must be one of"),
    ],
)
def test_a_value_that_cannot_be_read_stops_any_start(load_settings, changes, said):
    found = load_settings(changes)
    assert found.returncode != 0
    assert said in found.stderr


def test_a_secret_may_come_from_a_file_but_not_from_two_places(tmp_path):
    path = tmp_path / "secret"
    path.write_text("from the file\n")
    assert Environment({"NAME_FILE": str(path)}).text("NAME", "") == "from the file"
    with pytest.raises(ImproperlyConfigured, match="both set"):
        Environment({"NAME": "here", "NAME_FILE": str(path)}).text("NAME", "")
    path.write_text("\n")
    with pytest.raises(ImproperlyConfigured, match="empty file"):
        Environment({"NAME_FILE": str(path)}).text("NAME", "")


def test_a_local_secret_is_made_once_and_for_its_owner_only(tmp_path):
    path = tmp_path / "secrets" / "secret_key"
    first = local_secret(path)
    assert local_secret(path) == first
    assert rules.weakness(first) == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["secret_key"]


def test_the_sandbox_is_on_in_development_and_one_setting_turns_it_off(load_settings):
    asked = "s.SANDBOX, s.OPENAI_BASE_URL, s.AZURE_SPEECH_TTS_URL"
    on = load_settings({"SANDBOX_URL": "http://127.0.0.1:9"}, asked)
    assert on.stdout.strip() == "(True, 'http://127.0.0.1:9/openai/v1', 'http://127.0.0.1:9/azure/{region}')"
    off = load_settings({"SANDBOX": "off"}, asked)
    assert off.stdout.strip() == ("(False, 'https://api.openai.com/v1', 'https://{region}.tts.speech.microsoft.com')")


def test_an_address_in_the_environment_wins_over_the_sandbox(load_settings):
    env = {"SANDBOX_URL": "http://127.0.0.1:9", "OPENAI_BASE_URL": "http://127.0.0.1:7/v1/"}
    found = load_settings(env, "s.OPENAI_BASE_URL, s.ELEVENLABS_BASE_URL")
    assert found.stdout.strip() == "('http://127.0.0.1:7/v1', 'http://127.0.0.1:9/elevenlabs')"


def test_passwords_are_hashed_with_argon2(load_settings):
    assert "Argon2" in load_settings({}, "s.PASSWORD_HASHERS[0]").stdout
