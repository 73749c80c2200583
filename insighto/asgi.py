"""The one ASGI application: health, the gateway's APIs, static files, and Django's pages for everything else.

The gateway is raw ASGI beside Django, never a view of it (performance: a Django view reaches 5 % of it).
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

from django.core.asgi import get_asgi_application

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "insighto.settings")
pages = cast("Application", get_asgi_application())

# These need Django set up.
from django.conf import settings  # noqa: E402

from gateway import asgi as gateway  # noqa: E402
from insighto import health  # noqa: E402
from insighto.static import StaticFiles  # noqa: E402

static_files = StaticFiles()


async def application(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await gateway.application(scope, receive, send)  # it opens and closes what it serves with
        return
    path = scope["path"]
    if gateway.handles(path):
        await gateway.application(scope, receive, send)
    elif scope["type"] != "http":
        await send({"type": "websocket.close", "code": 1000})
    elif path in health.PATHS:
        await health.application(scope, send)
    elif not (path.startswith(settings.STATIC_URL) and await static_files(scope, send)):
        await pages(scope, receive, send)
