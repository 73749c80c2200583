"""Group commit: one thread with one database connection runs one call for all that queued meanwhile.

The event loop hands over work and waits for a future; it never touches the database. While a batch
commits, the next one gathers: latency stays that of one commit and throughput grows with the load.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from django.db import Error, connection

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

MAX_WAITING = 10_000  # more than this queued means the database is gone: refuse rather than grow


class Overloaded(Exception):
    """The queue is full, or the batcher was closed."""


class Batcher(Generic[Ask, Answer]):
    """Runs `run` for batches of what `submit` was given, in the order given.

    `run` answers with one entry per ask and must be safe to repeat: when a batch fails, its items are
    run again one by one, so that one poison item cannot fail its neighbours.
    """

    def __init__(self, run: Callable[[list[Ask]], Sequence[Answer]], name: str, max_batch: int = 256) -> None:
        self._run = run
        self._name = name
        self._max_batch = max_batch
        self._waiting: deque[tuple[Ask, asyncio.Future[Answer]]] = deque()
        self._bell = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    async def submit(self, ask: Ask) -> Answer:
        """The answer for `ask`. Cancelling the caller does not undo the work."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        with self._bell:
            if self._closing or len(self._waiting) >= MAX_WAITING:
                raise Overloaded(self._name)
            self._waiting.append((ask, future))
            if (
                self._thread is None
            ):  # on first use: a forked server process must not inherit a thread that is not there
                self._thread = threading.Thread(target=self._work, name=f"batcher-{self._name}", daemon=True)
                self._thread.start()
            self._bell.notify()
        return await future

    def close(self, timeout_s: float = 10) -> None:
        """Finish what is queued, then stop the thread and its connection. Refuses new work at once."""
        with self._bell:
            self._closing = True
            self._bell.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _work(self) -> None:
        while True:
            with self._bell:
                while not self._waiting and not self._closing:
                    self._bell.wait()
                if not self._waiting:
                    break
                size = min(len(self._waiting), self._max_batch)
                batch = [self._waiting.popleft() for _ in range(size)]
            self._serve(batch)
        connection.close()

    def _serve(self, batch: list[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        try:
            answers = self._attempt([ask for ask, _ in batch])
        except Exception as error:
            if len(batch) > 1:
                for item in batch:
                    self._serve([item])
            else:
                failure = error  # `error` itself is unbound when this block ends
                _deliver([batch[0][1]], lambda future, _: future.set_exception(failure))
        else:
            _deliver([future for _, future in batch], lambda future, place: future.set_result(answers[place]))

    def _attempt(self, asks: list[Ask]) -> Sequence[Answer]:
        try:
            answers = self._run(asks)
        except Error:
            connection.close_if_unusable_or_obsolete()
            raise
        if len(answers) != len(asks):
            message = f"{self._name}: {len(answers)} answers for {len(asks)} asks"
            raise AssertionError(message)
        return answers


def _deliver(futures: list["asyncio.Future[Answer]"], results: Callable[["asyncio.Future[Answer]", int], None]) -> None:
    """Set results on each future in its own loop: one wake-up per loop, not per future."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Answer], int]]] = {}
    for place, future in enumerate(futures):
        by_loop.setdefault(future.get_loop(), []).append((future, place))

    def settle(items: list[tuple["asyncio.Future[Answer]", int]]) -> None:
        for future, place in items:
            if not future.done():
                results(future, place)

    for loop, items in by_loop.items():
        with suppress(RuntimeError):  # the loop has closed: nobody is waiting any more
            loop.call_soon_threadsafe(settle, items)
