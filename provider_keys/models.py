"""Secrets: customers' connections and their sealed credentials, slots, checks; our own platform credentials.

Nothing here opens a secret; `services/connections.py` does. Display reads only the
columns beside the ciphertext.
"""

from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.models import Account, TenantQuerySet, User
from insighto.lib import ids
from provider_keys.crypto import Context, SealedCredential
from provider_keys.fields import SealedField


class Provider(models.TextChoices):
    OPENAI = "openai", "OpenAI"
    AZURE_SPEECH = "azure_speech", "Azure Speech"
    ELEVENLABS = "elevenlabs", "ElevenLabs"


class Verdict(models.TextChoices):
    """What the last definite evidence said about a key (provider-contracts §1)."""

    UNTESTED = "untested", "Not checked yet"
    VALID = "valid", "Valid"
    RESTRICTED = "restricted", "Restricted"
    QUOTA_EXHAUSTED = "quota_exhausted", "No quota"
    REGION_MISMATCH = "region_mismatch", "Wrong region"
    INVALID = "invalid", "Invalid"
    PLACEHOLDER = "placeholder", "Not used"
    LOCKED = "locked", "Locked"


class Attempt(models.TextChoices):
    """How the last attempt to learn something ended; it never changes a verdict by itself."""

    NONE = "", "Never tried"
    OK = "ok", "Answered"
    RATE_LIMITED = "rate_limited", "Rate-limited"
    UNREACHABLE = "unreachable", "Unreachable"


REQUIRED_PROVIDERS: frozenset[str] = frozenset({Provider.OPENAI, Provider.AZURE_SPEECH})

# The `verdict_reason` of a recognised key whose free calls are all forbidden to it: it may serve perfectly well.
CANNOT_BE_CHECKED = "cannot_be_checked"


class Connection(models.Model):
    """A customer's named link to one provider; its secret lives in `Credential` versions.

    A removed connection keeps its row (receipts name it) and loses every ciphertext.
    """

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="connections")
    provider = models.CharField(max_length=16, choices=Provider)
    name = models.CharField(max_length=60)
    region = models.CharField(max_length=40, blank=True)
    is_placeholder = models.BooleanField(default=False)
    current_version = models.PositiveIntegerField(default=0)
    verdict = models.CharField(max_length=16, choices=Verdict, default=Verdict.UNTESTED)
    verdict_reason = models.CharField(max_length=40, blank=True)
    verdict_at = models.DateTimeField(null=True, blank=True)
    rejected_at = models.DateTimeField(null=True, blank=True)  # unconfirmed rejection of a good key
    rejected_verdict = models.CharField(max_length=16, choices=Verdict, blank=True)
    attempt = models.CharField(max_length=16, choices=Attempt, blank=True, default=Attempt.NONE)
    attempt_reason = models.CharField(max_length=40, blank=True)
    attempt_at = models.DateTimeField(null=True, blank=True)
    retry_at = models.DateTimeField(null=True, blank=True)
    capabilities = models.JSONField(default=dict)  # models or voices this key was seen to have; ids only
    last_used_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    removed_at = models.DateTimeField(null=True, blank=True)

    objects = TenantQuerySet["Connection"].as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["account", "provider", "name"],
                condition=Q(removed_at=None),
                name="provider_keys_connection_name_unique",
            ),
            models.CheckConstraint(
                condition=Q(is_placeholder=False) | Q(verdict="placeholder"),
                name="provider_keys_connection_placeholder_verdict",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_removed(self) -> bool:
        return self.removed_at is not None

    @property
    def is_ready(self) -> bool:
        """Good enough for a live slot: its last definite verdict lets work run on it."""
        return not self.is_placeholder and not self.is_removed and self._passes(Verdict.VALID)

    @property
    def is_usable(self) -> bool:
        """What the router may try: ready, or never judged."""
        return self.is_ready or (
            not self.is_placeholder and not self.is_removed and self._passes(Verdict.VALID, Verdict.UNTESTED)
        )

    def _passes(self, *verdicts: str) -> bool:
        if self.verdict == Verdict.RESTRICTED:
            return self.verdict_reason == CANNOT_BE_CHECKED
        return self.verdict in verdicts


class Credential(models.Model):
    """One sealed version of a connection's secret. The ciphertext never changes but by rewrap.

    `destination` says where the secret was meant to go, for people and for rewrap; opening
    trusts the settings and the connection's region instead.
    """

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    connection = models.ForeignKey(Connection, on_delete=models.CASCADE, related_name="credentials")
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="+")
    secret_version = models.PositiveIntegerField()
    ciphertext = SealedField()  # empty once destroyed
    kek_id = models.CharField(max_length=32, db_index=True, blank=True)
    destination = models.CharField(max_length=120)
    last_four = models.CharField(max_length=4, blank=True)
    key_shape = models.CharField(max_length=24, blank=True)
    fingerprint = models.BinaryField(max_length=32)
    sealed_at = models.DateTimeField(default=timezone.now)
    destroyed_at = models.DateTimeField(null=True, blank=True)

    objects = TenantQuerySet["Credential"].as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["connection", "secret_version"], name="provider_keys_credential_version_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.connection} v{self.secret_version}"

    def sealed(self) -> SealedCredential:
        return SealedCredential(
            credential_id=self.id,
            account_id=self.account_id,
            provider=self.connection.provider,
            secret_version=self.secret_version,
            region=self.connection.region,
            ciphertext=bytes(self.ciphertext),
        )

    def sealing_context(self) -> Context:
        return self.sealed().context(destination=self.destination)


class Slot(models.Model):
    """Which connection an account's legs of one provider use; empty until one is submitted."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="slots")
    provider = models.CharField(max_length=16, choices=Provider)
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, null=True, blank=True, related_name="slots")
    changed_at = models.DateTimeField(default=timezone.now)

    objects = TenantQuerySet["Slot"].as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "provider"], name="provider_keys_slot_once"),
        ]

    def __str__(self) -> str:
        return f"{self.get_provider_display()} slot of {self.account}"


class Check(models.Model):
    """One question to a provider about one version of one connection, from asking to answer."""

    class Trigger(models.TextChoices):
        PERSON = "person", "Check Status"
        ADDED = "added", "Newly added"
        SWITCH = "switch", "Before switching on"
        CONFIRM = "confirm", "Confirming a rejection"
        RECHECK = "recheck", "Routine re-check"

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="+")
    connection = models.ForeignKey(Connection, on_delete=models.CASCADE, related_name="checks")
    secret_version = models.PositiveIntegerField()
    trigger = models.CharField(max_length=8, choices=Trigger)
    requested_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)
    verdict = models.CharField(max_length=16, choices=Verdict, blank=True)  # empty: said nothing about the key
    attempt = models.CharField(max_length=16, choices=Attempt, blank=True)
    reason = models.CharField(max_length=40, blank=True)
    http_status = models.PositiveSmallIntegerField(null=True, blank=True)
    provider_code = models.CharField(max_length=60, blank=True)
    provider_request_id = models.CharField(max_length=80, blank=True)

    objects = TenantQuerySet["Check"].as_manager()

    class Meta:
        indexes = [models.Index(fields=["connection", "-requested_at"], name="provider_keys_check_recent")]

    def __str__(self) -> str:
        return f"check of {self.connection}"


class PlatformCredential(models.Model):
    """The platform's own key at a provider: what platform-funded legs run on. Write-only in admin."""

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    provider = models.CharField(max_length=16, choices=Provider, unique=True)
    region = models.CharField(max_length=40, blank=True)
    secret_version = models.PositiveIntegerField(default=1)
    ciphertext = SealedField()
    kek_id = models.CharField(max_length=32, db_index=True)
    destination = models.CharField(max_length=120)
    last_four = models.CharField(max_length=4, blank=True)
    sealed_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"platform {self.get_provider_display()}"

    def sealed(self) -> SealedCredential:
        return SealedCredential(
            credential_id=self.id,
            account_id=None,
            provider=self.provider,
            secret_version=self.secret_version,
            region=self.region,
            ciphertext=bytes(self.ciphertext),
        )

    def sealing_context(self) -> Context:
        return self.sealed().context(destination=self.destination)


class KekCheckValue(models.Model):
    """Proof that a KEK version still is the one rows were sealed with: same name, other bytes → refuse to start."""

    kek_id = models.CharField(max_length=32, primary_key=True)
    check_value = models.BinaryField(max_length=32)
    created_at = models.DateTimeField(default=timezone.now)
    retired_at = models.DateTimeField(null=True, blank=True)  # nothing may be sealed with it any more

    def __str__(self) -> str:
        return self.kek_id
