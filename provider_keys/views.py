"""Settings → Your Provider Keys: forms in, one service call, pages out.

Everybody in the account may look; only owner and admin may touch, and only in a session that
proved itself lately. Each page works as plain HTML; with htmx the same views answer in parts.
"""

import uuid
from dataclasses import dataclass

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django_htmx.http import HttpResponseClientRedirect

from accounts.freshness import is_fresh, require_fresh
from accounts.models import Membership
from accounts.permissions import AccountRequest, require_role
from insighto.lib.errors import DomainError
from provider_keys import impact, pasted, wording
from provider_keys.errors import SwitchRefused
from provider_keys.forms import ConnectionForm, NameForm, SlotsForm
from provider_keys.models import Connection, Provider
from provider_keys.readiness import BRANDS, ConnectionFacts, State
from provider_keys.selectors import ProviderCard, SettingsPage, settings_page
from provider_keys.services import checks, connections, slots, switch
from provider_keys.wording import Help, Words

HOME = "provider_keys:connection_list"


@dataclass(frozen=True, slots=True)
class Row:
    """A connection and its words."""

    facts: ConnectionFacts
    words: Words
    is_in_use: bool  # selected, and the switch is on


@dataclass(frozen=True, slots=True)
class Card:
    """One provider as the page shows it."""

    facts: ProviderCard
    purpose: str
    help: Help
    words: Words
    shown: ConnectionFacts | None  # what the drop-down shows: selected, or about to be
    rows: tuple[Row, ...]
    may_say_not_used: bool

    @property
    def is_unsaved(self) -> bool:
        return self.facts.selected is None and self.shown is not None


@require_GET
@require_role(Membership.Role.MEMBER)
def connection_list(request: AccountRequest) -> HttpResponse:
    page = settings_page(request.account)
    return _settings(request, page, SlotsForm(page=page))


@require_http_methods(["GET", "POST"])
@require_role(Membership.Role.ADMIN)
@require_fresh(back_to=HOME)
def connection_add(request: AccountRequest, provider: str) -> HttpResponse:
    if provider not in Provider:
        raise Http404
    card = settings_page(request.account).card(provider)
    form = ConnectionForm(request.POST or None, provider=provider, suggested_name=card.suggested_name)
    if request.method == "POST" and form.is_valid():
        try:
            connection = connections.add(
                account=request.account, provider=provider, actor=request.user, **form.cleaned_data
            )
        except DomainError as error:
            form.add_error(error.field if error.field in form.fields else None, str(error))
        else:
            messages.success(request, wording.saved(provider, is_placeholder=connection.is_placeholder))
            for hint in [] if connection.is_placeholder else pasted.hints(provider, form.cleaned_data["key"]):
                messages.warning(request, hint)
            return _go_home(request)
    context = {"form": form, "card": card, "action": request.path}
    return _form(request, "provider_keys/connection_form.html", "provider_keys/_connection_form.html", context)


@require_POST
@require_role(Membership.Role.ADMIN)
@require_fresh(back_to=HOME)
def placeholder_add(request: AccountRequest) -> HttpResponse:
    try:
        connections.add(account=request.account, provider=Provider.ELEVENLABS, key="dummy", actor=request.user)
    except DomainError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, wording.saved(Provider.ELEVENLABS, is_placeholder=True))
    return redirect(HOME)


@require_http_methods(["GET", "POST"])
@require_role(Membership.Role.ADMIN)
@require_fresh(back_to=HOME)
def connection_rename(request: AccountRequest, connection_id: uuid.UUID) -> HttpResponse:
    connection = _connection(request, connection_id)
    form = NameForm(request.POST or None, initial={"name": connection.name})
    if request.method == "POST" and form.is_valid():
        try:
            connections.rename(connection=connection, name=form.cleaned_data["name"], actor=request.user)
        except DomainError as error:
            form.add_error("name", str(error))
        else:
            messages.success(request, f"Renamed to “{form.cleaned_data['name'].strip()}”")
            return redirect(HOME)
    return render(request, "provider_keys/connection_rename.html", {"form": form, "connection": connection})


@require_http_methods(["GET", "POST"])
@require_role(Membership.Role.ADMIN)
@require_fresh(back_to=HOME)
def connection_replace(request: AccountRequest, connection_id: uuid.UUID) -> HttpResponse:
    connection = _connection(request, connection_id)
    form = ConnectionForm(request.POST or None, provider=connection.provider, region=connection.region, with_name=False)
    if request.method == "POST" and form.is_valid():
        try:
            connections.replace_secret(connection=connection, actor=request.user, **form.cleaned_data)
        except DomainError as error:
            form.add_error(error.field if error.field in form.fields else None, str(error))
        else:
            messages.success(request, wording.saved(connection.provider, is_placeholder=False))
            return redirect(HOME)
    return render(request, "provider_keys/connection_replace.html", {"form": form, "connection": connection})


@require_http_methods(["GET", "POST"])
@require_role(Membership.Role.ADMIN)
@require_fresh(back_to=HOME)
def connection_remove(request: AccountRequest, connection_id: uuid.UUID) -> HttpResponse:
    connection = _connection(request, connection_id)
    if request.method == "POST":
        try:
            connections.remove(connection=connection, actor=request.user)
        except DomainError as error:
            messages.error(request, str(error))
        else:
            messages.success(request, f"“{connection.name}” was removed and its key destroyed")
        return redirect(HOME)
    return render(request, "provider_keys/connection_remove.html", {"connection": connection})


@require_POST
@require_role(Membership.Role.ADMIN)
@require_fresh(back_to=HOME)
def slot_submit(request: AccountRequest) -> HttpResponse:
    page = settings_page(request.account)
    form = SlotsForm(request.POST, page=page)
    if form.is_valid():
        chosen = Connection.objects.of(request.account).in_bulk([uuid.UUID(i) for i in form.cleaned_data.values() if i])
        choices = {
            Provider(provider): chosen.get(uuid.UUID(value)) if value else None
            for provider, value in form.cleaned_data.items()
        }
        try:
            slots.select_many(account=request.account, choices=choices, actor=request.user)
        except DomainError as error:
            form.add_error(error.field if error.field in form.fields else None, str(error))
        else:
            messages.success(request, "Your selection is now saved")
            return redirect(HOME)
    return _settings(request, settings_page(request.account), form)


@require_POST
@require_role(Membership.Role.ADMIN)
def check_start(request: AccountRequest) -> HttpResponse:
    refusal, asked = "", []
    try:
        asked = checks.request_selected(account=request.account, actor=request.user)
    except DomainError as error:
        refusal = str(error)
    if not asked and not refusal:
        refusal = "There is no key to check. Choose a connection for each provider and press Submit."
    if request.headers.get("HX-Request"):
        return _live(request, refusal)
    if refusal:
        messages.warning(request, refusal)
    return redirect(HOME)


@require_GET
@require_role(Membership.Role.MEMBER)
def check_status(request: AccountRequest) -> HttpResponse:
    return _live(request) if request.headers.get("HX-Request") else redirect(HOME)


@require_GET
@require_role(Membership.Role.ADMIN)
@require_fresh(back_to=HOME)
def switch_confirm(request: AccountRequest) -> HttpResponse:
    return _switch_page(request, settings_page(request.account))


@require_POST
@require_role(Membership.Role.ADMIN)
@require_fresh(back_to=HOME)
def switch_set(request: AccountRequest) -> HttpResponse:
    turning_on = request.POST.get("to") == "on"
    try:
        (switch.turn_on if turning_on else switch.turn_off)(account=request.account, actor=request.user)
    except SwitchRefused:
        # The page of the keys lists what is missing too, and follows the checks this has started.
        messages.error(request, "Use My API Keys stays off. What is missing is listed below.")
        return redirect(HOME)
    if turning_on:
        messages.success(request, "Use My API Keys is on. Requests now run on your own keys.")
    else:
        messages.success(request, "Use My API Keys is off. Requests are now paid with platform credits.")
    return redirect(HOME)


def _connection(request: AccountRequest, connection_id: uuid.UUID) -> Connection:
    return get_object_or_404(Connection.objects.of(request.account), pk=connection_id, removed_at=None)


def _go_home(request: AccountRequest) -> HttpResponse:
    return HttpResponseClientRedirect(reverse(HOME)) if request.headers.get("HX-Request") else redirect(HOME)


def _form(request: AccountRequest, whole: str, part: str, context: dict[str, object]) -> HttpResponse:
    """The page, or only its form when the dialog asks."""
    return render(request, part if request.headers.get("HX-Request") else whole, context)


def _settings(request: AccountRequest, page: SettingsPage, form: SlotsForm) -> HttpResponse:
    context = _context(request, page) | {"form": form}
    if context["can_manage"] and is_fresh(request):
        # A stale session follows the link, confirms itself and gets the plain page instead of a dialog.
        context["dialogs"] = [
            {
                "card": card,
                "form": ConnectionForm(provider=card.provider, suggested_name=card.suggested_name),
                "action": reverse("provider_keys:connection_add", args=[card.provider]),
            }
            for card in page.providers
        ]
    return render(request, "provider_keys/connection_list.html", context)


def _live(request: AccountRequest, refusal: str = "") -> HttpResponse:
    """What changes while checks run, as fragments that find their own places."""
    context = _context(request, settings_page(request.account)) | {"refusal": refusal}
    return render(request, "provider_keys/_live.html", context)


def _switch_page(request: AccountRequest, page: SettingsPage) -> HttpResponse:
    turning_on = not page.byok_enabled
    context = {
        "page": page,
        "turning_on": turning_on,
        "is_clear": not turning_on or not page.obstacles,
        "can_recheck": all(obstacle.can_recheck for obstacle in page.obstacles),
        "impacts": impact.foresee(request.account, turning_on=turning_on),
        "keys": [card for card in page.providers if card.selected and not card.selected.is_placeholder],
    }
    return render(request, "provider_keys/switch_confirm.html", context)


def _context(request: AccountRequest, page: SettingsPage) -> dict[str, object]:
    awaited = [
        BRANDS[card.provider]
        for card in page.providers
        if any(item.status.is_checking and not item.is_placeholder for item in card.connections)
    ]
    return {
        "page": page,
        "cards": [_card(card, page) for card in page.providers],
        "can_manage": request.membership.has_role(Membership.Role.ADMIN),
        "awaited": awaited,
    }


def _card(card: ProviderCard, page: SettingsPage) -> Card:
    shown = card.selected or (card.connections[-1] if card.connections else None)
    return Card(
        facts=card,
        purpose=wording.PURPOSES[card.provider],
        help=wording.HELP[card.provider],
        words=wording.words(card.provider, shown.status if shown else None),
        shown=shown,
        rows=tuple(
            Row(item, wording.words(card.provider, item.status), item.is_selected and page.byok_enabled)
            for item in reversed(card.connections)
        ),
        may_say_not_used=not card.required
        and all(item.status.state is not State.NOT_USED for item in card.connections),
    )
