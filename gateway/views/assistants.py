"""Assistants: list, add, change, remove."""

from copy import copy
from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.models import Membership
from accounts.permissions import AccountRequest, require_role
from gateway import selectors
from gateway.forms import AssistantForm
from gateway.models import Assistant
from gateway.services import assistants
from gateway.upstreams.voices import VoiceChoices
from insighto.lib.errors import DomainError


@require_GET
@require_role(Membership.Role.MEMBER)
def assistant_list(request: AccountRequest) -> HttpResponse:
    return render(
        request,
        "gateway/assistant_list.html",
        {"cards": selectors.assistant_cards(request.account), "can_manage": _may_manage(request)},
    )


@require_http_methods(["GET", "POST"])
@require_role(Membership.Role.ADMIN)
def assistant_add(request: AccountRequest) -> HttpResponse:
    choices = selectors.voice_choices(request.account)
    form = AssistantForm(request.POST or None, choices=choices, initial={"chat_model": "gpt-6-luna"})
    if request.method == "POST" and form.is_valid():
        try:
            assistant = assistants.create(account=request.account, actor=request.user, **form.values())
        except DomainError as error:
            form.add_error(error.field, str(error))
        else:
            messages.success(request, f"Assistant {assistant.name} added.")
            return redirect("gateway:playground_show", assistant.pk)
    return _form_page(request, form, choices, None)


@require_http_methods(["GET", "POST"])
@require_role(Membership.Role.ADMIN)
def assistant_edit(request: AccountRequest, assistant_id: UUID) -> HttpResponse:
    assistant = get_object_or_404(Assistant.objects.of(request.account), pk=assistant_id)
    choices = selectors.voice_choices(request.account)
    form = AssistantForm(request.POST or None, choices=choices, instance=copy(assistant))
    if request.method == "POST" and form.is_valid():
        try:
            assistants.update(assistant=assistant, actor=request.user, **form.values())
        except DomainError as error:
            form.add_error(error.field, str(error))
        else:
            messages.success(request, f"Assistant {assistant.name} saved.")
            return redirect("gateway:assistant_list")
    return _form_page(request, form, choices, assistant)


@require_POST
@require_role(Membership.Role.ADMIN)
def assistant_remove(request: AccountRequest, assistant_id: UUID) -> HttpResponse:
    assistant = get_object_or_404(Assistant.objects.of(request.account), pk=assistant_id)
    name = assistant.name
    assistants.remove(assistant=assistant, actor=request.user)
    messages.success(request, f"Assistant {name} removed. Its receipts stay under Usage.")
    return redirect("gateway:assistant_list")


def _form_page(
    request: AccountRequest, form: AssistantForm, choices: list[VoiceChoices], assistant: Assistant | None
) -> HttpResponse:
    context = {
        "form": form,
        "assistant": assistant,
        "models": selectors.chat_models(request.account),
        "voice_choices": choices,
    }
    return render(request, "gateway/assistant_form.html", context)


def _may_manage(request: AccountRequest) -> bool:
    return request.membership.has_role(Membership.Role.ADMIN)
