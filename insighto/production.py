"""What production refuses to start with. Pure: it reads the settings it is given and names what is wrong.

No message repeats a value; only names and rules.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

_TELLTALES = ("insecure", "development", "change", "example", "default", "password", "secret", "insighto", "your")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def weakness(value: str) -> str:
    """Why `value` is no secret: empty, short, repeated or a sample; "" when it will do."""
    if not value:
        return "is missing"
    if len(value) < 40:
        return "is shorter than 40 characters"
    if len(set(value)) < 12 or (value + value).find(value, 1) < len(value):
        return "repeats itself"
    if any(telltale in value.lower() for telltale in _TELLTALES):
        return "looks like a sample, not a random value"
    return ""


def _secrets(settings: Mapping[str, Any]) -> list[str]:
    problems = []
    for name in ("SECRET_KEY", "API_KEY_PEPPER"):
        if reason := weakness(settings[name]):
            problems.append(f"{name} {reason}.")
    if settings["METRICS_TOKEN"] and (reason := weakness(settings["METRICS_TOKEN"])):
        problems.append(f"METRICS_TOKEN {reason}.")
    if not settings["CREDENTIAL_KEYS"] and not settings["CREDENTIAL_KEYS_FILE"]:
        problems.append("CREDENTIAL_KEYS_FILE or CREDENTIAL_KEYS is missing.")
    database_password = settings["DATABASES"]["default"].get("PASSWORD", "")
    named = {
        "SECRET_KEY": settings["SECRET_KEY"],
        "API_KEY_PEPPER": settings["API_KEY_PEPPER"],
        "METRICS_TOKEN": settings["METRICS_TOKEN"],
        "the database's password": database_password,
    }
    present = [(name, value) for name, value in named.items() if value]
    for index, (name, value) in enumerate(present):
        problems += [f"{name} and {other} share one value." for other, same in present[index + 1 :] if same == value]
    ring = settings["CREDENTIAL_KEYS"]
    problems += [f"{name} appears in CREDENTIAL_KEYS." for name, value in present if ring and value in ring]
    return problems


def _addresses(settings: Mapping[str, Any], provider_addresses: Sequence[str]) -> list[str]:
    problems = []
    public = urlsplit(settings["PUBLIC_URL"])
    if public.scheme != "https" or public.hostname in _LOOPBACK | {None}:
        problems.append("PUBLIC_URL must be the https address people use.")
    hosts = settings["ALLOWED_HOSTS"]
    if not hosts:
        problems.append("ALLOWED_HOSTS is missing.")
    if any("*" in host or host.startswith(".") for host in hosts):
        problems.append("ALLOWED_HOSTS must name exact hosts.")
    if hosts and public.hostname and public.hostname not in hosts:
        problems.append("ALLOWED_HOSTS lacks the host of PUBLIC_URL.")
    if any(urlsplit(origin).scheme != "https" for origin in settings["CSRF_TRUSTED_ORIGINS"]):
        problems.append("CSRF_TRUSTED_ORIGINS must be https origins.")
    for name in provider_addresses:
        parts = urlsplit(settings[name])
        # A provider's key travels there: plain http only to a proxy on this very machine.
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            problems.append(f"{name} must be https.")
    return problems


def problems(settings: Mapping[str, Any], *, provider_addresses: Sequence[str]) -> list[str]:
    """Every reason not to start, so that one start is enough to learn them all."""
    found = _secrets(settings) + _addresses(settings, provider_addresses)
    if settings["DEBUG"]:
        found.append("DEBUG must be off.")
    if settings["SANDBOX"] or settings["SANDBOX_URL"]:
        found.append("SANDBOX must be off and SANDBOX_URL empty.")
    if settings["DATABASES"]["default"]["ENGINE"] != "django.db.backends.postgresql":
        found.append("DATABASE_URL must name a PostgreSQL database.")
    if not settings["REDIS_URL"]:
        found.append("REDIS_URL is missing.")
    if settings["EMAIL_BACKEND"] != "django.core.mail.backends.smtp.EmailBackend":
        found.append("EMAIL_URL must name an SMTP server.")
    return found
