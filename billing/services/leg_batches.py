"""The usual case of opening and settling legs: one PostgreSQL statement for a whole batch, judged in it.

Each statement takes JSON and answers JSON with the legs it dealt with. It runs as a transaction of its own
(`insighto.lib.lane`), so what it answers is durable, and its locks are those of `legs.py`, in the same order:
legs, then wallets, by id. Whatever is unusual – a repeat, a wallet that is missing, frozen or too small, a
price above the hold, usage that cannot be true – it leaves untouched, for `legs.py` to deal with at length.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import msgspec

from billing import pricing
from billing.errors import AmountOutOfRange
from billing.leg_records import Opened, Opening, Settled, Settlement
from billing.routing import PLATFORM_CREDITS
from billing.services import ledger
from insighto.lib import ids
from insighto.lib.lane import LEFT, Left

# A wallet is judged by the update itself, for all its holds in the batch together: they fit, or they are left to be
# judged one after another. The lock before it only sees to the order.
OPEN: LiteralString = """
WITH ask AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1::json) AS ask(
        place integer, request_id uuid, account_id uuid, api_key_id uuid, user_id bigint, endpoint text,
        streamed boolean, assistant_id uuid, leg_id uuid, kind text, provider text, model text, voice text,
        funding_source text, payer_id uuid, connection_id uuid, connection_name text, secret_version integer,
        reason text, price_id uuid, hold_micros bigint, deadline_s integer, revenue_id uuid)
), fresh AS MATERIALIZED (
    SELECT * FROM ask
    WHERE NOT EXISTS (SELECT 1 FROM billing_leg AS known WHERE known.id = ask.leg_id)
      AND NOT EXISTS (SELECT 1 FROM billing_transfer AS known WHERE known.id = ask.leg_id)
), wanted AS MATERIALIZED (
    SELECT payer_id, sum(hold_micros)::bigint AS total FROM fresh WHERE hold_micros IS NOT NULL GROUP BY payer_id
), locked AS MATERIALIZED (
    SELECT id, owner_id FROM billing_ledgeraccount
    WHERE kind = 'wallet' AND owner_id IN (SELECT payer_id FROM wanted)
    ORDER BY id FOR NO KEY UPDATE
), paid AS (
    UPDATE billing_ledgeraccount AS wallet SET debits_pending = wallet.debits_pending + wanted.total
    FROM locked JOIN wanted ON wanted.payer_id = locked.owner_id
    WHERE wallet.id = locked.id AND wallet.frozen_at IS NULL
      AND wallet.credits_posted - wallet.debits_posted - wallet.debits_pending >= wanted.total
    RETURNING wallet.id, wallet.owner_id
), judged AS MATERIALIZED (
    SELECT fresh.*, paid.id AS wallet_id, fresh.hold_micros IS NULL OR paid.id IS NOT NULL AS fits
    FROM fresh LEFT JOIN paid ON paid.owner_id = fresh.payer_id AND fresh.hold_micros IS NOT NULL
), held AS (
    INSERT INTO billing_transfer (id, kind, owner_id, debit_id, credit_id, amount_micros, idempotency_key, price_id,
                                  reference, reason)
    SELECT leg_id, 'hold', payer_id, wallet_id, revenue_id, hold_micros, 'hold:' || leg_id, price_id, leg_id::text, ''
    FROM judged WHERE fits AND hold_micros IS NOT NULL ORDER BY place
), requested AS (
    INSERT INTO billing_request (id, account_id, api_key_id, user_id, endpoint, streamed, assistant_id, state,
                                 error_code, created_at)
    SELECT request_id, account_id, api_key_id, user_id, endpoint, streamed, assistant_id, 'running', '',
           statement_timestamp()
    FROM judged WHERE fits ORDER BY request_id
    ON CONFLICT (id) DO NOTHING
), opened AS (
    INSERT INTO billing_leg (id, request_id, account_id, kind, provider, model, voice, funding_source, payer_id,
                             connection_id, connection_name, secret_version, reason, price_id, hold_id, state,
                             input_units, cached_input_units, cache_write_units, output_units, usage_source,
                             cost_micros, upstream_request_id, is_flagged, created_at, dispatched_at, deadline_at)
    SELECT leg_id, request_id, account_id, kind, provider, model, voice, funding_source, payer_id, connection_id,
           connection_name, secret_version, reason, price_id, CASE WHEN hold_micros IS NOT NULL THEN leg_id END,
           'dispatched', 0, 0, 0, 0, '', 0, '', false, statement_timestamp(), statement_timestamp(),
           statement_timestamp() + make_interval(secs => deadline_s)
    FROM judged WHERE fits
    RETURNING id
)
SELECT coalesce(json_agg(id), '[]')::text FROM opened
"""

SETTLE: LiteralString = """
WITH ask AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1::json) AS ask(
        leg_id uuid, transfer_id uuid, state text, kind text, price_id uuid, cost_micros bigint, input_units bigint,
        cached_input_units bigint, cache_write_units bigint, output_units bigint, usage_source text,
        upstream_status smallint, upstream_request_id text, first_byte_at timestamptz, is_flagged boolean,
        request_state text, http_status smallint, error_code text)
), leg AS MATERIALIZED (
    SELECT leg.id, leg.request_id, leg.price_id, leg.hold_id, hold.owner_id, hold.debit_id, hold.credit_id,
           hold.amount_micros AS held_micros, hold.price_id AS hold_price_id, hold.reference
    FROM billing_leg AS leg LEFT JOIN billing_transfer AS hold ON hold.id = leg.hold_id AND hold.kind = 'hold'
    WHERE leg.id IN (SELECT leg_id FROM ask) AND leg.state = 'dispatched'
    ORDER BY leg.id FOR NO KEY UPDATE OF leg
), judged AS MATERIALIZED (
    SELECT ask.*, leg.request_id, leg.hold_id, leg.owner_id, leg.debit_id, leg.credit_id, leg.held_micros,
           leg.hold_price_id, leg.reference
    FROM ask JOIN leg ON leg.id = ask.leg_id
    WHERE leg.price_id IS NOT DISTINCT FROM ask.price_id
      AND (leg.hold_id IS NULL OR ask.cost_micros <= leg.held_micros)
), wallet AS MATERIALIZED (
    SELECT id FROM billing_ledgeraccount WHERE id IN (SELECT debit_id FROM judged) ORDER BY id FOR NO KEY UPDATE
), resolved AS (
    INSERT INTO billing_transfer (id, kind, owner_id, debit_id, credit_id, amount_micros, hold_id, hold_amount_micros,
                                  idempotency_key, price_id, reference, reason)
    SELECT transfer_id, kind, owner_id, debit_id, credit_id, cost_micros, hold_id, held_micros,
           'resolve:' || hold_id, hold_price_id, reference, ''
    FROM judged JOIN wallet ON wallet.id = judged.debit_id
    RETURNING debit_id, amount_micros, hold_amount_micros
), moved AS (
    UPDATE billing_ledgeraccount AS wallet
    SET debits_pending = wallet.debits_pending - ended.held, debits_posted = wallet.debits_posted + ended.taken
    FROM (SELECT debit_id, sum(hold_amount_micros)::bigint AS held, sum(amount_micros)::bigint AS taken
          FROM resolved GROUP BY debit_id) AS ended
    WHERE wallet.id = ended.debit_id
), closed AS (
    UPDATE billing_leg AS leg
    SET state = done.state, input_units = done.input_units, cached_input_units = done.cached_input_units,
        cache_write_units = done.cache_write_units, output_units = done.output_units,
        usage_source = done.usage_source,
        cost_micros = CASE WHEN done.hold_id IS NULL THEN 0 ELSE done.cost_micros END,
        estimate_micros = CASE WHEN done.hold_id IS NULL AND done.price_id IS NOT NULL THEN done.cost_micros END,
        upstream_status = done.upstream_status, upstream_request_id = done.upstream_request_id,
        first_byte_at = done.first_byte_at, is_flagged = done.is_flagged, finished_at = statement_timestamp()
    FROM judged AS done WHERE leg.id = done.leg_id
    RETURNING leg.id, leg.cost_micros, leg.estimate_micros
), finished AS (
    UPDATE billing_request AS request
    SET state = done.request_state, http_status = done.http_status, error_code = done.error_code,
        finished_at = statement_timestamp()
    FROM judged AS done
    WHERE request.id = done.request_id AND done.request_state <> '' AND request.state = 'running'
)
SELECT coalesce(json_agg(json_build_array(id, cost_micros, estimate_micros)), '[]')::text FROM closed
"""


class _Settling(msgspec.Struct, gc=False):
    leg_id: UUID
    transfer_id: UUID
    state: str
    kind: str
    price_id: UUID | None
    cost_micros: int
    input_units: int
    cached_input_units: int
    cache_write_units: int
    output_units: int
    usage_source: str
    upstream_status: int | None
    upstream_request_id: str
    first_byte_at: datetime | None
    is_flagged: bool
    request_state: str
    http_status: int | None
    error_code: str


class _Closed(msgspec.Struct, array_like=True, gc=False):
    id: UUID
    cost_micros: int
    estimate_micros: int | None


_encode = msgspec.json.Encoder().encode
_read_opened = msgspec.json.Decoder(list[UUID]).decode
_read_closed = msgspec.json.Decoder(list[_Closed]).decode


def open_ask(openings: Sequence[Opening]) -> bytes:
    """The parameter of `OPEN`. No leg may be among them twice."""
    return _encode([_opening(place, opening) for place, opening in enumerate(openings)])


def open_read(answer: bytes, openings: Sequence[Opening]) -> list[Opened | Left]:
    opened = set(_read_opened(answer))
    return [
        Opened(opening.leg_id, opening.leg_id if opening.decision.funding_source == PLATFORM_CREDITS else None)
        if opening.leg_id in opened
        else LEFT
        for opening in openings
    ]


def settle_ask(settlements: Sequence[Settlement]) -> bytes:
    """The parameter of `SETTLE`. No leg may be among them twice."""
    return _encode([asked for settlement in settlements if (asked := _settling(settlement)) is not None])


def settle_read(answer: bytes, settlements: Sequence[Settlement]) -> list[Settled | Left]:
    closed = {row.id: Settled(row.cost_micros, row.estimate_micros) for row in _read_closed(answer)}
    return [closed.get(settlement.leg_id, LEFT) for settlement in settlements]


def _opening(place: int, opening: Opening) -> dict[str, Any]:
    decision, price = opening.decision, opening.price
    is_held = decision.funding_source == PLATFORM_CREDITS
    return {
        "place": place,
        "request_id": opening.request_id,
        "account_id": opening.account_id,
        "api_key_id": opening.api_key_id,
        "user_id": opening.user_id,
        "endpoint": opening.endpoint,
        "streamed": opening.streamed,
        "assistant_id": opening.assistant_id,
        "leg_id": opening.leg_id,
        "kind": opening.kind,
        "provider": opening.provider,
        "model": opening.model,
        "voice": opening.voice,
        "funding_source": decision.funding_source,
        "payer_id": decision.payer_id,
        "connection_id": decision.connection_id,
        "connection_name": decision.connection_name,
        "secret_version": decision.secret_version,
        "reason": decision.reason,
        "price_id": price.id if price is not None else None,
        "hold_micros": opening.hold_micros if is_held else None,
        "deadline_s": opening.deadline_s,
        "revenue_id": ledger.REVENUE_ID if is_held else None,
    }


def _settling(settlement: Settlement) -> _Settling | None:
    """None: what it costs takes a look at the leg."""
    usage, price = settlement.usage, settlement.price
    if not usage.is_sane:
        return None
    is_void = settlement.outcome == "void"
    try:
        cost_micros = 0 if is_void or price is None else pricing.cost_micros(price, usage)
    except AmountOutOfRange:
        return None
    return _Settling(
        settlement.leg_id,
        ids.new(),
        settlement.outcome,
        "void" if is_void else "settle",
        price.id if price is not None else None,
        cost_micros,
        usage.input_units,
        usage.cached_input_units,
        usage.cache_write_units,
        usage.output_units,
        settlement.usage_source,
        settlement.upstream_status,
        settlement.upstream_request_id[:120],
        settlement.first_byte_at,
        settlement.is_flagged,
        settlement.request_state,
        settlement.http_status,
        settlement.error_code[:60],
    )
