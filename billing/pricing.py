"""What usage costs: pure functions of a price row and counted units.

One leg is rounded once, up, at the end. Usage comes from outside and is bounded here.
"""

from dataclasses import dataclass
from uuid import UUID

from billing import money
from billing.errors import AmountOutOfRange

MAX_UNITS = 2**40  # more than any provider will ever report for one operation


@dataclass(frozen=True, slots=True)
class Usage:
    """Units of one leg. `input_units` counts all input, the cached and cache-written parts included."""

    input_units: int = 0
    cached_input_units: int = 0
    cache_write_units: int = 0
    output_units: int = 0

    @property
    def is_sane(self) -> bool:
        """Whole numbers within bounds, the parts no more than the whole."""
        parts = (self.input_units, self.cached_input_units, self.cache_write_units, self.output_units)
        return (
            all(type(part) is int and 0 <= part <= MAX_UNITS for part in parts)
            and self.cached_input_units + self.cache_write_units <= self.input_units
        )


NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One row of the price book, detached from the database. Micros per 1 000 000 units."""

    id: UUID
    provider: str
    model: str
    unit: str
    input_micros: int
    cached_input_micros: int | None = None
    cache_write_micros: int | None = None
    output_micros: int = 0
    max_output_units: int | None = None
    long_input_above_units: int | None = None
    long_input_percent: int = 100
    long_output_percent: int = 100


def cost_micros(price: PriceRow, usage: Usage) -> int:
    """The price of `usage`. Raises `AmountOutOfRange` for usage that is not sane or too dear to be true."""
    if not usage.is_sane:
        raise AmountOutOfRange
    cached = price.input_micros if price.cached_input_micros is None else price.cached_input_micros
    written = price.input_micros if price.cache_write_micros is None else price.cache_write_micros
    plain_units = usage.input_units - usage.cached_input_units - usage.cache_write_units
    of_input = plain_units * price.input_micros + usage.cached_input_units * cached + usage.cache_write_units * written
    of_output = usage.output_units * price.output_micros
    return _total(price, usage.input_units, of_input, of_output)


def upper_bound(price: PriceRow, *, input_units: int, output_units: int | None = None, choices: int = 1) -> int:
    """The most such a leg can cost: what its hold sets aside.

    `input_units` is a bound itself (bytes as tokens; characters exactly). Without `output_units` the
    model's own limit counts; a model that has output but no limit cannot be bounded: `AmountOutOfRange`.
    """
    if output_units is None:
        if price.max_output_units is None and price.output_micros:
            raise AmountOutOfRange
        output_units = price.max_output_units or 0
    bounds = (input_units, output_units, choices)
    if any(type(bound) is not int or not 0 <= bound <= MAX_UNITS for bound in bounds):
        raise AmountOutOfRange
    dearest = max(price.input_micros, price.cached_input_micros or 0, price.cache_write_micros or 0)
    return _total(price, input_units, input_units * dearest, output_units * choices * price.output_micros)


def provider_credits(model: str, characters: int) -> int:
    """ElevenLabs credits for `characters`: one each, half for the flash and turbo models, rounded up."""
    return money.round_up(characters, 2) if "flash" in model or "turbo" in model else characters


def _total(price: PriceRow, input_units: int, of_input: int, of_output: int) -> int:
    is_long = price.long_input_above_units is not None and input_units > price.long_input_above_units
    input_percent = price.long_input_percent if is_long else 100
    output_percent = price.long_output_percent if is_long else 100
    total = of_input * input_percent + of_output * output_percent
    return money.checked(money.round_up(total, 100 * money.UNITS_PER_PRICE))
