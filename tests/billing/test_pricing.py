from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import pricing
from billing.errors import AmountOutOfRange
from billing.pricebook import BOOK
from billing.pricing import PriceRow, Usage

MINI = PriceRow(UUID(int=1), "openai", "gpt-4o-mini", "tokens", 15_000_000, 7_500_000, None, 60_000_000, 16_384)


def test_a_chat_costs_its_tokens_at_list_price():
    assert pricing.cost_micros(MINI, Usage(1_000_000, 0, 0, 1_000_000)) == 75_000_000
    assert pricing.cost_micros(MINI, Usage(1_000_000, 400_000, 0, 0)) == 12_000_000


def test_one_leg_is_rounded_once_and_up():
    assert pricing.cost_micros(MINI, Usage(0, 0, 0, 0)) == 0
    cheap = PriceRow(UUID(int=2), "openai", "m", "tokens", 1, None, None, 1)
    assert pricing.cost_micros(cheap, Usage(1, 0, 0, 1)) == 1


@pytest.mark.parametrize(
    "usage",
    [
        Usage(-1),
        Usage(1, 2),
        Usage(2, 1, 2),
        Usage(2**40 + 1),
        Usage(1.5),  # type: ignore[arg-type]
        Usage(True),
        Usage(0, 0, 0, -5),
    ],
)
def test_hostile_usage_is_refused(usage):
    with pytest.raises(AmountOutOfRange):
        pricing.cost_micros(MINI, usage)


def test_a_price_that_makes_an_impossible_amount_is_refused():
    dear = PriceRow(UUID(int=3), "openai", "m", "tokens", 2**62)
    with pytest.raises(AmountOutOfRange):
        pricing.cost_micros(dear, Usage(2**40))


def test_long_input_costs_more_where_the_model_says_so():
    row = next(row for row in BOOK if row["model"] == "gpt-6-sol")
    sol = PriceRow(
        UUID(int=4),
        "openai",
        "gpt-6-sol",
        "tokens",
        row["input_micros"],
        output_micros=row["output_micros"],
        long_input_above_units=272_000,
        long_input_percent=200,
        long_output_percent=150,
    )
    assert pricing.cost_micros(sol, Usage(272_000, 0, 0, 1_000)) == 272_000 * 200 + 1_000 * 1_000
    assert pricing.cost_micros(sol, Usage(272_001, 0, 0, 1_000)) == 272_001 * 400 + 1_000 * 1_500


@given(
    st.builds(
        PriceRow,
        st.just(UUID(int=5)),
        st.just("openai"),
        st.just("m"),
        st.just("tokens"),
        st.integers(0, 2**50),
        st.none() | st.integers(0, 2**50),
        st.none() | st.integers(0, 2**50),
        st.integers(0, 2**50),
        st.integers(0, 2**20),
        st.none() | st.integers(0, 2**20),
        st.integers(100, 400),
        st.integers(100, 400),
    ),
    st.integers(0, 2**20),
    st.integers(0, 2**20),
    st.integers(0, 2**20),
    st.integers(0, 2**20),
)
def test_no_usage_within_the_bounds_costs_more_than_the_hold(price, plain, cached, written, output):
    usage = Usage(plain + cached + written, cached, written, output)
    try:
        bound = pricing.upper_bound(price, input_units=usage.input_units, output_units=output)
    except AmountOutOfRange:
        return
    assert pricing.cost_micros(price, usage) <= bound


def test_without_a_limit_the_models_own_bounds_the_hold():
    assert pricing.upper_bound(MINI, input_units=0) == pricing.upper_bound(MINI, input_units=0, output_units=16_384)
    endless = PriceRow(UUID(int=6), "openai", "m", "tokens", 1, output_micros=1)
    with pytest.raises(AmountOutOfRange):
        pricing.upper_bound(endless, input_units=1)


def test_choices_multiply_the_output_only():
    one = pricing.upper_bound(MINI, input_units=100, output_units=100)
    four = pricing.upper_bound(MINI, input_units=100, output_units=100, choices=4)
    assert four - one == 3 * 100 * 60


def test_flash_models_take_half_a_provider_credit_for_a_character():
    assert pricing.provider_credits("eleven_flash_v2_5", 3) == 2
    assert pricing.provider_credits("eleven_multilingual_v2", 3) == 3


def test_every_row_of_the_book_has_a_source_a_date_and_a_bound():
    for row in BOOK:
        assert row["source"], row
        assert row["source_date"], row
        assert row["unit"] != "tokens" or not row["output_micros"] or row["max_output_units"], row
    assert len({(row["provider"], row["model"], row["valid_from"]) for row in BOOK}) == len(BOOK)


@pytest.mark.parametrize(
    ("model", "input_micros", "output_micros"),
    [
        ("gpt-6-luna", 10_000_000, 50_000_000),
        ("gpt-6-sol", 200_000_000, 1_000_000_000),
        ("gpt-5.6-luna", 20_000_000, 120_000_000),
        ("gpt-4o-mini", 15_000_000, 60_000_000),
        ("gpt-4.1-mini", 40_000_000, 160_000_000),
        ("tts-1-hd", 3_000_000_000, 0),
        ("neural", 1_500_000_000, 0),
        ("eleven_v3", 10_000_000_000, 0),
    ],
)
def test_the_book_says_what_the_price_lists_say(model, input_micros, output_micros):
    row = next(row for row in BOOK if row["model"] == model)
    assert (row["input_micros"], row.get("output_micros", 0)) == (input_micros, output_micros)
