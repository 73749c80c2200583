"""ElevenLabs text-to-speech: billed by the credits the provider says it took."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from billing import pricing
from billing.money import UNITS_PER_PRICE
from billing.pricing import PriceRow, Usage
from gateway.errors import Refused
from gateway.upstreams import base
from gateway.upstreams.base import BYTES, Meter, Outgoing, Question
from insighto.lib.secret import Secret

VOICE: Final = re.compile(r"[A-Za-z0-9]{20}")  # the path is not escaped by anyone: nothing else reaches it
DEFAULT_MODEL: Final = "eleven_multilingual_v2"
PRICED_FIELDS: Final = frozenset(
    [
        "text",
        "model_id",
        "language_code",
        "voice_settings",
        "seed",
        "previous_text",
        "next_text",
        "apply_text_normalization",
        "apply_language_text_normalization",
    ]
)
PRICED_QUERY: Final = frozenset({"output_format", "optimize_streaming_latency"})
_QUERY_NAME: Final = re.compile(r"[a-z_]{1,40}")
_QUERY_VALUE: Final = re.compile(r"[A-Za-z0-9_.\-]{0,60}")
_TEXT_VALUE: Final = re.compile(r"[^\x00-\x1f\x7f]{0,200}")  # it is percent-encoded again
_VOICE_QUERY: Final = frozenset(
    {
        "show_legacy", "next_page_token", "page_size", "search", "sort", "sort_direction", "voice_type", "category",
        "fine_tuning_state", "collection_id", "gender", "age", "language", "accent", "use_cases",
        "min_notice_period_days", "include_custom_rates", "include_live_moderated", "high_quality",
        "include_total_count", "voice_ids",
    }
)  # fmt: skip
_PUBLIC_VOICE: Final = (
    "voice_id", "name", "category", "labels", "description", "preview_url", "available_for_tiers", "settings",
    "high_quality_base_model_ids", "verified_languages",
)  # fmt: skip
_JSON_TYPES: Final = frozenset({"application/json", "text/event-stream", "application/x-ndjson"})
_SOUND: Final = b'"audio_base64"'
_MAX_KEPT: Final = 1024 * 1024


class Speech:
    """One text to be spoken. `streamed` asks the provider's streaming address, `timed` for JSON with timestamps."""

    provider = "elevenlabs"
    kind = "speech"
    delivery = BYTES

    def __init__(self, voice: str, raw: bytes, query: str = "", *, streamed: bool, timed: bool = False) -> None:
        if not VOICE.fullmatch(voice):
            raise Refused("voice_not_found", "A voice id has 20 letters and digits.", param="voice_id")
        try:
            raw.decode()
            body = msgspec.json.decode(raw, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError, ValueError):
            raise Refused("invalid_json") from None
        text, model = body.get("text"), body.get("model_id") or DEFAULT_MODEL
        if not isinstance(text, str):
            raise Refused("missing_required_parameter", "'text' is needed.", param="text", status=422)
        if not isinstance(model, str) or not 0 < len(model) <= 80 or not model.isprintable():
            raise Refused("invalid_value", "'model_id' must be the name of a model.", param="model_id")
        self._suffix = ("/stream" if streamed else "") + ("/with-timestamps" if timed else "")
        self.endpoint = "/v1/text-to-speech/{voice_id}" + self._suffix
        self.timed = timed
        self.voice = voice
        self.model = self.price_model = model
        self.streamed = streamed
        self._raw = raw
        self._body = body
        self._query = _query(query)
        self.counted_credits = pricing.provider_credits(model, len(text))

    def refuse_on_credits(self) -> Refused | None:
        for field in [*self._body, *(name for name, _ in self._query)]:
            if field not in PRICED_FIELDS and field not in PRICED_QUERY:
                name = base.clean("".join(character for character in field if character.isprintable()), 60)
                message = f"'{name}' cannot be used on credits, because its price is not known."
                return Refused("unsupported_on_credits", message, param=name)
        return None

    def hold_micros(self, price: PriceRow) -> int:
        return pricing.upper_bound(price, input_units=self.counted_credits)

    def outgoing(self, secret: Secret, region: str, *, on_credits: bool) -> Outgoing:
        path = f"/v1/text-to-speech/{self.voice}{self._suffix}"
        query = "?" + urlencode(self._query) if self._query else ""
        return Outgoing(
            base.address("ELEVENLABS_BASE_URL", path) + query,
            {"xi-api-key": secret.reveal(), "Content-Type": "application/json", "Accept": "*/*"},
            msgspec.json.encode(self._body) if on_credits else self._raw,
        )

    def meter(self, headers: Mapping[str, str], *, price: PriceRow | None, on_credits: bool) -> Meter:
        made = TimedMeter if self.timed else SpeechMeter
        return made(self.counted_credits, headers.get("character-cost"), is_capped=on_credits)

    def accepts(self, content_type: str) -> bool:
        if self.timed:
            return content_type in _JSON_TYPES
        return content_type.startswith("audio/") or content_type == "application/octet-stream"

    def abandoned(self) -> Usage:
        return Usage()  # no sound, no price

    def fault(self, status: int, body: bytes) -> Refused:
        return fault(status, body)


def fault(status: int, body: bytes) -> Refused:
    """ElevenLabs' refusal of the request itself, from either of its envelopes, without its secrets."""
    answer = base.decoded(body)
    detail = answer.get("detail") if isinstance(answer, dict) else None
    if isinstance(detail, list):
        detail = detail[0] if detail else {}
        detail = {"message": detail.get("msg"), "code": "unprocessable"} if isinstance(detail, dict) else {}
    detail = {"message": detail} if isinstance(detail, str) else detail if isinstance(detail, dict) else {}
    return Refused(
        base.clean(detail.get("code") or detail.get("status"), 60) or "invalid_request",
        base.clean(detail.get("message")) or "The provider refused the request.",
        param=base.clean(detail.get("param"), 100),
        kind=base.clean(detail.get("type"), 60),
        status=status,
    )


class SpeechMeter:
    """Speech is paid as a whole once the first sound of it arrived. Shared by both speech providers."""

    def __init__(self, counted: int, reported: str | None = None, *, is_capped: bool = False) -> None:
        self._counted = counted
        cost = int(reported) if reported and reported.isascii() and reported.isdigit() and len(reported) < 12 else None
        self._is_doubtful = reported is not None and cost is None
        if cost is not None and is_capped and cost > counted:
            cost, self._is_doubtful = counted, True  # more than was held is the provider's word against ours
        self._reported = cost
        self.has_output = False

    def feed(self, chunk: bytes) -> bytes:
        self.has_output = self.has_output or bool(chunk)
        return chunk

    def end(self) -> bytes:
        return b""

    def is_complete(self) -> bool:
        return self.has_output

    def usage(self) -> tuple[Usage, str, bool]:
        if self._reported is not None:
            return Usage(input_units=self._reported), "provider", self._is_doubtful
        return Usage(input_units=self._counted), "counted", self._is_doubtful


class TimedMeter(SpeechMeter):
    """Sound as base64 in JSON, one object or one in each line. Nothing passes before the sound is seen in it."""

    def __init__(self, counted: int, reported: str | None = None, *, is_capped: bool = False) -> None:
        super().__init__(counted, reported, is_capped=is_capped)
        self._kept = b""
        self._last = b""

    def feed(self, chunk: bytes) -> bytes:
        if chunk.strip():
            self._last = chunk.rstrip()[-1:]
        if self.has_output:
            return chunk
        self._kept += chunk
        if _SOUND not in self._kept:
            if len(self._kept) > _MAX_KEPT:
                raise Refused("provider_bad_answer")
            return b""
        self.has_output = True
        kept, self._kept = self._kept, b""
        return kept

    def is_complete(self) -> bool:
        if not self.has_output:  # an end without any sound is not an answer
            raise Refused("provider_bad_answer")
        return self._last == b"}"


# The calls that cost nothing.


def voices(path: str, query: str) -> Question:
    """`/v1/voices` and `/v2/voices`, as the client asked for them."""
    pairs = _query(query, names=_VOICE_QUERY, value=_TEXT_VALUE)
    suffix = "?" + urlencode(pairs) if pairs else ""
    return Question(
        provider="elevenlabs",
        name=path + suffix,
        url=lambda region: base.address("ELEVENLABS_BASE_URL", path) + suffix,
        headers=_headers,
        is_answer=_lists_voices,
        fault=fault,
    )


def subscription() -> Question:
    return Question(
        provider="elevenlabs",
        url=lambda region: base.address("ELEVENLABS_BASE_URL", "/v1/user/subscription"),
        headers=_headers,
        is_answer=_is_subscription,
        fault=fault,
    )


def public_voices(body: bytes) -> bytes:
    """The platform's voices as a stranger may see them: nothing of who made or shared them, and no samples."""
    answer = base.decoded(body)
    assert isinstance(answer, dict), "judged before"
    answer["voices"] = [
        {name: voice[name] for name in _PUBLIC_VOICE if name in voice}
        for voice in answer["voices"]
        if isinstance(voice, dict)
    ]
    return msgspec.json.encode(answer)


def credits_subscription(balance_micros: int, price: PriceRow | None) -> dict[str, Any]:
    """The subscription of an account that pays with credits: how many characters they would buy, and nothing else."""
    affordable = balance_micros * UNITS_PER_PRICE // price.input_micros if price and price.input_micros else 0
    return {
        "tier": "insighto_credits",
        "status": "active",
        "character_count": 0,
        "character_limit": max(affordable, 0),
        "max_character_limit_extension": 0,
        "max_credit_limit_extension": 0,
        "can_extend_character_limit": False,
        "allowed_to_extend_character_limit": False,
        "next_character_count_reset_unix": None,
        "voice_slots_used": 0,
        "professional_voice_slots_used": 0,
        "professional_voice_slots_used_in_workspace": 0,
        "voice_limit": 0,
        "voice_add_edit_counter": 0,
        "professional_voice_limit": 0,
        "can_extend_voice_limit": False,
        "can_use_instant_voice_cloning": False,
        "can_use_professional_voice_cloning": False,
        "currency": "usd",
        "current_overage": {"amount": "0", "currency": "usd"},
        "billing_period": None,
        "character_refresh_period": None,
        "next_invoice": None,
        "open_invoices": [],
        "has_open_invoices": False,
    }


def _headers(secret: Secret) -> dict[str, str]:
    return {"xi-api-key": secret.reveal(), "Accept": "application/json"}


def _lists_voices(content_type: str, body: bytes) -> bool:
    answer = base.decoded(body)
    return content_type == "application/json" and isinstance(answer, dict) and isinstance(answer.get("voices"), list)


def _is_subscription(content_type: str, body: bytes) -> bool:
    answer = base.decoded(body)
    return (
        content_type == "application/json"
        and isinstance(answer, dict)
        and isinstance(answer.get("tier"), str)
        and base.whole(answer.get("character_limit")) is not None
    )


def _query(
    query: str, names: frozenset[str] | None = None, value: re.Pattern[str] = _QUERY_VALUE
) -> list[tuple[str, str]]:
    """The parameters, each of a harmless shape; written anew into the provider's address."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=120 if names else 10)
    except ValueError:
        raise Refused("invalid_value", "The query cannot be read.") from None
    for name, text in pairs:
        if not _QUERY_NAME.fullmatch(name) or (names and name not in names) or not value.fullmatch(text):
            raise Refused("invalid_value", "The query has a parameter that is not one of this address.")
    return pairs
