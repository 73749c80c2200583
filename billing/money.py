"""Arithmetic of micro-credits: integers only, bounds, and the one rounding rule.

1 credit = 1 000 000 micros = 0.01 USD. Nothing here knows a database or a provider.
"""

from billing.errors import AmountOutOfRange

MICROS_PER_CREDIT = 1_000_000
MICROS_PER_USD = 100 * MICROS_PER_CREDIT
UNITS_PER_PRICE = 1_000_000  # prices are micros for this many units
MAX_MICROS = 2**62  # leaves room to add two of them in a BIGINT


def checked(amount_micros: int) -> int:
    """`amount_micros` if it is an amount at all, else `AmountOutOfRange`."""
    if type(amount_micros) is not int or not 0 <= amount_micros <= MAX_MICROS:
        raise AmountOutOfRange
    return amount_micros


def round_up(numerator: int, denominator: int) -> int:
    """The one rounding of the product: up, to a whole micro."""
    return -(-numerator // denominator)


def credits_to_micros(text: str) -> int:
    """Credits as a person types them ("1,250.5") to micros; more than six decimals or anything odd is refused."""
    whole, point, fraction = text.strip().replace(",", "").partition(".")
    if not (whole.isascii() and whole.isdigit()) or len(fraction) > 6 or (point and not fraction.isdigit()):
        raise AmountOutOfRange("Enter credits as a number with at most six decimals.")
    if not fraction.isascii():
        raise AmountOutOfRange("Enter credits as a number with at most six decimals.")
    return checked(int(whole) * MICROS_PER_CREDIT + int(fraction.ljust(6, "0")))


def in_words(amount_micros: int) -> str:
    """12345600 → "12.3456": grouped, at least two decimals, no more than are needed."""
    sign = "−" if amount_micros < 0 else ""
    whole, micros = divmod(abs(amount_micros), MICROS_PER_CREDIT)
    fraction = f"{micros:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole:,}.{fraction}"
