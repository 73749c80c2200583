import asyncio
import os
import time

import msgspec
import pytest

from insighto.lib import lane, postgres
from insighto.lib.lane import LEFT, Lane

pytestmark = pytest.mark.postgres

# Doubles numbers; a text fails the whole statement, the number 13 ends the connection it runs on.
DOUBLE = """
SELECT coalesce(json_agg(2 * value::int ORDER BY place), '[]')::text
FROM json_array_elements_text($1::json) WITH ORDINALITY AS ask(value, place)
WHERE value <> '13' OR pg_terminate_backend(pg_backend_pid())
"""


def doubling(batches: list[list[object]] | None = None) -> Lane[object, int]:
    def read(answer, asks):
        if batches is not None:
            batches.append(list(asks))
        return msgspec.json.decode(answer)

    return Lane("test", DOUBLE, msgspec.json.encode, read)


@pytest.fixture(autouse=True)
def _database(transactional_db):
    """A lane connects by itself to the database of the tests."""


def test_what_is_asked_meanwhile_goes_together_in_order():
    batches: list[list[object]] = []

    async def story():
        doubles = doubling(batches)
        assert await doubles.submit(1) == 2
        first = doubles.submit(2)
        await asyncio.sleep(0)
        rest = [doubles.submit(number) for number in range(3, 9)]
        rest[0].cancel()
        assert await asyncio.gather(first, *rest[1:]) == [4, 8, 10, 12, 14, 16]
        await doubles.close()

    asyncio.run(story())
    assert [number for batch in batches for number in batch] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert len(batches) == 3


def test_a_batch_that_fails_is_left_and_the_next_one_served():
    async def story():
        doubles = doubling()
        assert set(await asyncio.gather(doubles.submit(1), doubles.submit("x"))) == {LEFT}
        assert await doubles.submit(4) == 8
        await doubles.close()

    asyncio.run(story())


def test_a_lost_connection_is_left_and_made_anew():
    async def story():
        doubles = doubling()
        assert await doubles.submit(1) == 2
        assert await doubles.submit(13) is LEFT
        assert await doubles.submit(3) == 6
        await doubles.close()

    asyncio.run(story())


def test_while_the_database_is_away_everything_is_left_at_once(monkeypatch):
    def refused(statement: bytes):
        raise OSError

    monkeypatch.setattr(postgres, "connected", refused)

    async def story():
        doubles = doubling()
        began = time.monotonic()
        assert [await doubles.submit(number) for number in range(50)] == [LEFT] * 50
        assert time.monotonic() - began < lane.RECONNECT_S
        await doubles.close()

    asyncio.run(story())


def test_a_large_batch_passes_a_small_socket_and_closing_finishes_it():
    async def story():
        doubles = doubling()
        asked = [doubles.submit(int.from_bytes(os.urandom(3)) + 14) for _ in range(2_000)]
        await asyncio.sleep(0)
        await doubles.close()
        assert LEFT not in [await each for each in asked]
        assert await doubles.submit(1) is LEFT

    asyncio.run(story())
