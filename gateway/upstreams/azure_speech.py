"""Azure Speech over REST: SSML in, audio out, characters counted as Azure bills them (provider-contracts §4.4)."""

import re
from collections.abc import Mapping
from typing import Any, Final
from xml.parsers import expat

from billing import pricing
from billing.pricing import PriceRow, Usage
from gateway.errors import Refused
from gateway.upstreams import base
from gateway.upstreams.base import Meter, Outgoing
from gateway.upstreams.elevenlabs import SpeechMeter
from insighto.lib.secret import Secret

MAX_SSML_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 30
VOICE: Final = re.compile(r"[A-Za-z]{2,3}-[A-Za-z]{2,4}(-[A-Za-z]+)?-[A-Za-z0-9_:\-]+Neural")
OUTPUT_FORMAT: Final = re.compile(r"[a-z0-9\-]{3,60}")
_FREE: Final = frozenset({"speak", "voice"})
_TWICE: Final = re.compile("[\u2e80-\u2fdf\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


class Speech:
    """One SSML document to be spoken by exactly one voice."""

    provider = "azure_speech"
    kind = "speech"
    endpoint = "/cognitiveservices/v1"
    streamed = True

    def __init__(self, ssml: bytes, output_format: str) -> None:
        if not OUTPUT_FORMAT.fullmatch(output_format):
            raise Refused("invalid_value", "X-Microsoft-OutputFormat is missing or not a format.", param="format")
        self.voice, self.characters = read_ssml(ssml)
        self.model = self.price_model = price_model(self.voice)
        self._ssml = ssml
        self._format = output_format

    def refuse_on_credits(self) -> Refused | None:
        return None

    def hold_micros(self, price: PriceRow) -> int:
        return pricing.upper_bound(price, input_units=self.characters)

    def outgoing(self, secret: Secret, region: str, *, on_credits: bool) -> Outgoing:
        return Outgoing(
            base.address("AZURE_SPEECH_TTS_URL", "/cognitiveservices/v1", region),
            {
                "Ocp-Apim-Subscription-Key": secret.reveal(),
                "Content-Type": "application/ssml+xml",
                "X-Microsoft-OutputFormat": self._format,
                "User-Agent": "insighto",
            },
            self._ssml,
        )

    def meter(self, headers: Mapping[str, str], *, on_credits: bool) -> Meter:
        return SpeechMeter(self.characters)

    def accepts(self, content_type: str) -> bool:
        return content_type.startswith("audio/") or content_type == "application/octet-stream"

    def abandoned(self) -> Usage:
        return Usage()  # no sound, no price

    def fault(self, status: int, body: bytes) -> Refused:
        message = "Azure Speech refused the request: look at the SSML, the voice and the output format."
        return Refused("invalid_request", message, status=status)


def price_model(voice: str) -> str:
    """The line of the price book a voice is on."""
    return "hd" if "DragonHD" in voice else "neural"


def read_ssml(ssml: bytes) -> tuple[str, int]:
    """(voice, billable characters). Refuses DTDs, entities, depth, and anything but one <voice> of an allowed name.

    Text and markup count as sent, but for `<speak>` and `<voice>` themselves; Chinese characters count twice.
    """
    if len(ssml) > MAX_SSML_BYTES:
        raise Refused("body_too_large")
    reader = _Reader(ssml)
    if len(reader.voices) != 1 or not VOICE.fullmatch(reader.voices[0]) or len(reader.voices[0]) > 120:
        raise Refused("invalid_ssml", "The SSML needs exactly one <voice> with the name of a neural voice.")
    if reader.characters == 0:
        raise Refused("invalid_ssml", "The SSML has nothing to speak.")
    return reader.voices[0], reader.characters


class _Reader:
    """One pass over the document. Every event closes the piece of source that the one before it opened."""

    def __init__(self, ssml: bytes) -> None:
        self.voices: list[str] = []
        self.characters = 0
        self._ssml = ssml
        self._depth = 0
        self._open: int | None = None  # where counted markup began
        try:
            ssml.decode("utf-8-sig")
            parser = self._parser = expat.ParserCreate("utf-8", namespace_separator=" ")
            parser.buffer_text = False
            parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = self._forbidden
            parser.XmlDeclHandler = self._declaration
            parser.StartElementHandler = self._start
            parser.EndElementHandler = self._end
            parser.CharacterDataHandler = self._text
            parser.CommentHandler = parser.ProcessingInstructionHandler = self._other
            parser.StartCdataSectionHandler = parser.EndCdataSectionHandler = self._other
            parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
            parser.Parse(ssml, True)
        except (expat.ExpatError, ValueError):
            raise Refused("invalid_ssml", "The body is not well-formed SSML in UTF-8.") from None

    def _forbidden(self, *_: Any) -> None:
        raise Refused("invalid_ssml", "SSML may not have a document type or entities of its own.")

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        """A declaration of another encoding would make the provider read another document than the one judged."""
        if encoding is not None and encoding.lower() != "utf-8":
            raise Refused("invalid_ssml", "The SSML must be UTF-8.")

    def _close(self) -> None:
        """Count the markup that ended where the parser is now."""
        here = self._parser.CurrentByteIndex
        if self._open is not None and here > self._open:
            self.characters += billable(self._ssml[self._open : here].decode("utf-8", "replace"))
        self._open = None

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._close()
        self._depth += 1
        local = name.rpartition(" ")[2]
        if self._depth > MAX_DEPTH or (self._depth == 1) != (local == "speak"):
            raise Refused("invalid_ssml", "The SSML must be one <speak> and not be nested this deep.")
        if local == "voice":
            self.voices.append(attributes.get("name", ""))
        if local not in _FREE:
            self._open = self._parser.CurrentByteIndex

    def _end(self, name: str) -> None:
        start = self._parser.CurrentByteIndex
        if self._open == start:  # <break/>: one piece of source, two events
            self._depth -= 1
            return
        self._close()
        self._depth -= 1
        if name.rpartition(" ")[2] not in _FREE:
            self._open = start

    def _text(self, text: str) -> None:
        self._close()
        self.characters += billable(text)

    def _other(self, *_: Any) -> None:
        self._close()


def billable(text: str) -> int:
    """Characters as Azure counts them: each Chinese character, kanji and hanja is two."""
    return len(text) + len(_TWICE.findall(text))
