"""OpenAI responses, plain and streamed: what credits can pay of them, and where their usage is."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from billing import pricing
from billing.pricing import PriceRow, Usage
from gateway.errors import Refused
from gateway.upstreams import base, openai_request
from gateway.upstreams.base import EVENTS, WHOLE, Meter
from gateway.upstreams.events import TypedEventMeter
from gateway.upstreams.openai_request import (
    IMAGE_TOKENS,
    JsonRequest,
    read_flag,
    text_bytes,
    unpriced,
    unpriced_tool,
)

# What the price book covers. Not here: `background` (ends without us), `service_tier`, `prompt` (a template we do not
# see), and what names things kept at the provider: on the platform's key those could be anybody's.
PRICED_FIELDS: Final = frozenset(
    {
        "model", "input", "instructions", "stream", "stream_options", "max_output_tokens", "temperature", "top_p",
        "top_logprobs", "text", "tools", "tool_choice", "parallel_tool_calls", "max_tool_calls", "reasoning", "store",
        "include", "truncation", "user", "metadata", "safety_identifier", "prompt_cache_key",
    }
)  # fmt: skip
_PRICED_ITEMS: Final = frozenset(
    {
        "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning",
        "input_text", "output_text", "refusal", "input_image", "summary_text", "reasoning_text", "text",
    }
)  # fmt: skip
_PRICED_INCLUDES: Final = frozenset(
    {"reasoning.encrypted_content", "message.output_text.logprobs", "message.input_image.image_url"}
)
MAX_DEPTH: Final = 8
_KEPT_AT_THE_PROVIDER: Final = ("file_id", "file_data", "file_url")
_INPUT_WORDS: Final = ("content", "text", "refusal", "arguments", "output", "input", "summary")
_OUTPUT_WORDS: Final = ("content", "text", "refusal", "arguments", "input", "summary")
_DELTAS: Final = frozenset(
    {
        "response.output_text.delta", "response.refusal.delta", "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta", "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta",
    }
)  # fmt: skip


class Response(JsonRequest):
    """One response as the client asked for it."""

    kind = "chat"
    endpoint = "/v1/responses"

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.streamed = read_flag(self._body, "stream")
        self.delivery = EVENTS if self.streamed else WHOLE
        self._input_tokens = -1

    def refuse_on_credits(self) -> Refused | None:
        for field, value in self._body.items():
            if field not in PRICED_FIELDS and value is not None:
                return unpriced(field)
        limit = self._body.get("max_output_tokens")
        if limit is not None and not base.whole(limit):
            return Refused(
                "invalid_value", "Invalid 'max_output_tokens': a whole number is needed.", param="max_output_tokens"
            )
        included = self._body.get("include")
        for name in included if isinstance(included, list) else ():
            if name not in _PRICED_INCLUDES:
                return unpriced(f"include: {name}")
        return unpriced_tool(self._body.get("tools")) or self._unpriced_item()

    def _unpriced_item(self) -> Refused | None:
        if not isinstance(self._body.get("input"), str | list):
            return Refused("invalid_value", "Invalid 'input': text or a list is needed.", param="input")
        for item in _objects(self._body["input"]):
            kind = item.get("type", "message")
            if not isinstance(kind, str) or kind not in _PRICED_ITEMS:
                return unpriced(f"input: {kind}" if isinstance(kind, str) else "input")
            for name in _KEPT_AT_THE_PROVIDER:
                if item.get(name) is not None:
                    return unpriced(f"input: {name}")
        return None

    def hold_micros(self, price: PriceRow) -> int:
        base.require_unit(price, "tokens")
        images = sum(item.get("type") == "input_image" for item in _objects(self._body.get("input")))
        return pricing.upper_bound(
            price,
            input_units=len(self._raw) + images * IMAGE_TOKENS,
            output_units=self._body.get("max_output_tokens"),
        )

    def meter(self, headers: Mapping[str, str], *, price: PriceRow | None, on_credits: bool) -> Meter:
        return _StreamMeter(self) if self.streamed else _AnswerMeter(self)

    def abandoned(self) -> Usage:
        return Usage(input_units=self.input_tokens())

    def input_tokens(self) -> int:
        """Counted from the text of the input, for answers that do not say."""
        if self._input_tokens < 0:
            given = [self._body.get("input"), self._body.get("instructions")]
            self._input_tokens = base.tokens_of(text_bytes(given, _INPUT_WORDS))
        return self._input_tokens


class _Reading:
    """Usage as the provider says it, else counted."""

    def __init__(self, operation: Response) -> None:
        self._operation = operation
        self._usage: Usage | None = None
        self._is_doubtful = False
        self._has_failed = False
        self._text_bytes = 0

    def read(self, response: dict[str, Any]) -> None:
        reported = response.get("usage")
        self._usage = openai_request.token_usage(reported, sent="input_tokens", made="output_tokens")
        self._is_doubtful = reported is not None and self._usage is None
        self._has_failed = response.get("status") == "failed"

    def add(self, count: int) -> None:
        self._text_bytes += count

    def usage(self) -> tuple[Usage, str, bool]:
        if self._usage is not None:
            return self._usage, "provider", False
        if self._has_failed and not self._text_bytes:  # it gave nothing, and says nothing of a price
            return Usage(), "counted", self._is_doubtful
        counted = Usage(input_units=self._operation.input_tokens(), output_units=base.tokens_of(self._text_bytes))
        return counted, "counted", self._is_doubtful


class _AnswerMeter:
    """A plain answer: one JSON object, fed whole."""

    def __init__(self, operation: Response) -> None:
        self._reading = _Reading(operation)
        self.has_output = False

    def feed(self, chunk: bytes) -> bytes:
        answer = base.decoded(chunk)
        if isinstance(answer, dict) and isinstance(answer.get("output"), list):
            self.has_output = True
            self._reading.add(text_bytes(answer["output"], _OUTPUT_WORDS))
            self._reading.read(answer)
        return chunk

    def end(self) -> bytes:
        return b""

    def is_complete(self) -> bool:
        return self.has_output

    def usage(self) -> tuple[Usage, str, bool]:
        return self._reading.usage()


class _StreamMeter(TypedEventMeter):
    """The stream ends with the response as a whole, usage and all."""

    ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})

    def __init__(self, operation: Response) -> None:
        super().__init__()
        self._reading = _Reading(operation)

    def _see(self, kind: str, data: dict[str, Any]) -> None:
        if kind in _DELTAS:
            delta = data.get("delta")
            self._reading.add(text_bytes(delta, ()) if isinstance(delta, str) else 1)
            self.has_output = True
        elif kind in self.ENDS:
            response = data.get("response")
            if not isinstance(response, dict):
                raise Refused("provider_bad_answer")
            self._reading.read(response)
            self.has_output = self.has_output or kind != "response.failed"

    def usage(self) -> tuple[Usage, str, bool]:
        return self._reading.usage()


def _objects(value: object, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Every object in the input, however deep it may mean something."""
    if depth > MAX_DEPTH:
        yield {"type": "what is nested so deep"}  # whatever it is, it was not judged
        return
    if isinstance(value, dict):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        if isinstance(item, dict | list):
            yield from _objects(item, depth + 1)
