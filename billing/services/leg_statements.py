"""Reading and writing leg and request rows in batches, for `legs.py` alone and inside its transaction.

PostgreSQL: one statement per batch, by arrays. SQLite: the ORM inside one IMMEDIATE transaction.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone

from billing.leg_records import Closing, LegRow, LockedLeg
from billing.models import Leg, Request
from billing.pricing import Usage
from insighto.lib import postgres

_KNOWN = "SELECT id, state, reason, hold_id FROM billing_leg WHERE id = ANY(%s::uuid[])"

_LOCK = """
SELECT leg.id, leg.request_id, leg.state, leg.payer_id, leg.price_id, leg.hold_id, coalesce(hold.amount_micros, 0),
       leg.input_units, leg.output_units, leg.cost_micros, leg.estimate_micros
FROM billing_leg AS leg LEFT JOIN billing_transfer AS hold ON hold.id = leg.hold_id
WHERE leg.id = ANY(%s::uuid[]) ORDER BY leg.id FOR NO KEY UPDATE OF leg
"""

_LOCK_OVERDUE = """
SELECT leg.id, leg.request_id, leg.state, leg.payer_id, leg.price_id, leg.hold_id, coalesce(hold.amount_micros, 0),
       leg.input_units, leg.output_units, leg.cost_micros, leg.estimate_micros
FROM billing_leg AS leg LEFT JOIN billing_transfer AS hold ON hold.id = leg.hold_id
WHERE leg.state = 'dispatched' AND leg.deadline_at < statement_timestamp() ORDER BY leg.id LIMIT %s
FOR NO KEY UPDATE OF leg SKIP LOCKED
"""

_INSERT_REQUESTS = """
INSERT INTO billing_request (id, account_id, api_key_id, user_id, endpoint, streamed, assistant_id, state, http_status,
                             error_code, created_at, finished_at)
SELECT id, account_id, api_key_id, user_id, endpoint, streamed, assistant_id, state, http_status, error_code,
       statement_timestamp(), CASE WHEN state = 'refused' THEN statement_timestamp() END
FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::bigint[], %s::text[], %s::boolean[], %s::uuid[], %s::text[],
            %s::smallint[], %s::text[])
     AS ask(id, account_id, api_key_id, user_id, endpoint, streamed, assistant_id, state, http_status, error_code)
ON CONFLICT (id) DO UPDATE
SET state = excluded.state, http_status = excluded.http_status, error_code = excluded.error_code,
    finished_at = excluded.finished_at
WHERE billing_request.state = 'running' AND excluded.state = 'refused'
RETURNING 1
"""

_INSERT_LEGS = """
INSERT INTO billing_leg (id, request_id, account_id, kind, provider, model, voice, funding_source, payer_id,
                         connection_id, connection_name, secret_version, reason, price_id, hold_id, state,
                         input_units, cached_input_units, cache_write_units, output_units, usage_source, cost_micros,
                         upstream_request_id, is_flagged, created_at, dispatched_at, finished_at, deadline_at)
SELECT id, request_id, account_id, kind, provider, model, voice, funding_source, payer_id,
       connection_id, connection_name, secret_version, reason, price_id, hold_id, state,
       0, 0, 0, 0, '', 0, '', false, statement_timestamp(),
       CASE WHEN state = 'dispatched' THEN statement_timestamp() END,
       CASE WHEN state = 'refused' THEN statement_timestamp() END,
       CASE WHEN state = 'dispatched' THEN statement_timestamp() + make_interval(secs => deadline_s) END
FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
            %s::uuid[], %s::uuid[], %s::text[], %s::integer[], %s::text[], %s::uuid[], %s::uuid[], %s::text[],
            %s::integer[])
     AS ask(id, request_id, account_id, kind, provider, model, voice, funding_source, payer_id, connection_id,
            connection_name, secret_version, reason, price_id, hold_id, state, deadline_s)
RETURNING 1
"""

_CHECKPOINT = """
WITH ask AS (
    SELECT * FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[]) AS ask(id, input_units, output_units)
), locked AS MATERIALIZED (
    SELECT leg.id FROM billing_leg AS leg WHERE leg.id IN (SELECT id FROM ask) AND leg.state = 'dispatched'
    ORDER BY leg.id FOR NO KEY UPDATE
)
UPDATE billing_leg AS leg
SET input_units = greatest(leg.input_units, ask.input_units),
    output_units = greatest(leg.output_units, ask.output_units),
    usage_source = 'checkpoint', checkpoint_at = statement_timestamp(),
    deadline_at = greatest(leg.deadline_at, statement_timestamp() + make_interval(secs => %s))
FROM ask JOIN locked USING (id) WHERE leg.id = ask.id AND leg.state = 'dispatched'
RETURNING 1
"""

_CLOSE = """
WITH done AS (
    SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
                         %s::text[], %s::bigint[], %s::bigint[], %s::smallint[], %s::text[], %s::timestamptz[],
                         %s::boolean[], %s::text[], %s::smallint[], %s::text[])
    AS done(id, request_id, state, input_units, cached_input_units, cache_write_units, output_units,
            usage_source, cost_micros, estimate_micros, upstream_status, upstream_request_id, first_byte_at,
            is_flagged, request_state, http_status, error_code)
), closed AS (
    UPDATE billing_leg AS leg
    SET state = done.state, input_units = done.input_units, cached_input_units = done.cached_input_units,
        cache_write_units = done.cache_write_units, output_units = done.output_units,
        usage_source = done.usage_source, cost_micros = done.cost_micros, estimate_micros = done.estimate_micros,
        upstream_status = done.upstream_status, upstream_request_id = done.upstream_request_id,
        first_byte_at = done.first_byte_at, is_flagged = done.is_flagged, finished_at = statement_timestamp()
    FROM done WHERE leg.id = done.id
)
UPDATE billing_request AS request
SET state = done.request_state, http_status = done.http_status, error_code = done.error_code,
    finished_at = statement_timestamp()
FROM done WHERE request.id = done.request_id AND done.request_state <> '' AND request.state = 'running'
RETURNING 1
"""


def known(leg_ids: Sequence[UUID]) -> dict[UUID, tuple[str, str, UUID | None]]:
    """State, reason and hold of the legs among these that exist."""
    if postgres.is_used():
        found: Any = postgres.rows(_KNOWN, (list(leg_ids),))
    else:
        found = Leg.objects.filter(pk__in=leg_ids).values_list("id", "state", "reason", "hold_id")
    return {leg_id: (state, reason, hold_id) for leg_id, state, reason, hold_id in found}


def lock(leg_ids: Sequence[UUID]) -> dict[UUID, LockedLeg]:
    """Lock these legs in the order of their ids."""
    if postgres.is_used():
        return _locked(postgres.rows(_LOCK, (list(leg_ids),)))
    return _locked(Leg.objects.filter(pk__in=leg_ids).values_list(*_LOCK_FIELDS))


def lock_overdue(limit: int) -> dict[UUID, LockedLeg]:
    """Lock legs past their deadline by the database's clock, leaving those another sweeper or settler has."""
    if postgres.is_used():
        return _locked(postgres.rows(_LOCK_OVERDUE, (limit,)))
    overdue = Leg.objects.filter(state=Leg.State.DISPATCHED, deadline_at__lt=timezone.now()).order_by("pk")
    return _locked(overdue.values_list(*_LOCK_FIELDS)[:limit])


_LOCK_FIELDS = (
    "id",
    "request_id",
    "state",
    "payer_id",
    "price_id",
    "hold_id",
    "hold__amount_micros",
    "input_units",
    "output_units",
    "cost_micros",
    "estimate_micros",
)


def _locked(found: Any) -> dict[UUID, LockedLeg]:
    return {
        leg_id: LockedLeg(
            leg_id,
            request_id,
            state,
            payer_id,
            price_id,
            hold_id,
            held or 0,
            Usage(inputs, 0, 0, outputs),
            cost,
            estimate,
        )
        for leg_id, request_id, state, payer_id, price_id, hold_id, held, inputs, outputs, cost, estimate in found
    }


def insert(rows: Sequence[LegRow]) -> None:
    """Write new legs, and their requests where they are new; a refused leg refuses its running request."""
    requests = {row.opening.request_id: row for row in sorted(rows, key=lambda row: row.state == "refused")}
    if postgres.is_used():
        ordered = sorted(requests.values(), key=lambda row: row.opening.request_id)
        postgres.rows(_INSERT_REQUESTS, _columns([_request_values(row) for row in ordered]))
        postgres.rows(_INSERT_LEGS, _columns([(*_leg_values(row), row.opening.deadline_s) for row in rows]))
        return
    now = timezone.now()
    Request.objects.bulk_create(
        (
            Request(
                **dict(zip(_REQUEST_FIELDS, _request_values(row), strict=True)),
                finished_at=now if row.state == "refused" else None,
            )
            for row in requests.values()
        ),
        ignore_conflicts=True,
    )
    for row in rows:
        if row.state == "refused":
            Request.objects.filter(pk=row.opening.request_id, state=Request.State.RUNNING).update(
                state=Request.State.REFUSED, http_status=row.http_status, error_code=row.code, finished_at=now
            )
    Leg.objects.bulk_create(
        Leg(
            **dict(zip(_LEG_FIELDS, _leg_values(row), strict=True)),
            dispatched_at=now if row.state == "dispatched" else None,
            finished_at=now if row.state == "refused" else None,
            deadline_at=now + timedelta(seconds=row.opening.deadline_s) if row.state == "dispatched" else None,
        )
        for row in rows
    )


_REQUEST_FIELDS = (
    "id",
    "account_id",
    "api_key_id",
    "user_id",
    "endpoint",
    "streamed",
    "assistant_id",
    "state",
    "http_status",
    "error_code",
)

_CLOSED_FIELDS = (
    "state",
    "input_units",
    "cached_input_units",
    "cache_write_units",
    "output_units",
    "usage_source",
    "cost_micros",
    "estimate_micros",
    "upstream_status",
    "upstream_request_id",
    "first_byte_at",
    "is_flagged",
)

_LEG_FIELDS = (
    "id",
    "request_id",
    "account_id",
    "kind",
    "provider",
    "model",
    "voice",
    "funding_source",
    "payer_id",
    "connection_id",
    "connection_name",
    "secret_version",
    "reason",
    "price_id",
    "hold_id",
    "state",
)


def _request_values(row: LegRow) -> tuple[Any, ...]:
    ask = row.opening
    return (
        ask.request_id,
        ask.account_id,
        ask.api_key_id,
        ask.user_id,
        ask.endpoint,
        ask.streamed,
        ask.assistant_id,
        "refused" if row.state == "refused" else "running",
        row.http_status,
        row.code,
    )


def _leg_values(row: LegRow) -> tuple[Any, ...]:
    ask, decision = row.opening, row.opening.decision
    is_sent = row.state == "dispatched"
    return (
        ask.leg_id,
        ask.request_id,
        ask.account_id,
        str(ask.kind),
        str(ask.provider),
        ask.model,
        ask.voice,
        str(decision.funding_source),
        decision.payer_id,
        decision.connection_id,
        decision.connection_name,
        decision.secret_version,
        decision.reason if is_sent else row.code,
        ask.price.id if ask.price else None,
        ask.leg_id if is_sent and decision.funding_source == "platform_credits" else None,
        row.state,
    )


def checkpoint(latest: Mapping[UUID, Usage], *, lease_s: int) -> None:
    if postgres.is_used():
        columns = _columns([(leg_id, usage.input_units, usage.output_units) for leg_id, usage in latest.items()])
        if columns:
            postgres.rows(_CHECKPOINT, (*columns, lease_s))
        return
    now = timezone.now()
    for leg in Leg.objects.filter(pk__in=latest, state=Leg.State.DISPATCHED):
        leg.input_units = max(leg.input_units, latest[leg.pk].input_units)
        leg.output_units = max(leg.output_units, latest[leg.pk].output_units)
        leg.usage_source = "checkpoint"
        leg.checkpoint_at = now
        leg.deadline_at = max(leg.deadline_at or now, now + timedelta(seconds=lease_s))
        leg.save(update_fields=["input_units", "output_units", "usage_source", "checkpoint_at", "deadline_at"])


def close(closings: Sequence[Closing]) -> None:
    """Write how legs ended, and with them their requests unless those go on."""
    if postgres.is_used():
        postgres.rows(_CLOSE, _columns([_closing_values(closing) for closing in closings]))
        return
    now = timezone.now()
    for closing in closings:
        settlement = closing.settlement
        fields = dict(zip(_CLOSED_FIELDS, _closing_values(closing)[2:14], strict=True))
        Leg.objects.filter(pk=closing.leg.id).update(**fields, finished_at=now)
        if settlement.request_state:
            Request.objects.filter(pk=closing.leg.request_id, state=Request.State.RUNNING).update(
                state=settlement.request_state,
                http_status=settlement.http_status,
                error_code=settlement.error_code[:60],
                finished_at=now,
            )


def _closing_values(closing: Closing) -> tuple[Any, ...]:
    settlement, usage = closing.settlement, closing.usage
    return (
        closing.leg.id,
        closing.leg.request_id,
        closing.state,
        usage.input_units,
        usage.cached_input_units,
        usage.cache_write_units,
        usage.output_units,
        settlement.usage_source,
        closing.cost_micros,
        closing.estimate_micros,
        settlement.upstream_status,
        settlement.upstream_request_id[:120],
        settlement.first_byte_at,
        settlement.is_flagged or closing.is_doubtful,
        settlement.request_state,
        settlement.http_status,
        settlement.error_code[:60],
    )


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
