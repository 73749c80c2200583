"""The registry of everything sealed: a column joins by existing, and rotation walks this list only.

Knows where sealed values live and how to swap one in place; sealing and opening are the
services' business.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, Protocol

from django.db import models

from provider_keys import crypto
from provider_keys.crypto import Context, Kek, Ring, SealBroken


class SealedRow(Protocol):
    """What a model with a `SealedField` must say of each of its rows."""

    pk: Any

    def sealing_context(self) -> Context:
        """The context the row's value was sealed with, from the row's own columns."""


class SealedStore(Protocol):
    """One place where sealed values live."""

    @property
    def label(self) -> str: ...

    def kids(self) -> Counter[str]:
        """How many values each KEK version seals, by the values themselves; `UNREADABLE` for those that do not say."""

    def stale(self, kid: str, *, after: Any, limit: int) -> list[Any]:
        """Primary keys, in order and beyond `after`, of rows holding a value that is not under `kid`."""

    def rewrap(self, pk: Any, *, ring: Ring, primary: Kek) -> bool:
        """Put one row's values under `primary`; False when the row changed meanwhile."""


UNREADABLE: Final = "?"

REGISTRY: Final[dict[str, SealedStore]] = {}


def register(store: SealedStore) -> None:
    REGISTRY[store.label] = store


def kid_in(value: bytes) -> str:
    """The KEK version a sealed value names."""
    try:
        return crypto.kek_id_of(value)
    except SealBroken:
        return UNREADABLE


class SealedField(models.BinaryField):  # type: ignore[type-arg]
    """Sealed bytes. The model keeps `kek_id` beside it and has `sealing_context()`; empty means destroyed."""

    def contribute_to_class(self, cls: type[models.Model], name: str, private_only: bool = False) -> None:
        super().contribute_to_class(cls, name, private_only)
        # Models rebuilt inside a migration have no methods, so they cannot be walked.
        if not cls._meta.abstract and cls.__module__ != "__fake__":
            register(SealedColumn(model=cls, name=name))


@dataclass(frozen=True)
class SealedColumn:
    """A `SealedField` of one model."""

    model: type[models.Model]
    name: str

    @property
    def label(self) -> str:
        return f"{self.model._meta.label_lower}.{self.name}"

    def kids(self) -> Counter[str]:
        rows = self._rows().values_list(self.name, "kek_id").iterator(chunk_size=2_000)
        # A row whose column disagrees with its bytes counts for both, so that neither key is retired under it.
        return Counter(kid for value, column in rows for kid in {kid_in(bytes(value)), column})

    def stale(self, kid: str, *, after: Any, limit: int) -> list[Any]:
        rows = self._rows().exclude(kek_id=kid).order_by("pk")
        rows = rows if after is None else rows.filter(pk__gt=after)
        return list(rows.values_list("pk", flat=True)[:limit])

    def rewrap(self, pk: Any, *, ring: Ring, primary: Kek) -> bool:
        row: Any = self.model._default_manager.filter(pk=pk).first()
        before = bytes(getattr(row, self.name)) if row else b""
        if not before:  # deleted or destroyed since it was listed
            return True
        after = crypto.rewrap(before, ring=ring, primary=primary, context=row.sealing_context())
        # The old bytes in the condition are the compare-and-swap: a value replaced since it was read stays.
        swap = self.model._default_manager.filter(**{"pk": pk, self.name: before})
        return swap.update(**{self.name: after, "kek_id": primary.kid}) == 1

    def _rows(self) -> "models.QuerySet[Any]":
        return self.model._default_manager.exclude(**{self.name: b""})
