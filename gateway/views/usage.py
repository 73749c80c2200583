"""Usage: what was processed, by whom, on whose key, at what cost; and the receipt of each request."""

from collections.abc import Iterator
from uuid import UUID

from django.core.paginator import Paginator
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_GET

from accounts import csv_export
from accounts.models import Membership
from accounts.permissions import AccountRequest, require_role
from billing import charts, reports, routing
from billing.models import FundingSource, Leg, Request
from gateway import selectors
from gateway.forms import UsageFilterForm
from gateway.models import Assistant

PAGE_SIZE = 25
EXPORT_LIMIT = 50_000
COLUMNS = (
    "time", "request", "kind", "provider", "model", "voice", "funding_source", "connection", "reason",
    "state", "input_units", "cached_input_units", "output_units", "cost_micros", "estimate_micros",
)  # fmt: skip


@require_GET
@require_role(Membership.Role.MEMBER)
def usage_list(request: AccountRequest) -> HttpResponse:
    form = UsageFilterForm(request.GET, account=request.account)
    filters = form.filters()
    usage = reports.usage(request.account, filters)
    page = Paginator(reports.legs(request.account, filters), PAGE_SIZE).get_page(request.GET.get("page"))
    query = request.GET.copy()
    for name in set(query) - set(form.fields):
        del query[name]  # the page number, and whatever else an address may hold
    context = {
        "form": form,
        "usage": usage,
        "chart": charts.stacked_bars(usage.days, [value for value, _ in FundingSource.choices]),
        "page": page,
        "assistants": selectors.assistant_names(request.account),
        "query": query.urlencode(),
        "days": filters.days,
    }
    return render(request, "gateway/usage_list.html", context)


@require_GET
@require_role(Membership.Role.MEMBER)
def usage_export(request: AccountRequest) -> HttpResponseBase:
    """The filtered legs as CSV, newest first, at most 50,000 lines, streamed."""
    form = UsageFilterForm(request.GET, account=request.account)
    rows = reports.legs(request.account, form.filters())[:EXPORT_LIMIT]
    response = StreamingHttpResponse(
        csv_export.lines(_rows(rows.iterator(chunk_size=500))), content_type="text/csv; charset=utf-8"
    )
    response["content-disposition"] = f'attachment; filename="usage-{timezone.localdate():%Y-%m-%d}.csv"'
    return response


@require_GET
@require_role(Membership.Role.MEMBER)
def request_show(request: AccountRequest, request_id: UUID) -> HttpResponse:
    found = get_object_or_404(Request.objects.of(request.account).select_related("api_key", "user"), pk=request_id)
    assistant = found.assistant_id and Assistant.objects.of(request.account).filter(pk=found.assistant_id).first()
    legs = [
        {
            "leg": leg,
            "reason": routing.REASONS.get(leg.reason, leg.reason),
            "remedy": routing.REMEDIES.get(leg.reason, ""),
        }
        for leg in found.legs.select_related("payer", "price", "hold").order_by("created_at")
    ]
    return render(request, "gateway/request_show.html", {"found": found, "legs": legs, "assistant": assistant})


def _rows(legs: Iterator[Leg]) -> Iterator[tuple[object, ...]]:
    yield COLUMNS
    for leg in legs:
        yield (
            leg.created_at.isoformat(), leg.request_id, leg.kind, leg.provider, leg.model, leg.voice,
            leg.funding_source, leg.connection_name, leg.reason, leg.state, leg.input_units,
            leg.cached_input_units, leg.output_units, leg.cost_micros, leg.estimate_micros,
        )  # fmt: skip
