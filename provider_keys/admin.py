"""What operators see of keys: everything beside the secret, and no way to the secret itself."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.decorators import method_decorator
from django.utils.html import format_html_join
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from accounts.models import Account
from insighto.lib.errors import DomainError
from provider_keys import destinations, pasted
from provider_keys.forms import VisibleInput
from provider_keys.models import Check, Connection, Credential, PlatformCredential, Provider
from provider_keys.services import checks, platform_credentials


class _SeenOnly:
    """Rows that customers and services write: operators look at them."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class CredentialInline(_SeenOnly, admin.TabularInline[Credential, Connection]):
    """The versions of a connection's secret: when, under which key, its last four characters."""

    model = Credential
    extra = 0
    verbose_name_plural = "secret versions"
    fields = ["secret_version", "last_four", "key_shape", "kek_id", "destination", "sealed_at", "destroyed_at"]


@admin.register(Connection)
class ConnectionAdmin(_SeenOnly, admin.ModelAdmin[Connection]):
    list_display = ["name", "account", "provider", "region", "verdict", "verdict_at", "attempt", "last_used_at"]
    list_filter = ["provider", "verdict", "attempt", ("removed_at", admin.EmptyFieldListFilter)]
    list_select_related = ["account"]
    search_fields = ["name", "account__name", "account__slug"]
    date_hierarchy = "created_at"
    inlines = [CredentialInline]
    actions = ["check_again"]
    fields = [
        "account",
        "provider",
        "name",
        "region",
        "is_placeholder",
        "current_version",
        ("verdict", "verdict_reason", "verdict_at"),
        ("rejected_verdict", "rejected_at"),
        ("attempt", "attempt_reason", "attempt_at", "retry_at"),
        "recent_checks",
        ("created_by", "created_at"),
        ("last_used_at", "removed_at"),
    ]
    readonly_fields = ["recent_checks"]

    @admin.display(description="Recent checks")
    def recent_checks(self, connection: Connection) -> str:
        rows = connection.checks.order_by("-requested_at")[:20]
        return format_html_join(
            "",
            "<div>{}: version {}, {} – {} {}</div>",
            (
                (
                    f"{row.requested_at:%Y-%m-%d %H:%M:%S}",
                    row.secret_version,
                    row.get_trigger_display(),
                    row.get_verdict_display() or row.get_attempt_display() if row.finished_at else "running",
                    row.reason,
                )
                for row in rows
            ),
        )

    @admin.action(description="Check these keys again", permissions=["view"])
    def check_again(self, request: HttpRequest, queryset: QuerySet[Connection]) -> None:
        present = queryset.filter(removed_at=None, is_placeholder=False)
        asked = 0
        for account in Account.objects.filter(pk__in=present.values("account")):
            rows = list(present.filter(account=account))
            try:
                checks.request(
                    account=account,
                    connections=rows,
                    trigger=Check.Trigger.PERSON,
                    actor=request.user,  # type: ignore[arg-type]
                )
            except DomainError as error:
                self.message_user(request, f"{account}: {error}", messages.ERROR)
            else:
                asked += len(rows)
        self.message_user(request, f"{asked} keys are being checked.", messages.SUCCESS if asked else messages.WARNING)


@admin.register(Check)
class CheckAdmin(_SeenOnly, admin.ModelAdmin[Check]):
    list_display = ["requested_at", "account", "connection", "trigger", "verdict", "attempt", "reason", "http_status"]
    list_filter = ["trigger", "verdict", "attempt", "connection__provider"]
    list_select_related = ["account", "connection"]
    search_fields = ["connection__name", "account__name", "account__slug", "provider_request_id"]
    date_hierarchy = "requested_at"
    ordering = ["-requested_at"]


class PlatformCredentialForm(forms.ModelForm[PlatformCredential]):
    """The key goes in here and never comes back out, not even after a mistake in another field."""

    key = forms.CharField(
        max_length=400,
        strip=False,
        widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="Stored sealed and never shown again. Saving replaces the key that is stored.",
    )

    class Meta:
        model = PlatformCredential
        fields = ["provider", "region"]
        widgets = {"region": VisibleInput}

    @sensitive_variables()
    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        for field, judge in (("key", pasted.key), ("region", self._judge_region)):
            try:
                judge(self.cleaned_data.get(field, ""))
            except DomainError as error:
                if field not in self.errors:
                    self.add_error(field, str(error))
        return cleaned

    def _judge_region(self, typed: str) -> None:
        if (self.cleaned_data.get("provider") or self.instance.provider) == Provider.AZURE_SPEECH:
            destinations.normalised_region(typed)


@method_decorator(sensitive_post_parameters("key"), name="changeform_view")
@admin.register(PlatformCredential)
class PlatformCredentialAdmin(admin.ModelAdmin[PlatformCredential]):
    form = PlatformCredentialForm
    list_display = ["provider", "region", "last_four", "secret_version", "kek_id", "sealed_at"]
    fields = ["provider", "region", "key", "last_four", "secret_version", "destination", "kek_id", "sealed_at"]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        shown = ["last_four", "secret_version", "destination", "kek_id", "sealed_at"]
        return ["provider", *shown] if obj else shown

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self.fields if obj else ["provider", "region", "key"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: PlatformCredential, form: Any, change: bool) -> None:
        row = platform_credentials.put(
            provider=obj.provider,
            key=form.cleaned_data["key"],
            region=obj.region,
            actor=request.user,  # type: ignore[arg-type]
        )
        obj.pk = row.pk
