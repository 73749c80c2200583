"""OpenAI chat completions: what is judged of a request, and how usage is read from the answer."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from billing import pricing
from billing.pricing import PriceRow, Usage
from gateway.errors import Refused
from gateway.upstreams import base, openai_request
from gateway.upstreams.base import EVENTS, WHOLE, Meter
from gateway.upstreams.events import EventMeter
from gateway.upstreams.openai_request import IMAGE_TOKENS, JsonRequest, read_flag, text_bytes, unpriced, unpriced_tool

MAX_CHOICES: Final = 128
LOW_IMAGE_TOKENS: Final = 5_000

# What the price book covers. Everything else may cost something we do not know (`service_tier`, hosted tools, …).
PRICED_FIELDS: Final = frozenset(
    [
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "temperature",
        "top_p",
        "stop",
        "seed",
        "user",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "response_format",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "functions",
        "function_call",
        "reasoning_effort",
        "verbosity",
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
        "store",
    ]
)
# Fields that have a price unless they say what is the case anyway.
_STANDARD: Final[dict[str, tuple[object, ...]]] = {
    "modalities": (["text"], None),
    "service_tier": ("default", None),
    "audio": (None,),
    "prediction": (None,),
    "web_search_options": (None,),
}
_WORDS: Final = ("content", "text", "refusal", "tool_calls", "function", "arguments")
_PRICED_PARTS: Final = frozenset({"text", "refusal", "image_url"})


class _Function(msgspec.Struct):
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: msgspec.Raw | None = None


_CHUNK: Final = msgspec.json.Decoder(_Chunk)


class ChatCompletion(JsonRequest):
    """One chat completion as the client asked for it."""

    kind = "chat"
    endpoint = "/v1/chat/completions"

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.streamed = read_flag(self._body, "stream")
        self.delivery = EVENTS if self.streamed else WHOLE
        options = self._body.get("stream_options")
        self._wants_usage = isinstance(options, dict) and options.get("include_usage") is True
        self._input_tokens = -1

    def refuse_on_credits(self) -> Refused | None:
        for field, value in self._body.items():
            if field not in PRICED_FIELDS and value not in _STANDARD.get(field, ()):
                return unpriced(field)
        for field, most in (("n", MAX_CHOICES), ("max_tokens", None), ("max_completion_tokens", None)):
            value = self._body.get(field)
            if value is not None and (base.whole(value) is None or not 1 <= value <= (most or pricing.MAX_UNITS)):
                return Refused("invalid_value", f"Invalid '{field}': a whole number is needed.", param=field)
        return unpriced_tool(self._body.get("tools")) or self._unpriced_part()

    def _unpriced_part(self) -> Refused | None:
        messages = self._body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            return Refused("invalid_value", "Invalid 'messages': a list of objects is needed.", param="messages")
        for message in messages:
            if message.get("audio") is not None:
                return unpriced("messages.audio")
            content = message.get("content")
            for part in content if isinstance(content, list) else ():
                if not isinstance(part, dict) or part.get("type") not in _PRICED_PARTS:
                    return unpriced("messages.content.type")
        return None

    def hold_micros(self, price: PriceRow) -> int:
        base.require_unit(price, "tokens")
        limits = [self._body[name] for name in ("max_tokens", "max_completion_tokens") if self._body.get(name)]
        return pricing.upper_bound(
            price,
            input_units=self._input_bound(),
            output_units=max(limits) if limits else None,
            choices=self._body.get("n") or 1,
        )

    def _input_bound(self) -> int:
        """No tokenizer makes more tokens than there are bytes; images count apart."""
        images: int = sum(
            _image_tokens(part)
            for message in self._body.get("messages", ())
            for part in (message.get("content") if isinstance(message.get("content"), list) else ())
        )
        return len(self._raw) + images

    def _outgoing_body(self, *, on_credits: bool) -> bytes:
        """As every request, but that usage is asked for in a stream whose client did not."""
        needs_usage = self.streamed and not self._wants_usage
        if on_credits:
            body = self._body
            if needs_usage:
                options = body.get("stream_options")
                body = {**body, "stream_options": {**(options if isinstance(options, dict) else {}), **_ASK_USAGE}}
            return msgspec.json.encode(body)
        if not needs_usage:
            return self._raw
        parts = msgspec.json.decode(self._raw, type=dict[str, msgspec.Raw])
        options = self._body.get("stream_options")
        merged = {**options, **_ASK_USAGE} if isinstance(options, dict) else _ASK_USAGE
        if options is None or isinstance(options, dict):
            parts["stream_options"] = msgspec.Raw(msgspec.json.encode(merged))
        return msgspec.json.encode(parts)

    def meter(self, headers: Mapping[str, str], *, price: PriceRow | None, on_credits: bool) -> Meter:
        return _StreamMeter(self) if self.streamed else _AnswerMeter(self)

    def abandoned(self) -> Usage:
        return Usage(input_units=self.input_tokens())

    @property
    def wants_usage(self) -> bool:
        return self._wants_usage

    def input_tokens(self) -> int:
        """Counted from the text of the messages, for answers that do not say."""
        if self._input_tokens < 0:
            self._input_tokens = base.tokens_of(text_bytes(self._body.get("messages"), _WORDS))
        return self._input_tokens


def _image_tokens(part: dict[str, Any]) -> int:
    """The most one image can come to; a client that asks for little detail is held for little."""
    if part.get("type") != "image_url":
        return 0
    image = part.get("image_url")
    return LOW_IMAGE_TOKENS if isinstance(image, dict) and image.get("detail") == "low" else IMAGE_TOKENS


_ASK_USAGE: Final = {"include_usage": True}


class _AnswerMeter:
    """A plain answer: one JSON object, fed whole."""

    def __init__(self, operation: ChatCompletion) -> None:
        self._operation = operation
        self._usage: Usage | None = None
        self._is_doubtful = False
        self._text_bytes = 0
        self.has_output = False

    def feed(self, chunk: bytes) -> bytes:
        answer = base.decoded(chunk)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(answer, dict) or not isinstance(choices, list):
            return chunk
        self.has_output = True
        for choice in choices:
            message = choice.get("message") if isinstance(choice, dict) else None
            if isinstance(message, dict):
                self._text_bytes += text_bytes([message], _WORDS) or 1
        if answer.get("usage") is not None:
            self._usage = openai_request.token_usage(answer["usage"], sent="prompt_tokens", made="completion_tokens")
            self._is_doubtful = self._usage is None
        return chunk

    def end(self) -> bytes:
        return b""

    def is_complete(self) -> bool:
        return self.has_output

    def usage(self) -> tuple[Usage, str, bool]:
        if self._usage is not None:
            return self._usage, "provider", False
        counted = Usage(input_units=self._operation.input_tokens(), output_units=base.tokens_of(self._text_bytes))
        return counted, "counted", self._is_doubtful


class _StreamMeter(EventMeter):
    """Chunks of chat. The usage chunk nobody asked for and the last word stay here."""

    def __init__(self, operation: ChatCompletion) -> None:
        super().__init__()
        self._operation = operation
        self._usage: Usage | None = None
        self._is_doubtful = False
        self._text_bytes = 0

    def _passes(self, event: bytes) -> bool:
        if self._tail:
            return False
        if not event.startswith(b"data:"):
            return event.startswith(b":") or b"data:" not in event or self._passes(event[event.index(b"data:") :])
        data = event[5:].strip()
        if data == b"[DONE]":
            self._tail = b"data: [DONE]\n\n"
            return False
        try:
            chunk = _CHUNK.decode(data)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            self.has_output = True
            self._text_bytes += 1
            return True
        if chunk.error is not None:
            raise Refused("provider_down")
        for choice in chunk.choices or ():
            self._count(choice.delta)
        if chunk.usage is not None:
            self._usage = openai_request.token_usage(chunk.usage, sent="prompt_tokens", made="completion_tokens")
            self._is_doubtful = self._usage is None
            return bool(chunk.choices) or self._operation.wants_usage
        return True

    def _count(self, delta: _Delta | None) -> None:
        if delta is None:
            return
        for text in (delta.content, delta.refusal, delta.reasoning_content):
            if text:
                self._text_bytes += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
                self.has_output = True
        for function in [call.function for call in delta.tool_calls or ()] + [delta.function_call]:
            if function is not None:
                self._text_bytes += len((function.arguments or "").encode("utf-8", "surrogatepass"))
                self.has_output = True

    def usage(self) -> tuple[Usage, str, bool]:
        if self._usage is not None:
            return self._usage, "provider", False
        counted = Usage(input_units=self._operation.input_tokens(), output_units=base.tokens_of(self._text_bytes))
        return counted, "counted", self._is_doubtful
