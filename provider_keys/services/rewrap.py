"""Rotation of key-encryption keys: move every sealed value under the primary, then retire the old one.

Walks `fields.REGISTRY` and nothing else. Online and resumable: what is left is what a query
finds, each row is swapped by compare-and-swap, and a run that was killed is run again.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from provider_keys import fields, keyring
from provider_keys.crypto import SealBroken, UnknownKek
from provider_keys.errors import KekRefused
from provider_keys.fields import SealedStore
from provider_keys.keyring import KeyRing
from provider_keys.models import KekCheckValue
from provider_keys.services import vault

_BATCH: Final = 50  # rows per transaction: sealing elsewhere waits for one batch at most
_TRIES: Final = 5


@dataclass(slots=True)
class Report:
    """What one run did in one store."""

    label: str
    moved: int = 0
    locked: Counter[str] = field(default_factory=Counter)  # rows whose KEK version the ring lacks
    unreadable: int = 0  # rows that do not open with their own context
    left: int = 0  # values not under the primary when the run ended

    @property
    def is_done(self) -> bool:
        return self.left == 0


def run(*, dry_run: bool = False) -> list[Report]:
    """Put everything under the primary; a dry run only counts what is left."""
    return [_run_store(store, dry_run=dry_run) for store in _stores()]


def references(kid: str) -> dict[str, int]:
    """How many sealed values each store still has under `kid`; stores without any are not listed."""
    counts = {store.label: store.kids()[kid] for store in _stores()}
    return {label: count for label, count in counts.items() if count}


def retire(kid: str, *, dry_run: bool = False) -> None:
    """Declare that nothing is, and nothing ever will be, sealed with `kid`.

    Raises `KekRefused` for the primary, for an unknown name, and while any value refers to it. Retired
    already: nothing happens.
    """
    with transaction.atomic():
        ring = keyring.verify()
        if kid in (ring.primary.kid, ring.fingerprint.kid):
            message = f"{kid} is in use: make another key primary and rewrap first."
            raise KekRefused(message)
        # Sealing holds this row too, so no value under this key appears between the count and the mark.
        row = KekCheckValue.objects.select_for_update().filter(kek_id=kid).first()
        if row is None:
            message = f"This database has never met a key named {kid}."
            raise KekRefused(message)
        found = references(kid)
        if found:
            listed = ", ".join(f"{count} in {label}" for label, count in found.items())
            message = f"{kid} still seals {listed}. Run `manage.py rewrap` first."
            raise KekRefused(message)
        if not dry_run and row.retired_at is None:
            row.retired_at = timezone.now()
            row.save(update_fields=["retired_at"])


def _stores() -> list[SealedStore]:
    return [fields.REGISTRY[label] for label in sorted(fields.REGISTRY)]


def _run_store(store: SealedStore, *, dry_run: bool) -> Report:
    report = Report(store.label)
    primary = keyring.load().primary.kid
    after: Any = None
    while not dry_run and (batch := store.stale(primary, after=after, limit=_BATCH)):
        with transaction.atomic():
            ring = keyring.for_sealing()
            for pk in batch:
                _move(store, pk, ring, report)
        after = batch[-1]
    report.left = sum(count for kid, count in store.kids().items() if kid != primary)
    if report.moved:
        with transaction.atomic():
            vault.flush_destroyed()
    return report


def _move(store: SealedStore, pk: Any, ring: KeyRing, report: Report) -> None:
    try:
        for _ in range(_TRIES):
            if store.rewrap(pk, ring=ring, primary=ring.primary):
                report.moved += 1
                return
    except UnknownKek as error:
        report.locked[error.kid] += 1
    except SealBroken:
        report.unreadable += 1
