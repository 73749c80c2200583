"""The list prices we start with, each with its source and date. Loaded after every migrate; rows are only added.

To change a price, add a row with a later `valid_from`: here, or in the admin. Amounts are written
as printed, in USD, and turned to micros without a float.
"""

from datetime import UTC, date, datetime
from typing import Any

from billing.money import MICROS_PER_USD

_OPENAI = "OpenAI list price"
_AZURE = "Azure list price, secondary source; confirm on the Azure calculator"
_ELEVENLABS = "ElevenLabs list price, secondary source; plans differ"


def _usd(text: str) -> int:
    """USD as printed on a price list, to micros; exact."""
    whole, _, fraction = text.partition(".")
    micros, rest = divmod(int(whole + fraction) * MICROS_PER_USD, int("1" + "0" * len(fraction)))
    assert rest == 0, text
    return micros


def _tokens(
    model: str,
    input_usd: str,
    cached_usd: str | None,
    output_usd: str,
    *,
    limit: int | None,
    write_usd: str | None = None,
    is_recent: bool = False,
    since: date = date(2026, 7, 1),
) -> dict[str, Any]:
    """A chat or embedding model, USD per 1 M tokens. Recent models cost ×2 in and ×1.5 out above 272 K input."""
    return {
        "provider": "openai",
        "model": model,
        "unit": "tokens",
        "input_micros": _usd(input_usd),
        "cached_input_micros": _usd(cached_usd) if cached_usd else None,
        "cache_write_micros": _usd(write_usd) if write_usd else None,
        "output_micros": _usd(output_usd),
        "max_output_units": limit,
        "long_input_above_units": 272_000 if is_recent else None,
        "long_input_percent": 200 if is_recent else 100,
        "long_output_percent": 150 if is_recent else 100,
        "valid_from": datetime(since.year, since.month, since.day, tzinfo=UTC),
        "source": _OPENAI,
        "source_date": date(2026, 11, 1),
    }


def _per_unit(provider: str, model: str, unit: str, usd: str, source: str, source_date: date) -> dict[str, Any]:
    """A model priced by one kind of unit, USD per 1 M of them."""
    return {
        "provider": provider,
        "model": model,
        "unit": unit,
        "input_micros": _usd(usd),
        "valid_from": datetime(2026, 7, 1, tzinfo=UTC),
        "source": source,
        "source_date": source_date,
    }


BOOK: list[dict[str, Any]] = [
    _tokens("gpt-4o", "2.50", "1.25", "10", limit=16_384),
    _tokens("gpt-4o-mini", "0.15", "0.075", "0.60", limit=16_384),
    _tokens("gpt-4.1", "2", "0.50", "8", limit=32_768),
    _tokens("gpt-4.1-mini", "0.40", "0.10", "1.60", limit=32_768),
    _tokens("gpt-5", "1.25", "0.125", "10", limit=128_000),
    _tokens("gpt-5-mini", "0.25", "0.025", "2", limit=128_000),
    _tokens("gpt-5-nano", "0.05", "0.005", "0.40", limit=128_000),
    _tokens("gpt-5.4-mini", "0.75", "0.075", "4.50", limit=128_000, write_usd="0.9375", is_recent=True),
    _tokens(
        "gpt-5.6-luna",
        "0.20",
        "0.02",
        "1.20",
        limit=128_000,
        write_usd="0.25",
        is_recent=True,
        since=date(2026, 7, 30),  # fell by 80 % that day
    ),
    _tokens("gpt-6-luna", "0.10", "0.01", "0.50", limit=128_000, write_usd="0.125", is_recent=True),
    _tokens("gpt-6-sol", "2", "0.20", "10", limit=128_000, write_usd="2.50", is_recent=True),
    _tokens("text-embedding-3-small", "0.02", None, "0", limit=None),
    _tokens("text-embedding-3-large", "0.13", None, "0", limit=None),
    _per_unit("openai", "tts-1", "characters", "15", _OPENAI, date(2026, 11, 1)),
    _per_unit("openai", "tts-1-hd", "characters", "30", _OPENAI, date(2026, 11, 1)),
    _per_unit("openai", "whisper-1", "seconds", "100", _OPENAI, date(2026, 11, 1)),  # 0.006 a minute
    _per_unit("openai", "gpt-transcribe", "seconds", "75", _OPENAI, date(2026, 11, 1)),  # 0.0045 a minute
    _per_unit("azure_speech", "neural", "characters", "15", _AZURE, date(2026, 11, 1)),
    _per_unit("azure_speech", "hd", "characters", "30", _AZURE, date(2026, 11, 1)),
    # ElevenLabs bills credits (`character-cost`), 0.10 USD for 1 000 of them whatever the model.
    *(
        _per_unit("elevenlabs", model, "credits", "100", _ELEVENLABS, date(2026, 6, 1))
        for model in (
            "eleven_multilingual_v2",
            "eleven_v3",
            "eleven_flash_v2",
            "eleven_flash_v2_5",
            "eleven_turbo_v2",
            "eleven_turbo_v2_5",
        )
    ),
]
