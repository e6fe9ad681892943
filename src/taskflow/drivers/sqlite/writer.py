"""The one thread that owns the connection, and the queue of operations before it.

Operations that wait together share one transaction: a savepoint each, one commit, and no reply
before the commit is on the disk. What an operation raises undoes that operation alone.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import anyio
from anyio.lowlevel import current_token

from taskflow.drivers.sqlite.connection import Place, Store
from taskflow.drivers.sqlite.faults import closed, refused, translated
from taskflow.drivers.sqlite.news import News
from taskflow.drivers.sqlite.tx import Statements, Tx
from taskflow.errors import DriverError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

__all__ = ("Writer", "post")

MOST_TOGETHER: Final = 64
"""Operations in one transaction, so that nobody's commit waits for ever."""


def post(native: Any, call: Callable[[], object]) -> None:
    """Call a function on the event loop soon, from any thread; a closed loop hears nothing.

    Args:
        native: The loop's own token: asyncio's loop, or trio's token.
        call: Must not raise.
    """
    send = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
    with suppress(RuntimeError):
        send(call)


class _Order(Generic[T]):
    """One operation on its way. Written by the writer until ``event`` is set on the loop."""

    __slots__ = ("error", "event", "is_abandoned", "native", "result", "work", "writes")

    def __init__(self, work: Callable[[Tx], T], *, writes: bool) -> None:
        self.work, self.writes = work, writes
        self.native = current_token().native_token
        self.event = anyio.Event()
        self.result: T | None = None
        self.error: Exception | None = None
        self.is_abandoned = False


class _LostError(Exception):
    """SQLite gave the whole transaction up because of one operation."""


class Writer:
    """Runs operations one after another, in its own thread.

    Args:
        place: The store.
        publish: Told, in the writer's thread, what each commit changed; must not raise.
    """

    def __init__(self, place: Place, publish: Callable[[News], None]) -> None:
        self._place = place
        self._publish = publish
        self._statements = Statements(place.names.words)
        self._pid = os.getpid()
        self._ready = threading.Condition()
        self._urgent: deque[_Order[Any]] = deque()
        self._queue: deque[_Order[Any]] = deque()
        self._is_stopping = False
        self._store: Store | None = None
        self._thread = threading.Thread(target=self._serve, name="taskflow-sqlite", daemon=True)
        self._thread.start()

    async def call(
        self, work: Callable[[Tx], T], *, writes: bool = True, is_urgent: bool = False
    ) -> T:
        """Run one operation and return what it returns.

        Args:
            work: Runs in the writer's thread inside a transaction.
            writes: It may change something.
            is_urgent: Goes before everything that is not.

        Cancellation: the caller leaves; the operation is done as a whole or not at all.
        """
        order = _Order(work, writes=writes)
        self._submit(order, is_urgent=is_urgent)
        try:
            await order.event.wait()
        except BaseException:
            order.is_abandoned = True
            raise
        if order.error is not None:
            raise order.error
        return order.result  # type: ignore[return-value]  # set whenever there is no error

    def stop(self) -> None:
        """Let the operation under way finish, refuse the others, end the thread."""
        with self._ready:
            self._is_stopping = True
            self._ready.notify()

    def join(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for the thread to end."""
        if self._pid == os.getpid():
            self._thread.join(timeout)

    def _submit(self, order: _Order[Any], *, is_urgent: bool) -> None:
        if self._pid != os.getpid():
            raise refused(self._place.path, "opened before a fork: open a driver of its own there")
        with self._ready:
            if self._is_stopping:
                raise closed(self._place.path)
            (self._urgent if is_urgent else self._queue).append(order)
            self._ready.notify()

    # In the writer's thread

    def _serve(self) -> None:
        while batch := self._take():
            self._run(batch)
        rest = [*self._urgent, *self._queue]
        for order in rest:
            order.error = closed(self._place.path)
        self._answer(rest)
        self._drop_store()

    def _take(self) -> list[_Order[Any]]:
        with self._ready:
            while True:
                while not (self._urgent or self._queue or self._is_stopping):
                    self._ready.wait()
                if self._is_stopping:
                    return []
                batch: list[_Order[Any]] = []
                for queue in (self._urgent, self._queue):
                    while queue and len(batch) < MOST_TOGETHER:
                        batch.append(queue.popleft())
                wanted = [order for order in batch if not order.is_abandoned]
                if wanted:
                    return wanted

    def _run(self, batch: list[_Order[Any]]) -> None:
        try:
            self._transact(batch)
        except _LostError:
            for order in batch:
                order.error = None
                self._run_alone(order)
        except Exception as exc:
            self._fail(batch, exc)
        self._answer(batch)

    def _run_alone(self, order: _Order[Any]) -> None:
        try:
            self._transact([order])
        except Exception as exc:
            self._fail([order], exc)

    def _transact(self, batch: Sequence[_Order[Any]]) -> None:
        """Run all of them in one transaction. If this raises, none of them was applied."""
        store = self._opened()
        news = News()
        is_only = len(batch) == 1
        try:
            store.begin(writes=any(order.writes for order in batch))
            for order in batch:
                self._step(store, order, news, is_only=is_only)
            self._commit(store, is_only=is_only)
        except BaseException:
            self._roll_back(store)
            raise
        if news:
            self._publish(news)

    def _step(self, store: Store, order: _Order[Any], news: News, *, is_only: bool) -> None:
        tx = Tx(store, self._statements)
        if is_only:
            order.result = order.work(tx)
            news.add(tx.news)
            return
        store.conn.execute("SAVEPOINT step")
        try:
            order.result = order.work(tx)
        except Exception as exc:
            if not store.conn.in_transaction:
                raise _LostError from exc
            store.conn.execute("ROLLBACK TO step")
            order.error = self._meaning(exc)
        else:
            news.add(tx.news)
        store.conn.execute("RELEASE step")

    def _commit(self, store: Store, *, is_only: bool) -> None:
        try:
            store.commit()
        except sqlite3.Error as exc:
            error = translated(exc, path=self._place.path, is_committing=True)
            if isinstance(error, StoreFullError) and not is_only:
                raise _LostError from exc  # some of them may need no room
            raise error from exc

    def _opened(self) -> Store:
        if self._store is None:
            self._store = Store(self._place)
        return self._store

    def _roll_back(self, store: Store) -> None:
        try:
            store.roll_back()
        except (sqlite3.Error, OSError):
            self._drop_store()

    def _drop_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            with suppress(sqlite3.Error, OSError):
                store.close()

    def _fail(self, batch: Sequence[_Order[Any]], exc: Exception) -> None:
        for order in batch:
            order.error = self._meaning(exc)

    def _meaning(self, exc: Exception) -> Exception:
        if not isinstance(exc, sqlite3.Error):
            return exc
        error: DriverError = translated(exc, path=self._place.path)
        error.__cause__ = exc
        return error

    def _answer(self, batch: Sequence[_Order[Any]]) -> None:
        loops: dict[Any, list[_Order[Any]]] = {}
        for order in batch:
            loops.setdefault(order.native, []).append(order)
        for native, orders in loops.items():
            post(native, partial(_set_all, orders))


def _set_all(orders: Sequence[_Order[Any]]) -> None:
    for order in orders:
        order.event.set()
