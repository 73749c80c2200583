"""Hold+settle pairs per second: group commit against the naive ORM way and against the same statements without batches.

    python -m bench.ledger [--seconds 4]

Starts its own PostgreSQL with durable commits. Ratios carry to other machines, figures do not.
"""

import argparse
import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import servers

CALLERS = 64
PRICE = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    seconds = parser.parse_args().seconds
    with servers.running(postgres=True, durable=True) as found:
        os.environ |= found | {"DJANGO_SETTINGS_MODULE": "insighto.settings", "ENV_FILE": os.devnull}
        os.environ |= {"VAR_DIR": str(Path(found["REDIS_URL"].removeprefix("unix://").partition("?")[0]).parent)}
        import django

        django.setup()
        _prepare_database()
        for name, count in (("one hot account", 1), ("64 accounts", 64)):
            owners = _accounts(count)
            rates = {way.__doc__ or "": way(owners, seconds) for way in (naive_orm, one_by_one, group_commit)}
            slowest = min(rates.values())
            for label, rate in rates.items():
                print(f"{name:16} {label:34} {rate:9,.0f} pairs/s  × {rate / slowest:5.1f}")  # noqa: T201


def _prepare_database() -> None:
    from django.core.management import call_command
    from django.db import connection

    with connection.cursor() as cursor:
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            cursor.execute(f"SHOW {name}")
            assert cursor.fetchone() == ("on",), f"{name} is off: these would not be a ledger's figures"
    call_command("migrate", verbosity=0)


def _accounts(count: int) -> list[Any]:
    from accounts.models import Account, Plan
    from billing.services import ledger
    from insighto.lib import ids

    plan, _ = Plan.objects.get_or_create(code="bench", defaults={"name": "Bench"})
    owners = []
    for _ in range(count):
        slug = f"bench-{ids.new().hex[-12:]}"
        owner = Account.objects.create(name=slug, slug=slug, plan=plan)
        ledger.grant(account=owner, amount_micros=2**50, reason="Bench", actor=None, idempotency_key="bench")
        owners.append(owner.pk)
    return owners


def _threads(count: int, seconds: float, pair: Callable[[int], None]) -> float:
    """Pairs per second of `count` threads, each with a connection of its own."""
    from django.db import connection

    done = [0] * count
    until = time.perf_counter() + seconds

    def work(number: int) -> None:
        while time.perf_counter() < until:
            pair(number)
            done[number] += 1
        connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - started)


def naive_orm(owners: list[Any], seconds: float) -> float:
    """ORM with a row lock, 16 callers"""
    from django.db import transaction

    from billing.models import LedgerAccount, Transfer
    from billing.services import ledger
    from insighto.lib import ids

    def pair(number: int) -> None:
        owner = owners[number % len(owners)]
        with transaction.atomic():
            wallet = LedgerAccount.objects.select_for_update(no_key=True).get(owner_id=owner, kind="wallet")
            assert wallet.balance_micros >= PRICE
            wallet.debits_pending += PRICE
            wallet.save()
            hold = Transfer.objects.create(kind="hold", owner_id=owner, debit=wallet, credit_id=ledger.REVENUE_ID,
                                           amount_micros=PRICE, idempotency_key=str(ids.new()))  # fmt: skip
        with transaction.atomic():
            wallet = LedgerAccount.objects.select_for_update(no_key=True).get(pk=wallet.pk)
            wallet.debits_pending -= PRICE
            wallet.debits_posted += PRICE
            wallet.save()
            Transfer.objects.create(kind="settle", owner_id=owner, debit=wallet, credit_id=ledger.REVENUE_ID,
                                    amount_micros=PRICE, hold=hold, hold_amount_micros=PRICE,
                                    idempotency_key=str(ids.new()))  # fmt: skip

    return _threads(16, seconds, pair)


def one_by_one(owners: list[Any], seconds: float) -> float:
    """the same statements, batches of one, 16 callers"""
    from billing.services import ledger
    from insighto.lib import ids

    def pair(number: int) -> None:
        [held] = ledger.hold_many([ledger.Hold(ids.new(), owners[number % len(owners)], PRICE)])
        assert isinstance(held, ledger.Held)
        ledger.settle(hold_id=held.hold_id, amount_micros=PRICE)

    return _threads(16, seconds, pair)


def group_commit(owners: list[Any], seconds: float) -> float:
    """group commit, 64 callers"""
    from billing.services import ledger
    from insighto.lib import ids
    from insighto.lib.batcher import Batcher

    async def run() -> float:
        holds = Batcher(ledger.hold_many, "hold")
        settles = Batcher(ledger.resolve_many, "settle")
        done = 0
        started = time.perf_counter()

        async def caller(number: int) -> None:
            nonlocal done
            while time.perf_counter() - started < seconds:
                hold_id = ids.new()
                held = await holds.submit(ledger.Hold(hold_id, owners[number % len(owners)], PRICE))
                assert isinstance(held, ledger.Held)
                await settles.submit(ledger.Resolution(hold_id, "settle", PRICE))
                done += 1

        await asyncio.gather(*(caller(number) for number in range(CALLERS)))
        rate = done / (time.perf_counter() - started)
        await asyncio.to_thread(holds.close)
        await asyncio.to_thread(settles.close)
        return rate

    return asyncio.run(run())


if __name__ == "__main__":
    main()
