"""The driver itself: what is shared by twins, and each operation as one call of the writer."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import anyio
import anyio.to_thread

from taskflow.abc import Capability, Driver, Facts
from taskflow.drivers.sqlite import people
from taskflow.drivers.sqlite.claim import claim
from taskflow.drivers.sqlite.clock import SystemClock
from taskflow.drivers.sqlite.connection import Place
from taskflow.drivers.sqlite.enqueue import enqueue
from taskflow.drivers.sqlite.faults import DRIVER, closed
from taskflow.drivers.sqlite.filesystem import warnings_for
from taskflow.drivers.sqlite.hub import Hub
from taskflow.drivers.sqlite.leases import expire, extend
from taskflow.drivers.sqlite.manage import cancel, fetch
from taskflow.drivers.sqlite.pending import pending
from taskflow.drivers.sqlite.schema import Names
from taskflow.drivers.sqlite.settle import settle
from taskflow.drivers.sqlite.waits import Waits
from taskflow.drivers.sqlite.writer import Writer
from taskflow.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskflow._core.queries import JobQuery, Page, QueueStats, Replayed
    from taskflow._core.records import (
        Cancelled,
        Change,
        Claim,
        Claimed,
        Enqueued,
        Extended,
        Fetched,
        JobSpec,
        Renewal,
        Settled,
        Wait,
        Wake,
    )
    from taskflow.abc import Clock, Migrated

__all__ = ("SqliteDriver",)

CLOSING: Final = 10.0
"""Seconds that a close waits for the transaction under way."""


class _Shared:
    """What a driver and its twins have in common: the store, and one writer while any is open."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.hub = Hub(Path(f"{place.path}-wake"))
        self._lock = threading.Lock()
        self._users = 0
        self._writer: Writer | None = None

    def acquire(self) -> Writer:
        with self._lock:
            if self._writer is None:
                self._writer = Writer(self.place, self.hub.publish)
            self._users += 1
            return self._writer

    def release(self) -> Writer | None:
        """Let go; returns the writer to be joined when this was the last user."""
        with self._lock:
            self._users -= 1
            if self._users:
                return None
            writer, self._writer = self._writer, None
        if writer is not None:
            writer.stop()
        return writer


class SqliteDriver(Driver):
    """Keeps jobs in one SQLite file on a local disk.

    Every commit is on the disk before a call returns (WAL, ``synchronous=FULL``). Any number of
    processes of one machine may share the file; network file systems are not supported.

    Args:
        path: The file; created when missing, its folder is not.
        clock: Where the time is read; the machine's clocks by default.
        queue_table: The name of the hot table, and the stem of the others.
        dead_letter_table: The name of the table of failed jobs.
        busy_timeout: Seconds to wait for a foreign writer before ``DriverUnavailableError``.

    Raises:
        ConfigError: A table name is not a plain word, or the path is not a file's.
    """

    name: ClassVar[str] = DRIVER
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.FETCH, Capability.LIST, Capability.COUNTS, Capability.CANCEL,
            Capability.PAUSE, Capability.PRIORITY, Capability.UNIQUE, Capability.RESULTS,
            Capability.FLOWS, Capability.NOTIFY,
        }
    )  # fmt: skip
    facts: ClassVar[Facts] = Facts(steady_leases=True)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        queue_table: str = "taskflow_jobs",
        dead_letter_table: str = "taskflow_dead",
        busy_timeout: float = 10.0,
    ) -> None:
        shown = os.fspath(path)
        if not shown or shown == ":memory:" or "\0" in shown:
            problem = "name a file; for jobs in memory use memory://"
            raise ConfigError(option="path", value=shown, problem=problem)
        place = Place(
            os.path.abspath(shown), Names(queue_table, dead_letter_table), clock or SystemClock(),
            busy_timeout,
        )  # fmt: skip
        self._start(shown, _Shared(place))

    def _start(self, path: str, shared: _Shared) -> None:
        self._path, self._shared = path, shared
        self._writer: Writer | None = None
        self._waits: Waits | None = None

    @property
    def redacted(self) -> str:
        """Where the store is: ``sqlite:///`` and the path as it was given."""
        return f"sqlite:///{self._path}"

    def twin(self) -> SqliteDriver:
        """Another driver on the same store and the same writer thread; see ``Driver.twin``."""
        return _Twin(self._path, self._shared)

    async def open(self) -> None:
        """Open the file, create or check the tables.

        Raises:
            StoreRefusedError: No folder, no rights, no database, or SQLite is too old.
            SchemaMismatchError: A newer taskflow made the tables. Nothing was changed.
            UsageError: It is open already.
        """
        if self._writer is not None:
            raise UsageError(f"{self.redacted}: the driver is open already")
        writer = self._writer = self._shared.acquire()
        try:
            await writer.call(lambda _: None, writes=False)
        except BaseException:
            await self.aclose()
            raise
        self._waits = Waits(writer, self._shared.hub, self._path)

    async def aclose(self) -> None:
        """Close; the last of the twins ends the writer and folds the log into the file."""
        if self._writer is None:
            return
        self._writer = None
        if self._waits is not None:
            self._waits.close()
            self._waits = None
        last = self._shared.release()
        if last is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(last.join, CLOSING)

    async def migrate(self, *, dry_run: bool = False) -> Migrated:
        """See ``Driver.migrate``; opening the driver does the same."""
        found = await anyio.to_thread.run_sync(pending, self._shared.place)
        if not dry_run:
            await self.open()
            await self.aclose()
        return found

    async def check(self) -> Sequence[str]:
        """One warning where the file lies on a network file system; see ``Driver.check``."""
        return await anyio.to_thread.run_sync(warnings_for, self._shared.place.path)

    async def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        """See ``Driver.enqueue``; the whole call is one transaction."""
        return await self._opened.call(lambda tx: enqueue(tx, jobs))

    async def claim(self, request: Claim) -> Claimed:
        """See ``Driver.claim``."""
        return await self._opened.call(lambda tx: claim(tx, request))

    async def extend(self, renewals: Sequence[Renewal], lease: float) -> list[Extended]:
        """See ``Driver.extend``; goes before everything else that waits for the writer."""
        return await self._opened.call(lambda tx: extend(tx, renewals, lease), is_urgent=True)

    async def settle(self, changes: Sequence[Change]) -> list[Settled]:
        """See ``Driver.settle``."""
        return await self._opened.call(lambda tx: settle(tx, changes))

    async def expire(self, limit: int) -> list[str]:
        """See ``Driver.expire``."""
        return await self._opened.call(lambda tx: expire(tx, limit))

    async def cancel(self, ids: Sequence[str]) -> list[Cancelled]:
        """See ``Driver.cancel``."""
        return await self._opened.call(lambda tx: cancel(tx, ids))

    async def fetch(self, ids: Sequence[str]) -> list[Fetched | None]:
        """See ``Driver.fetch``."""
        return await self._opened.call(lambda tx: fetch(tx, ids), writes=False)

    async def replay(self, ids: Sequence[str]) -> list[Replayed]:
        """See ``Driver.replay``."""
        return await self._opened.call(lambda tx: people.replay(tx, ids))

    async def purge(self, queue: str) -> int:
        """See ``Driver.purge``."""
        return await self._opened.call(lambda tx: people.purge(tx, queue))

    async def pause(self, queues: Sequence[str]) -> None:
        """See ``Driver.pause``."""
        await self._opened.call(lambda tx: people.pause(tx, queues))

    async def resume(self, queues: Sequence[str]) -> None:
        """See ``Driver.resume``."""
        await self._opened.call(lambda tx: people.resume(tx, queues))

    async def list_jobs(self, query: JobQuery) -> Page:
        """See ``Driver.list_jobs``."""
        return await self._opened.call(lambda tx: people.list_jobs(tx, query), writes=False)

    async def stats(self) -> list[QueueStats]:
        """See ``Driver.stats``."""
        return await self._opened.call(people.stats)

    async def prune(self, limit: int, keep: float) -> int:
        """See ``Driver.prune``."""
        return await self._opened.call(lambda tx: people.prune(tx, limit, keep))

    async def wait(self, request: Wait) -> Wake:
        """See ``Driver.wait``; a wake from another process takes a few milliseconds."""
        if self._waits is None:
            raise closed(self._path)
        return await self._waits.wait(request)

    @property
    def _opened(self) -> Writer:
        if self._writer is None:
            raise closed(self._path)
        return self._writer


class _Twin(SqliteDriver):
    def __init__(self, path: str, shared: _Shared) -> None:
        self._start(path, shared)
