"""Middleware of the whole site."""

import re
from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from django_structlog.middlewares import RequestMiddleware

Respond = Callable[[HttpRequest], HttpResponseBase]
RespondAsync = Callable[[HttpRequest], Awaitable[HttpResponseBase]]

_TOKEN_IN_PATH = re.compile(r"(/password/reset/key/|/confirm-email/)[^/]+")


class RequestLogMiddleware(RequestMiddleware):
    """Logs each request by its path. A query may hold anything a person pasted, and mailed links hold a token."""

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        path = _TOKEN_IN_PATH.sub(r"\1…", request.path)
        return f"{request.method} {path}"


@sync_and_async_middleware
def NoStoreMiddleware(get_response: Respond | RespondAsync) -> Respond | RespondAsync:  # noqa: N802  (named as a class)
    """No cache keeps a page, unless its view said otherwise: pages belong to one person at one moment."""

    def mark(response: HttpResponseBase) -> HttpResponseBase:
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    if iscoroutinefunction(get_response):

        async def respond_async(request: HttpRequest) -> HttpResponseBase:
            return mark(await get_response(request))

        return respond_async

    def respond(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        assert isinstance(response, HttpResponseBase)
        return mark(response)

    return respond
