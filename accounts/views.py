"""The pages about an account: switching, API keys, subaccounts, team, activity."""

import json
from typing import Final
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts import csv_export, selectors
from accounts.forms import ApiKeyForm, MemberForm, RoleForm, SubaccountForm
from accounts.freshness import require_fresh
from accounts.middleware import SESSION_KEY
from accounts.models import ApiKey, Membership
from accounts.permissions import AccountRequest, require_role
from accounts.services import api_keys, members, signup
from insighto.lib.errors import DomainError

PAGE_SIZE: Final = 50
EXPORT_LIMIT: Final = 50_000


@require_POST
@login_required
def account_switch(request: HttpRequest) -> HttpResponse:
    memberships: list[Membership] = getattr(request, "memberships", [])
    wanted = request.POST.get("account", "")
    chosen = next((membership for membership in memberships if membership.account.slug == wanted), None)
    if chosen is None:
        raise Http404
    request.session[SESSION_KEY] = str(chosen.account_id)
    messages.success(request, f"You are now in {chosen.account}.")
    return redirect("/")


@require_GET
@require_role(Membership.Role.ADMIN)
def api_key_list(request: AccountRequest) -> HttpResponse:
    return _api_key_page(request, ApiKeyForm())


@require_http_methods(["GET", "POST"])
@require_role(Membership.Role.ADMIN)
@require_fresh(back_to="accounts:api_key_list")
def api_key_issue(request: AccountRequest) -> HttpResponse:
    """The token is in the body of this one answer and nowhere else: no message, no session, no redirect."""
    if request.method == "GET":
        return redirect("accounts:api_key_list")
    form = ApiKeyForm(request.POST)
    if not form.is_valid():
        return _api_key_page(request, form, status=422)
    try:
        api_key, token = api_keys.issue(account=request.account, actor=request.user, **form.values())
    except DomainError as error:
        form.add_error(error.field, str(error))
        return _api_key_page(request, form, status=422)
    response = render(request, "accounts/api_key_issued.html", {"api_key": api_key, "token": token.reveal()})
    response["Cache-Control"] = "no-store"
    return response


@require_http_methods(["GET", "POST"])
@require_role(Membership.Role.ADMIN)
@require_fresh(back_to="accounts:api_key_list")
def api_key_revoke(request: AccountRequest, api_key_id: UUID) -> HttpResponse:
    api_key = get_object_or_404(ApiKey.objects.of(request.account), pk=api_key_id)
    if request.method == "GET":
        return render(request, "accounts/api_key_revoke.html", {"api_key": api_key})
    api_keys.revoke(api_key=api_key, actor=request.user)
    messages.success(request, f"API key {api_key} revoked. Requests with it are refused from now on.")
    return redirect("accounts:api_key_list")


@require_GET
@require_role(Membership.Role.ADMIN)
def subaccount_list(request: AccountRequest) -> HttpResponse:
    _require_main(request)
    return _subaccount_page(request, SubaccountForm())


@require_POST
@require_role(Membership.Role.ADMIN)
def subaccount_add(request: AccountRequest) -> HttpResponse:
    _require_main(request)
    form = SubaccountForm(request.POST)
    if form.is_valid():
        try:
            subaccount = signup.create_subaccount(parent=request.account, actor=request.user, **form.cleaned_data)
        except DomainError as error:
            form.add_error(error.field if error.field in form.fields else None, str(error))
        else:
            messages.success(request, f"Subaccount {subaccount} created.")
            return redirect("accounts:subaccount_list")
    return _subaccount_page(request, form, status=422)


@require_GET
@require_role(Membership.Role.MEMBER)
def team_list(request: AccountRequest) -> HttpResponse:
    return _team_page(request, MemberForm())


@require_POST
@require_role(Membership.Role.ADMIN)
def member_add(request: AccountRequest) -> HttpResponse:
    form = MemberForm(request.POST)
    if form.is_valid():
        try:
            members.add(account=request.account, actor=request.user, **form.cleaned_data)
        except DomainError as error:
            form.add_error(error.field if error.field in form.fields else None, str(error))
        else:
            messages.success(request, f"{form.cleaned_data['email']} added. We told them by e-mail.")
            return redirect("accounts:team_list")
    return _team_page(request, form, status=422)


@require_POST
@require_role(Membership.Role.ADMIN)
def member_change(request: AccountRequest, membership_id: int) -> HttpResponse:
    membership = get_object_or_404(selectors.team_of(request.account), pk=membership_id)
    form = RoleForm(request.POST)
    if form.is_valid():
        try:
            members.change_role(membership=membership, actor=request.user, **form.cleaned_data)
        except DomainError as error:
            messages.error(request, str(error))
        else:
            label = membership.get_role_display()
            messages.success(request, f"{membership.user.email}: {label}.")
    return redirect("accounts:team_list")


@require_POST
@require_role(Membership.Role.ADMIN)
def member_remove(request: AccountRequest, membership_id: int) -> HttpResponse:
    membership = get_object_or_404(selectors.team_of(request.account), pk=membership_id)
    try:
        members.remove(membership=membership, actor=request.user)
    except DomainError as error:
        messages.error(request, str(error))
        return redirect("accounts:team_list")
    messages.success(request, f"{membership.user.email} removed from {request.account}.")
    return redirect("/" if membership.user == request.user else "accounts:team_list")


@require_GET
@require_role(Membership.Role.ADMIN)
def activity_list(request: AccountRequest) -> HttpResponse:
    page = Paginator(selectors.activity_of(request.account), PAGE_SIZE).get_page(request.GET.get("page"))
    return render(request, "accounts/activity_list.html", {"page": page, "query": ""})


@require_GET
@require_role(Membership.Role.ADMIN)
def activity_export(request: AccountRequest) -> HttpResponseBase:
    head = ["at", "who", "action", "kind", "id", "name", "detail"]
    rows = selectors.activity_of(request.account)[:EXPORT_LIMIT]
    facts = (
        [
            event.created_at.isoformat(),
            event.actor_label,
            event.action,
            event.target_kind,
            event.target_id,
            event.target_label,
            json.dumps(event.detail, sort_keys=True) if event.detail else "",
        ]
        for event in rows
    )
    response = StreamingHttpResponse(csv_export.lines([head, *facts]), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="activity-{timezone.now():%Y-%m-%d}.csv"'
    return response


def _require_main(request: AccountRequest) -> None:
    if request.account.parent_id is not None:
        raise Http404


def _api_key_page(request: AccountRequest, form: ApiKeyForm, *, status: int = 200) -> HttpResponse:
    page = Paginator(selectors.api_keys_of(request.account), PAGE_SIZE).get_page(request.GET.get("page"))
    return render(request, "accounts/api_key_list.html", {"page": page, "query": "", "form": form}, status=status)


def _subaccount_page(request: AccountRequest, form: SubaccountForm, *, status: int = 200) -> HttpResponse:
    page = Paginator(selectors.subaccounts_of(request.account), PAGE_SIZE).get_page(request.GET.get("page"))
    return render(request, "accounts/subaccount_list.html", {"page": page, "query": "", "form": form}, status=status)


def _team_page(request: AccountRequest, form: MemberForm, *, status: int = 200) -> HttpResponse:
    page = Paginator(selectors.team_of(request.account), PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "query": "",
        "form": form,
        "roles": Membership.Role.choices,
        "can_manage": request.membership.has_role(Membership.Role.ADMIN),
    }
    return render(request, "accounts/team_list.html", context, status=status)
