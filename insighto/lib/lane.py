"""Group commit in the event loop: one prepared statement, one PostgreSQL connection, no thread.

While one batch is on its way the next one gathers, as in `batcher`, but nothing changes hands: the answer
arrives as bytes on a socket that the loop watches. A lane carries the usual case only. What its statement
leaves out, and everything while the database is away, answers `LEFT`; the caller takes the long way
then, which must be safe to repeat after a batch whose fate is unknown.
"""

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, Generic, TypeVar

import psycopg
import structlog
from psycopg import pq

from insighto.lib import postgres

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

MAX_BATCH: Final = 256
MAX_WAITING: Final = 10_000
RECONNECT_S: Final = 1.0

log = structlog.get_logger(__name__)


class Left(Enum):
    """Not answered by this lane."""

    LEFT = "left"


LEFT: Final = Left.LEFT


class Lane(Generic[Ask, Answer]):
    """`statement` takes one JSON parameter and gives one JSON text; it is a transaction, durable when it answers.

    `ask` makes the parameter of a batch, `read` one answer (or `LEFT`) for each of the batch, in order.
    """

    def __init__(
        self,
        name: str,
        statement: str,
        ask: Callable[[Sequence[Ask]], bytes],
        read: Callable[[bytes, Sequence[Ask]], Sequence[Answer | Left]],
    ) -> None:
        self._name = name
        self._statement = statement.encode()
        self._ask = ask
        self._read = read
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Ask, asyncio.Future[Answer | Left]]] = []
        self._running: list[tuple[Ask, asyncio.Future[Answer | Left]]] = []
        self._answer: pq.abc.PGresult | None = None
        self._connection: psycopg.Connection | None = None
        self._socket = -1
        self._connecting: asyncio.Task[None] | None = None
        self._retry_at = 0.0
        self._is_woken = False
        self._is_closed = False

    def submit(self, ask: Ask) -> "asyncio.Future[Answer | Left]":
        """The answer to `ask`, or `LEFT`. Cancelling the future does not undo the work."""
        future: asyncio.Future[Answer | Left] = self._loop.create_future()
        if self._is_closed or len(self._waiting) >= MAX_WAITING:
            future.set_result(LEFT)
            return future
        self._waiting.append((ask, future))
        if not self._running and not self._is_woken:
            # Not at once: what else is asked in this turn of the loop goes along.
            self._is_woken = True
            self._loop.call_soon(self._begin)
        return future

    async def close(self) -> None:
        """Finish what is queued, then leave the database. What is asked later is `LEFT`."""
        self._is_closed = True
        if self._connecting is not None:
            await self._connecting
        left = [future for _, future in self._running + self._waiting if not future.done()]
        if left:
            await asyncio.wait(left)
        self._disconnect()

    def _begin(self) -> None:
        self._is_woken = False
        if self._running or not self._waiting:
            return
        if self._connection is None:
            self._connect()
            return
        self._running, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        try:
            payload = self._ask([ask for ask, _ in self._running])
            self._connection.pgconn.send_query_prepared(b"lane", [payload])
            self._flush()
        except Exception as error:
            self._fail(error)

    def _flush(self) -> None:
        assert self._connection is not None
        pgconn = self._connection.pgconn
        if pgconn.flush():
            self._loop.add_writer(self._socket, self._writable)
        else:
            self._loop.remove_writer(self._socket)

    def _writable(self) -> None:
        try:
            self._flush()
        except Exception as error:
            self._fail(error)

    def _readable(self) -> None:
        assert self._connection is not None
        pgconn = self._connection.pgconn
        try:
            pgconn.consume_input()
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    break
                self._answer = result
            else:
                return
            if self._running:
                self._deliver()
        except Exception as error:
            self._fail(error)

    def _deliver(self) -> None:
        result, self._answer = self._answer, None
        assert result is not None
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise psycopg.errors.error_from_result(result)
        answers = self._read(result.get_value(0, 0) or b"", [ask for ask, _ in self._running])
        served, self._running = self._running, []
        for (_, future), answer in zip(served, answers, strict=True):
            if not future.done():
                future.set_result(answer)
        self._begin()

    def _fail(self, error: Exception) -> None:
        """The batch takes the long way, which also says what is wrong; a broken connection is made anew."""
        log.warning("lane_failed", lane=self._name, error=type(error).__name__)
        failed, self._running, self._answer = self._running, [], None
        if self._connection is not None and self._connection.pgconn.status != pq.ConnStatus.OK:
            self._disconnect()
        _leave(failed)
        if self._waiting and not self._is_woken:
            self._is_woken = True
            self._loop.call_soon(self._begin)

    # The connection.

    def _connect(self) -> None:
        if self._connecting is not None:
            return
        if self._loop.time() < self._retry_at:
            waiting, self._waiting = self._waiting, []
            _leave(waiting)
            return
        self._connecting = self._loop.create_task(self._connected())

    async def _connected(self) -> None:
        try:
            connection = await asyncio.to_thread(postgres.connected, self._statement)
        except Exception as error:
            log.warning("lane_failed", lane=self._name, error=type(error).__name__)
            self._retry_at = self._loop.time() + RECONNECT_S
            waiting, self._waiting = self._waiting, []
            _leave(waiting)
        else:
            self._connection = connection
            self._socket = connection.pgconn.socket  # a lost connection cannot say it any more
            self._loop.add_reader(self._socket, self._readable)
            self._begin()
        finally:
            self._connecting = None

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            connection.close()


def _leave(items: Sequence[tuple[Ask, "asyncio.Future[Answer | Left]"]]) -> None:
    for _, future in items:
        if not future.done():
            future.set_result(LEFT)
