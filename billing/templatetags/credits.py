"""Micros to words, at the last moment before a person reads them."""

from django import template

from billing import money

register = template.Library()


@register.filter
def credits(amount_micros: int | None) -> str:
    """12345600 → "12.3456 credits"; nothing for no amount."""
    if amount_micros is None:
        return ""
    words = money.in_words(amount_micros)
    return f"{words} credit" if words == "1.00" else f"{words} credits"


@register.filter
def credits_number(amount_micros: int | None) -> str:
    """12345600 → "12.3456": where the column or the heading already says credits."""
    return "" if amount_micros is None else money.in_words(amount_micros)


@register.filter
def credits_short(amount_micros: int) -> str:
    """5000000 → "5", 20000 → "0.02": for the ticks of a chart."""
    return money.in_words(amount_micros).removesuffix(".00")
