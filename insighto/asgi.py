"""The one ASGI application: health, the gateway's APIs, static files, and Django's pages for everything else.

The gateway is raw ASGI beside Django, never a view of it (performance: a Django view reaches 5 % of it).
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from importlib.util import find_spec
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

from insighto import health  # noqa: E402
from insighto.static import StaticFiles  # noqa: E402

static_files = StaticFiles()

# The gateway's own module, once it is there.
gateway = import_module("gateway.asgi") if find_spec("gateway.asgi") else None


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def application(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await (gateway.application(scope, receive, send) if gateway else _lifespan(receive, send))
        return
    path = scope["path"]
    if gateway and gateway.handles(path):
        await gateway.application(scope, receive, send)
    elif scope["type"] != "http":
        await send({"type": "websocket.close", "code": 1000})
    elif path in health.PATHS:
        await health.application(scope, send)
    elif not (path.startswith(settings.STATIC_URL) and await static_files(scope, send)):
        await pages(scope, receive, send)
