"""Logs are JSON lines without anything that opens a door."""

import io
import json
import logging

import pytest

from insighto import logging as our_logging
from insighto.lib import redact

OPENAI = "sk-proj-" + "Ab3dEf9hIj" * 5
ELEVENLABS = "sk_" + "0a1b2c3d" * 6
AZURE = "Q7" * 26 + "JQQJ99" + "ACOG" * 6 + "xy"
OURS = "in-" + "aB3" * 16
SAMPLES = [
    OPENAI,
    ELEVENLABS,
    AZURE,
    OURS,
    "0123456789abcdef" * 2,
    "sk-proj-****************wxyz",
    "Authorization: Bearer abc.def",
    "xi-api-key: whatever-it-is",
    "Ocp-Apim-Subscription-Key=whatever",
    "redis://user:hunter22hunter@valkey:6379",
    "org-A1b2C3d4E5",
    "[CALL STACK BEGIN] /usr/lib/secret/path [CALL STACK END]",
]


@pytest.mark.parametrize("sample", SAMPLES)
def test_what_is_shaped_like_a_secret_is_taken_out(sample):
    text = redact.scrub(f"before {sample} after")
    assert sample not in text
    assert redact.MARK in text
    assert text.startswith("before ")
    assert text.endswith(" after")


def test_a_known_secret_is_taken_out_in_every_spelling():
    secret = "ünusual/secret value\n1234"
    text = redact.scrub(
        "a ünusual/secret value\n1234 b ünusual%2Fsecret%20value c 'ünusual/secret value\\n1234' "
        "d %C3%BCnusual%2Fsecret%20value%0A1234 e ünusual/*******1234",
        secrets=(secret,),
    )
    assert "1234" not in text


def test_text_is_cut_only_after_it_is_scrubbed():
    assert OPENAI[:12] not in redact.scrub("x" * 490 + OPENAI, limit=500)


def test_plain_words_stay():
    text = "Leg 0198f7c2-1111-7abc-8def-0123456789ab of Northwind settled for 1250 micros in 12 ms."
    assert redact.scrub(text) == text


@pytest.fixture
def lines():
    """A logger wired as in production, and what it wrote."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(our_logging.formatter())
    logger = logging.getLogger("tests.redaction")
    logger.addHandler(handler)
    logger.propagate = False
    yield logger, lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.propagate = True


def test_a_log_line_is_json_and_carries_no_secret_in_message_argument_or_traceback(lines):
    logger, written = lines
    logger.warning("refused %s", OPENAI)
    try:
        raise ValueError(f"provider said {AZURE}") from KeyError(ELEVENLABS)
    except ValueError:
        logger.exception("broken")
    events = written()
    assert [event["level"] for event in events] == ["warning", "error"]
    assert "Traceback" in events[1]["exception"]
    for secret in (OPENAI, AZURE, ELEVENLABS):
        assert secret not in json.dumps(events)


def test_values_are_scrubbed_by_name_and_at_any_depth():
    event = our_logging.scrub_event(
        None, "info", {"event": "x", "password": "hunter2", "body": {"list": [OURS, {"api_key": "short"}]}, "count": 3}
    )
    assert event == {
        "event": "x",
        "password": redact.MARK,
        "body": {"list": [redact.MARK, {"api_key": redact.MARK}]},
        "count": 3,
    }


def test_a_debug_level_does_not_wake_loggers_that_print_headers():
    our_logging.configure(level="DEBUG")
    try:
        assert all(not logging.getLogger(name).isEnabledFor(logging.INFO) for name in ("httpx", "openai", "elevenlabs"))
        assert not logging.getLogger("django.db.backends").isEnabledFor(logging.DEBUG)
    finally:
        our_logging.configure(level="WARNING")
