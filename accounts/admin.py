"""Operators' view of accounts. No password hash, digest or seed is a readable field, and history is read-only."""

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.contrib import admin
from django.contrib.auth.models import Group
from django.db.models import Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest

from accounts.models import Account, ApiKey, AuditEvent, Membership, OutboxEntry, Plan, User
from accounts.services import audit, standing

# allauth registers its own pages: they would show seeds' ciphertexts and let addresses be marked as verified.
for model in (Authenticator, EmailAddress, Group):
    if admin.site.is_registered(model):
        admin.site.unregister(model)


class ReadOnlyAdmin(admin.ModelAdmin[Any]):
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Account)
class AccountAdmin(admin.ModelAdmin[Account]):
    list_display = ["name", "slug", "parent", "plan", "status", "byok_allowed", "byok_enabled", "created_at"]
    list_filter = ["status", "plan", "byok_allowed", "byok_enabled"]
    list_select_related = ["parent", "plan"]
    search_fields = ["name", "slug", "memberships__user__email"]
    fields = [
        "name",
        "slug",
        "parent",
        "plan",
        "byok_allowed",
        "status",
        "byok_enabled",
        "byok_changed_at",
        "created_at",
    ]
    readonly_fields = ["name", "slug", "parent", "status", "byok_enabled", "byok_changed_at", "created_at"]
    actions = ["suspend", "reactivate"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: Any, obj: Account, form: ModelForm[Account], change: bool) -> None:
        standing.set_terms(account=obj, plan=obj.plan, byok_allowed=obj.byok_allowed, actor=request.user)

    @admin.action(description="Suspend selected accounts", permissions=["change"])
    def suspend(self, request: Any, queryset: QuerySet[Account]) -> None:
        count = sum(standing.suspend(account=account, actor=request.user) for account in queryset)
        self.message_user(request, f"{count} suspended.")

    @admin.action(description="Reactivate selected accounts", permissions=["change"])
    def reactivate(self, request: Any, queryset: QuerySet[Account]) -> None:
        count = sum(standing.reactivate(account=account, actor=request.user) for account in queryset)
        self.message_user(request, f"{count} reactivated.")


@admin.register(Plan)
class PlanAdmin(admin.ModelAdmin[Plan]):
    list_display = ["name", "code", "byok_allowed"]

    def save_model(self, request: Any, obj: Plan, form: ModelForm[Plan], change: bool) -> None:
        super().save_model(request, obj, form, change)
        detail = {"byok_allowed": obj.byok_allowed, "name": obj.name}
        audit.record(account=None, actor=request.user, action="plan.saved", target=obj, detail=detail)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(User)
class UserAdmin(admin.ModelAdmin[User]):
    list_display = ["email", "name", "is_staff", "is_active", "date_joined", "last_login"]
    list_filter = ["is_staff", "is_active"]
    search_fields = ["email", "name"]
    fields = ["email", "name", "is_active", "is_staff", "date_joined", "last_login"]
    readonly_fields = ["email", "is_staff", "date_joined", "last_login"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: Any, obj: User, form: ModelForm[User], change: bool) -> None:
        super().save_model(request, obj, form, change)
        detail = {"fields": sorted(form.changed_data)}
        audit.record(account=None, actor=request.user, action="user.changed", target=obj, detail=detail)


@admin.register(Membership)
class MembershipAdmin(ReadOnlyAdmin):
    list_display = ["account", "user", "role", "created_at"]
    list_select_related = ["account", "user"]
    list_filter = ["role"]
    search_fields = ["account__name", "user__email"]


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    list_display = ["name", "account", "public_id", "created_at", "expires_at", "revoked_at", "last_used_at"]
    list_select_related = ["account"]
    search_fields = ["name", "public_id", "account__name"]
    exclude = ["digest"]


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ["created_at", "account", "actor_label", "action", "target_kind", "target_label"]
    list_select_related = ["account"]
    search_fields = ["action", "actor_label", "account__name", "target_id"]
    show_full_result_count = False


@admin.register(OutboxEntry)
class OutboxEntryAdmin(ReadOnlyAdmin):
    list_display = ["kind", "subject", "account", "attempts", "available_at", "done_at", "dead_at"]
    list_select_related = ["account"]
    list_filter = ["kind"]
