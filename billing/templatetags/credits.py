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
