"""What the router, the receipt and the pages read of money. No writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString, NamedTuple
from uuid import UUID

import msgspec
from django.db import connection
from django.utils import timezone

from accounts.models import Account
from billing import money, routing
from billing.models import Leg, Price, Request
from billing.pricing import PriceRow
from billing.routing import Decision, Standing
from billing.services import prices
from insighto.lib import postgres
from provider_keys.crypto import SealedCredential


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """Everything one leg needs before it is sent: standing, the sealed keys it may use, and the wallet."""

    standing: Standing
    own: SealedCredential | None
    platform: SealedCredential | None
    balance_micros: int
    is_frozen: bool

    def credential(self, decision: Decision) -> SealedCredential | None:
        """The one credential this decision allows; never another's."""
        if decision.funding_source == routing.OWN_KEY:
            return self.own
        return self.platform if decision.funding_source == routing.PLATFORM_CREDITS else None


@dataclass(frozen=True, slots=True)
class Asking:
    """Who may do what: an API key's digest, or an account already known; and a provider, or only who it is."""

    provider: str = ""
    digest: bytes | None = None
    account_id: UUID | None = None


class Known(NamedTuple):
    """Whom a digest stands for, and what that account's standing at the provider is."""

    account_id: UUID
    api_key_id: UUID | None
    facts: RouteFacts | None


class _Row(msgspec.Struct, array_like=True, gc=False):
    place: int
    api_key_id: UUID | None
    account_id: UUID
    is_active: bool
    byok_enabled: bool
    byok_allowed: bool
    link_id: UUID | None
    link_name: str | None
    verdict: str | None
    verdict_reason: str | None
    is_placeholder: bool | None
    link_region: str | None
    credential_id: UUID | None
    version: int | None
    ciphertext: bytes | None
    ours_id: UUID | None
    ours_version: int | None
    ours_region: str | None
    ours_ciphertext: bytes | None
    balance_micros: int | None
    is_frozen: bool


# In the order of `_Row`.
_COLUMNS = """
       who.place, who.api_key_id, who.account_id,
       coalesce(account.status = 'active' AND coalesce(parent.status, 'active') = 'active', false),
       coalesce(account.byok_enabled, false),
       coalesce(account.byok_allowed AND plan.byok_allowed AND coalesce(parent.byok_allowed, true), false),
       link.id, link.name, link.verdict, link.verdict_reason, link.is_placeholder, link.region,
       credential.id, credential.secret_version, {credential_ciphertext},
       ours.id, ours.secret_version, ours.region, {ours_ciphertext},
       wallet.credits_posted - wallet.debits_posted - wallet.debits_pending, wallet.frozen_at IS NOT NULL
"""

# An API key that expired or was revoked is nobody's, from the next request on.
_FROM = """
FROM (
    SELECT ask.place, ask.provider, api_key.id AS api_key_id, coalesce(api_key.account_id, ask.account_id) AS account_id
    FROM ask
    LEFT JOIN accounts_apikey AS api_key
           ON api_key.digest = ask.digest AND api_key.revoked_at IS NULL
          AND (api_key.expires_at IS NULL OR api_key.expires_at > {now})
    WHERE api_key.id IS NOT NULL OR ask.account_id IS NOT NULL
) AS who
LEFT JOIN accounts_account AS account ON account.id = who.account_id
LEFT JOIN accounts_plan AS plan ON plan.id = account.plan_id
LEFT JOIN accounts_account AS parent ON parent.id = account.parent_id
LEFT JOIN provider_keys_slot AS slot ON slot.account_id = account.id AND slot.provider = who.provider
LEFT JOIN provider_keys_connection AS link
       ON link.id = slot.connection_id AND link.account_id = account.id AND link.provider = who.provider
      AND link.removed_at IS NULL
LEFT JOIN provider_keys_credential AS credential
       ON credential.connection_id = link.id AND credential.account_id = account.id
      AND credential.secret_version = link.current_version AND credential.destroyed_at IS NULL
LEFT JOIN provider_keys_platformcredential AS ours ON ours.provider = who.provider
LEFT JOIN billing_ledgeraccount AS wallet ON wallet.owner_id = account.id AND wallet.kind = 'wallet'
"""

# JSON in and JSON out: the cheapest way for a batch into Python and out of it. PostgreSQL breaks base64 into lines.
KNOWN: Final[LiteralString] = (
    """
WITH ask AS (
    SELECT place, decode(digest, 'base64') AS digest, account_id, provider
    FROM json_to_recordset($1::json) AS ask(place integer, digest text, account_id uuid, provider text)
)
SELECT coalesce(json_agg(json_build_array({columns})), '[]')::text {from}
""".replace("{columns}", _COLUMNS)
    .replace("{from}", _FROM)
    .replace("{credential_ciphertext}", "translate(encode(credential.ciphertext, 'base64'), E'\\n', '')")
    .replace("{ours_ciphertext}", "translate(encode(ours.ciphertext, 'base64'), E'\\n', '')")
    .replace("{now}", "statement_timestamp()")
)

_KNOWN_ON_SQLITE: Final = (
    "WITH ask(place, digest, account_id, provider) AS (VALUES {rows}) SELECT {columns} {from}".replace(
        "{columns}", _COLUMNS
    )
    .replace("{from}", _FROM)
    .replace("{credential_ciphertext}", "credential.ciphertext")
    .replace("{ours_ciphertext}", "ours.ciphertext")
    .replace("{now}", "%s")
)

_read_rows = msgspec.json.Decoder(list[_Row]).decode


def known_ask(asks: Sequence[Asking]) -> bytes:
    """The parameter of `KNOWN`."""
    return msgspec.json.encode(
        [
            {"place": place, "digest": ask.digest, "account_id": ask.account_id, "provider": ask.provider}
            for place, ask in enumerate(asks)
        ]
    )


def known_read(answer: bytes, asks: Sequence[Asking]) -> list[Known | None]:
    """The answer of `KNOWN`, ask by ask; None: no such API key, or no longer."""
    return _in_order(_read_rows(answer), asks)


def known(asks: Sequence[Asking]) -> list[Known | None]:
    """Who asks and how they stand, for each in turn, in one query however many there are.

    An account that does not exist stands like a suspended one.
    """
    if not asks:
        return []
    if postgres.is_used():
        return known_read(postgres.document(KNOWN, known_ask(asks)), asks)
    values: list[Any] = []
    for place, ask in enumerate(asks):
        values += [place, ask.digest, ask.account_id.hex if ask.account_id else None, ask.provider]
    statement = _KNOWN_ON_SQLITE.replace("{rows}", ", ".join(["(%s, %s, %s, %s)"] * len(asks)))
    with connection.cursor() as cursor:
        cursor.execute(statement, [*values, connection.ops.adapt_datetimefield_value(timezone.now())])
        return _in_order([msgspec.convert(row, _Row, strict=False) for row in cursor.fetchall()], asks)


def standings(asks: Sequence[tuple[UUID, str]]) -> list[RouteFacts]:
    """The facts for each (account, provider) in turn, in one query however many are asked for."""
    found = known([Asking(provider, account_id=account_id) for account_id, provider in asks])
    return [each.facts for each in found if each is not None and each.facts is not None]


def _in_order(rows: Sequence[_Row], asks: Sequence[Asking]) -> list[Known | None]:
    found: list[Known | None] = [None] * len(asks)
    for row in rows:
        provider = asks[row.place].provider
        found[row.place] = Known(row.account_id, row.api_key_id, _facts(row, provider) if provider else None)
    return found


def standing(account: Account, provider: str) -> RouteFacts:
    [facts] = standings([(account.pk, provider)])
    return facts


def _facts(row: _Row, provider: str) -> RouteFacts:
    own = platform = None
    if row.credential_id is not None and row.ciphertext:
        own = SealedCredential(
            row.credential_id, row.account_id, provider, row.version or 0, row.link_region or "", row.ciphertext
        )
    if row.ours_id is not None and row.ours_ciphertext:
        platform = SealedCredential(
            row.ours_id, None, provider, row.ours_version or 0, row.ours_region or "", row.ours_ciphertext
        )
    return RouteFacts(
        Standing(
            account_id=row.account_id,
            provider=provider,
            account_active=row.is_active,
            byok_enabled=row.byok_enabled,
            byok_allowed=row.byok_allowed,
            slot_connection_id=row.link_id,
            slot_connection_name=row.link_name or "",
            slot_verdict=row.verdict or "",
            slot_verdict_reason=row.verdict_reason or "",
            slot_secret_version=own.secret_version if own else None,
            slot_is_placeholder=bool(row.is_placeholder),
            platform_available=platform is not None,
        ),
        own=own,
        platform=platform,
        balance_micros=row.balance_micros or 0,
        is_frozen=row.is_frozen,
    )


# --- Prices ---------------------------------------------------------------------------------------------------


def price_for(provider: str, model: str, at: datetime | None = None) -> PriceRow | None:
    """The price in force (by default now, remembered for seconds); None: it cannot be paid with credits."""
    return prices.in_force(provider, model, at)


def remembered_price(provider: str, model: str) -> prices.Remembered | None:
    """The same without the database, from the event loop; None: `price_for` has to be asked."""
    return prices.remembered(provider, model)


# --- Explain ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Explanation:
    """Who would pay, why, and what would change it: `routing.decide` in words, without a provider call."""

    decision: Decision
    payer_name: str
    why: str
    remedy: str
    price: PriceRow | None
    balance_micros: int

    def as_dict(self) -> dict[str, Any]:
        decision = self.decision
        return {
            "funding_source": decision.funding_source or None,
            "payer": self.payer_name or None,
            "connection": decision.connection_name or None,
            "reason": decision.reason,
            "refusal": decision.refusal,
            "why": self.why,
            "what_would_change_it": self.remedy,
            "balance_credits": money.in_words(self.balance_micros),
        }


def explain(*, account: Account, provider: str, model: str = "") -> Explanation:
    """Answer for an account, a provider and, where known, a model ("neural" or "hd" for Azure voices)."""
    return explain_facts(standing(account, provider), account_name=str(account), model=model)


def explain_facts(facts: RouteFacts, *, account_name: str, model: str = "") -> Explanation:
    """The same from facts already read. Credits that cannot pay are said so here, as the ledger would."""
    decision = routing.decide(facts.standing)
    price = price_for(facts.standing.provider, model) if model else None
    reason = decision.reason
    if decision.funding_source == routing.PLATFORM_CREDITS:
        if facts.is_frozen:
            reason = "wallet_frozen"
        elif model and price is None:
            reason = "price_unknown"
        elif facts.balance_micros <= 0:
            reason = "insufficient_credits"
    if reason != decision.reason:
        decision = Decision("", None, None, "", None, reason, refusal=reason)
    return Explanation(
        decision=decision,
        payer_name=account_name if decision.payer_id else "",
        why=routing.REASONS[reason],
        remedy=routing.REMEDIES[reason],
        price=price,
        balance_micros=facts.balance_micros,
    )


# --- Receipts ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Receipt:
    """One request of one account, with its legs."""

    request: Request
    legs: tuple[Leg, ...]

    @property
    def cost_micros(self) -> int:
        return sum(leg.cost_micros for leg in self.legs)

    def as_dict(self) -> dict[str, Any]:
        request = self.request
        return {
            "id": str(request.pk),
            "object": "insighto.request",
            "endpoint": request.endpoint,
            "streamed": request.streamed,
            "state": request.state,
            "http_status": request.http_status,
            "error_code": request.error_code or None,
            "created_at": _moment(request.created_at),
            "finished_at": _moment(request.finished_at),
            "cost_micros": self.cost_micros,
            "cost_credits": money.in_words(self.cost_micros),
            "legs": [_leg_dict(leg) for leg in self.legs],
        }


def receipt(request_id: UUID, account: Account | UUID) -> Receipt | None:
    """The receipt, if the request is this account's; a foreign one and an unknown one are both None."""
    account_id = account.pk if isinstance(account, Account) else account
    request = Request.objects.filter(account_id=account_id, pk=request_id).first()
    if request is None:
        return None
    legs = Leg.objects.filter(account_id=account_id, request=request).select_related("payer", "price")
    return Receipt(request, tuple(legs.order_by("created_at", "pk")))


def _leg_dict(leg: Leg) -> dict[str, Any]:
    return {
        "id": str(leg.pk),
        "kind": leg.kind,
        "provider": leg.provider,
        "model": leg.model,
        "voice": leg.voice or None,
        "state": leg.state,
        "funding_source": leg.funding_source or None,
        "payer": str(leg.payer) if leg.payer else None,
        "connection": leg.connection_name or None,
        "connection_version": leg.secret_version,
        "reason": leg.reason,
        "why": routing.REASONS.get(leg.reason, ""),
        "usage": {
            "unit": leg.price.unit if leg.price else None,
            "input": leg.input_units,
            "cached_input": leg.cached_input_units,
            "cache_write": leg.cache_write_units,
            "output": leg.output_units,
            "source": leg.usage_source or None,
        },
        "price": _price_dict(leg.price) if leg.price else None,
        "cost_micros": leg.cost_micros,
        "cost_credits": money.in_words(leg.cost_micros),
        "estimate_micros": leg.estimate_micros,
        "upstream_status": leg.upstream_status,
        "upstream_request_id": leg.upstream_request_id or None,
        "is_flagged": leg.is_flagged,
        "dispatched_at": _moment(leg.dispatched_at),
        "first_byte_at": _moment(leg.first_byte_at),
        "finished_at": _moment(leg.finished_at),
    }


def _price_dict(price: Price) -> dict[str, Any]:
    return {
        "id": str(price.pk),
        "unit": price.unit,
        "input_micros_per_million": price.input_micros,
        "output_micros_per_million": price.output_micros,
        "valid_from": _moment(price.valid_from),
        "source": price.source,
        "source_date": price.source_date.isoformat(),
    }


def _moment(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
