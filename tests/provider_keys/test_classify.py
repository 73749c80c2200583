import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_keys import classify as judge
from provider_keys.classify import PROVIDER_CODES, Outcome, Reason, azure_close, classify, network_failure, worked
from provider_keys.models import Attempt, Provider, Verdict

KEY = "sk-proj-" + "Zq8Xw3" * 12

OK, LIMITED, UNREACHABLE = Attempt.OK, Attempt.RATE_LIMITED, Attempt.UNREACHABLE


def openai(code: str | None, message: str = "Something.", kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def eleven(name: str, message: str = "Something.") -> dict[str, Any]:
    return {"detail": {"status": name, "message": message}}


def azure(message: str, code: str = "403") -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def judged(provider: str, status: int, body: object, **headers: str) -> Outcome:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(provider, status=status, headers=headers, body=data)


MISSING_SCOPE = "You have insufficient permissions for this operation. Missing scopes: "
LISTED = {"object": "list", "data": [{"id": "gpt-6-luna", "object": "model"}]}
SUBSCRIPTION: dict[str, Any] = {"tier": "creator", "status": "active", "character_count": 10, "character_limit": 100}
SPENT: dict[str, Any] = {**SUBSCRIPTION, "character_count": 100}
VOICES = [{"ShortName": "en-US-AvaNeural", "Locale": "en-US"}]

Row = tuple[int, Any, Verdict | None, Attempt, str, str]

# provider-contracts §3.3, row by row: status, body → verdict, attempt, reason, provider code.
OPENAI_TABLE: list[Row] = [
    (200, LISTED, Verdict.VALID, OK, "ok", ""),
    (200, {"object": "list", "data": []}, Verdict.VALID, OK, "ok", ""),
    (401, openai("invalid_api_key"), Verdict.INVALID, OK, "wrong_key", "invalid_api_key"),
    (401, openai("account_deactivated"), Verdict.INVALID, OK, "deactivated", "account_deactivated"),
    (401, openai("invalid_organization"), Verdict.RESTRICTED, OK, "organization", "invalid_organization"),
    (401, openai(None, "You must be a member of an organization"), Verdict.RESTRICTED, OK, "organization", ""),
    (401, openai("mismatched_organization"), Verdict.RESTRICTED, OK, "organization", "mismatched_organization"),
    (401, openai("mismatched_project"), Verdict.RESTRICTED, OK, "project", "mismatched_project"),
    (401, openai("incorrect_hostname"), Verdict.REGION_MISMATCH, OK, "wrong_host", "incorrect_hostname"),
    (401, openai("ip_not_authorized"), Verdict.RESTRICTED, OK, "address_not_allowed", "ip_not_authorized"),
    (401, openai(None, MISSING_SCOPE + "api.model.read."), Verdict.RESTRICTED, OK, "cannot_be_checked", ""),
    (403, openai(None, MISSING_SCOPE + "api.model.read."), Verdict.RESTRICTED, OK, "cannot_be_checked", ""),
    (401, openai(None, MISSING_SCOPE + "model.request."), Verdict.RESTRICTED, OK, "missing_permission", ""),
    (403, openai(None, "insufficient permissions"), Verdict.RESTRICTED, OK, "missing_permission", ""),
    (
        403,
        openai("unsupported_country_region_territory", kind="request_forbidden"),
        None,
        UNREACHABLE,
        "country",
        "unsupported_country_region_territory",
    ),
    (403, openai("model_not_found"), Verdict.RESTRICTED, OK, "no_model_access", "model_not_found"),
    (403, openai("anything_else"), Verdict.RESTRICTED, OK, "forbidden", ""),
    (404, openai("model_not_found"), None, OK, "request_fault", "model_not_found"),
    *[
        (429, openai(code, kind="requests"), Verdict.QUOTA_EXHAUSTED, OK, "no_quota", code)
        for code in (
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_not_active",
        )
    ],
    (429, openai(None, kind="insufficient_quota"), Verdict.QUOTA_EXHAUSTED, OK, "no_quota", "insufficient_quota"),
    (429, openai("rate_limit_exceeded", kind="tokens"), None, LIMITED, "rate_limited", "rate_limit_exceeded"),
    (429, b"<html>slow down</html>", None, LIMITED, "rate_limited", ""),
    (503, openai("slow_down"), None, LIMITED, "rate_limited", "slow_down"),
    (500, openai(None), None, UNREACHABLE, "server_error", ""),
    (503, b"", None, UNREACHABLE, "server_error", ""),
    (302, b"", None, UNREACHABLE, "redirect", ""),
    (307, LISTED, None, UNREACHABLE, "redirect", ""),
    (401, openai("never_seen"), None, UNREACHABLE, "unknown_answer", ""),
    (401, openai(None, "Incorrect API key provided"), None, UNREACHABLE, "unknown_answer", ""),
    (401, b"<html>Sign in to the guest network</html>", None, UNREACHABLE, "unknown_answer", ""),
    (403, b"<html>Blocked by the proxy</html>", None, UNREACHABLE, "unknown_answer", ""),
    (418, openai(None), None, UNREACHABLE, "unknown_answer", ""),
    (204, b"", None, UNREACHABLE, "unknown_answer", ""),
    (400, openai(None), None, OK, "request_fault", ""),
]

# §4.3
AZURE_TABLE: list[Row] = [
    (200, VOICES, Verdict.VALID, OK, "ok", ""),
    (
        401,
        azure("Access denied due to invalid subscription key", "401"),
        Verdict.INVALID,
        OK,
        "wrong_key_or_region",
        "",
    ),
    (401, b"", Verdict.INVALID, OK, "wrong_key_or_region", ""),
    (
        403,
        azure("Out of call volume quota. Quota will be replenished in 3 days."),
        Verdict.QUOTA_EXHAUSTED,
        OK,
        "no_quota",
        "",
    ),
    (403, {"statusCode": 403, "message": "Out of call volume quota."}, Verdict.QUOTA_EXHAUSTED, OK, "no_quota", ""),
    (403, b"Out of call volume quota.", Verdict.QUOTA_EXHAUSTED, OK, "no_quota", ""),
    (403, azure("Access denied due to Virtual Network/Firewall rules."), Verdict.RESTRICTED, OK, "network_rule", ""),
    (
        403,
        azure("Key based authentication is disabled for this resource.", "AuthenticationTypeDisabled"),
        Verdict.RESTRICTED,
        OK,
        "keys_disabled",
        "AuthenticationTypeDisabled",
    ),
    (403, azure("This resource is disabled."), Verdict.RESTRICTED, OK, "keys_disabled", ""),
    (403, azure("Something new."), Verdict.RESTRICTED, OK, "forbidden", ""),
    (403, b"<html>call volume quota</html>", None, UNREACHABLE, "unknown_answer", ""),
    (429, azure("Too many", "429"), None, LIMITED, "rate_limited", ""),
    (200, b"<html>Welcome</html>", None, UNREACHABLE, "bad_body", ""),
    (200, b"", None, UNREACHABLE, "bad_body", ""),
    (200, {}, None, UNREACHABLE, "bad_body", ""),
    (200, [], None, UNREACHABLE, "bad_body", ""),
    (200, ["en-US-AvaNeural"], None, UNREACHABLE, "bad_body", ""),
    (200, [{"ShortName": 7}], None, UNREACHABLE, "bad_body", ""),
    (301, b"", None, UNREACHABLE, "redirect", ""),
    (500, b"", None, UNREACHABLE, "server_error", ""),
    (502, b"<html>", None, UNREACHABLE, "server_error", ""),
    (400, azure("Bad SSML", "400"), None, OK, "request_fault", ""),
]

# §5.3
ELEVENLABS_TABLE: list[Row] = [
    (200, SUBSCRIPTION, Verdict.VALID, OK, "ok", ""),
    (200, [{"model_id": "eleven_flash_v2_5"}], Verdict.VALID, OK, "ok", ""),
    (200, {"voices": [{"voice_id": "a" * 20}]}, Verdict.VALID, OK, "ok", ""),
    (200, {"voices": []}, Verdict.VALID, OK, "ok", ""),
    (200, SPENT, Verdict.QUOTA_EXHAUSTED, OK, "no_quota", ""),
    (200, {**SPENT, "can_extend_character_limit": True}, Verdict.VALID, OK, "ok", ""),
    (200, {**SUBSCRIPTION, "status": "free_disabled"}, Verdict.RESTRICTED, OK, "account_disabled", "free_disabled"),
    (401, eleven("invalid_api_key"), Verdict.INVALID, OK, "wrong_key", "invalid_api_key"),
    (401, eleven("needs_authorization"), Verdict.INVALID, OK, "wrong_key", "needs_authorization"),
    (401, eleven("missing_permissions"), Verdict.RESTRICTED, OK, "missing_permission", "missing_permissions"),
    (401, eleven("quota_exceeded"), Verdict.QUOTA_EXHAUSTED, OK, "no_quota", "quota_exceeded"),
    (
        401,
        {"detail": {"type": "authentication_error", "code": "invalid_api_key", "message": "", "status": "x"}},
        Verdict.INVALID,
        OK,
        "wrong_key",
        "invalid_api_key",
    ),
    (
        401,
        {"detail": {"type": "detected_unusual_activity", "code": None, "message": ""}},
        Verdict.RESTRICTED,
        OK,
        "unusual_activity",
        "detected_unusual_activity",
    ),
    (402, eleven("paid_plan_required"), Verdict.RESTRICTED, OK, "plan", "paid_plan_required"),
    (402, eleven("payment_required"), Verdict.RESTRICTED, OK, "plan", "payment_required"),
    (403, eleven("only_for_creator+"), Verdict.RESTRICTED, OK, "plan", "only_for_creator+"),
    (403, eleven("something_new"), Verdict.RESTRICTED, OK, "forbidden", ""),
    (400, eleven("voice_not_found"), None, OK, "request_fault", "voice_not_found"),
    (404, eleven("voice_not_found"), None, OK, "request_fault", "voice_not_found"),
    (404, {"detail": "Not Found"}, None, OK, "request_fault", ""),
    (400, eleven("max_character_limit_exceeded"), None, OK, "request_fault", "max_character_limit_exceeded"),
    (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, None, OK, "request_fault", ""),
    (429, eleven("too_many_concurrent_requests"), None, LIMITED, "rate_limited", "too_many_concurrent_requests"),
    (429, eleven("concurrent_limit_exceeded"), None, LIMITED, "rate_limited", "concurrent_limit_exceeded"),
    (429, eleven("system_busy"), None, LIMITED, "rate_limited", "system_busy"),
    (200, {}, None, UNREACHABLE, "bad_body", ""),
    (200, [], None, UNREACHABLE, "bad_body", ""),
    (200, b"<html>", None, UNREACHABLE, "bad_body", ""),
    (200, {**SUBSCRIPTION, "character_limit": "100"}, None, UNREACHABLE, "bad_body", ""),
    (200, {**SUBSCRIPTION, "character_limit": True}, None, UNREACHABLE, "bad_body", ""),
    (200, {**SUBSCRIPTION, "character_limit": -1}, None, UNREACHABLE, "bad_body", ""),
    (200, {**SUBSCRIPTION, "tier": None}, None, UNREACHABLE, "bad_body", ""),
    (308, SUBSCRIPTION, None, UNREACHABLE, "redirect", ""),
    (500, b"", None, UNREACHABLE, "server_error", ""),
    (401, eleven("never_seen"), None, UNREACHABLE, "unknown_answer", ""),
    (401, b"<html>", None, UNREACHABLE, "unknown_answer", ""),
    (401, eleven("voice_not_found"), None, UNREACHABLE, "unknown_answer", ""),
    (403, b"<html>", None, UNREACHABLE, "unknown_answer", ""),
]

ROWS = [
    *[(Provider.OPENAI, *row) for row in OPENAI_TABLE],
    *[(Provider.AZURE_SPEECH, *row) for row in AZURE_TABLE],
    *[(Provider.ELEVENLABS, *row) for row in ELEVENLABS_TABLE],
]


@pytest.mark.parametrize(("provider", "status", "body", "verdict", "attempt", "reason", "code"), ROWS)
def test_every_row_of_the_contracts_is_judged_as_written(provider, status, body, verdict, attempt, reason, code):
    outcome = judged(provider, status, body)

    assert (outcome.verdict, outcome.attempt, outcome.reason, outcome.provider_code) == (verdict, attempt, reason, code)
    assert outcome.http_status == status


BOMBS = [
    b"[" * 200_000,
    b'{"error":' * 100_000,
    b'{"object":"list","data":NaN}',
    b'{"object":"list","data":[Infinity]}',
    b'{"tier":"x","character_limit":1e999}',
    b'{"tier":"x","character_limit":' + b"9" * 6000 + b"}",
    b'{"error":{"code":["invalid_api_key"]}}',
    b'{"error":{"code":{"a":1},"message":7,"type":null}}',
    b'{"error":"invalid_api_key"}',
    b'{"error":[{"code":"invalid_api_key"}]}',
    b'"invalid_api_key"',
    b"invalid_api_key",
    b'{"detail":["invalid_api_key"]}',
    b'{"detail":{"status":["invalid_api_key"]}}',
    b"\xff\xfe\x00",
    b'"\\ud800"',
    b"\x1f\x8b\x08\x00",
    b"null",
    b"0",
    b"",
    b"{" + b" " * (judge.MAX_BODY + 1) + b"}",
]


@pytest.mark.parametrize("body", BOMBS, ids=lambda body: repr(body[:24]))
@pytest.mark.parametrize("status", [200, 401, 403, 500])
@pytest.mark.parametrize("provider", list(Provider))
def test_a_hostile_body_says_nothing_about_the_key(provider, status, body):
    outcome = judged(provider, status, body)

    if provider == Provider.AZURE_SPEECH and status == 401:
        assert outcome.verdict == Verdict.INVALID  # the one status that decides alone
    elif status == 403:
        # The provider's envelope around nonsense is a refusal still; it never makes a key invalid.
        assert outcome.verdict in (None, Verdict.RESTRICTED)
    else:
        assert outcome.verdict is None


@given(
    provider=st.sampled_from(list(Provider)),
    status=st.integers(100, 999),
    body=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "detail", "code", "type", "status", "message", "data", "object", "tier"]),
                inner,
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)
def test_whatever_arrives_becomes_an_outcome_from_the_closed_lists(provider, status, body):
    outcome = classify(provider, status=status, headers={}, body=body)

    assert outcome.reason in set(Reason)
    assert outcome.provider_code in PROVIDER_CODES | {""}
    assert outcome.verdict is None or outcome.attempt == Attempt.OK


def test_provider_text_never_leaves_the_classifier():
    echo = f"Incorrect API key provided: {KEY}. You can find yours at"
    outcomes = [
        judged(Provider.OPENAI, 401, openai("invalid_api_key", echo), **{"x-request-id": KEY, "retry-after": KEY}),
        judged(Provider.OPENAI, 401, openai(KEY, echo, KEY)),
        judged(Provider.AZURE_SPEECH, 403, azure(echo, KEY)),
        judged(Provider.ELEVENLABS, 401, eleven(KEY, echo), **{"request-id": KEY}),
    ]

    for outcome in outcomes:
        assert KEY[:12] not in repr(outcome)
        assert outcome.request_id == ""


def test_what_has_the_shape_of_an_older_key_is_no_request_id():
    assert judged(Provider.AZURE_SPEECH, 401, b"", **{"x-requestid": "0a9f8e7d" * 4}).request_id == ""
    kept = "01234567-89ab-cdef-0123-456789abcdef"
    assert judged(Provider.AZURE_SPEECH, 401, b"", **{"X-RequestId": kept}).request_id == kept
    assert judged(Provider.OPENAI, 200, LISTED, **{"X-Request-Id": "req_0a1b2c3d4e"}).request_id == "req_0a1b2c3d4e"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("20", 20),
        ("0", 0),
        ("999999999", 3600),
        ("-1", None),
        ("1e9", None),
        ("soon", None),
        ("9" * 50, None),
        ("", None),
    ],
)
def test_the_time_to_wait_is_a_bounded_whole_number(said, kept):
    assert judged(Provider.OPENAI, 429, b"", **{"retry-after": said}).retry_after_s == kept


def test_the_network_says_nothing_about_the_key():
    for kind in ("timeout", "connect", "tls", "dropped", "redirect", "too_big", "bad_body"):
        assert network_failure(kind) == Outcome(None, Attempt.UNREACHABLE, kind)
    assert network_failure(KEY).reason == "dropped"


def test_real_use_is_evidence_too():
    assert worked().is_usable
    assert azure_close(1007).verdict is None
    assert azure_close(1008).is_rejection
    assert azure_close(4429).attempt == Attempt.RATE_LIMITED
    assert azure_close(1006).attempt == Attempt.UNREACHABLE
