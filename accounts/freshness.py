"""Whether the person in front of the session proved who they are lately.

Keys, tokens and routing ask for it: a stolen session alone must not reach them. Signing in counts as
proof. allauth's own decorator is not used here because it keeps the refused POST in the session to
replay it, and that POST may carry a provider key.
"""

import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, cast
from urllib.parse import urlencode

from allauth.account import app_settings
from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.reauthentication import get_reauthentication_flows
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect

P = ParamSpec("P")
View = Callable[Concatenate[Any, P], HttpResponse]


def is_fresh(request: HttpRequest) -> bool:
    """Signed in or confirmed within the reauthentication timeout."""
    if not request.user.is_authenticated:
        return False
    if not get_reauthentication_flows(request.user):
        return True  # nothing we could ask for: neither a password nor a second factor
    records = get_authentication_records(request, request.user)
    oldest = time.time() - app_settings.REAUTHENTICATION_TIMEOUT
    return any(record["at"] > oldest for record in records)


def require_fresh(*, back_to: str) -> Callable[[View[P]], View[P]]:
    """Send a stale session to confirm itself first; `back_to` names the page it returns to.

    A GET comes back to itself. What a POST carried is dropped, never kept: it may be a key.
    """

    def decorate(view: View[P]) -> View[P]:
        @wraps(view)
        def guarded(request: Any, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            if is_fresh(request):
                return view(request, *args, **kwargs)
            come_back = request.get_full_path() if request.method == "GET" else reverse(back_to)
            if request.method == "POST":
                messages.info(request, "Please confirm it is you, then send the form again. Nothing was saved.")
            target = f"{reverse('account_reauthenticate')}?{urlencode({'next': come_back})}"
            if request.headers.get("HX-Request"):
                return HttpResponseClientRedirect(target)
            return HttpResponseRedirect(target)

        return cast("View[P]", guarded)

    return decorate
