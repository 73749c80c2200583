"""What every OpenAI operation with a JSON body has in common: reading it, sending it, and handing on a refusal of it.

The body goes to the provider byte for byte on the account's own key. On credits exactly what was judged goes,
written anew: a second key of the same name has nowhere to hide.
"""

from typing import Any, Final

import msgspec

from billing.pricing import Usage
from gateway.errors import Refused
from gateway.upstreams import base
from gateway.upstreams.base import WHOLE, Outgoing
from insighto.lib.secret import Secret

IMAGE_TOKENS: Final = 50_000  # no model makes more of one image
_PRICED_TOOLS: Final = frozenset({"function", "custom"})


class JsonRequest:
    """One call of OpenAI's as the client asked for it."""

    provider = "openai"
    endpoint = ""
    voice = ""
    streamed = False
    delivery = WHOLE

    def __init__(self, raw: bytes) -> None:
        """Raises `Refused` unless `raw` is a JSON object that names a model. The rest is the provider's to judge."""
        self._raw = raw
        self._body = read_object(raw)
        self.model = self.price_model = read_model(self._body.get("model"))

    def outgoing(self, secret: Secret, region: str, *, on_credits: bool) -> Outgoing:
        return Outgoing(
            base.address("OPENAI_BASE_URL", self.endpoint.removeprefix("/v1")),
            {"Authorization": f"Bearer {secret.reveal()}", "Content-Type": "application/json"},
            self._outgoing_body(on_credits=on_credits),
        )

    def _outgoing_body(self, *, on_credits: bool) -> bytes:
        return msgspec.json.encode(self._body) if on_credits else self._raw

    def accepts(self, content_type: str) -> bool:
        return content_type == ("text/event-stream" if self.streamed else "application/json")

    def abandoned(self) -> Usage:
        return Usage()

    def fault(self, status: int, body: bytes) -> Refused:
        return fault(status, body)


def read_object(raw: bytes) -> dict[str, Any]:
    try:
        if not raw.isascii():
            raw.decode()
        body: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise Refused("invalid_json") from None
    return body


def read_model(model: object) -> str:
    if model is None:
        raise Refused("missing_required_parameter", "Missing required parameter: 'model'.", param="model")
    if not isinstance(model, str) or not 0 < len(model) <= 80 or not model.isprintable():
        raise Refused("invalid_value", "'model' must be the name of a model.", param="model")
    return model


def read_flag(body: dict[str, Any], name: str) -> bool:
    """Both sides must mean the same by it, or the answer is not the one we read usage from."""
    if not isinstance(body.get(name), bool | None):
        raise Refused("invalid_value", f"Invalid '{name}': true or false is needed.", param=name)
    return body.get(name) is True


def fault(status: int, body: bytes) -> Refused:
    """OpenAI's refusal of the request itself, without its secrets."""
    answer = base.decoded(body)
    error = answer.get("error") if isinstance(answer, dict) else None
    error = error if isinstance(error, dict) else {}
    code = base.clean(error.get("code"), 60)
    return Refused(
        code or "invalid_request",
        base.clean(error.get("message")) or "The provider refused the request.",
        param=base.clean(error.get("param"), 100),
        kind=base.clean(error.get("type"), 60),
        status=status,
        is_nameless=code is None,
    )


def unpriced(field: str) -> Refused:
    name = base.clean("".join(character for character in field if character.isprintable()), 60) or "a field"
    message = f"'{name}' cannot be used on credits, because its price is not known. Use your own key for it."
    return Refused("unsupported_on_credits", message, param=name)


def unpriced_tool(tools: object) -> Refused | None:
    """Tools that run at the provider are sold by the call: only those the client runs itself have no price."""
    if not isinstance(tools, list | None):
        return Refused("invalid_value", "Invalid 'tools': a list is needed.", param="tools")
    for tool in tools or ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in _PRICED_TOOLS:
            return unpriced(f"tools: {kind}" if isinstance(kind, str) else "tools")
    return None


def text_bytes(value: object, names: tuple[str, ...], depth: int = 0) -> int:
    """Bytes of the text found below these names; nothing deeper than six levels."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if depth > 6:
        return 0
    if isinstance(value, list):
        return sum(text_bytes(item, names, depth + 1) for item in value)
    if isinstance(value, dict):
        return sum(text_bytes(value[name], names, depth + 1) for name in names if name in value)
    return 0


def token_usage(reported: object, *, sent: str, made: str) -> Usage | None:
    """The provider's usage if every number in it is believable; `sent` and `made` are its names for in and out.

    Zero is a number.
    """
    if not isinstance(reported, dict):
        return None
    details = reported.get(f"{sent}_details")
    details = details if isinstance(details, dict) else {}
    numbers = [
        base.whole(reported.get(sent)),
        base.whole(details.get("cached_tokens") or 0),
        base.whole(details.get("cache_write_tokens") or 0),
        base.whole(reported.get(made)),
    ]
    whole = [number for number in numbers if number is not None]
    if len(whole) < 4:
        return None
    usage = Usage(*whole)
    return usage if usage.is_sane else None
