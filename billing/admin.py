"""Operators' view of money. The ledger is read-only; credits are given by a form that calls the service."""

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from billing import money
from billing.models import LedgerAccount, Leg, Price, Request, Transfer
from billing.services import ledger, prices
from billing.templatetags.credits import credits
from insighto.lib import ids
from insighto.lib.errors import DomainError

GRANT_LIMIT_MICROS = 100_000 * money.MICROS_PER_CREDIT  # 1 000 USD


if TYPE_CHECKING:
    AnyAdmin = admin.ModelAdmin[Any]
else:
    AnyAdmin = admin.ModelAdmin  # generic only in the stubs


class ReadOnlyAdmin(AnyAdmin):
    """Seen, never touched: what is wrong here is corrected by a transfer."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class GrantForm(forms.Form):
    """One grant. `key` is made when the form is shown, so sending it twice grants once."""

    amount = forms.CharField(label="Credits", help_text="1 credit is 0.01 USD. At most 100,000 at once.", max_length=20)
    reason = forms.CharField(max_length=200, help_text="Shown on the account's statement.")
    key = forms.UUIDField(widget=forms.HiddenInput)

    def clean_amount(self) -> int:
        try:
            amount_micros = money.credits_to_micros(self.cleaned_data["amount"])
        except DomainError as error:
            raise forms.ValidationError(str(error)) from None
        if not amount_micros:
            raise forms.ValidationError("Enter more than nothing.")
        if amount_micros > GRANT_LIMIT_MICROS:
            message = (
                "More than 100,000 credits need two people: ask a second operator to grant them "
                "from the shell (manage.py grant)."
            )
            raise forms.ValidationError(message)
        return amount_micros


@admin.register(LedgerAccount)
class LedgerAccountAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "kind", "balance", "held", "frozen_at")
    list_filter = ("kind", ("frozen_at", admin.EmptyFieldListFilter))
    search_fields = ("owner__name", "owner__slug")
    list_select_related = ("owner",)
    change_form_template = "admin/billing/ledgeraccount/change_form.html"

    @admin.display(description="balance")
    def balance(self, wallet: LedgerAccount) -> str:
        return credits(wallet.balance_micros) if wallet.kind == LedgerAccount.Kind.WALLET else "–"

    @admin.display(description="held")
    def held(self, wallet: LedgerAccount) -> str:
        return credits(wallet.debits_pending) if wallet.kind == LedgerAccount.Kind.WALLET else "–"

    def get_urls(self) -> list[URLPattern]:
        grant = path("<uuid:wallet_id>/grant/", self.admin_site.admin_view(self.grant), name="billing_wallet_grant")
        return [grant, *super().get_urls()]

    def grant(self, request: HttpRequest, wallet_id: UUID) -> HttpResponse:
        if not request.user.has_perm("billing.add_transfer"):
            return HttpResponse("You may not grant credits.", status=403, content_type="text/plain")
        wallet = get_object_or_404(LedgerAccount.objects.filter(kind=LedgerAccount.Kind.WALLET), pk=wallet_id)
        assert wallet.owner is not None, "a wallet belongs to an account"
        assert request.user.is_authenticated, "admin_view lets nobody else in"
        form = GrantForm(request.POST or None, initial={"key": ids.new()})
        if request.method == "POST" and form.is_valid():
            try:
                transfer = ledger.grant(
                    account=wallet.owner,
                    amount_micros=form.cleaned_data["amount"],
                    reason=form.cleaned_data["reason"],
                    actor=request.user,
                    idempotency_key=f"grant:{form.cleaned_data['key']}",
                )
            except DomainError as error:
                form.add_error(None, str(error))
            else:
                messages.success(request, f"Granted {credits(transfer.amount_micros)} to {wallet.owner}.")
                return HttpResponseRedirect(reverse("admin:billing_ledgeraccount_change", args=[wallet.pk]))
        context = {
            **self.admin_site.each_context(request),
            "title": f"Grant credits to {wallet.owner}",
            "opts": self.opts,
            "wallet": wallet,
            "form": form,
        }
        return TemplateResponse(request, "admin/billing/ledgeraccount/grant.html", context)


@admin.register(Transfer)
class TransferAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "owner", "kind", "amount", "reason", "actor")
    list_filter = ("kind",)
    search_fields = ("owner__name", "owner__slug", "reference", "id")
    list_select_related = ("owner", "actor")
    ordering = ("-created_at",)

    @admin.display(description="amount", ordering="amount_micros")
    def amount(self, transfer: Transfer) -> str:
        return credits(transfer.amount_micros)


@admin.register(Request)
class RequestAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "account", "endpoint", "state", "http_status", "error_code")
    list_filter = ("state", "endpoint")
    search_fields = ("id", "account__name", "account__slug")
    list_select_related = ("account",)
    ordering = ("-created_at",)


@admin.register(Leg)
class LegAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at",
        "account",
        "kind",
        "provider",
        "model",
        "funding_source",
        "state",
        "cost",
        "is_flagged",
    )
    list_filter = ("state", "funding_source", "provider", "is_flagged")
    search_fields = ("id", "request__id", "account__name", "account__slug")
    list_select_related = ("account",)
    ordering = ("-created_at",)

    @admin.display(description="cost", ordering="cost_micros")
    def cost(self, leg: Leg) -> str:
        return credits(leg.cost_micros)


@admin.register(Price)
class PriceAdmin(AnyAdmin):
    """Rows are added, never changed: a leg keeps the price it started with."""

    list_display = ("provider", "model", "unit", "input_micros", "output_micros", "valid_from", "source", "source_date")
    list_filter = ("provider", "unit")
    search_fields = ("model",)
    ordering = ("provider", "model", "-valid_from")

    def has_change_permission(self, request: HttpRequest, obj: Price | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Price | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Price, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        prices.forget()
