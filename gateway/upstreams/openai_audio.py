"""OpenAI's sound: speech, billed by characters (or tokens, where the model says them), and transcription by seconds."""

import re
from collections.abc import Mapping
from typing import Any, Final

from billing import pricing
from billing.pricing import PriceRow, Usage
from gateway.errors import Refused
from gateway.uploads import Part, Upload
from gateway.upstreams import base
from gateway.upstreams.base import BYTES, EVENTS, WHOLE, Meter, Outgoing
from gateway.upstreams.elevenlabs import SpeechMeter
from gateway.upstreams.events import TypedEventMeter
from gateway.upstreams.openai_request import JsonRequest, fault, read_model, unpriced
from insighto.lib.secret import Secret

MAX_CHARACTERS: Final = 4_096
SPOKEN_FIELDS: Final = frozenset({"model", "input", "voice", "response_format", "speed", "stream_format"})
HEARD_FIELDS: Final = frozenset(
    {
        "model", "file", "language", "prompt", "response_format", "temperature", "timestamp_granularities[]",
        "include[]", "stream",
    }
)  # fmt: skip
# What an answer without usage leaves unknown, so credits cannot pay for it.
_SAYS_ITS_LENGTH: Final = frozenset({"json", "verbose_json"})
# The thinnest sound there is carries about six kilobits a second; the usual compressed one about 128.
LEAST_BYTES_PER_S: Final = 750
USUAL_BYTES_PER_S: Final = 16_000
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024


class Speech(JsonRequest):
    """One text to be spoken, as bytes or as events."""

    kind = "speech"
    endpoint = "/v1/audio/speech"
    streamed = True

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        text, voice, form = (self._body.get(name) for name in ("input", "voice", "stream_format"))
        if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
            message = f"Invalid 'input': text of at most {MAX_CHARACTERS} characters is needed."
            raise Refused("invalid_value", message, param="input")
        if form not in (None, "audio", "sse"):
            raise Refused("invalid_value", "Invalid 'stream_format': audio or sse.", param="stream_format")
        self.delivery = EVENTS if form == "sse" else BYTES
        self.characters = len(text)
        self.voice = voice[:120] if isinstance(voice, str) and voice.isprintable() else ""

    def refuse_on_credits(self) -> Refused | None:
        return next((unpriced(field) for field in self._body if field not in SPOKEN_FIELDS), None)

    def hold_micros(self, price: PriceRow) -> int:
        base.require_unit(price, "characters")
        return pricing.upper_bound(price, input_units=self.characters)

    def meter(self, headers: Mapping[str, str], *, price: PriceRow | None, on_credits: bool) -> Meter:
        if self.delivery == BYTES:
            return SpeechMeter(self.characters)
        return _SpeechEvents(self.characters, in_tokens=price is None or price.unit == "tokens")

    def accepts(self, content_type: str) -> bool:
        if self.delivery == EVENTS:
            return content_type == "text/event-stream"
        return content_type.startswith("audio/") or content_type == "application/octet-stream"


class _SpeechEvents(TypedEventMeter):
    """Sound in events; the last one has the usage. A model sold by characters is paid by characters all the same."""

    ENDS = frozenset({"speech.audio.done"})

    def __init__(self, characters: int, *, in_tokens: bool) -> None:
        super().__init__()
        self._characters = characters
        self._in_tokens = in_tokens
        self._usage: Usage | None = None
        self._is_doubtful = False

    def _see(self, kind: str, data: dict[str, Any]) -> None:
        self.has_output = self.has_output or kind == "speech.audio.delta"
        if kind in self.ENDS and self._in_tokens and data.get("usage") is not None:
            self._usage = _tokens(data["usage"])
            self._is_doubtful = self._usage is None

    def usage(self) -> tuple[Usage, str, bool]:
        if self._usage is not None:
            return self._usage, "provider", False
        return Usage(input_units=self._characters), "counted", self._is_doubtful


class Transcription:
    """One recording to be written down; `action` "translations" writes it in English."""

    provider = "openai"
    kind = "transcription"
    voice = ""

    def __init__(self, upload: Upload, action: str) -> None:
        files = [part for part in upload.parts if part.is_file]
        fields = upload.fields()
        if len(files) != 1 or files[0].name != "file":
            raise Refused("missing_required_parameter", "One 'file' is needed.", param="file")
        self.model = self.price_model = read_model(fields.get("model"))
        self.endpoint = f"/v1/audio/{action}"
        self.streamed = fields.get("stream", "").lower() in ("true", "1")
        self.delivery = EVENTS if self.streamed else WHOLE
        self.seconds = _wav_seconds(upload, files[0])
        self.file_bytes = files[0].size
        self._fields = fields
        self._upload = upload

    def refuse_on_credits(self) -> Refused | None:
        for part in self._upload.parts:
            if part.name not in HEARD_FIELDS:
                return unpriced(part.name)
        if (form := self._fields.get("response_format", "json")) not in _SAYS_ITS_LENGTH:
            return unpriced(f"response_format: {form}")
        return None

    def hold_micros(self, price: PriceRow) -> int:
        base.require_unit(price, "seconds")
        seconds = self.seconds if self.seconds is not None else self.file_bytes // LEAST_BYTES_PER_S + 1
        return pricing.upper_bound(price, input_units=seconds)

    def counted(self) -> Usage:
        """For answers that do not say: the length a WAV has, else that of a usual recording of this size."""
        if self.seconds is not None:
            return Usage(input_units=self.seconds)
        return Usage(input_units=max(1, self.file_bytes // USUAL_BYTES_PER_S))

    def outgoing(self, secret: Secret, region: str, *, on_credits: bool) -> Outgoing:
        body, content_type = (
            self._upload.anew() if on_credits else (self._upload.untouched(), self._upload.content_type)
        )
        return Outgoing(
            base.address("OPENAI_BASE_URL", self.endpoint.removeprefix("/v1")),
            {
                "Authorization": f"Bearer {secret.reveal()}",
                "Content-Type": content_type,
                "Content-Length": str(body.size),
            },
            body,
        )

    def meter(self, headers: Mapping[str, str], *, price: PriceRow | None, on_credits: bool) -> Meter:
        unit = price.unit if price is not None else ""
        content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if content_type == "text/event-stream":
            return _TranscriptEvents(self, unit)
        return _TranscriptMeter(self, unit, is_json=content_type == "application/json", is_held=self.streamed)

    def accepts(self, content_type: str) -> bool:
        if self.streamed and content_type == "text/event-stream":
            return True
        asked = self._fields.get("response_format", "json")
        return content_type == "application/json" or (
            asked not in _SAYS_ITS_LENGTH and content_type.startswith("text/")
        )

    def abandoned(self) -> Usage:
        return self.counted()

    def fault(self, status: int, body: bytes) -> Refused:
        return fault(status, body)


class _Heard:
    """Usage as the provider says it, in the unit the books count in; else counted."""

    def __init__(self, operation: Transcription, unit: str) -> None:
        self._operation = operation
        self._unit = unit
        self._usage: Usage | None = None
        self._is_doubtful = False

    def read(self, answer: dict[str, Any]) -> None:
        reported = answer.get("usage")
        if isinstance(reported, dict):
            if reported.get("type") == "duration" and self._unit in ("", "seconds"):
                self._usage = _duration(reported.get("seconds"))
            elif reported.get("type") == "tokens" and self._unit in ("", "tokens"):
                self._usage = _tokens(reported)
        elif self._unit in ("", "seconds"):
            self._usage = _duration(answer.get("duration"))
        self._is_doubtful = reported is not None and self._usage is None

    def usage(self) -> tuple[Usage, str, bool]:
        if self._usage is not None:
            return self._usage, "provider", False
        return self._operation.counted(), "counted", self._is_doubtful


class _TranscriptMeter:
    """A plain answer, JSON or text. Where a stream was asked for and did not come, it is held until it is whole."""

    def __init__(self, operation: Transcription, unit: str, *, is_json: bool, is_held: bool) -> None:
        self._heard = _Heard(operation, unit)
        self._is_json = is_json
        self._is_held = is_held
        self._body = b""
        self.has_output = False

    def feed(self, chunk: bytes) -> bytes:
        self._body += chunk
        if len(self._body) > MAX_ANSWER_BYTES:
            raise Refused("provider_bad_answer")
        return b"" if self._is_held else chunk

    def end(self) -> bytes:
        return self._body if self._is_held else b""

    def is_complete(self) -> bool:
        answer = base.decoded(self._body) if self._is_json else None
        if isinstance(answer, dict) and isinstance(answer.get("text"), str):
            self._heard.read(answer)
            self.has_output = True
        elif self._is_json:
            raise Refused("provider_bad_answer")
        else:
            self.has_output = bool(self._body)
        return self.has_output

    def usage(self) -> tuple[Usage, str, bool]:
        return self._heard.usage()


class _TranscriptEvents(TypedEventMeter):
    ENDS = frozenset({"transcript.text.done"})

    def __init__(self, operation: Transcription, unit: str) -> None:
        super().__init__()
        self._heard = _Heard(operation, unit)

    def _see(self, kind: str, data: dict[str, Any]) -> None:
        self.has_output = self.has_output or kind.startswith("transcript.text.")
        if kind in self.ENDS:
            self._heard.read(data)

    def usage(self) -> tuple[Usage, str, bool]:
        return self._heard.usage()


def _tokens(reported: object) -> Usage | None:
    if not isinstance(reported, dict):
        return None
    given, made = base.whole(reported.get("input_tokens")), base.whole(reported.get("output_tokens") or 0)
    return None if given is None or made is None else Usage(input_units=given, output_units=made)


def _duration(seconds: object) -> Usage | None:
    """Whole seconds, rounded up once; a day is more than any upload holds."""
    if isinstance(seconds, str) and re.fullmatch(r"\d{1,6}(\.\d{1,9})?", seconds):
        seconds = float(seconds)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 86_400:
        return None
    return Usage(input_units=int(-(-seconds // 1)))


def _wav_seconds(upload: Upload, part: Part) -> int | None:
    """The length of a plain WAV, from its own header and no longer than its bytes; None for anything else."""
    head = upload.read(part.start, min(part.size, 44))
    if len(head) < 44 or head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt " or head[36:40] != b"data":
        return None
    per_second = int.from_bytes(head[28:32], "little")
    rate = int.from_bytes(head[24:28], "little")
    width = int.from_bytes(head[32:34], "little")
    if not 8_000 <= rate <= 192_000 or not 1 <= width <= 16 or per_second != rate * width:
        return None
    return -(-(part.size - 44) // per_second)
