"""OpenAI embeddings: input tokens only, reported with the answer."""

from collections.abc import Mapping
from typing import Final

from billing import pricing
from billing.pricing import PriceRow, Usage
from gateway.errors import Refused
from gateway.upstreams import base
from gateway.upstreams.base import Meter
from gateway.upstreams.openai_request import JsonRequest, text_bytes, unpriced

PRICED_FIELDS: Final = frozenset({"model", "input", "dimensions", "encoding_format", "user"})


class Embedding(JsonRequest):
    """One text or several, or their tokens, to be turned into vectors."""

    kind = "embedding"
    endpoint = "/v1/embeddings"

    def refuse_on_credits(self) -> Refused | None:
        return next((unpriced(field) for field in self._body if field not in PRICED_FIELDS), None)

    def hold_micros(self, price: PriceRow) -> int:
        # No tokenizer makes more tokens than there are bytes, and tokens themselves are written in a byte or more.
        base.require_unit(price, "tokens")
        return pricing.upper_bound(price, input_units=len(self._raw))

    def abandoned(self) -> Usage:
        return Usage(input_units=self.input_tokens())

    def meter(self, headers: Mapping[str, str], *, price: PriceRow | None, on_credits: bool) -> Meter:
        return _EmbeddingMeter(self)

    def input_tokens(self) -> int:
        """Counted by us, for answers that do not say."""
        given = self._body.get("input")
        listed = given if isinstance(given, list) else [given]
        numbers = sum(
            sum(type(token) is int for token in item) if isinstance(item, list) else type(item) is int
            for item in listed
        )
        return base.tokens_of(text_bytes(given, ())) + numbers


class _EmbeddingMeter:
    """The answer: one JSON object, fed whole."""

    def __init__(self, operation: Embedding) -> None:
        self._operation = operation
        self._usage: Usage | None = None
        self._is_doubtful = False
        self.has_output = False

    def feed(self, chunk: bytes) -> bytes:
        answer = base.decoded(chunk)
        if isinstance(answer, dict) and isinstance(answer.get("data"), list):
            self.has_output = True
            reported = answer.get("usage")
            tokens = base.whole(reported.get("prompt_tokens")) if isinstance(reported, dict) else None
            self._usage = None if tokens is None else Usage(input_units=tokens)
            self._is_doubtful = reported is not None and tokens is None
        return chunk

    def end(self) -> bytes:
        return b""

    def is_complete(self) -> bool:
        return self.has_output

    def usage(self) -> tuple[Usage, str, bool]:
        if self._usage is not None:
            return self._usage, "provider", False
        return Usage(input_units=self._operation.input_tokens()), "counted", self._is_doubtful
