"""OpenAI chat completions: what is judged of a request, and how usage is read from the answer."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from billing import pricing
from billing.pricing import PriceRow, Usage
from gateway.errors import Refused
from gateway.upstreams import base
from gateway.upstreams.base import Meter, Outgoing
from insighto.lib.secret import Secret

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
MAX_CHOICES: Final = 128
IMAGE_TOKENS: Final = 50_000  # no model makes more of one image

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
    ]
)
_PRICED_TOOLS: Final = frozenset({"function", "custom"})
_PRICED_PARTS: Final = frozenset({"text", "refusal", "image_url"})


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[msgspec.Raw] | None = None
    function_call: msgspec.Raw | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: msgspec.Raw | None = None


_CHUNK: Final = msgspec.json.Decoder(_Chunk)


class ChatCompletion:
    """One chat completion as the client asked for it."""

    provider = "openai"
    kind = "chat"
    endpoint = "/v1/chat/completions"
    voice = ""

    def __init__(self, raw: bytes) -> None:
        """Raises `Refused` unless `raw` is a JSON object that names a model. The rest is the provider's to judge."""
        self._raw = raw
        try:
            if not raw.isascii():
                raw.decode()
            body = msgspec.json.decode(raw, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError, ValueError):
            raise Refused("invalid_json") from None
        model = body.get("model")
        if model is None:
            raise Refused("missing_required_parameter", "Missing required parameter: 'model'.", param="model")
        if not isinstance(model, str) or not 0 < len(model) <= 80 or not model.isprintable():
            raise Refused("invalid_value", "'model' must be the name of a model.", param="model")
        self._body = body
        self.model = self.price_model = model
        # Both sides must mean the same by it, or the answer is not the one we read usage from.
        if not isinstance(body.get("stream"), bool | None):
            raise Refused("invalid_value", "Invalid 'stream': true or false is needed.", param="stream")
        self.streamed = body.get("stream") is True
        options = body.get("stream_options")
        self._wants_usage = isinstance(options, dict) and options.get("include_usage") is True
        self._input_tokens = -1

    def refuse_on_credits(self) -> Refused | None:
        for field in self._body:
            if field not in PRICED_FIELDS:
                return _unpriced(field)
        for field, most in (("n", MAX_CHOICES), ("max_tokens", None), ("max_completion_tokens", None)):
            value = self._body.get(field)
            if value is not None and (base.whole(value) is None or not 1 <= value <= (most or pricing.MAX_UNITS)):
                return Refused("invalid_value", f"Invalid '{field}': a whole number is needed.", param=field)
        return self._unpriced_tool() or self._unpriced_part()

    def _unpriced_tool(self) -> Refused | None:
        tools = self._body.get("tools") or []
        if not isinstance(tools, list):
            return Refused("invalid_value", "Invalid 'tools': a list is needed.", param="tools")
        for tool in tools:
            if not isinstance(tool, dict) or tool.get("type") not in _PRICED_TOOLS:
                return _unpriced("tools")
        return None

    def _unpriced_part(self) -> Refused | None:
        messages = self._body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            return Refused("invalid_value", "Invalid 'messages': a list of objects is needed.", param="messages")
        for message in messages:
            if message.get("audio") is not None:
                return _unpriced("messages.audio")
            content = message.get("content")
            for part in content if isinstance(content, list) else ():
                if not isinstance(part, dict) or part.get("type") not in _PRICED_PARTS:
                    return _unpriced("messages.content.type")
        return None

    def hold_micros(self, price: PriceRow) -> int:
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
            part.get("type") == "image_url"
            for message in self._body.get("messages", ())
            for part in (message.get("content") if isinstance(message.get("content"), list) else ())
        )
        return len(self._raw) + images * IMAGE_TOKENS

    def outgoing(self, secret: Secret, region: str, *, on_credits: bool) -> Outgoing:
        return Outgoing(
            base.address("OPENAI_BASE_URL", "/chat/completions"),
            {"Authorization": f"Bearer {secret.reveal()}", "Content-Type": "application/json"},
            self._outgoing_body(on_credits=on_credits),
        )

    def _outgoing_body(self, *, on_credits: bool) -> bytes:
        """On credits exactly what was judged, written anew: a second key of the same name has nowhere to hide.

        On the account's own key the client's bytes, unless usage has to be asked for.
        """
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

    def meter(self, headers: Mapping[str, str], *, on_credits: bool) -> Meter:
        return _StreamMeter(self) if self.streamed else _AnswerMeter(self)

    def accepts(self, content_type: str) -> bool:
        return content_type == ("text/event-stream" if self.streamed else "application/json")

    def abandoned(self) -> Usage:
        return Usage(input_units=self.input_tokens())

    def fault(self, status: int, body: bytes) -> Refused:
        answer = base.decoded(body)
        error = answer.get("error") if isinstance(answer, dict) else None
        error = error if isinstance(error, dict) else {}
        return Refused(
            base.clean(error.get("code"), 60) or "invalid_request",
            base.clean(error.get("message")) or "The provider refused the request.",
            param=base.clean(error.get("param"), 100),
            kind=base.clean(error.get("type"), 60),
            status=status,
        )

    @property
    def wants_usage(self) -> bool:
        return self._wants_usage

    def input_tokens(self) -> int:
        """Counted from the text of the messages, for answers that do not say."""
        if self._input_tokens < 0:
            self._input_tokens = base.tokens_of(_text_bytes(self._body.get("messages"), 0))
        return self._input_tokens


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
                self._text_bytes += _text_bytes([message], 0) or 1
        if answer.get("usage") is not None:
            self._usage = _usage(answer["usage"])
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


class _StreamMeter:
    """Server-sent events. Whole events go on as they come; the usage chunk nobody asked for and the last word stay."""

    def __init__(self, operation: ChatCompletion) -> None:
        self._operation = operation
        self._kept = b""
        self._tail = b""
        self._usage: Usage | None = None
        self._is_doubtful = False
        self._text_bytes = 0
        self.has_output = False

    def feed(self, chunk: bytes) -> bytes:
        buffer = self._kept + chunk if self._kept else chunk
        cut = max(buffer.rfind(b"\n\n") + 2, buffer.rfind(b"\r\n\r\n") + 4)
        if cut < 4 and not buffer.endswith(b"\n\n"):
            cut = 0
        self._kept = buffer[cut:]
        if len(self._kept) > MAX_EVENT_BYTES:
            raise Refused("provider_bad_answer")
        if not cut:
            return b""
        events = buffer[:cut]
        if b"\r" in events:
            events = events.replace(b"\r\n", b"\n")
        passed = [event for event in events.split(b"\n\n") if event and self._passes(event)]
        return b"\n\n".join(passed) + b"\n\n" if passed else b""

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
            self._usage = _usage(chunk.usage)
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
        if delta.tool_calls or delta.function_call is not None:
            self._text_bytes += 1
            self.has_output = True

    def end(self) -> bytes:
        return self._tail

    def is_complete(self) -> bool:
        return bool(self._tail)

    def usage(self) -> tuple[Usage, str, bool]:
        if self._usage is not None:
            return self._usage, "provider", False
        counted = Usage(input_units=self._operation.input_tokens(), output_units=base.tokens_of(self._text_bytes))
        return counted, "counted", self._is_doubtful


def _usage(reported: object) -> Usage | None:
    """The provider's usage if every number in it is believable. Zero is a number."""
    if not isinstance(reported, dict):
        return None
    details = reported.get("prompt_tokens_details")
    details = details if isinstance(details, dict) else {}
    numbers = [
        base.whole(reported.get("prompt_tokens")),
        base.whole(details.get("cached_tokens") or 0),
        base.whole(details.get("cache_write_tokens") or 0),
        base.whole(reported.get("completion_tokens")),
    ]
    whole = [number for number in numbers if number is not None]
    if len(whole) < 4:
        return None
    usage = Usage(*whole)
    return usage if usage.is_sane else None


def _text_bytes(value: object, depth: int) -> int:
    """Bytes of the text in messages or an answer: `content`, `refusal`, arguments of tools."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if depth > 6:
        return 0
    if isinstance(value, list):
        return sum(_text_bytes(item, depth + 1) for item in value)
    if isinstance(value, dict):
        names = ("content", "text", "refusal", "tool_calls", "function", "arguments")
        return sum(_text_bytes(value[name], depth + 1) for name in names if name in value)
    return 0


def _unpriced(field: str) -> Refused:
    name = base.clean("".join(character for character in field if character.isprintable()), 60) or "a field"
    message = f"'{name}' cannot be used on credits, because its price is not known. Use your own key for it."
    return Refused("unsupported_on_credits", message, param=name)
