"""The price book's rows: looked up for the hot path, and brought in from `billing/pricebook.py`."""

import time
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.utils import timezone

from billing.models import Price
from billing.pricebook import BOOK
from billing.pricing import PriceRow

REMEMBER_S = 5  # a row never changes; for how long the absence of a newer one may be believed


class Remembered(NamedTuple):
    until: float
    price: PriceRow | None


_by_id: dict[UUID, PriceRow] = {}
_in_force: dict[tuple[str, str], Remembered] = {}


def by_id(price_id: UUID) -> PriceRow:
    """The row a leg or hold pinned. Rows are immutable, so it is read once per process."""
    row = _by_id.get(price_id)
    if row is None:
        row = _by_id[price_id] = as_row(Price.objects.get(pk=price_id))
    return row


def in_force(provider: str, model: str, at: datetime | None = None) -> PriceRow | None:
    """The price of `model` at that time (now, at most `REMEMBER_S` late); None: it cannot be sold."""
    if at is not None:
        return _look_up(provider, model, at)
    found = remembered(provider, model)
    if found is None:
        if len(_in_force) > 1_000:  # model names come from callers
            _in_force.clear()
        found = Remembered(time.monotonic() + REMEMBER_S, _look_up(provider, model, timezone.now()))
        _in_force[provider, model] = found
    return found.price


def remembered(provider: str, model: str) -> Remembered | None:
    """What is known of the price in force without asking the database; None: nothing, or no longer."""
    found = _in_force.get((provider, model))
    return None if found is None or found.until < time.monotonic() else found


def forget() -> None:
    """Drop what is remembered, in this process."""
    _by_id.clear()
    _in_force.clear()


def load_book() -> int:
    """Add the rows of the price book that are missing; how many. What is there is left as it is."""
    known = set(Price.objects.values_list("provider", "model", "valid_from"))
    missing = [Price(**row) for row in BOOK if (row["provider"], row["model"], row["valid_from"]) not in known]
    Price.objects.bulk_create(missing, ignore_conflicts=True)
    forget()
    return len(missing)


def as_row(price: Price) -> PriceRow:
    return PriceRow(
        id=price.pk,
        provider=price.provider,
        model=price.model,
        unit=price.unit,
        input_micros=price.input_micros,
        cached_input_micros=price.cached_input_micros,
        cache_write_micros=price.cache_write_micros,
        output_micros=price.output_micros,
        max_output_units=price.max_output_units,
        long_input_above_units=price.long_input_above_units,
        long_input_percent=price.long_input_percent,
        long_output_percent=price.long_output_percent,
    )


def _look_up(provider: str, model: str, at: datetime) -> PriceRow | None:
    price = Price.objects.filter(provider=provider, model=model, valid_from__lte=at).order_by("-valid_from").first()
    return as_row(price) if price else None
