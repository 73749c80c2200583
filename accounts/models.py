"""Who: people, the accounts they belong to, the API keys we issue, the audit trail, the outbox.

This app knows nothing of providers or money; what hangs on an account points here.
"""

from typing import Any, ClassVar, Self, TypeVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower, Now
from django.utils import timezone

from insighto.lib import ids

M = TypeVar("M", bound=models.Model)


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    """One person, known by e-mail address. An operator is a user with `is_staff`."""

    email = models.EmailField(unique=True)
    name = models.CharField(max_length=120, blank=True)
    is_staff = models.BooleanField("operator", default=False)
    is_active = models.BooleanField(default=True)
    date_joined = models.DateTimeField(default=timezone.now)

    objects: ClassVar[UserManager] = UserManager()

    EMAIL_FIELD = "email"
    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        constraints = [models.UniqueConstraint(Lower("email"), name="accounts_user_email_unique")]

    def __str__(self) -> str:
        return self.name or self.email


class TenantQuerySet(models.QuerySet[M]):
    """Rows of one tenant. Every look-up a request makes starts at `of()`."""

    def of(self, account: "Account") -> Self:
        return self.filter(account=account)


class Plan(models.Model):
    """What an account may do. Operators edit plans; a subaccount lives under its parent's."""

    code = models.SlugField(unique=True)
    name = models.CharField(max_length=60)
    byok_allowed = models.BooleanField("BYOK allowed", default=True)

    def __str__(self) -> str:
        return self.name


class Account(models.Model):
    """One tenant: a main account, or a subaccount of one (`parent` set, never deeper)."""

    class Status(models.TextChoices):
        ACTIVE = "active", "Active"
        SUSPENDED = "suspended", "Suspended"

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    name = models.CharField(max_length=80)
    slug = models.SlugField(unique=True, max_length=60)
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="subaccounts")
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="accounts")
    status = models.CharField(max_length=12, choices=Status, default=Status.ACTIVE)
    byok_allowed = models.BooleanField("BYOK allowed", default=True, help_text="Permission beside the plan's.")
    byok_enabled = models.BooleanField("Use My API Keys", default=False)
    byok_changed_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=~Q(parent=models.F("id")), name="accounts_account_not_own_parent"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def may_use_byok(self) -> bool:
        """The plan and the operator (for a subaccount also its parent's) allow the switch."""
        return self.byok_allowed and self.plan.byok_allowed and (self.parent is None or self.parent.byok_allowed)


class Membership(models.Model):
    """One person's place in one account."""

    class Role(models.TextChoices):
        OWNER = "owner", "Owner"
        ADMIN = "admin", "Admin"
        MEMBER = "member", "Member"

    RANK: ClassVar[dict[str, int]] = {Role.MEMBER: 1, Role.ADMIN: 2, Role.OWNER: 3}

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=8, choices=Role, default=Role.MEMBER)
    created_at = models.DateTimeField(default=timezone.now)

    objects = TenantQuerySet["Membership"].as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "user"], name="accounts_membership_once"),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.account}"

    def has_role(self, role: str) -> bool:
        return self.RANK[self.role] >= self.RANK[role]


class ApiKey(models.Model):
    """One bearer token we issued: an HMAC digest to find it by, never the token itself."""

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=60)
    public_id = models.CharField(max_length=16, unique=True)
    digest = models.BinaryField(max_length=32, unique=True)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = TenantQuerySet["ApiKey"].as_manager()

    def __str__(self) -> str:
        return self.name

    @property
    def is_active(self) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > timezone.now())


class AuditEvent(models.Model):
    """Who did what to what. Append-only, by trigger too; holds no secret and no provider text."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, null=True, related_name="audit_events")
    actor = models.ForeignKey(User, on_delete=models.PROTECT, null=True)
    actor_label = models.CharField(max_length=120)
    action = models.CharField(max_length=60)
    target_kind = models.CharField(max_length=40, blank=True)
    target_id = models.CharField(max_length=64, blank=True)
    target_label = models.CharField(max_length=120, blank=True)
    detail = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now())

    objects = TenantQuerySet["AuditEvent"].as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["account", "-id"], name="accounts_audit_by_account")]

    def __str__(self) -> str:
        return f"{self.actor_label} {self.action}"


class OutboxEntry(models.Model):
    """One piece of work owed, written in the transaction that made it due.

    The database is the work list; Celery is the doorbell (design §4). `attempts` is
    counted before the work starts; after five the entry is dead and operators see it.
    """

    MAX_ATTEMPTS: ClassVar[int] = 5

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, null=True, related_name="+")
    kind = models.CharField(max_length=60)
    subject = models.CharField(max_length=64)
    version = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=0)
    available_at = models.DateTimeField(default=timezone.now)
    locked_until = models.DateTimeField(null=True, blank=True)
    done_at = models.DateTimeField(null=True, blank=True)
    dead_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name_plural = "outbox entries"
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "subject"],
                condition=Q(done_at=None, dead_at=None),
                name="accounts_outbox_one_open",
            ),
        ]
        indexes = [
            models.Index(fields=["available_at"], condition=Q(done_at=None, dead_at=None), name="accounts_outbox_due"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}"
