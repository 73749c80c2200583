"""What the router, the receipt and the pages read of money. No writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

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


_STANDINGS = """
SELECT ask.account_id, ask.provider,
       coalesce(account.status = 'active' AND coalesce(parent.status, 'active') = 'active', false),
       coalesce(account.byok_enabled, false),
       coalesce(account.byok_allowed AND plan.byok_allowed AND coalesce(parent.byok_allowed, true), false),
       link.id, link.name, link.verdict, link.verdict_reason, link.is_placeholder, link.region,
       credential.id, credential.secret_version, credential.ciphertext,
       ours.id, ours.secret_version, ours.region, ours.ciphertext,
       wallet.credits_posted - wallet.debits_posted - wallet.debits_pending, wallet.frozen_at IS NOT NULL
FROM ask
LEFT JOIN accounts_account AS account ON account.id = ask.account_id
LEFT JOIN accounts_plan AS plan ON plan.id = account.plan_id
LEFT JOIN accounts_account AS parent ON parent.id = account.parent_id
LEFT JOIN provider_keys_slot AS slot ON slot.account_id = account.id AND slot.provider = ask.provider
LEFT JOIN provider_keys_connection AS link
       ON link.id = slot.connection_id AND link.account_id = account.id AND link.provider = ask.provider
      AND link.removed_at IS NULL
LEFT JOIN provider_keys_credential AS credential
       ON credential.connection_id = link.id AND credential.account_id = account.id
      AND credential.secret_version = link.current_version AND credential.destroyed_at IS NULL
LEFT JOIN provider_keys_platformcredential AS ours ON ours.provider = ask.provider
LEFT JOIN billing_ledgeraccount AS wallet ON wallet.owner_id = account.id AND wallet.kind = 'wallet'
ORDER BY ask.place
"""

_ASK_BY_ARRAYS = """
WITH ask AS (
    SELECT * FROM unnest(%s::uuid[], %s::text[]) WITH ORDINALITY AS ask(account_id, provider, place)
)
"""


def standings(asks: Sequence[tuple[UUID, str]]) -> list[RouteFacts]:
    """The facts for each (account, provider) in turn, in one query however many are asked for.

    An account that does not exist stands like a suspended one.
    """
    if not asks:
        return []
    if postgres.is_used():
        found: list[Any] = postgres.rows(
            _ASK_BY_ARRAYS + _STANDINGS, ([ask[0] for ask in asks], [ask[1] for ask in asks])
        )
        return [_facts(row) for row in found]
    listed = ", ".join(["(%s, %s, %s)"] * len(asks))
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH ask(account_id, provider, place) AS (VALUES {listed}) {_STANDINGS}",
            [value for place, (account_id, provider) in enumerate(asks) for value in (account_id.hex, provider, place)],
        )
        return [_facts(row) for row in cursor.fetchall()]


def standing(account: Account, provider: str) -> RouteFacts:
    [facts] = standings([(account.pk, provider)])
    return facts


def _facts(row: tuple[Any, ...]) -> RouteFacts:
    (account_id, provider, is_active, byok_enabled, byok_allowed, link_id, link_name, verdict, verdict_reason) = row[:9]
    (is_placeholder, link_region, credential_id, version, ciphertext) = row[9:14]
    (ours_id, ours_version, ours_region, ours_ciphertext, balance, is_frozen) = row[14:]
    own = platform = None
    if credential_id is not None and ciphertext:
        own = SealedCredential(
            _uuid(credential_id), _uuid(account_id), provider, version, link_region, bytes(ciphertext)
        )
    if ours_id is not None and ours_ciphertext:
        platform = SealedCredential(_uuid(ours_id), None, provider, ours_version, ours_region, bytes(ours_ciphertext))
    return RouteFacts(
        standing=Standing(
            account_id=_uuid(account_id),
            provider=provider,
            account_active=bool(is_active),
            byok_enabled=bool(byok_enabled),
            byok_allowed=bool(byok_allowed),
            slot_connection_id=None if link_id is None else _uuid(link_id),
            slot_connection_name=link_name or "",
            slot_verdict=verdict or "",
            slot_verdict_reason=verdict_reason or "",
            slot_secret_version=own.secret_version if own else None,
            slot_is_placeholder=bool(is_placeholder),
            platform_available=platform is not None,
        ),
        own=own,
        platform=platform,
        balance_micros=balance or 0,
        is_frozen=bool(is_frozen),
    )


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


# --- Prices ---------------------------------------------------------------------------------------------------


def price_for(provider: str, model: str, at: datetime | None = None) -> PriceRow | None:
    """The price in force (by default now, remembered for seconds); None: it cannot be paid with credits."""
    return prices.in_force(provider, model, at)


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
