"""What a provider's answer says about a key: one pure function for checks and for real traffic.

A verdict changes only on evidence about the key (provider-contracts §1), and the evidence is
status *and* body: a 401 may be a missing scope, a 200 may be a guest network's sign-in page.
Bodies and headers are hostile input. Nothing of their text leaves this module: the reason
comes from `Reason`, the provider's code only if `PROVIDER_CODES` has it, the request id only
if it looks like one and not like a key.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from provider_keys.models import Attempt, Provider, Verdict

MAX_BODY: Final = 4 * 1024 * 1024  # Azure's list of voices is the largest honest answer, about 1 MB
MAX_RETRY_AFTER_S: Final = 3600


class Reason(StrEnum):
    """Why an outcome is what it is. A closed list: pages and logs have a sentence for each."""

    OK = "ok"
    PROVED_IN_USE = "proved_in_use"
    # invalid
    WRONG_KEY = "wrong_key"
    WRONG_KEY_OR_REGION = "wrong_key_or_region"
    DEACTIVATED = "deactivated"
    # restricted
    CANNOT_BE_CHECKED = "cannot_be_checked"
    MISSING_PERMISSION = "missing_permission"
    ADMIN_KEY = "admin_key"
    ORGANIZATION = "organization"
    PROJECT = "project"
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    NETWORK_RULE = "network_rule"
    KEYS_DISABLED = "keys_disabled"
    NO_MODEL_ACCESS = "no_model_access"
    UNUSUAL_ACTIVITY = "unusual_activity"
    PLAN = "plan"
    ACCOUNT_DISABLED = "account_disabled"
    FORBIDDEN = "forbidden"
    # quota, region
    NO_QUOTA = "no_quota"
    WRONG_HOST = "wrong_host"
    # nothing about the key
    REQUEST_FAULT = "request_fault"
    RATE_LIMITED = "rate_limited"
    COUNTRY = "country"
    TIMEOUT = "timeout"
    CONNECT = "connect"
    TLS = "tls"
    DROPPED = "dropped"
    REDIRECT = "redirect"
    SERVER_ERROR = "server_error"
    TOO_BIG = "too_big"
    BAD_BODY = "bad_body"
    UNKNOWN_ANSWER = "unknown_answer"
    # decided here, without the provider
    PLACEHOLDER = "placeholder"
    LOCKED = "locked"
    UNREADABLE = "unreadable"
    SUPERSEDED = "superseded"
    GAVE_UP = "gave_up"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one try taught us. `verdict` None: nothing about the key; only the last attempt changes."""

    verdict: Verdict | None
    attempt: Attempt
    reason: str
    http_status: int | None = None
    provider_code: str = ""
    request_id: str = ""
    retry_after_s: int | None = None

    @property
    def is_usable(self) -> bool:
        """The key was recognised and may serve requests, as far as this try can tell."""
        return self.verdict == Verdict.VALID or (
            self.verdict == Verdict.RESTRICTED and self.reason == Reason.CANNOT_BE_CHECKED
        )

    @property
    def is_rejection(self) -> bool:
        """The provider said definitely that this key does not serve."""
        return self.verdict in REJECTIONS and not self.is_usable


REJECTIONS: Final = frozenset(
    {Verdict.INVALID, Verdict.RESTRICTED, Verdict.QUOTA_EXHAUSTED, Verdict.REGION_MISMATCH},
)

# A finding is the part of an outcome that the body decides: verdict, attempt, reason.
Finding = tuple[Verdict | None, Attempt, Reason]

_VALID: Finding = (Verdict.VALID, Attempt.OK, Reason.OK)
_NO_QUOTA: Finding = (Verdict.QUOTA_EXHAUSTED, Attempt.OK, Reason.NO_QUOTA)
_REQUEST_FAULT: Finding = (None, Attempt.OK, Reason.REQUEST_FAULT)
_RATE_LIMITED: Finding = (None, Attempt.RATE_LIMITED, Reason.RATE_LIMITED)
_UNKNOWN: Finding = (None, Attempt.UNREACHABLE, Reason.UNKNOWN_ANSWER)
_BAD_BODY: Finding = (None, Attempt.UNREACHABLE, Reason.BAD_BODY)


def _invalid(reason: Reason) -> Finding:
    return Verdict.INVALID, Attempt.OK, reason


def _restricted(reason: Reason) -> Finding:
    return Verdict.RESTRICTED, Attempt.OK, reason


def _unreachable(reason: Reason) -> Finding:
    return None, Attempt.UNREACHABLE, reason


_OPENAI_QUOTA: Final = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_not_active",
    },
)
_OPENAI_401: Final[Mapping[str, Finding]] = {
    "invalid_api_key": _invalid(Reason.WRONG_KEY),
    "account_deactivated": _invalid(Reason.DEACTIVATED),
    "invalid_organization": _restricted(Reason.ORGANIZATION),
    "mismatched_organization": _restricted(Reason.ORGANIZATION),
    "mismatched_project": _restricted(Reason.PROJECT),
    "incorrect_hostname": (Verdict.REGION_MISMATCH, Attempt.OK, Reason.WRONG_HOST),
    "ip_not_authorized": _restricted(Reason.ADDRESS_NOT_ALLOWED),
}
_OPENAI_REQUEST_FAULTS: Final = frozenset({400, 404, 409, 413, 415, 422})

_ELEVENLABS_NAMES: Final[Mapping[str, Finding]] = {
    "invalid_api_key": _invalid(Reason.WRONG_KEY),
    "needs_authorization": _invalid(Reason.WRONG_KEY),
    "missing_permissions": _restricted(Reason.MISSING_PERMISSION),
    "quota_exceeded": _NO_QUOTA,
    "detected_unusual_activity": _restricted(Reason.UNUSUAL_ACTIVITY),
    "paid_plan_required": _restricted(Reason.PLAN),
    "payment_required": _restricted(Reason.PLAN),
    "only_for_creator+": _restricted(Reason.PLAN),
    "voice_not_found": _REQUEST_FAULT,
    "max_character_limit_exceeded": _REQUEST_FAULT,
    "too_many_concurrent_requests": _RATE_LIMITED,
    "concurrent_limit_exceeded": _RATE_LIMITED,
    "system_busy": _RATE_LIMITED,
}
# A name is evidence only under the statuses it is known to come with.
_ELEVENLABS_NAMES_BY_STATUS: Final[Mapping[int, frozenset[str]]] = {
    400: frozenset({"voice_not_found", "max_character_limit_exceeded"}),
    401: frozenset(
        {
            "invalid_api_key",
            "needs_authorization",
            "missing_permissions",
            "quota_exceeded",
            "detected_unusual_activity",
        },
    ),
    402: frozenset({"paid_plan_required", "payment_required", "quota_exceeded"}),
    403: frozenset({"only_for_creator+", "missing_permissions", "detected_unusual_activity"}),
    404: frozenset({"voice_not_found"}),
    429: frozenset({"quota_exceeded", "too_many_concurrent_requests", "concurrent_limit_exceeded", "system_busy"}),
}
_ELEVENLABS_REQUEST_FAULTS: Final = frozenset({400, 404, 409, 413, 415, 422})

_AZURE_403: Final[Mapping[str, Finding]] = {
    "call volume quota": _NO_QUOTA,
    "virtual network/firewall": _restricted(Reason.NETWORK_RULE),
    "authenticationtypedisabled": _restricted(Reason.KEYS_DISABLED),
    "disabled": _restricted(Reason.KEYS_DISABLED),
}
_AZURE_REQUEST_FAULTS: Final = frozenset({400, 404, 413, 415, 422})

# Every provider code that may be stored or shown.
PROVIDER_CODES: Final = (
    _OPENAI_QUOTA
    | frozenset(_OPENAI_401)
    | frozenset(_ELEVENLABS_NAMES)
    | frozenset(
        {
            "free_disabled",
            "model_not_found",
            "rate_limit_exceeded",
            "slow_down",
            "unsupported_country_region_territory",
            "AuthenticationTypeDisabled",
        },
    )
)

_NETWORK_KINDS: Final[Mapping[str, Reason]] = {
    reason.value: reason
    for reason in (
        Reason.TIMEOUT,
        Reason.CONNECT,
        Reason.TLS,
        Reason.DROPPED,
        Reason.REDIRECT,
        Reason.TOO_BIG,
        Reason.BAD_BODY,
    )
}

# Shapes of request ids that no provider's key has; anything else is dropped (it may be an echoed key).
_REQUEST_ID: Final = re.compile(
    r"req_[A-Za-z0-9]{8,60}"
    r"|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    r"|[A-Za-z0-9]{16,28}",
)
_REQUEST_ID_HEADERS: Final = ("x-request-id", "request-id", "x-requestid", "apim-request-id")


def classify(provider: str, *, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """Judge one answer of a provider: a success of a validation call, or any error, of a check or of real traffic.

    A success of real traffic is not a validation call: say `worked()` instead.
    """
    answer = _parse(body)
    if 300 <= status < 400:
        finding, code = _unreachable(Reason.REDIRECT), ""
    elif provider == Provider.OPENAI:
        finding, code = _openai(status, answer)
    elif provider == Provider.AZURE_SPEECH:
        finding, code = _azure(status, answer, body)
    elif provider == Provider.ELEVENLABS:
        finding, code = _elevenlabs(status, answer)
    else:
        raise AssertionError(provider)
    lowered = {name.lower(): value for name, value in headers.items()}
    verdict, attempt, reason = finding
    return Outcome(
        verdict=verdict,
        attempt=attempt,
        reason=reason.value,
        http_status=status if 100 <= status <= 599 else None,
        provider_code=code if code in PROVIDER_CODES else "",
        request_id=_request_id(lowered),
        retry_after_s=_retry_after(lowered) if attempt != Attempt.OK else None,
    )


def network_failure(kind: str) -> Outcome:
    """No readable answer arrived. `kind`: timeout connect tls dropped redirect too_big bad_body; else dropped."""
    reason = _NETWORK_KINDS.get(kind, Reason.DROPPED)
    return Outcome(None, Attempt.UNREACHABLE, reason.value)


def worked() -> Outcome:
    """A real request was served on this key: the best evidence there is."""
    return Outcome(Verdict.VALID, Attempt.OK, Reason.PROVED_IN_USE.value)


def azure_close(code: int) -> Outcome:
    """What Azure's WebSocket close code says about the key."""
    finding = {
        1007: _REQUEST_FAULT,
        1008: _restricted(Reason.FORBIDDEN),
        4429: _RATE_LIMITED,
    }.get(code, _unreachable(Reason.DROPPED))
    verdict, attempt, reason = finding
    return Outcome(verdict, attempt, reason.value)


# One function per provider: (status, parsed body) → (finding, the provider's code).


def _openai(status: int, answer: Any) -> tuple[Finding, str]:
    if status == 200:
        right = isinstance(answer, dict) and answer.get("object") == "list" and isinstance(answer.get("data"), list)
        return (_VALID if right else _BAD_BODY), ""
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return _without_envelope(status)
    code, kind, message = _text(error, "code"), _text(error, "type"), _text(error, "message").lower()
    quota = next((name for name in (code, kind) if name in _OPENAI_QUOTA), "")
    if status == 429:
        return (_NO_QUOTA, quota) if quota else (_RATE_LIMITED, code)
    if status == 401 and code in _OPENAI_401:
        return _OPENAI_401[code], code
    if status in {401, 403} and not code and ("missing scopes:" in message or "insufficient permissions" in message):
        # A key made without the right to list models may do inference perfectly well.
        unseen = "api.model.read" in message
        return _restricted(Reason.CANNOT_BE_CHECKED if unseen else Reason.MISSING_PERMISSION), ""
    if status == 401 and "must be a member of an organization" in message:
        return _restricted(Reason.ORGANIZATION), ""
    if status == 403:
        if code == "unsupported_country_region_territory":
            return _unreachable(Reason.COUNTRY), code
        if code == "model_not_found":
            return _restricted(Reason.NO_MODEL_ACCESS), code
        return (_NO_QUOTA, quota) if quota else (_restricted(Reason.FORBIDDEN), code)
    if status == 503 and code == "slow_down":
        return _RATE_LIMITED, code
    if status in _OPENAI_REQUEST_FAULTS:
        return _REQUEST_FAULT, code
    return _without_envelope(status)


def _azure(status: int, answer: Any, body: bytes) -> tuple[Finding, str]:
    if status == 200:
        right = isinstance(answer, list) and answer and all(_text(voice, "ShortName") for voice in answer)
        return (_VALID if right else _BAD_BODY), ""
    if status == 401:
        # The one status that decides alone (provider-contracts §1): the service says no more than this.
        return _invalid(Reason.WRONG_KEY_OR_REGION), ""
    if status == 403:
        text = _azure_text(answer, body)
        for phrase, finding in _AZURE_403.items():
            if phrase in text:
                return finding, "AuthenticationTypeDisabled" if phrase == "authenticationtypedisabled" else ""
        return (_restricted(Reason.FORBIDDEN), "") if isinstance(answer, dict) and text else (_UNKNOWN, "")
    if status in _AZURE_REQUEST_FAULTS and isinstance(answer, dict):
        return _REQUEST_FAULT, ""
    return _without_envelope(status)


def _elevenlabs(status: int, answer: Any) -> tuple[Finding, str]:
    if status == 200:
        return _elevenlabs_success(answer)
    detail = answer.get("detail") if isinstance(answer, dict) else None
    if not isinstance(detail, dict | list | str):
        return _without_envelope(status)
    known = _ELEVENLABS_NAMES_BY_STATUS.get(status, frozenset())
    for field in ("status", "code", "type"):
        name = _text(detail, field)
        if name in known:
            return _ELEVENLABS_NAMES[name], name
    if status == 429:
        return _RATE_LIMITED, ""
    if status == 402 and isinstance(detail, dict):
        return _restricted(Reason.PLAN), ""
    if status == 403 and isinstance(detail, dict):
        return _restricted(Reason.FORBIDDEN), ""
    if status in _ELEVENLABS_REQUEST_FAULTS:
        return _REQUEST_FAULT, ""
    return _without_envelope(status)


def _elevenlabs_success(answer: Any) -> tuple[Finding, str]:
    """The subscription, the list of models, or a page of voices: whichever call got through."""
    if isinstance(answer, list):
        return (_VALID if answer and all(_text(model, "model_id") for model in answer) else _BAD_BODY), ""
    if not isinstance(answer, dict):
        return _BAD_BODY, ""
    voices = answer.get("voices")
    if isinstance(voices, list):
        return (_VALID if all(_text(voice, "voice_id") for voice in voices) else _BAD_BODY), ""
    limit = _count(answer.get("character_limit"))
    if not _text(answer, "tier") or limit is None:
        return _BAD_BODY, ""
    if answer.get("status") == "free_disabled":
        return _restricted(Reason.ACCOUNT_DISABLED), "free_disabled"
    used = _count(answer.get("character_count"))
    if used is not None and used >= limit and answer.get("can_extend_character_limit") is not True:
        return _NO_QUOTA, ""
    return _VALID, ""


def _without_envelope(status: int) -> tuple[Finding, str]:
    """The provider's own error shape is missing, or it says nothing we know: only harmless conclusions are left."""
    if status == 429:
        return _RATE_LIMITED, ""
    if status >= 500:
        return _unreachable(Reason.SERVER_ERROR), ""
    return _UNKNOWN, ""


def _azure_text(answer: Any, body: bytes) -> str:
    """The words of an Azure error, from its JSON envelopes or a plain-text body; never from a web page."""
    if isinstance(answer, dict):
        error = answer.get("error")
        parts = [_text(answer, "message"), _text(answer, "code")]
        if isinstance(error, dict):
            inner = error.get("innererror")
            parts += [_text(error, "message"), _text(error, "code"), _text(inner, "code")]
        else:
            parts.append(_text(answer, "error"))
        return " ".join(part for part in parts if part).lower()
    start = body[:2048].lstrip()
    return "" if start.startswith(b"<") else start.decode("utf-8", "replace").lower()


# Reading hostile input.


def parse(body: bytes) -> Any:
    """The JSON value in `body`, or None when it is not JSON within our bounds (size, depth, NaN, encoding)."""
    return _parse(body)


def _parse(body: bytes) -> Any:
    if len(body) > MAX_BODY:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError, UnicodeError):
        return None


def _text(value: Any, field: str) -> str:
    """The field when it is a string of sane length in an object; else empty."""
    found = value.get(field) if isinstance(value, dict) else None
    return found[:2000] if isinstance(found, str) else ""


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def _request_id(headers: Mapping[str, str]) -> str:
    for name in _REQUEST_ID_HEADERS:
        value = headers.get(name, "")
        if _REQUEST_ID.fullmatch(value):
            return value
    return ""


def _retry_after(headers: Mapping[str, str]) -> int | None:
    value = headers.get("retry-after", "").strip()
    if not re.fullmatch(r"[0-9]{1,9}", value):
        return None
    return min(int(value), MAX_RETRY_AFTER_S)
