"""Refusals on their way to a caller: one table from code to HTTP status, and each provider's own error shape.

Every refusal of the layers below passes through here, so this is the only place that knows statuses.
Nothing a provider wrote enters a message unscrubbed.

::

    DomainError
    ├── Refused             any code of STATUS; `status`, `retry_after_s`, and `param` (the field at fault)
    └── AssistantNameTaken  pages only
"""

from typing import Final

import msgspec

from billing import routing
from insighto.lib.errors import DomainError
from provider_keys.models import Verdict

OPENAI: Final = "openai"
AZURE: Final = "azure_speech"
ELEVENLABS: Final = "elevenlabs"

STATUS: Final[dict[str, int]] = {
    # who is asking
    "invalid_api_key": 401,
    "account_suspended": 403,
    "byok_not_allowed": 403,
    # the customer's provider key
    "byok_key_missing": 424,
    "byok_placeholder": 424,
    "byok_key_invalid": 424,
    "byok_key_restricted": 424,
    "byok_key_region_mismatch": 424,
    "byok_key_quota_exhausted": 424,
    "byok_key_locked": 503,
    # credits
    "insufficient_credits": 402,
    "wallet_frozen": 402,
    "price_unknown": 400,
    "unsupported_on_credits": 400,
    # the request
    "invalid_form": 400,
    "invalid_json": 400,
    "invalid_value": 400,
    "missing_required_parameter": 400,
    "invalid_ssml": 400,
    "token_on_credits": 403,
    "voice_not_found": 404,
    "model_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "header_too_large": 431,
    # limits
    "too_many_requests": 429,
    "provider_rate_limited": 429,
    # the provider, and us
    "provider_down": 502,
    "provider_bad_answer": 502,
    "provider_refused_platform": 502,
    "provider_too_slow": 504,
    "platform_unavailable": 503,
    "overloaded": 503,
    "internal_error": 500,
}

WORDS: Final[dict[str, str]] = {
    "invalid_api_key": "The Insighto API key is missing, wrong, expired or revoked.",
    "insufficient_credits": "There are not enough credits for this request.",
    "too_many_requests": "Too many requests at once. Try again in a moment.",
    "provider_rate_limited": "The provider limits the rate of this key. Try again later.",
    "provider_down": "The provider cannot be reached or failed. Nothing was charged unless output was delivered.",
    "provider_bad_answer": "The provider sent something that is not an answer.",
    "provider_refused_platform": "The provider does not serve the platform at the moment. Nothing was charged.",
    "provider_too_slow": "The provider took too long.",
    "request_timeout": "The request body did not arrive in time.",
    "body_too_large": "The request body is too large.",
    "header_too_large": "The request headers are too large.",
    "not_found": "There is nothing here.",
    "method_not_allowed": "This address does not know that method.",
    "token_on_credits": "A token of the provider is only issued for your own key: one of the platform's key would "
    "belong to everybody. Turn on Use My API Keys, or send your Insighto API key instead of a token.",
    "unsupported_media_type": "Send this body with its own content type.",
    "invalid_form": "The body is not a multipart form that can be read in one way only.",
    "invalid_json": "The body is not a JSON object that can be read.",
    "overloaded": "The service is busy. Nothing was charged.",
    "internal_error": "Something failed on our side. It was recorded under the request id.",
}

# What the provider's rejection of the customer's own key is called.
KEY_CODES: Final[dict[str, str]] = {
    Verdict.INVALID: "byok_key_invalid",
    Verdict.RESTRICTED: "byok_key_restricted",
    Verdict.QUOTA_EXHAUSTED: "byok_key_quota_exhausted",
    Verdict.REGION_MISMATCH: "byok_key_region_mismatch",
}

# The type the OpenAI envelope names, by status; the rest is an `api_error`.
_OPENAI_TYPE: Final[dict[int, str]] = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    402: "insufficient_credits",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    424: "provider_key_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
}


class Refused(DomainError):
    """A refusal with its code. `status` overrides the table only for a provider's own fault codes."""

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        param: str | None = None,
        status: int | None = None,
        kind: str | None = None,
        retry_after_s: int | None = None,
        is_nameless: bool = False,
    ) -> None:
        super().__init__(message or WORDS.get(code) or routing.REASONS.get(code, ""), field=param)
        self.code = code
        self.status = status or STATUS.get(code, 500)
        self.kind = kind or _OPENAI_TYPE.get(self.status, "api_error")
        self.retry_after_s = retry_after_s
        self.is_nameless = is_nameless  # the provider gave its refusal no code; the books call it something


class AssistantNameTaken(DomainError):
    code = "assistant_name_taken"
    message = "Another assistant of this account has that name. Choose another."


def of_domain(error: DomainError) -> Refused:
    """A refusal of a lower layer, with its status. What the table does not know is our own failure."""
    if isinstance(error, Refused):
        return error
    if error.code in STATUS:
        return Refused(error.code, str(error), param=error.field)
    return Refused("internal_error")


def of_decision(code: str) -> Refused:
    """The router's refusal: why, and what would change it."""
    return Refused(code, f"{routing.REASONS[code]} {routing.REMEDIES.get(code, '')}".strip())


def body(shape: str, error: Refused, request_id: str) -> bytes:
    """The error in the shape the provider's own SDK reads."""
    if shape == ELEVENLABS:
        detail = {
            "type": error.kind,
            "code": error.code,
            "status": error.code,
            "message": str(error),
            "request_id": request_id,
            "param": error.field,
        }
        return msgspec.json.encode({"detail": detail})
    if shape == AZURE:
        return msgspec.json.encode({"error": {"code": error.code, "message": str(error)}})
    return openai_error(error)


def openai_error(error: Refused) -> bytes:
    code = None if error.is_nameless else error.code
    envelope = {"message": str(error), "type": error.kind, "param": error.field, "code": code}
    return msgspec.json.encode({"error": envelope})
