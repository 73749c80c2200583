"""ElevenLabs text-to-speech: billed by the credits the provider says it took."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from billing import pricing
from billing.pricing import PriceRow, Usage
from gateway.errors import Refused
from gateway.upstreams import base
from gateway.upstreams.base import Meter, Outgoing
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


class Speech:
    """One text to be spoken. `streamed` asks the provider's streaming address."""

    provider = "elevenlabs"
    kind = "speech"

    def __init__(self, voice: str, raw: bytes, query: str = "", *, streamed: bool) -> None:
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
        self.endpoint = "/v1/text-to-speech/{voice_id}" + ("/stream" if streamed else "")
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
        path = f"/v1/text-to-speech/{self.voice}" + ("/stream" if self.streamed else "")
        query = "?" + urlencode(self._query) if self._query else ""
        return Outgoing(
            base.address("ELEVENLABS_BASE_URL", path) + query,
            {"xi-api-key": secret.reveal(), "Content-Type": "application/json", "Accept": "*/*"},
            msgspec.json.encode(self._body) if on_credits else self._raw,
        )

    def meter(self, headers: Mapping[str, str], *, on_credits: bool) -> Meter:
        return SpeechMeter(self.counted_credits, headers.get("character-cost"), is_capped=on_credits)

    def accepts(self, content_type: str) -> bool:
        return content_type.startswith("audio/") or content_type == "application/octet-stream"

    def abandoned(self) -> Usage:
        return Usage()  # no sound, no price

    def fault(self, status: int, body: bytes) -> Refused:
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


def _query(query: str) -> list[tuple[str, str]]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=10)
    except ValueError:
        raise Refused("invalid_value", "The query cannot be read.") from None
    for name, value in pairs:
        if not _QUERY_NAME.fullmatch(name) or not _QUERY_VALUE.fullmatch(value):
            raise Refused("invalid_value", "The query has a parameter that is not one of this address.")
    return pairs
