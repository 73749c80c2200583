"""/healthz, /readyz and /metrics, through the very application that uvicorn serves."""

import asyncio
import json

import pytest
from asgiref.testing import ApplicationCommunicator

from insighto import health


def ask(path, *, method="GET", client="127.0.0.1", headers=()):
    """Status, headers and body that the health application sends."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "client": (client, 1), "headers": list(headers)}
    asyncio.run(health.application(scope, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def test_healthz_needs_nothing():
    status, headers, body = ask("/healthz")
    assert (status, json.loads(body)) == (200, {"status": "ok"})
    assert headers[b"cache-control"] == b"no-store"


def test_only_reading_is_allowed():
    assert ask("/healthz", method="POST")[0] == 405
    assert ask("/healthz", method="HEAD")[2] == b""


@pytest.mark.django_db(transaction=True)
def test_readyz_asks_database_and_broker():
    status, _, body = ask("/readyz")
    assert (status, json.loads(body)) == (200, {"status": "ok", "database": "ok", "broker": "ok"})


@pytest.mark.django_db(transaction=True)
def test_readyz_says_which_part_is_missing(settings):
    settings.REDIS_URL = "unix:///nowhere/at/all.sock"
    status, _, body = ask("/readyz")
    assert status == 503
    assert json.loads(body) == {"status": "not ready", "database": "ok", "broker": "unreachable"}


def test_metrics_are_for_this_machine_and_not_for_whom_a_proxy_speaks():
    assert ask("/metrics")[0] == 200
    assert b"python_info" in ask("/metrics")[2]
    assert ask("/metrics", client="10.0.0.9")[0] == 403
    assert ask("/metrics", headers=[(b"x-forwarded-for", b"203.0.113.9")])[0] == 403


def test_metrics_ask_for_their_token_when_there_is_one(settings):
    settings.METRICS_TOKEN = "the-token"
    assert ask("/metrics")[0] == 403
    assert ask("/metrics", headers=[(b"authorization", b"Bearer the-tokem")])[0] == 403
    assert ask("/metrics", client="10.0.0.9", headers=[(b"authorization", b"Bearer the-token")])[0] == 200


@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/static/css/tokens.css", 200)])
def test_the_application_answers_before_django_wakes_up(path, status):
    from insighto.asgi import application

    async def visit():
        scope = {"type": "http", "method": "GET", "path": path, "headers": [], "client": ("127.0.0.1", 1)}
        visitor = ApplicationCommunicator(application, scope)
        await visitor.send_input({"type": "http.request", "body": b""})
        return await visitor.receive_output(5)

    started = asyncio.run(visit())
    assert started["status"] == status
    assert (b"x-content-type-options", b"nosniff") in started["headers"]
