import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import money
from billing.errors import AmountOutOfRange
from billing.templatetags.credits import credits


@given(st.integers(0, 2**62), st.integers(1, 2**62))
def test_rounding_is_up_and_by_less_than_one(numerator, denominator):
    rounded = money.round_up(numerator, denominator)

    assert rounded * denominator >= numerator
    assert (rounded - 1) * denominator < numerator


@given(st.integers(0, money.MAX_MICROS))
def test_every_amount_survives_being_written_in_words_and_read_back(amount):
    assert money.credits_to_micros(money.in_words(amount)) == amount


@pytest.mark.parametrize("amount", [-1, 2**62 + 1, 2**100, 1.0, True, "1", None])
def test_what_is_not_an_amount_is_refused(amount):
    with pytest.raises(AmountOutOfRange):
        money.checked(amount)


@pytest.mark.parametrize("text", ["", "-1", "1e3", "NaN", "1.2345678", "1.", ".5", "٣", "1.٣", "9" * 30, "1 000"])
def test_odd_amounts_of_credits_are_refused(text):
    with pytest.raises(AmountOutOfRange):
        money.credits_to_micros(text)


def test_credits_are_shown_grouped_with_the_decimals_they_need():
    assert credits(12_345_600) == "12.3456 credits"
    assert credits(1_234_000_000_000) == "1,234,000.00 credits"
    assert credits(1_000_000) == "1.00 credit"
    assert credits(-1) == "−0.000001 credits"
    assert credits(None) == ""
