"""What lives as long as the event loop: connection pools, the store, work that outlives its caller, checkpoints."""

import asyncio
import contextlib
import gc
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import structlog

from gateway.relay import Pools
from gateway.store import Store

if TYPE_CHECKING:
    from gateway.legs import Leg

CHECKPOINT_S: Final = 2.0
CLOSE_S: Final = 8.0
YOUNG_OBJECTS: Final = 10_000

log = structlog.get_logger(__name__)


def settle_memory() -> None:
    """Take what was loaded at start out of the collector's sight: it stays, and looking through it costs every request.

    Once, when the server starts. Requests leave few cycles behind, so young objects are looked at less often too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)


class Runtime:
    """Made on first use in a loop, closed by the lifespan. Holds no credential and no balance."""

    def __init__(self) -> None:
        self.pools = Pools()
        self.store = Store()
        self.in_flight = 0
        self.streaming: set[Leg] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._checkpoints = asyncio.create_task(self._write_checkpoints())

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that goes on when its caller is cancelled; waited for at shutdown."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("gateway_work_failed", error=type(error).__name__)

    async def _write_checkpoints(self) -> None:
        """Every two seconds every open stream shows what it has used: what a crash of ours may charge."""
        while True:
            await asyncio.sleep(CHECKPOINT_S)
            asks = [self.store.checkpoint(leg.id, leg.shown_usage()) for leg in self.streaming]
            for result in await asyncio.gather(*asks, return_exceptions=True):
                if isinstance(result, Exception):
                    log.error("checkpoint_failed", error=type(result).__name__)
                    break

    async def close(self) -> None:
        self._checkpoints.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        await self.pools.close()
        await self.store.close()


_runtimes: WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = WeakKeyDictionary()


def current() -> Runtime:
    """This loop's runtime."""
    loop = asyncio.get_running_loop()
    found = _runtimes.get(loop)
    if found is None:
        found = _runtimes[loop] = Runtime()
    return found


async def close() -> None:
    found = _runtimes.pop(asyncio.get_running_loop(), None)
    if found is not None:
        await found.close()
