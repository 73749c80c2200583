"""The first page of an account: who pays today, what is left to do, what happened lately."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET

from accounts.models import Membership
from accounts.permissions import AccountRequest, require_role
from billing import charts, reports
from billing.models import FundingSource
from gateway import selectors
from provider_keys.selectors import settings_page


@require_GET
@require_role(Membership.Role.MEMBER)
def overview_show(request: AccountRequest) -> HttpResponse:
    usage = reports.usage(request.account, reports.Filters(days=14))
    context = {
        "keys": settings_page(request.account),
        "wallet": reports.wallet(request.account),
        "usage": usage,
        "chart": charts.stacked_bars(usage.days, [value for value, _ in FundingSource.choices]),
        "recent": reports.recent_requests(request.account),
        "cards": selectors.assistant_cards(request.account)[:4],
        "assistants": selectors.assistant_names(request.account),
    }
    return render(request, "gateway/overview_show.html", context)


@require_GET
def landing(request: HttpRequest) -> HttpResponse:
    """Where `/` leads: the overview of one's account, an operator's admin, or the sign-in."""
    if not request.user.is_authenticated:
        return redirect("account_login")
    if getattr(request, "account", None) is None and request.user.is_staff:
        return redirect("admin:index")
    return redirect("gateway:overview_show")
