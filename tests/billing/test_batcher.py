import asyncio
import threading

import pytest

from insighto.lib.batcher import Batcher, Overloaded


def test_what_queues_during_a_run_goes_together_in_order():
    batches: list[list[int]] = []
    started, gate = threading.Event(), threading.Event()

    def run(asks):
        batches.append(list(asks))
        started.set()
        gate.wait(5)
        return [ask * 2 for ask in asks]

    async def story():
        batcher = Batcher(run, "test", max_batch=4)
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.to_thread(started.wait, 5)
        rest = [asyncio.create_task(batcher.submit(number)) for number in range(1, 7)]
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(first, *rest) == [number * 2 for number in range(7)]
        batcher.close()

    asyncio.run(story())
    assert batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_one_poison_item_fails_alone():
    def run(asks):
        if 3 in asks:
            raise ValueError("poison")
        return asks

    async def story():
        batcher = Batcher(run, "test")
        results = await asyncio.gather(*(batcher.submit(number) for number in range(6)), return_exceptions=True)
        batcher.close()
        return results

    results = asyncio.run(story())
    assert isinstance(results.pop(3), ValueError)
    assert results == [0, 1, 2, 4, 5]


def test_a_caller_that_left_does_not_disturb_the_others():
    gate = threading.Event()

    def run(asks):
        gate.wait(5)
        return asks

    async def story():
        batcher = Batcher(run, "test")
        leaving, staying = (asyncio.create_task(batcher.submit(number)) for number in (1, 2))
        await asyncio.sleep(0.01)
        leaving.cancel()
        gate.set()
        assert await staying == 2
        batcher.close()
        with pytest.raises(Overloaded):
            await batcher.submit(3)

    asyncio.run(story())


def test_close_finishes_what_is_queued():
    async def story():
        batcher: Batcher[int, int] = Batcher(lambda asks: asks, "test")
        tasks = [asyncio.create_task(batcher.submit(number)) for number in range(50)]
        await asyncio.sleep(0)
        await asyncio.to_thread(batcher.close)
        assert await asyncio.gather(*tasks) == list(range(50))

    asyncio.run(story())
