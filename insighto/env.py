"""Typed readers of the environment. They fail loudly: a value that cannot be read stops the start.

`NAME_FILE` wins over `NAME`, so every secret may be mounted as a file. A reader remembers the names
it was asked for (`names`), which is how a test holds `.env.example` to the truth.
"""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


class Environment:
    """Reads one mapping of strings. An empty value counts as absent."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.names: set[str] = set()

    def _raw(self, name: str) -> str | None:
        self.names.add(name)
        path = self._values.get(f"{name}_FILE", "").strip()
        if path:
            if self._values.get(name, "").strip():
                raise ImproperlyConfigured(f"{name} and {name}_FILE are both set; keep one.")
            try:
                text = Path(path).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ImproperlyConfigured(f"{name}_FILE cannot be read ({type(error).__name__}).") from None
            if not text.strip():
                raise ImproperlyConfigured(f"{name}_FILE names an empty file.")
            return text.strip()
        return self._values.get(name, "").strip() or None

    def has(self, name: str) -> bool:
        return self._raw(name) is not None

    def text(self, name: str, default: str) -> str:
        value = self._raw(name)
        return default if value is None else value

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._raw(name)
        if value is None:
            return default
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        raise ImproperlyConfigured(f"{name} must be on or off.")

    def whole(self, name: str, *, default: int, minimum: int, maximum: int) -> int:
        value = self._raw(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdecimal() and minimum <= int(value) <= maximum):
            raise ImproperlyConfigured(f"{name} must be a whole number from {minimum} to {maximum}.")
        return int(value)

    def choice(self, name: str, choices: Sequence[str], *, default: str) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise ImproperlyConfigured(f"{name} must be one of: {', '.join(choices)}.")
        return value

    def items(self, name: str, default: Sequence[str]) -> list[str]:
        value = self._raw(name)
        return list(default) if value is None else [item.strip() for item in value.split(",") if item.strip()]

    def web_address(self, name: str, default: str) -> str:
        """An http(s) address without a slash at its end; `{region}` may stand in the host."""
        value = self.text(name, default).rstrip("/")
        if not value:
            return value
        parts = urlsplit(value)
        try:
            readable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            readable = False
        if not readable or parts.username or parts.query or parts.fragment:
            raise ImproperlyConfigured(f"{name} must be a plain http or https address.")
        return value

    def database(self, name: str, default: str) -> dict[str, Any]:
        """`sqlite:///path` or `postgres://user:password@host:port/name?option=value`."""
        parts = urlsplit(self.text(name, default))
        path = unquote(parts.path[1:])
        if parts.scheme == "sqlite" and path and not parts.netloc:
            return {"ENGINE": "django.db.backends.sqlite3", "NAME": path}
        if parts.scheme in {"postgres", "postgresql"} and path:
            options = dict(parse_qsl(parts.query))
            return {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": path,
                "USER": unquote(parts.username or ""),
                "PASSWORD": unquote(parts.password or ""),
                "HOST": options.pop("host", parts.hostname or ""),
                "PORT": str(parts.port or ""),
                "OPTIONS": options,
            }
        raise ImproperlyConfigured(f"{name} must be sqlite:///path or postgres://user:password@host/name.")

    def mail(self, name: str) -> dict[str, Any] | None:
        """`smtp://user:password@host:587` (STARTTLS) or `smtps://…:465`; None when absent."""
        value = self._raw(name)
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
            raise ImproperlyConfigured(f"{name} must be smtp://user:password@host:port or smtps://….")
        implicit = parts.scheme == "smtps"
        return {
            "EMAIL_HOST": parts.hostname,
            "EMAIL_PORT": parts.port or (465 if implicit else 587),
            "EMAIL_HOST_USER": unquote(parts.username or ""),
            "EMAIL_HOST_PASSWORD": unquote(parts.password or ""),
            "EMAIL_USE_SSL": implicit,
            "EMAIL_USE_TLS": not implicit and bool(parts.username),
        }


def local_secret(path: Path) -> str:
    """The random text kept in `path`, made on first use and readable by its owner only.

    Processes that start together agree: the file appears complete or not at all, and the first one wins.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(secrets.token_urlsafe(48))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text(encoding="utf-8").strip()
