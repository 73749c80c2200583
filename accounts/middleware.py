"""Puts the account a person works in on the request.

The session says which, and the memberships are read on every request, so a removed member is out at
once. Nothing in a URL, header or form chooses the account; a form may only say which one it was made
for, and is refused when that is another.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils.decorators import sync_and_async_middleware

from accounts import selectors
from accounts.models import Membership

SESSION_KEY: Final = "account_id"

Respond = Callable[[HttpRequest], HttpResponseBase]
RespondAsync = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


@sync_and_async_middleware
def AccountMiddleware(get_response: Respond | RespondAsync) -> Respond | RespondAsync:  # noqa: N802  (named as a class)
    """Sets `request.account`, `.membership` and `.memberships`; None and [] for those in no account."""
    if iscoroutinefunction(get_response):
        enter_async = sync_to_async(_enter)

        async def respond_async(request: HttpRequest) -> HttpResponseBase:
            refusal = await enter_async(request)
            return refusal or await get_response(request)

        return respond_async

    def respond(request: HttpRequest) -> HttpResponseBase:
        response = _enter(request) or get_response(request)
        assert isinstance(response, HttpResponseBase)
        return response

    return respond


def _enter(request: Any) -> HttpResponseBase | None:
    request.account, request.membership, request.memberships = None, None, []
    if not request.user.is_authenticated:
        return None
    request.memberships = selectors.memberships_of(request.user)
    request.membership = _chosen(request.memberships, request.session.get(SESSION_KEY))
    request.account = request.membership.account if request.membership else None
    made_for = request.POST.get("for_account") if request.method == "POST" else None
    if made_for is not None and (request.account is None or request.account.slug != made_for):
        return render(request, "409.html", status=409)
    return None


def _chosen(memberships: list[Membership], account_id: str | None) -> Membership | None:
    wanted = [membership for membership in memberships if str(membership.account_id) == account_id]
    return next(iter(wanted or memberships), None)
