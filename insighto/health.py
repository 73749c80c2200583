"""Health and metrics, answered before Django: no session, no host check, no redirect to https.

`/healthz`: the process runs. `/readyz`: it can serve (database, migrations, broker). `/metrics`: Prometheus text,
for a bearer of METRICS_TOKEN, or without one for this very machine only.
"""

import asyncio
import hmac
import ipaddress
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import redis
import structlog
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection
from django.db.migrations.executor import MigrationExecutor
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
_CHECK_TIMEOUT_S = 5.0
logger = structlog.get_logger(__name__)
_migrated = False


def _database() -> str:
    global _migrated
    close_old_connections()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        if not _migrated:
            executor = MigrationExecutor(connection)
            if executor.migration_plan(executor.loader.graph.leaf_nodes()):
                return "not migrated"
            _migrated = True
    except DatabaseError as error:
        logger.warning("readiness_database_failed", error=type(error).__name__)
        return "unreachable"
    finally:
        close_old_connections()
    return "ok"


def _broker() -> str:
    if not settings.REDIS_URL:
        return "not configured"
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2)
    try:
        client.ping()
    except redis.RedisError as error:
        logger.warning("readiness_broker_failed", error=type(error).__name__)
        return "unreachable"
    finally:
        client.close()
    return "ok"


async def _readiness() -> dict[str, str]:
    async def ask(check: Callable[[], str]) -> str:
        try:
            return await asyncio.wait_for(sync_to_async(check, thread_sensitive=False)(), _CHECK_TIMEOUT_S)
        except TimeoutError:
            return "too slow"

    database, broker = await asyncio.gather(ask(_database), ask(_broker))
    return {"database": database, "broker": broker}


def _metrics() -> bytes:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def may_read_metrics(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    if settings.METRICS_TOKEN:
        expected = f"Bearer {settings.METRICS_TOKEN}".encode()
        return hmac.compare_digest(headers.get(b"authorization", b""), expected)
    # A proxy on this machine also calls from loopback, but says for whom.
    if headers.keys() & {b"x-forwarded-for", b"forwarded", b"x-real-ip"}:
        return False
    try:
        return ipaddress.ip_address((scope.get("client") or ("", 0))[0]).is_loopback
    except ValueError:
        return False


async def application(scope: Scope, send: Send) -> None:
    """Answer one of `PATHS`."""
    status, content_type, body = 200, b"application/json", b'{"status": "ok"}'
    if scope["method"] not in {"GET", "HEAD"}:
        status, body = 405, b'{"status": "method not allowed"}'
    elif scope["path"] == "/readyz":
        found = await _readiness()
        ready = all(answer in {"ok", "not configured"} for answer in found.values())
        status = 200 if ready else 503
        body = json.dumps({"status": "ok" if ready else "not ready", **found}).encode()
    elif scope["path"] == "/metrics":
        if may_read_metrics(scope):
            content_type, body = CONTENT_TYPE_LATEST.encode(), await asyncio.to_thread(_metrics)
        else:
            status, body = 403, b'{"status": "forbidden"}'
    headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
