"""Azure Speech over REST: SSML in, audio out, characters counted as Azure bills them (provider-contracts §4.4)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4
from xml.parsers import expat

from billing import pricing
from billing.pricing import PriceRow, Usage
from gateway.errors import Refused
from gateway.upstreams import base
from gateway.upstreams.base import BYTES, Meter, Outgoing, Question
from gateway.upstreams.elevenlabs import SpeechMeter
from insighto.lib.secret import Secret

MAX_SSML_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 30
VOICE: Final = re.compile(r"[A-Za-z]{2,3}-[A-Za-z]{2,4}(-[A-Za-z]+)?-[A-Za-z0-9_:\-]+Neural")
OUTPUT_FORMAT: Final = re.compile(r"[a-z0-9\-]{3,60}")
_TOKEN: Final = re.compile(rb"[\w\-]+\.[\w\-]+\.[\w\-]*")
_FREE: Final = frozenset({"speak", "voice"})
# The Han script: radicals, the iteration mark and numerals, ideographs.
_TWICE: Final = re.compile(
    "[\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
MAX_VOICES: Final = 50
# Elements that only shape speech. Others may be sold apart (a personal voice, voice conversion): not on credits.
_PRICED_ELEMENTS: Final = frozenset(
    {
        "speak", "voice", "p", "s", "break", "emphasis", "prosody", "say-as", "phoneme", "sub", "lang", "lexicon",
        "bookmark", "mark", "audio", "desc", "express-as", "silence", "viseme", "audioduration", "backgroundaudio",
    }
)  # fmt: skip


class Speech:
    """One SSML document to be spoken, by one voice or several of one price."""

    provider = "azure_speech"
    kind = "speech"
    delivery = BYTES
    endpoint = "/cognitiveservices/v1"
    streamed = True

    def __init__(self, ssml: bytes, output_format: str) -> None:
        if not OUTPUT_FORMAT.fullmatch(output_format):
            raise Refused("invalid_value", "X-Microsoft-OutputFormat is missing or not a format.", param="format")
        document = read_ssml(ssml)
        self.characters = document.characters
        self.voice = document.voices[0]
        models = {price_model(voice) for voice in document.voices}
        self.model = self.price_model = "hd" if "hd" in models else "neural"
        self._is_mixed = len(models) > 1
        self._unpriced = sorted(document.elements - _PRICED_ELEMENTS)
        self._ssml = ssml
        self._format = output_format

    def refuse_on_credits(self) -> Refused | None:
        if self._unpriced:
            name = self._unpriced[0][:60]
            message = f"<{name}> cannot be used on credits, because its price is not known. Use your own key for it."
            return Refused("unsupported_on_credits", message, param=name)
        if self._is_mixed:
            message = "On credits all voices of one request must have the same price. Send HD voices by themselves."
            return Refused("unsupported_on_credits", message, param="voice")
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

    def meter(self, headers: Mapping[str, str], *, price: PriceRow | None, on_credits: bool) -> Meter:
        return SpeechMeter(self.characters)

    def accepts(self, content_type: str) -> bool:
        return content_type.startswith("audio/") or content_type == "application/octet-stream"

    def abandoned(self) -> Usage:
        return Usage()  # no sound, no price

    def fault(self, status: int, body: bytes) -> Refused:
        message = "Azure Speech refused the request: look at the SSML, the voice and the output format."
        return Refused("invalid_request", message, status=status)


class SocketSpeech(Speech):
    """The same over a socket: one turn of it. The output format was said before, in a message of its own."""

    endpoint = "/cognitiveservices/websocket/v1"

    def __init__(self, ssml: bytes) -> None:
        super().__init__(ssml, "raw-16khz-16bit-mono-pcm")

    def outgoing(self, secret: Secret, region: str, *, on_credits: bool) -> Outgoing:
        return Outgoing(
            base.address("AZURE_SPEECH_TTS_URL", "/tts/cognitiveservices/websocket/v1", region),
            {**_headers(secret), "X-ConnectionId": uuid4().hex},
            b"",
        )


def price_model(voice: str) -> str:
    """The line of the price book a voice is on."""
    return "hd" if "DragonHD" in voice else "neural"


@dataclass(frozen=True, slots=True)
class Document:
    """What SSML asks for: the voices in their order, the characters Azure bills, the names of its elements."""

    voices: tuple[str, ...]
    characters: int
    elements: frozenset[str]


def read_ssml(ssml: bytes) -> Document:
    """Refuses DTDs, entities, depth, and voices whose name is not that of a neural voice.

    Text and markup count as sent, but for `<speak>` and `<voice>` themselves; Chinese characters count twice.
    """
    if len(ssml) > MAX_SSML_BYTES:
        raise Refused("body_too_large")
    reader = _Reader(ssml)
    if not 0 < len(reader.voices) <= MAX_VOICES or not all(
        len(voice) <= 120 and VOICE.fullmatch(voice) for voice in reader.voices
    ):
        raise Refused("invalid_ssml", "The SSML needs a <voice> with the name of a neural voice.", param="voice")
    if reader.characters == 0:
        raise Refused("invalid_ssml", "The SSML has nothing to speak.")
    return Document(tuple(reader.voices), reader.characters, frozenset(reader.elements))


class _Reader:
    """One pass over the document. Every event closes the piece of source that the one before it opened."""

    def __init__(self, ssml: bytes) -> None:
        self.voices: list[str] = []
        self.elements: set[str] = set()
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
            parser.StartCdataSectionHandler = self._other
            parser.EndCdataSectionHandler = self._cdata_end
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
        self.elements.add(local)
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
        """A comment, an instruction, the start of a CDATA section: markup like any other."""
        self._close()
        if self._depth:
            self._open = self._parser.CurrentByteIndex

    def _cdata_end(self) -> None:
        self._close()
        self.characters += len("]]>")


def billable(text: str) -> int:
    """Characters as Azure counts them: each Chinese character, kanji and hanja is two."""
    return len(text) + len(_TWICE.findall(text))


# The calls that cost nothing.


def voices() -> Question:
    return Question(
        provider="azure_speech",
        name="voices",
        url=lambda region: base.address("AZURE_SPEECH_TTS_URL", "/cognitiveservices/voices/list", region),
        headers=_headers,
        is_answer=_lists_voices,
        fault=_fault,
    )


def token() -> Question:
    """A token stands for the key itself for ten minutes, outside of our books: only ever of the account's own key."""
    return Question(
        provider="azure_speech",
        method="POST",
        url=lambda region: base.address("AZURE_SPEECH_STS_URL", "/sts/v1.0/issueToken", region),
        headers=_headers,
        is_answer=lambda content_type, body: content_type != "text/html" and bool(_TOKEN.fullmatch(body)),
        fault=_fault,
    )


def _headers(secret: Secret) -> dict[str, str]:
    return {"Ocp-Apim-Subscription-Key": secret.reveal(), "User-Agent": "insighto"}


def _lists_voices(content_type: str, body: bytes) -> bool:
    answer = base.decoded(body)
    return isinstance(answer, list) and bool(answer) and isinstance(answer[0], dict) and "ShortName" in answer[0]


def _fault(status: int, body: bytes) -> Refused:
    return Refused("invalid_request", "Azure Speech refused the request.", status=status)
