"""Logs: one JSON object per line on standard error, with the request's id, secrets taken out.

Settings call `configure()` at import, so nothing here may read settings.
"""

import logging.config
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from insighto.lib import redact

Event = MutableMapping[str, Any]

# At debug level most of these print headers, statements or task messages; a key could be in any of them.
_NEVER_BELOW_WARNING = (
    "aiohttp",
    "amqp",
    "asyncio",
    "azure",
    "celery.beat",  # a line for every tick
    "celery.worker.strategy",
    "django.db.backends",
    "django.template",
    "elevenlabs",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "kombu",
    "openai",
    "psycopg",
    "psycopg.pool",
    "redis",
    "urllib3",
)


def scrub_event(logger: Any, method: str, event: Event) -> Event:
    """The last step before the line is written: every value, also the formatted traceback, is scrubbed."""
    for name, value in list(event.items()):
        if name not in {"timestamp", "level", "logger", "request_id"}:
            event[name] = redact.scrub_value(value, name=name)
    return event


_shared: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]


def formatter() -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,  # the plain traceback: no local variables
            structlog.processors.UnicodeDecoder(),
            scrub_event,
            structlog.processors.JSONRenderer(),
        ],
    )


def configure(*, level: str) -> None:
    structlog.configure(
        processors=[*_shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    quiet = {name: {"level": "WARNING" if level != "ERROR" else "ERROR"} for name in _NEVER_BELOW_WARNING}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": formatter}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": sys.stderr}},
            "root": {"handlers": ["stderr"], "level": level},
            "loggers": quiet,
        }
    )
