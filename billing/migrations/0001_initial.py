import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions.datetime
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import insighto.lib.ids


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("accounts", "0001_initial"),
        ("provider_keys", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="LedgerAccount",
            fields=[
                (
                    "id",
                    models.UUIDField(default=insighto.lib.ids.new, editable=False, primary_key=True, serialize=False),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("wallet", "Wallet"),
                            ("funding", "Funding"),
                            ("revenue", "Revenue"),
                            ("writeoff", "Write-off"),
                        ],
                        max_length=12,
                    ),
                ),
                ("floor_zero", models.BooleanField(default=True)),
                ("debits_pending", models.BigIntegerField(default=0)),
                ("debits_posted", models.BigIntegerField(default=0)),
                ("credits_pending", models.BigIntegerField(default=0)),
                ("credits_posted", models.BigIntegerField(default=0)),
                ("frozen_at", models.DateTimeField(blank=True, null=True)),
                (
                    "owner",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="ledger_accounts",
                        to="accounts.account",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Price",
            fields=[
                (
                    "id",
                    models.UUIDField(default=insighto.lib.ids.new, editable=False, primary_key=True, serialize=False),
                ),
                (
                    "provider",
                    models.CharField(
                        choices=[("openai", "OpenAI"), ("azure_speech", "Azure Speech"), ("elevenlabs", "ElevenLabs")],
                        max_length=16,
                    ),
                ),
                ("model", models.CharField(max_length=80)),
                (
                    "unit",
                    models.CharField(
                        choices=[
                            ("tokens", "Tokens"),
                            ("characters", "Characters"),
                            ("credits", "Provider credits"),
                            ("seconds", "Seconds of audio"),
                        ],
                        max_length=12,
                    ),
                ),
                ("input_micros", models.BigIntegerField()),
                ("cached_input_micros", models.BigIntegerField(blank=True, null=True)),
                ("cache_write_micros", models.BigIntegerField(blank=True, null=True)),
                ("output_micros", models.BigIntegerField(default=0)),
                ("max_output_units", models.PositiveIntegerField(blank=True, null=True)),
                ("long_input_above_units", models.PositiveIntegerField(blank=True, null=True)),
                ("long_input_percent", models.PositiveSmallIntegerField(default=100)),
                ("long_output_percent", models.PositiveSmallIntegerField(default=100)),
                ("valid_from", models.DateTimeField()),
                ("source", models.CharField(max_length=120)),
                ("source_date", models.DateField()),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("provider", "model", "valid_from"), name="billing_price_once"),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("input_micros__gte", 0),
                            ("output_micros__gte", 0),
                            models.Q(("cached_input_micros", None), ("cached_input_micros__gte", 0), _connector="OR"),
                            models.Q(("cache_write_micros", None), ("cache_write_micros__gte", 0), _connector="OR"),
                        ),
                        name="billing_price_not_negative",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Request",
            fields=[
                (
                    "id",
                    models.UUIDField(default=insighto.lib.ids.new, editable=False, primary_key=True, serialize=False),
                ),
                ("endpoint", models.CharField(max_length=60)),
                ("streamed", models.BooleanField(default=False)),
                ("assistant_id", models.UUIDField(null=True)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("running", "Running"),
                            ("finished", "Finished"),
                            ("failed", "Failed"),
                            ("refused", "Refused"),
                            ("cancelled", "Cancelled"),
                            ("crashed", "Crashed"),
                        ],
                        default="running",
                        max_length=9,
                    ),
                ),
                ("http_status", models.PositiveSmallIntegerField(null=True)),
                ("error_code", models.CharField(blank=True, max_length=60)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="requests", to="accounts.account"
                    ),
                ),
                (
                    "api_key",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.apikey"
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Transfer",
            fields=[
                (
                    "id",
                    models.UUIDField(default=insighto.lib.ids.new, editable=False, primary_key=True, serialize=False),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("purchase", "Purchase"),
                            ("grant", "Grant"),
                            ("hold", "Hold"),
                            ("settle", "Settle"),
                            ("void", "Void"),
                            ("expire", "Expire"),
                            ("refund", "Refund"),
                            ("adjust", "Adjustment"),
                            ("move", "Transfer"),
                            ("writeoff", "Write-off"),
                        ],
                        max_length=8,
                    ),
                ),
                ("amount_micros", models.BigIntegerField()),
                ("hold_amount_micros", models.BigIntegerField(null=True)),
                ("idempotency_key", models.CharField(max_length=120)),
                ("price_id", models.UUIDField(null=True)),
                ("reference", models.CharField(blank=True, max_length=64)),
                ("reason", models.CharField(blank=True, max_length=200)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "actor",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "credit",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="billing.ledgeraccount"
                    ),
                ),
                (
                    "debit",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="billing.ledgeraccount"
                    ),
                ),
                (
                    "hold",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="resolution",
                        to="billing.transfer",
                    ),
                ),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.account"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Leg",
            fields=[
                (
                    "id",
                    models.UUIDField(default=insighto.lib.ids.new, editable=False, primary_key=True, serialize=False),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("chat", "Chat"),
                            ("speech", "Speech"),
                            ("embedding", "Embedding"),
                            ("transcription", "Transcription"),
                        ],
                        max_length=13,
                    ),
                ),
                (
                    "provider",
                    models.CharField(
                        choices=[("openai", "OpenAI"), ("azure_speech", "Azure Speech"), ("elevenlabs", "ElevenLabs")],
                        max_length=16,
                    ),
                ),
                ("model", models.CharField(max_length=80)),
                ("voice", models.CharField(blank=True, max_length=120)),
                (
                    "funding_source",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("own_key", "Own key"),
                            ("parent_key", "Parent's key"),
                            ("platform_credits", "Platform credits"),
                        ],
                        max_length=16,
                    ),
                ),
                ("connection_name", models.CharField(blank=True, max_length=60)),
                ("secret_version", models.PositiveIntegerField(null=True)),
                ("reason", models.CharField(max_length=40)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("refused", "Refused"),
                            ("dispatched", "Dispatched"),
                            ("settled", "Settled"),
                            ("void", "Void"),
                            ("expired", "Expired"),
                        ],
                        max_length=10,
                    ),
                ),
                ("input_units", models.BigIntegerField(default=0)),
                ("cached_input_units", models.BigIntegerField(default=0)),
                ("cache_write_units", models.BigIntegerField(default=0)),
                ("output_units", models.BigIntegerField(default=0)),
                ("usage_source", models.CharField(blank=True, max_length=10)),
                ("cost_micros", models.BigIntegerField(default=0)),
                ("estimate_micros", models.BigIntegerField(null=True)),
                ("upstream_status", models.PositiveSmallIntegerField(null=True)),
                ("upstream_request_id", models.CharField(blank=True, max_length=120)),
                ("is_flagged", models.BooleanField(default=False)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("dispatched_at", models.DateTimeField(null=True)),
                ("checkpoint_at", models.DateTimeField(null=True)),
                ("first_byte_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                ("deadline_at", models.DateTimeField(null=True)),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="legs", to="accounts.account"
                    ),
                ),
                (
                    "connection",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="provider_keys.connection",
                    ),
                ),
                (
                    "payer",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.account"
                    ),
                ),
                (
                    "price",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="billing.price"
                    ),
                ),
                (
                    "request",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="legs", to="billing.request"
                    ),
                ),
                (
                    "hold",
                    models.OneToOneField(
                        null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="billing.transfer"
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="ledgeraccount",
            constraint=models.UniqueConstraint(fields=("owner", "kind"), name="billing_ledger_account_once"),
        ),
        migrations.AddConstraint(
            model_name="ledgeraccount",
            constraint=models.UniqueConstraint(
                condition=models.Q(("owner", None)), fields=("kind",), name="billing_ledger_account_platform_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="ledgeraccount",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("credits_pending__gte", 0),
                    ("credits_posted__gte", 0),
                    ("debits_pending__gte", 0),
                    ("debits_posted__gte", 0),
                ),
                name="billing_ledger_account_sums_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="ledgeraccount",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("floor_zero", False),
                    (
                        "credits_posted__gte",
                        django.db.models.expressions.CombinedExpression(
                            models.F("debits_posted"), "+", models.F("debits_pending")
                        ),
                    ),
                    _connector="OR",
                ),
                name="billing_ledger_account_floor_zero",
            ),
        ),
        migrations.AddIndex(
            model_name="request",
            index=models.Index(fields=["account", "-created_at"], name="billing_request_recent"),
        ),
        migrations.AddIndex(
            model_name="request",
            index=models.Index(
                condition=models.Q(("state", "running")), fields=["created_at"], name="billing_request_running"
            ),
        ),
        migrations.AddIndex(
            model_name="transfer",
            index=models.Index(fields=["owner", "-created_at"], name="billing_transfer_statement"),
        ),
        migrations.AddIndex(
            model_name="transfer",
            index=models.Index(fields=["debit"], name="billing_transfer_debit"),
        ),
        migrations.AddIndex(
            model_name="transfer",
            index=models.Index(fields=["credit"], name="billing_transfer_credit"),
        ),
        migrations.AddConstraint(
            model_name="transfer",
            constraint=models.UniqueConstraint(fields=("owner", "idempotency_key"), name="billing_transfer_idempotent"),
        ),
        migrations.AddConstraint(
            model_name="transfer",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount_micros__gte", 0)), name="billing_transfer_amount_not_negative"
            ),
        ),
        migrations.AddConstraint(
            model_name="transfer",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("hold", None), ("hold_amount_micros", None)),
                    models.Q(
                        ("amount_micros__lte", models.F("hold_amount_micros")),
                        ("hold__isnull", False),
                        ("hold_amount_micros__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="billing_transfer_within_hold",
            ),
        ),
        migrations.AddConstraint(
            model_name="transfer",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("kind__in", ["settle", "void", "expire"]), ("hold__isnull", False)),
                    models.Q(models.Q(("kind__in", ["settle", "void", "expire"]), _negated=True), ("hold", None)),
                    _connector="OR",
                ),
                name="billing_transfer_resolves_hold",
            ),
        ),
        migrations.AddConstraint(
            model_name="transfer",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("kind__in", ["void", "expire"]), _negated=True), ("amount_micros", 0), _connector="OR"
                ),
                name="billing_transfer_release_takes_nothing",
            ),
        ),
        migrations.AddIndex(
            model_name="leg",
            index=models.Index(fields=["account", "-created_at"], name="billing_leg_recent"),
        ),
        migrations.AddIndex(
            model_name="leg",
            index=models.Index(
                condition=models.Q(("state", "dispatched")), fields=["deadline_at"], name="billing_leg_open"
            ),
        ),
        migrations.AddIndex(
            model_name="leg",
            index=models.Index(fields=["connection", "-created_at"], name="billing_leg_by_connection"),
        ),
        migrations.AddConstraint(
            model_name="leg",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("funding_source", "platform_credits"),
                    models.Q(("cost_micros", 0), ("hold", None)),
                    _connector="OR",
                ),
                name="billing_leg_own_key_costs_nothing",
            ),
        ),
        migrations.AddConstraint(
            model_name="leg",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("cache_write_units__gte", 0),
                    ("cached_input_units__gte", 0),
                    ("cost_micros__gte", 0),
                    ("input_units__gte", 0),
                    ("output_units__gte", 0),
                ),
                name="billing_leg_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="leg",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("state", "refused"),
                    models.Q(("funding_source", "platform_credits"), ("hold__isnull", False)),
                    models.Q(("connection__isnull", False), ("funding_source__in", ["own_key", "parent_key"])),
                    _connector="OR",
                ),
                name="billing_leg_sent_is_funded",
            ),
        ),
        migrations.AddConstraint(
            model_name="leg",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("state", "refused"), _negated=True),
                    models.Q(("dispatched_at", None), ("hold", None)),
                    _connector="OR",
                ),
                name="billing_leg_refused_sent_nothing",
            ),
        ),
    ]
