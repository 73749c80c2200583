"""Who may open a page. The account is the session's (see `middleware`), never one the request names."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import render

from accounts.models import Account, Membership, User

P = ParamSpec("P")
V = TypeVar("V", bound=Callable[..., Any])


class AccountRequest(HttpRequest):
    """A request that passed `require_role`: somebody is signed in and in an account."""

    user: User
    account: Account
    membership: Membership
    memberships: list[Membership]


def require_role(
    role: str,
) -> Callable[
    [Callable[Concatenate[AccountRequest, P], HttpResponseBase | Awaitable[HttpResponseBase]]], Callable[..., Any]
]:
    """Nobody signed in → sign-in; in no account → 404; a lower role than `role` → the 403 page."""

    def decorate(
        view: Callable[Concatenate[AccountRequest, P], HttpResponseBase | Awaitable[HttpResponseBase]],
    ) -> Callable[..., Any]:
        if iscoroutinefunction(view):
            refuse = sync_to_async(_refusal)

            @wraps(view)
            async def guarded_async(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
                refusal = await refuse(request, role)
                if refusal is not None:
                    return refusal
                return await cast("Awaitable[HttpResponseBase]", view(cast("AccountRequest", request), *args, **kwargs))

            return guarded_async

        @wraps(view)
        def guarded(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            refusal = _refusal(request, role)
            if refusal is not None:
                return refusal
            return cast("HttpResponseBase", view(cast("AccountRequest", request), *args, **kwargs))

        return guarded

    return decorate


def _refusal(request: HttpRequest, role: str) -> HttpResponseBase | None:
    if not request.user.is_authenticated:
        come_back = request.get_full_path() if request.method in {"GET", "HEAD"} else "/"
        return redirect_to_login(come_back)
    membership: Membership | None = getattr(request, "membership", None)
    if membership is None:
        raise Http404
    if not membership.has_role(role):
        return render(request, "403.html", status=403)
    return None
