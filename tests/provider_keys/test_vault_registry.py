"""What the vault's code looks like from outside: nothing sealed is forgotten, nothing opens elsewhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import models

from provider_keys import fields
from provider_keys.fields import SealedField
from provider_keys.models import KekCheckValue

ROOT = Path(__file__).resolve().parents[2]
APPS = ("insighto", "accounts", "provider_keys", "billing", "gateway")

# Where a provider key may be plain text: the services, the envelope itself, the modules that make the outgoing call.
REVEAL = ("provider_keys/services/", "provider_keys/crypto.py", "provider_keys/probes.py", "gateway/upstreams/")
# These hold secrets of ours, not provider keys: a second factor's seed for allauth, an API key's one and only display.
REVEAL_OURS = ("provider_keys/mfa.py", "accounts/", "gateway/management/commands/seed_demo.py")

# Binary columns that hold nothing sealed: digests, which open nothing.
DIGESTS = {"provider_keys.credential.fingerprint", "provider_keys.kekcheckvalue.check_value", "accounts.apikey.digest"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for app in APPS:
        for path in sorted((ROOT / app).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def test_every_sealed_column_of_every_model_is_in_the_registry() -> None:
    sealed = {
        f"{model._meta.label_lower}.{field.name}"
        for model in apps.get_models()
        for field in model._meta.get_fields()
        if isinstance(field, SealedField)
    }
    assert {"provider_keys.credential.ciphertext", "provider_keys.platformcredential.ciphertext"} <= sealed
    assert sealed | {"mfa.authenticator.data"} == set(fields.REGISTRY)


def test_no_binary_column_holds_secrets_past_the_registry() -> None:
    binary = {
        f"{model._meta.label_lower}.{field.name}"
        for model in apps.get_models()
        for field in model._meta.get_fields()
        if isinstance(field, models.BinaryField) and not isinstance(field, SealedField)
    }
    assert binary == DIGESTS


def test_a_model_with_a_sealed_field_says_its_key_and_its_context() -> None:
    for store in fields.REGISTRY.values():
        if isinstance(store, fields.SealedColumn):
            assert getattr(store.model._meta.get_field("kek_id"), "db_index", False), store.label
            assert hasattr(store.model, "sealing_context"), store.label
            assert hasattr(store.model, "sealed"), store.label


def test_secrets_are_revealed_only_where_a_call_is_made_with_them() -> None:
    found = {
        path
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "reveal"
    }
    assert {path for path in found if not path.startswith((*REVEAL, *REVEAL_OURS))} == set()


def test_only_the_services_open_what_is_sealed() -> None:
    found = {
        path
        for path, tree in sources()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr == "unseal")
        or (isinstance(node, ast.ImportFrom) and any(alias.name == "unseal" for alias in node.names))
    }
    assert {path for path in found if not path.startswith("provider_keys/services/")} == {"provider_keys/mfa.py"}


def test_no_function_keeps_an_opened_secret() -> None:
    """A cache around anything that opens would outlive a revocation."""
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                cached = any("cache" in ast.dump(decorator) for decorator in node.decorator_list)
                opens = any(
                    isinstance(inner, ast.Attribute) and inner.attr in {"unseal", "open_credential", "reveal"}
                    for inner in ast.walk(node)
                )
                assert not (cached and opens), f"{path}: {node.name}"


def test_operators_have_no_page_for_check_values() -> None:
    assert not admin.site.is_registered(KekCheckValue)


@pytest.mark.parametrize("path", ["provider_keys/crypto.py", "provider_keys/pasted.py", "provider_keys/readiness.py"])
def test_pure_modules_touch_no_database_and_no_settings(path: str) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    assert not {name for name in imported if name.startswith(("django.db", "django.conf"))}
