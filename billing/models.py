"""Money: ledger accounts and transfers, the price book, and the requests and legs the books are about.

Amounts are integer micro-credits (1 credit = 1 000 000 micros = 0.01 USD). Only
`services/ledger.py` writes transfers and only `services/legs.py` writes requests and legs.
"""

from typing import Self

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from accounts.models import Account, ApiKey, TenantQuerySet, User
from insighto.lib import ids
from provider_keys.models import Connection, Provider


class LedgerAccountQuerySet(TenantQuerySet["LedgerAccount"]):
    """Ledger accounts belong to an `owner`; the platform's books to nobody."""

    def of(self, account: Account) -> Self:
        return self.filter(owner=account)


class LedgerAccount(models.Model):
    """One side of transfers: an account's wallet, or one of the platform's own books (`owner` empty).

    Wallets carry running sums, changed in the statement that inserts the transfer. The
    platform's books carry none: their balance is a sum, so tenants never queue behind one row.
    """

    class Kind(models.TextChoices):
        WALLET = "wallet", "Wallet"
        FUNDING = "funding", "Funding"  # where granted and purchased credits come from
        REVENUE = "revenue", "Revenue"  # where settled holds go
        WRITEOFF = "writeoff", "Write-off"  # what could not be taken

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    owner = models.ForeignKey(Account, on_delete=models.PROTECT, null=True, related_name="ledger_accounts")
    kind = models.CharField(max_length=12, choices=Kind)
    floor_zero = models.BooleanField(default=True)
    debits_pending = models.BigIntegerField(default=0)
    debits_posted = models.BigIntegerField(default=0)
    credits_pending = models.BigIntegerField(default=0)
    credits_posted = models.BigIntegerField(default=0)
    frozen_at = models.DateTimeField(null=True, blank=True)  # verify_ledger found a mismatch: no paid traffic

    objects = LedgerAccountQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "kind"], name="billing_ledger_account_once"),
            models.UniqueConstraint(
                fields=["kind"], condition=Q(owner=None), name="billing_ledger_account_platform_once"
            ),
            models.CheckConstraint(
                condition=Q(debits_pending__gte=0, debits_posted__gte=0, credits_pending__gte=0, credits_posted__gte=0),
                name="billing_ledger_account_sums_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(floor_zero=False) | Q(credits_posted__gte=F("debits_posted") + F("debits_pending")),
                name="billing_ledger_account_floor_zero",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.owner or 'platform'} {self.kind}"

    @property
    def balance_micros(self) -> int:
        """What may still be spent: posted credits less posted and pending debits."""
        return self.credits_posted - self.debits_posted - self.debits_pending


class Transfer(models.Model):
    """One movement of micro-credits from `debit` to `credit`; one row is both entries. Append-only."""

    class Kind(models.TextChoices):
        PURCHASE = "purchase", "Purchase"
        GRANT = "grant", "Grant"
        HOLD = "hold", "Hold"
        SETTLE = "settle", "Settle"
        VOID = "void", "Void"
        EXPIRE = "expire", "Expire"
        REFUND = "refund", "Refund"
        ADJUST = "adjust", "Adjustment"
        MOVE = "move", "Transfer"
        WRITEOFF = "writeoff", "Write-off"

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    kind = models.CharField(max_length=8, choices=Kind)
    owner = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    debit = models.ForeignKey(LedgerAccount, on_delete=models.PROTECT, related_name="+")
    credit = models.ForeignKey(LedgerAccount, on_delete=models.PROTECT, related_name="+")
    amount_micros = models.BigIntegerField()
    hold = models.OneToOneField("self", on_delete=models.PROTECT, null=True, related_name="resolution")
    hold_amount_micros = models.BigIntegerField(null=True)  # pinned to the hold by a composite foreign key
    idempotency_key = models.CharField(max_length=120)
    price_id = models.UUIDField(null=True)  # the price version a hold pinned
    reference = models.CharField(max_length=64, blank=True)  # the leg, for transfers a leg caused
    actor = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "idempotency_key"], name="billing_transfer_idempotent"),
            models.CheckConstraint(condition=Q(amount_micros__gte=0), name="billing_transfer_amount_not_negative"),
            models.CheckConstraint(
                condition=Q(hold=None, hold_amount_micros=None)
                | Q(hold__isnull=False, hold_amount_micros__isnull=False, amount_micros__lte=F("hold_amount_micros")),
                name="billing_transfer_within_hold",
            ),
            models.CheckConstraint(
                condition=(Q(kind__in=["settle", "void", "expire"]) & Q(hold__isnull=False))
                | (~Q(kind__in=["settle", "void", "expire"]) & Q(hold=None)),
                name="billing_transfer_resolves_hold",
            ),
            models.CheckConstraint(
                condition=~Q(kind__in=["void", "expire"]) | Q(amount_micros=0),
                name="billing_transfer_release_takes_nothing",
            ),
        ]
        indexes = [
            models.Index(fields=["owner", "-created_at"], name="billing_transfer_statement"),
            models.Index(fields=["debit"], name="billing_transfer_debit"),
            models.Index(fields=["credit"], name="billing_transfer_credit"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount_micros}"


class Price(models.Model):
    """The list price of one provider's model from `valid_from` on, until a later row takes over.

    Prices are micro-credits per 1 000 000 units. A row is never edited: a new price is a new row.
    """

    class Unit(models.TextChoices):
        TOKENS = "tokens", "Tokens"
        CHARACTERS = "characters", "Characters"  # counted by us, as the provider bills them
        CREDITS = "credits", "Provider credits"  # ElevenLabs: the `character-cost` header
        SECONDS = "seconds", "Seconds of audio"

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    provider = models.CharField(max_length=16, choices=Provider)
    model = models.CharField(max_length=80)  # "neural" and "hd" for Azure voices
    unit = models.CharField(max_length=12, choices=Unit)
    input_micros = models.BigIntegerField()
    cached_input_micros = models.BigIntegerField(null=True, blank=True)
    cache_write_micros = models.BigIntegerField(null=True, blank=True)
    output_micros = models.BigIntegerField(default=0)
    max_output_units = models.PositiveIntegerField(null=True, blank=True)  # bounds a hold when the request names none
    # Some models cost more once the input is long: both percentages then apply to the whole request.
    long_input_above_units = models.PositiveIntegerField(null=True, blank=True)
    long_input_percent = models.PositiveSmallIntegerField(default=100)
    long_output_percent = models.PositiveSmallIntegerField(default=100)
    valid_from = models.DateTimeField()
    source = models.CharField(max_length=120)
    source_date = models.DateField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["provider", "model", "valid_from"], name="billing_price_once"),
            models.CheckConstraint(
                condition=Q(input_micros__gte=0, output_micros__gte=0)
                & (Q(cached_input_micros=None) | Q(cached_input_micros__gte=0))
                & (Q(cache_write_micros=None) | Q(cache_write_micros__gte=0)),
                name="billing_price_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_provider_display()} {self.model}"


class FundingSource(models.TextChoices):
    OWN_KEY = "own_key", "Own key"
    PARENT_KEY = "parent_key", "Parent's key"
    PLATFORM_CREDITS = "platform_credits", "Platform credits"


class Request(models.Model):
    """One API or playground call, and how it ended."""

    class State(models.TextChoices):
        RUNNING = "running", "Running"
        FINISHED = "finished", "Finished"
        FAILED = "failed", "Failed"  # the provider or we could not serve it
        REFUSED = "refused", "Refused"  # nothing was sent
        CANCELLED = "cancelled", "Cancelled"  # the client left
        CRASHED = "crashed", "Crashed"  # our process died; the sweeper closed it

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="requests")
    api_key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, null=True, related_name="+")
    user = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    endpoint = models.CharField(max_length=60)
    streamed = models.BooleanField(default=False)
    assistant_id = models.UUIDField(null=True)  # gateway's; a reference upward, never a foreign key
    state = models.CharField(max_length=9, choices=State, default=State.RUNNING)
    http_status = models.PositiveSmallIntegerField(null=True)
    error_code = models.CharField(max_length=60, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True)

    objects = TenantQuerySet["Request"].as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["account", "-created_at"], name="billing_request_recent"),
            models.Index(fields=["created_at"], condition=Q(state="running"), name="billing_request_running"),
        ]

    def __str__(self) -> str:
        return str(self.id)


class Leg(models.Model):
    """One provider operation of a request: the decision who pays, what was used, how it was settled."""

    class Kind(models.TextChoices):
        CHAT = "chat", "Chat"
        SPEECH = "speech", "Speech"
        EMBEDDING = "embedding", "Embedding"
        TRANSCRIPTION = "transcription", "Transcription"

    class State(models.TextChoices):
        REFUSED = "refused", "Refused"  # nothing sent, nothing held
        DISPATCHED = "dispatched", "Dispatched"
        SETTLED = "settled", "Settled"
        VOID = "void", "Void"  # the provider gave nothing; nothing charged
        EXPIRED = "expired", "Expired"  # the sweeper closed it

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    request = models.ForeignKey(Request, on_delete=models.PROTECT, related_name="legs")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="legs")
    kind = models.CharField(max_length=13, choices=Kind)
    provider = models.CharField(max_length=16, choices=Provider)
    model = models.CharField(max_length=80)
    voice = models.CharField(max_length=120, blank=True)
    # The decision, taken once before anything is sent.
    funding_source = models.CharField(max_length=16, choices=FundingSource, blank=True)  # empty: the router refused
    payer = models.ForeignKey(Account, on_delete=models.PROTECT, null=True, related_name="+")
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, null=True, related_name="+")
    connection_name = models.CharField(max_length=60, blank=True)
    secret_version = models.PositiveIntegerField(null=True)
    reason = models.CharField(max_length=40)
    price = models.ForeignKey(Price, on_delete=models.PROTECT, null=True, related_name="+")
    hold = models.OneToOneField(Transfer, on_delete=models.PROTECT, null=True, related_name="+")
    # What happened.
    state = models.CharField(max_length=10, choices=State)
    input_units = models.BigIntegerField(default=0)
    cached_input_units = models.BigIntegerField(default=0)
    cache_write_units = models.BigIntegerField(default=0)
    output_units = models.BigIntegerField(default=0)
    usage_source = models.CharField(max_length=10, blank=True)  # provider, counted, checkpoint
    cost_micros = models.BigIntegerField(default=0)  # taken from credits
    estimate_micros = models.BigIntegerField(null=True)  # list price of what ran on a customer's key
    upstream_status = models.PositiveSmallIntegerField(null=True)
    upstream_request_id = models.CharField(max_length=120, blank=True)
    is_flagged = models.BooleanField(default=False)  # closed by the sweeper, or usage looked wrong
    created_at = models.DateTimeField(default=timezone.now)
    dispatched_at = models.DateTimeField(null=True)
    checkpoint_at = models.DateTimeField(null=True)
    first_byte_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    deadline_at = models.DateTimeField(null=True)  # by the database's clock; the sweeper closes what is past it

    objects = TenantQuerySet["Leg"].as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(funding_source="platform_credits") | Q(cost_micros=0, hold=None),
                name="billing_leg_own_key_costs_nothing",
            ),
            models.CheckConstraint(
                condition=Q(
                    cost_micros__gte=0,
                    input_units__gte=0,
                    cached_input_units__gte=0,
                    cache_write_units__gte=0,
                    output_units__gte=0,
                ),
                name="billing_leg_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(state="refused")
                | Q(funding_source="platform_credits", hold__isnull=False)
                | Q(funding_source__in=["own_key", "parent_key"], connection__isnull=False),
                name="billing_leg_sent_is_funded",
            ),
            models.CheckConstraint(
                condition=~Q(state="refused") | Q(hold=None, dispatched_at=None),
                name="billing_leg_refused_sent_nothing",
            ),
        ]
        indexes = [
            models.Index(fields=["account", "-created_at"], name="billing_leg_recent"),
            models.Index(fields=["deadline_at"], condition=Q(state="dispatched"), name="billing_leg_open"),
            models.Index(fields=["connection", "-created_at"], name="billing_leg_by_connection"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} leg of {self.request_id}"
