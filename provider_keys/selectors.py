"""Reads that span tables, for pages. Nothing here opens or even loads a ciphertext."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Exists, OuterRef
from django.utils import timezone

from accounts.models import Account
from provider_keys import destinations, keyring, readiness
from provider_keys.models import REQUIRED_PROVIDERS, Check, Connection, Credential, Provider, Slot
from provider_keys.readiness import ConnectionFacts, Obstacle, Status

# A check that has not ended after this long is lost: the page stops saying that it runs.
CHECK_IS_LOST_AFTER: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class ProviderCard:
    provider: str
    label: str  # "Azure Speech"
    brand: str  # "Azure", as messages say it
    required: bool
    connections: tuple[ConnectionFacts, ...]
    selected: ConnectionFacts | None
    suggested_name: str


@dataclass(frozen=True, slots=True)
class SettingsPage:
    """Your Provider Keys, complete: what the page, its fragments and the switch are drawn from."""

    account: Account
    providers: tuple[ProviderCard, ...]
    byok_enabled: bool
    byok_changed_at: datetime | None
    may_use_byok: bool
    obstacles: tuple[Obstacle, ...]  # what turning on would meet, also while it is on
    is_checking: bool  # a check of a selected connection runs

    def card(self, provider: str) -> ProviderCard:
        return next(card for card in self.providers if card.provider == provider)


def settings_page(account: Account) -> SettingsPage:
    """The facts of the settings page, in a constant number of queries (connections, slots; plan and parent)."""
    now = timezone.now()
    selected_ids = dict(Slot.objects.of(account).values_list("provider", "connection_id"))
    facts = _facts(account, now, selected=set(selected_ids.values()))
    cards = tuple(_card(provider, facts, selected_ids.get(provider)) for provider in Provider)
    may_use_byok = account.may_use_byok
    return SettingsPage(
        account=account,
        providers=cards,
        byok_enabled=account.byok_enabled,
        byok_changed_at=account.byok_changed_at,
        may_use_byok=may_use_byok,
        obstacles=tuple(
            readiness.obstacles(
                may_use_byok=may_use_byok,
                is_active=account.status == Account.Status.ACTIVE,
                selected={card.provider: card.selected for card in cards},
                now=now,
            )
        ),
        is_checking=any(card.selected is not None and card.selected.status.is_checking for card in cards),
    )


def connection_facts(connection: Connection) -> ConnectionFacts:
    """The facts of one connection, as after a check."""
    is_selected = Slot.objects.of(connection.account).filter(connection=connection).exists()
    selected = {connection.pk} if is_selected else set()
    return next(
        facts
        for facts in _facts(connection.account, timezone.now(), selected=selected, only=connection)
        if facts.id == connection.pk
    )


def suggested_name(provider: str, taken: set[str]) -> str:
    """ "OpenAI", then "OpenAI 2", …: the first that the account does not use yet."""
    brand = readiness.BRANDS[provider]
    names = (brand if number == 1 else f"{brand} {number}" for number in range(1, len(taken) + 2))
    lowered = {name.casefold() for name in taken}
    return next(name for name in names if name.casefold() not in lowered)


def _card(provider: Provider, facts: list[ConnectionFacts], selected_id: object) -> ProviderCard:
    own = tuple(item for item in facts if item.provider == provider)
    return ProviderCard(
        provider=provider,
        label=provider.label,
        brand=readiness.BRANDS[provider],
        required=provider in REQUIRED_PROVIDERS,
        connections=own,
        selected=next((item for item in own if item.id == selected_id), None),
        suggested_name=suggested_name(provider, {item.name for item in own}),
    )


def _facts(
    account: Account, now: datetime, *, selected: Collection[object], only: Connection | None = None
) -> list[ConnectionFacts]:
    current = (
        Credential.objects.of(account)
        .filter(destroyed_at=None)
        .values_list("connection_id", "secret_version", "kek_id", "last_four", "key_shape", "destination", "sealed_at")
    )
    connections = Connection.objects.of(account).filter(removed_at=None)
    if only is not None:
        current, connections = current.filter(connection=only), connections.filter(pk=only.pk)
    running = Check.objects.of(account).filter(
        connection=OuterRef("pk"),
        secret_version=OuterRef("current_version"),
        finished_at=None,
        requested_at__gt=now - CHECK_IS_LOST_AFTER,
    )
    credentials = {(row[0], row[1]): row[2:] for row in current}
    known = keyring.load().keks
    rows = connections.select_related("created_by").annotate(is_checking=Exists(running)).order_by("created_at", "pk")
    return [
        _fact(row, credentials.get((row.pk, row.current_version)), is_selected=row.pk in selected, known=known)
        for row in rows
    ]


def _fact(
    row: Connection,
    credential: tuple[str, str, str, str, datetime] | None,
    *,
    is_selected: bool,
    known: Mapping[str, object],
) -> ConnectionFacts:
    kek_id, last_four, key_shape, destination, sealed_at = credential or ("", "", "", "", None)
    is_elsewhere = not row.is_placeholder and destination != destinations.canonical(row.provider, row.region)
    state = readiness.state_of(
        verdict=row.verdict,
        reason=row.verdict_reason,
        rejected=row.rejected_at is not None,
        is_locked=credential is not None and kek_id not in known,
        is_elsewhere=is_elsewhere,
    )
    return ConnectionFacts(
        id=row.pk,
        provider=row.provider,
        name=row.name,
        region=row.region,
        is_placeholder=row.is_placeholder,
        secret_version=row.current_version,
        last_four=last_four,
        key_shape=key_shape,
        added_by=str(row.created_by or ""),
        added_at=row.created_at,
        replaced_at=sealed_at if row.current_version > 1 else None,
        last_used_at=row.last_used_at,
        is_selected=is_selected,
        status=Status(
            state=state,
            is_checking=bool(getattr(row, "is_checking", False)),
            verdict=row.verdict,
            verdict_reason=row.verdict_reason,
            verdict_at=row.verdict_at,
            rejected_at=row.rejected_at,
            rejected_verdict=row.rejected_verdict,
            attempt=row.attempt,
            attempt_reason=row.attempt_reason,
            attempt_at=row.attempt_at,
            retry_at=row.retry_at,
        ),
    )
