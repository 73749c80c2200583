"""What the usage and credits pages read: sums over legs and transfers of one account."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from uuid import UUID

from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import Coalesce, TruncDate
from django.utils import timezone

from accounts.models import Account
from billing.models import FundingSource, LedgerAccount, Leg, Request, Transfer

PERIODS = {"7": "7 days", "30": "30 days", "90": "90 days"}


@dataclass(frozen=True, slots=True)
class Filters:
    """What the usage page was asked for; empty strings filter nothing."""

    days: int = 30
    provider: str = ""
    funding_source: str = ""
    state: str = ""
    assistant: UUID | None = None

    @property
    def since(self) -> datetime:
        first = timezone.localdate() - timedelta(days=self.days - 1)
        return timezone.make_aware(datetime.combine(first, time.min))


@dataclass(slots=True)
class Share:
    """One funding source's part of a period."""

    source: str
    label: str
    legs: int = 0
    cost_micros: int = 0
    estimate_micros: int = 0


@dataclass(frozen=True, slots=True)
class Proof:
    """The ledger's promise, counted: every finished leg resolved once, no own-key leg charged."""

    legs: int
    held: int
    resolved_once: int
    own_key_legs: int
    own_key_charged_micros: int
    flagged: int

    @property
    def holds(self) -> bool:
        return self.held == self.resolved_once and self.own_key_charged_micros == 0


@dataclass(frozen=True, slots=True)
class Usage:
    shares: list[Share]
    days: list[tuple[date, dict[str, int]]]
    models: list[dict[str, object]]
    connections: list[dict[str, object]]
    proof: Proof
    refused: int = field(default=0)

    @property
    def legs(self) -> int:
        return sum(share.legs for share in self.shares)

    @property
    def cost_micros(self) -> int:
        return sum(share.cost_micros for share in self.shares)

    @property
    def estimate_micros(self) -> int:
        return sum(share.estimate_micros for share in self.shares)


def legs(account: Account, filters: Filters) -> QuerySet[Leg]:
    """The account's legs the filters let through, newest first."""
    rows = Leg.objects.of(account).filter(created_at__gte=filters.since)
    if filters.provider:
        rows = rows.filter(provider=filters.provider)
    if filters.funding_source:
        rows = rows.filter(funding_source=filters.funding_source)
    if filters.state:
        rows = rows.filter(state=filters.state)
    if filters.assistant:
        rows = rows.filter(request__assistant_id=filters.assistant)
    return rows.select_related("request").order_by("-created_at", "-id")


def usage(account: Account, filters: Filters) -> Usage:
    """Sums of the period. Five queries, however many legs there are."""
    rows = legs(account, filters).order_by()
    shares = {value: Share(value, str(label)) for value, label in FundingSource.choices}
    days: dict[date, dict[str, int]] = {}
    today = timezone.localdate()
    for offset in range(filters.days - 1, -1, -1):
        days[today - timedelta(days=offset)] = {}
    sums = rows.exclude(funding_source="").values("funding_source", day=TruncDate("created_at"))
    for row in sums.annotate(
        count=Count("id"), cost=Coalesce(Sum("cost_micros"), 0), estimate=Coalesce(Sum("estimate_micros"), 0)
    ):
        share = shares[row["funding_source"]]
        share.legs += row["count"]
        share.cost_micros += row["cost"]
        share.estimate_micros += row["estimate"]
        days.setdefault(row["day"], {})[row["funding_source"]] = row["cost"] + row["estimate"]
    return Usage(
        shares=[share for share in shares.values() if share.legs or share.source != FundingSource.PARENT_KEY],
        days=sorted(days.items()),
        models=_breakdown(rows, "model", "provider"),
        connections=_breakdown(rows.exclude(connection=None), "connection_name", "provider"),
        proof=_proof(rows),
        refused=rows.filter(state=Leg.State.REFUSED).count(),
    )


def wallet(account: Account) -> LedgerAccount | None:
    return LedgerAccount.objects.of(account).filter(kind=LedgerAccount.Kind.WALLET).first()


def statement(account: Account) -> QuerySet[Transfer]:
    """What changed the posted balance, newest first: a hold shows only through its settlement."""
    return (
        Transfer.objects.filter(owner=account)
        .exclude(kind__in=[Transfer.Kind.HOLD, Transfer.Kind.VOID, Transfer.Kind.EXPIRE])
        .select_related("actor", "debit", "credit")
        .order_by("-created_at", "-id")
    )


def recent_requests(account: Account, count: int = 6) -> Iterable[Request]:
    return Request.objects.of(account).prefetch_related("legs").order_by("-created_at")[:count]


def _breakdown(rows: QuerySet[Leg], *keys: str) -> list[dict[str, object]]:
    grouped = rows.exclude(funding_source="").values(*keys)
    return list(
        grouped.annotate(
            count=Count("id"),
            input=Coalesce(Sum("input_units"), 0),
            output=Coalesce(Sum("output_units"), 0),
            cost=Coalesce(Sum("cost_micros"), 0),
            estimate=Coalesce(Sum("estimate_micros"), 0),
        ).order_by("-count", *keys)[:12]
    )


def _proof(rows: QuerySet[Leg]) -> Proof:
    finished = ~Q(state__in=[Leg.State.DISPATCHED, Leg.State.REFUSED])
    own = Q(funding_source__in=[FundingSource.OWN_KEY, FundingSource.PARENT_KEY])
    counted = rows.aggregate(
        legs=Count("id", filter=finished),
        held=Count("id", filter=finished & Q(hold__isnull=False)),
        resolved_once=Count("id", filter=finished & Q(hold__resolution__isnull=False)),
        own_key_legs=Count("id", filter=own),
        own_key_charged_micros=Coalesce(Sum("cost_micros", filter=own), 0),
        flagged=Count("id", filter=Q(is_flagged=True)),
    )
    return Proof(**counted)
