"""Credits: the balance and the statement of one account."""

from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from accounts.models import Membership
from accounts.permissions import AccountRequest, require_role
from billing import reports


@require_GET
@require_role(Membership.Role.MEMBER)
def credit_show(request: AccountRequest) -> HttpResponse:
    page = Paginator(reports.statement(request.account), 25).get_page(request.GET.get("page"))
    context = {"wallet": reports.wallet(request.account), "page": page, "query": ""}
    return render(request, "billing/credit_show.html", context)
