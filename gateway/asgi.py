"""The HTTP API as a raw ASGI application, beside Django in `insighto/asgi.py`; no view, no middleware, no ORM.

Every refusal leaves here in the shape the caller's SDK reads. What is not a refusal is our failure: 500,
logged by type and place, without the values in its frames.
"""

import traceback
from typing import Final

import structlog
from django.conf import settings

from gateway import azure_socket, endpoints, errors, incoming, receipts, runtime
from gateway.errors import Refused
from gateway.incoming import Call, ClientGone, Message, Receive, Send
from insighto.lib.batcher import Overloaded
from insighto.lib.errors import DomainError

PREFIXES: Final = ("/v1/", "/v2/", "/cognitiveservices/", "/tts/cognitiveservices/", "/sts/")

log = structlog.get_logger(__name__)


def handles(path: str) -> bool:
    """The gateway answers this path; Django never sees it."""
    return path.startswith(PREFIXES) or path == "/v1"


async def application(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "http":
        await _http(scope, receive, send)
    elif scope["path"] in azure_socket.PATHS:
        await azure_socket.serve(scope, receive, send)
    else:
        await receive()
        await send({"type": "websocket.close", "code": 1000})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            runtime.current()
            runtime.settle_memory()
        else:
            await runtime.close()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _http(scope: Message, receive: Receive, send: Send) -> None:
    running = runtime.current()
    shape, handler = endpoints.route(scope["method"], scope["path"])
    call = Call(scope, receive, send, _shape(scope, shape))
    problem: Refused
    running.in_flight += 1
    try:
        if running.in_flight > settings.GATEWAY_MAX_IN_FLIGHT:
            raise Refused("too_many_requests", retry_after_s=1)
        await handler(call, running)
        return
    except ClientGone:
        return
    except DomainError as error:
        problem = errors.of_domain(error)
    except Overloaded:
        problem = Refused("overloaded", retry_after_s=1)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        log.error(
            "gateway_failed",
            insighto_request_id=str(call.id),
            error=type(error).__name__,
            place=f"{place.filename.rpartition('/')[2]}:{place.lineno}",
        )
        problem = Refused("internal_error")
    finally:
        running.in_flight -= 1
        call.close()
    if not call.started:
        await endpoints.answer_error(call, problem, receipts.headers(call.id, None, None))


def _shape(scope: Message, shape: str) -> str:
    """`/v1/models` belongs to two providers: the header that carries the key decides."""
    if scope["path"] != "/v1/models":
        return shape
    try:
        owner = incoming.token(scope)[1]
    except Refused:
        return shape
    return owner if owner == errors.ELEVENLABS else shape
