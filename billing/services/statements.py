"""The ledger's statements, twice: for PostgreSQL over whole batches, for SQLite one after another.

Called only by `ledger.py` and `legs.py`, inside their transaction. On SQLite that transaction is
IMMEDIATE, so nobody else writes meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from django.db.models import F

from billing.models import LedgerAccount, Transfer
from insighto.lib import ids, postgres

if TYPE_CHECKING:
    from billing.services.ledger import Hold, Resolution

# NO KEY UPDATE: the foreign keys of new transfers may still point here while the row is locked.
_LOCK_WALLETS_OF = """
SELECT 1 FROM billing_ledgeraccount WHERE kind = 'wallet' AND owner_id = ANY(%s::uuid[])
ORDER BY id FOR NO KEY UPDATE
"""

_LOCK_WALLETS_BEHIND = """
SELECT 1 FROM billing_ledgeraccount
WHERE id IN (SELECT debit_id FROM billing_transfer WHERE id = ANY(%s::uuid[]) AND kind = 'hold')
ORDER BY id FOR NO KEY UPDATE
"""

# The window sum judges each hold after those before it in the batch, against the locked balance. It
# also counts holds that do not fit; the caller asks again for what stands behind one of those.
_INSERT_HOLDS = """
WITH ask AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(owners)s::uuid[], %(amounts)s::bigint[], %(prices)s::uuid[],
                         %(references)s::text[])
    WITH ORDINALITY AS ask(id, owner_id, amount, price_id, reference, place)
), judged AS (
    SELECT ask.*, wallet.id AS wallet_id,
           sum(ask.amount) OVER (PARTITION BY ask.owner_id ORDER BY ask.place)
               <= wallet.credits_posted - wallet.debits_posted - wallet.debits_pending AS fits
    FROM ask
    JOIN billing_ledgeraccount AS wallet ON wallet.owner_id = ask.owner_id AND wallet.kind = 'wallet'
    WHERE wallet.frozen_at IS NULL
      AND ask.amount <= wallet.credits_posted - wallet.debits_posted - wallet.debits_pending
      AND NOT EXISTS (SELECT 1 FROM billing_transfer AS known WHERE known.id = ask.id)
), held AS (
    INSERT INTO billing_transfer (id, kind, owner_id, debit_id, credit_id, amount_micros, idempotency_key, price_id,
                                  reference, reason)
    SELECT id, 'hold', owner_id, wallet_id, %(revenue)s, amount, 'hold:' || id, price_id, reference, ''
    FROM judged WHERE fits ORDER BY place
    RETURNING id, debit_id, amount_micros
), moved AS (
    UPDATE billing_ledgeraccount AS wallet SET debits_pending = wallet.debits_pending + taken.total
    FROM (SELECT debit_id, sum(amount_micros)::bigint AS total FROM held GROUP BY debit_id) AS taken
    WHERE wallet.id = taken.debit_id
)
SELECT id FROM held
"""

_INSERT_RESOLUTIONS = """
WITH ask AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(holds)s::uuid[], %(kinds)s::text[], %(amounts)s::bigint[])
    AS ask(id, hold_id, kind, amount)
), resolved AS (
    INSERT INTO billing_transfer (id, kind, owner_id, debit_id, credit_id, amount_micros, hold_id, hold_amount_micros,
                                  idempotency_key, price_id, reference, reason)
    SELECT ask.id, ask.kind, hold.owner_id, hold.debit_id, hold.credit_id, least(ask.amount, hold.amount_micros),
           hold.id, hold.amount_micros, 'resolve:' || hold.id, hold.price_id, hold.reference, ''
    FROM ask JOIN billing_transfer AS hold ON hold.id = ask.hold_id AND hold.kind = 'hold'
    ON CONFLICT DO NOTHING
    RETURNING hold_id, kind, debit_id, amount_micros, hold_amount_micros
), moved AS (
    UPDATE billing_ledgeraccount AS wallet
    SET debits_pending = wallet.debits_pending - ended.held, debits_posted = wallet.debits_posted + ended.taken
    FROM (SELECT debit_id, sum(hold_amount_micros)::bigint AS held, sum(amount_micros)::bigint AS taken
          FROM resolved GROUP BY debit_id) AS ended
    WHERE wallet.id = ended.debit_id
)
SELECT hold_id, kind, amount_micros FROM resolved
"""


def lock_wallets_of(owner_ids: Collection[UUID]) -> int:
    """Lock the wallets of these accounts; how many there are."""
    if postgres.is_used():
        return len(postgres.rows(_LOCK_WALLETS_OF, (list(owner_ids),)))
    return LedgerAccount.objects.filter(kind=LedgerAccount.Kind.WALLET, owner_id__in=owner_ids).count()


def lock_wallets_behind(hold_ids: Sequence[UUID]) -> None:
    if postgres.is_used():
        postgres.rows(_LOCK_WALLETS_BEHIND, (list(hold_ids),))


def insert_holds(holds: Sequence[Hold], revenue_id: UUID) -> set[UUID]:
    """One pass over the batch; the ids of the holds made."""
    return {
        hold_id
        for (hold_id,) in postgres.rows(
            _INSERT_HOLDS,
            {
                "ids": [hold.id for hold in holds],
                "owners": [hold.owner_id for hold in holds],
                "amounts": [hold.amount_micros for hold in holds],
                "prices": [hold.price_id for hold in holds],
                "references": [hold.reference for hold in holds],
                "revenue": revenue_id,
            },
        )
    }


def insert_holds_one_by_one(holds: Sequence[Hold], revenue_id: UUID) -> set[UUID]:
    wallets = dict(
        LedgerAccount.objects.filter(
            kind=LedgerAccount.Kind.WALLET, owner_id__in={hold.owner_id for hold in holds}
        ).values_list("owner_id", "id")
    )
    known = set(Transfer.objects.filter(id__in=[hold.id for hold in holds]).values_list("id", flat=True))
    made = []
    for hold in holds:
        if hold.id in known:
            continue
        fits = LedgerAccount.objects.filter(
            pk=wallets[hold.owner_id],
            frozen_at=None,
            credits_posted__gte=F("debits_posted") + F("debits_pending") + hold.amount_micros,
        ).update(debits_pending=F("debits_pending") + hold.amount_micros)
        if fits:
            made.append(hold)
    Transfer.objects.bulk_create(
        Transfer(
            id=hold.id,
            kind=Transfer.Kind.HOLD,
            owner_id=hold.owner_id,
            debit_id=wallets[hold.owner_id],
            credit_id=revenue_id,
            amount_micros=hold.amount_micros,
            idempotency_key=f"hold:{hold.id}",
            price_id=hold.price_id,
            reference=hold.reference,
        )
        for hold in made
    )
    return {hold.id for hold in made}


def insert_resolutions(resolutions: Sequence[Resolution]) -> dict[UUID, tuple[str, int]]:
    """The resolutions made: kind and amount by hold. Holds resolved before, or unknown, are absent."""
    return {
        hold_id: (kind, amount)
        for hold_id, kind, amount in postgres.rows(
            _INSERT_RESOLUTIONS,
            {
                "ids": [ids.new() for _ in resolutions],
                "holds": [resolution.hold_id for resolution in resolutions],
                "kinds": [str(resolution.kind) for resolution in resolutions],
                "amounts": [resolution.amount_micros for resolution in resolutions],
            },
        )
    }


def insert_resolutions_one_by_one(resolutions: Sequence[Resolution]) -> dict[UUID, tuple[str, int]]:
    holds = Transfer.objects.filter(kind=Transfer.Kind.HOLD, resolution=None).in_bulk(
        [resolution.hold_id for resolution in resolutions]
    )
    made: dict[UUID, tuple[str, int]] = {}
    rows = []
    for resolution in resolutions:
        hold = holds.get(resolution.hold_id)
        if hold is None:
            continue
        amount = min(resolution.amount_micros, hold.amount_micros)
        rows.append(
            Transfer(
                kind=resolution.kind,
                owner_id=hold.owner_id,
                debit_id=hold.debit_id,
                credit_id=hold.credit_id,
                amount_micros=amount,
                hold=hold,
                hold_amount_micros=hold.amount_micros,
                idempotency_key=f"resolve:{hold.id}",
                price_id=hold.price_id,
                reference=hold.reference,
            )
        )
        LedgerAccount.objects.filter(pk=hold.debit_id).update(
            debits_pending=F("debits_pending") - hold.amount_micros, debits_posted=F("debits_posted") + amount
        )
        made[hold.id] = (str(resolution.kind), amount)
    Transfer.objects.bulk_create(rows)
    return made
