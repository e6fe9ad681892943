"""``PostgresDriver``: the seam, and the bridge to the event loop that asyncpg knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, final

import anyio
import anyio.lowlevel
import asyncpg

from taskflow._bridge import Bridge
from taskflow._core.records import MICRO
from taskflow.abc import Capability, Driver, Facts, Migrated
from taskflow.drivers.postgres import borrowed, health, people, rights, schema
from taskflow.drivers.postgres import jobs as work
from taskflow.drivers.postgres.address import check_url
from taskflow.drivers.postgres.faults import BROKEN, translated
from taskflow.drivers.postgres.names import Names
from taskflow.drivers.postgres.pool import CONNECTING, Server
from taskflow.drivers.postgres.schema import DRIVER
from taskflow.drivers.postgres.store import Store
from taskflow.errors import DriverUnavailableError, OutcomeUnknownError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

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

T = TypeVar("T")

__all__ = ("PostgresDriver",)

MIGRATING: Final = 600.0
"""Seconds that a migration may take."""
SLACK: Final = 10.0
"""Seconds beyond the driver's own deadlines after which the bridge gives a call up."""


@final
class PostgresDriver(Driver):
    """Keeps jobs in PostgreSQL 13 or newer, in tables that ``taskflow migrate`` makes.

    Each operation is one statement and one transaction, so it works behind a pooler in
    transaction mode (with ``statement_cache_size=0``; notifications do not come through one, and
    work then starts within a second). Time is the server's.

    Args:
        url: ``postgresql://user:password@host:port/database``; without a host, the socket.
        queue_table: The hot table and the stem of the others: ``table`` or ``schema.table``.
        dead_letter_table: The table of failed jobs.
        min_pool_size: Connections that are kept however long they are idle.
        max_pool_size: Connections at most, beside the one that listens.
        statement_cache_size: Prepared statements a connection; 0 behind a pooler.
        notify: Tell other processes at once, and listen to them.
        call_timeout: Seconds after which a call is given up.
        clock_offset: Seconds added to the server's clock; for tests.

    Raises:
        ConfigError: The URL cannot be used, or a table name is not a plain word.
    """

    name: ClassVar[str] = DRIVER
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.FETCH, Capability.LIST, Capability.COUNTS, Capability.CANCEL,
            Capability.PAUSE, Capability.PRIORITY, Capability.UNIQUE, Capability.RESULTS,
            Capability.FLOWS, Capability.TRANSACTIONS, Capability.NOTIFY,
        }
    )  # fmt: skip
    facts: ClassVar[Facts] = Facts()

    def __init__(
        self, url: str, *, queue_table: str = "task_queue",
        dead_letter_table: str = "dead_letter_queue", min_pool_size: int = 10,
        max_pool_size: int = 10, statement_cache_size: int = 100, notify: bool = True,
        call_timeout: float = 30.0, clock_offset: float | Callable[[], float] = 0.0,
    ) -> None:  # fmt: skip
        self._options: dict[str, Any] = {
            "queue_table": queue_table, "dead_letter_table": dead_letter_table,
            "min_pool_size": min_pool_size, "max_pool_size": max_pool_size,
            "statement_cache_size": statement_cache_size, "notify": notify,
            "call_timeout": call_timeout, "clock_offset": clock_offset,
        }  # fmt: skip
        self._url = url
        self._clock_offset = clock_offset
        self._names = Names(queue_table, dead_letter_table)
        self._server = Server(
            dsn=url, shown=check_url(url), deadline=call_timeout,
            statement_cache_size=statement_cache_size,
        )  # fmt: skip
        self._store: Store | None = None
        self._bridge = Bridge(DRIVER, timeout=call_timeout + CONNECTING + SLACK)

    def __repr__(self) -> str:
        return f"<PostgresDriver {self.redacted}>"

    @property
    def redacted(self) -> str:
        """Its URL without the password."""
        return self._server.shown

    def twin(self) -> PostgresDriver:
        """Another driver on the same store, with connections of its own."""
        return PostgresDriver(self._url, **self._options)

    def _shift(self) -> int:
        offset = self._clock_offset
        return round((offset if isinstance(offset, int | float) else offset()) * MICRO)

    # ---- opening and closing

    async def open(self) -> None:
        """Connect and check version, encoding and schema.

        Raises:
            DriverUnavailableError: There is no server.
            StoreRefusedError: It does not let us in, or is not one for us.
            SchemaMismatchError: The tables are missing or of another version.
            UsageError: It is open already.
        """
        if self._store is not None:
            raise UsageError(f"{self.redacted}: the driver is open already")
        await self._bridge.start()
        try:
            await self._bridge.call(self._connect)
        except BaseException:
            # What was made is known even where the caller went before it was told.
            await self.aclose()
            raise

    async def _connect(self) -> None:
        options = self._options
        store = self._store = Store(
            self._server, self._names, self._shift, least=options["min_pool_size"],
            most=max(options["min_pool_size"], options["max_pool_size"]),
            notifies=options["notify"],
        )  # fmt: skip
        await store.open()

    async def aclose(self) -> None:
        """Close every connection. Calls under way end with an error."""
        store, self._store = self._store, None
        with anyio.CancelScope(shield=True):
            try:
                if store is not None:
                    await self._bridge.call(store.aclose)
            finally:
                await self._bridge.aclose()

    async def check(self) -> Sequence[str]:
        """Warn of settings that lose what was accepted."""
        return await self._call(rights.check)

    async def migrate(self, *, dry_run: bool = False) -> Migrated:
        """See ``Driver.migrate``. Killed or cancelled, it leaves whole steps.

        Raises:
            StoreRefusedError: The right to create is missing, or the server is not one for us.
            SchemaMismatchError: A newer version made the schema. Nothing was changed.
            DriverUnavailableError: No server, or another migration is at it for too long.
            OutcomeUnknownError: The server went away; run it again.
        """
        is_alone = self._store is None
        if is_alone:
            await self._bridge.start()
        try:
            return await self._bridge.call(self._migrated, dry_run, timeout=MIGRATING)
        except TimeoutError as exc:
            raise OutcomeUnknownError(driver=DRIVER, problem="no answer in time") from exc
        finally:
            if is_alone:
                await self._bridge.aclose()

    async def _migrated(self, dry_run: bool) -> Migrated:
        connection = await self._server.connect()
        try:
            await health.examine(connection)
            run = schema.pending if dry_run else schema.migrate
            return await run(connection, self._names)
        except asyncpg.PostgresError as exc:
            raise translated(exc) from exc
        except BROKEN as exc:
            raise OutcomeUnknownError(driver=DRIVER, problem=str(exc)) from exc
        finally:
            connection.terminate()

    # ---- the operations

    async def _call(
        self, operation: Callable[..., Coroutine[Any, Any, T]], *args: Any,
        timeout: float | None = None,
    ) -> T:  # fmt: skip
        try:
            return await self._bridge.call(operation, self._opened, *args, timeout=timeout)
        except TimeoutError as exc:
            raise OutcomeUnknownError(driver=DRIVER, problem="no answer in time") from exc

    @property
    def _opened(self) -> Store:
        if self._store is None:
            raise DriverUnavailableError(driver=DRIVER, problem="the driver is closed")
        return self._store

    async def _in_parts(
        self, operation: Callable[..., Coroutine[Any, Any, list[T]]], items: Sequence[Any],
        *args: Any,
    ) -> list[T]:  # fmt: skip
        """One call for each ``max_batch`` items; every item is a step of its own anyhow."""
        most = self.facts.max_batch
        if not items:
            await anyio.lowlevel.checkpoint()
        replies: list[T] = []
        for begin in range(0, len(items), most):
            replies += await self._call(operation, items[begin : begin + most], *args)
        return replies

    async def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        """See ``Driver.enqueue``."""
        return await self._in_parts(work.enqueue, jobs)

    async def enqueue_on(self, connection: object, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        """See ``Driver.enqueue_on``; takes asyncpg's connections and SQLAlchemy's on asyncpg.

        Called on the caller's own event loop, never through the bridge. With no transaction open,
        an asyncpg connection stores at once.

        Raises:
            UnsupportedError: The caller is on trio, where asyncpg has no connections.
            ConfigError: It is another kind of connection; nothing was sent.
            UsageError: It is busy with another statement, or was given back to its pool.
            DriverUnavailableError: The transaction cannot go on: roll it back and begin again.
            OutcomeUnknownError: Perhaps part of the transaction: roll it back.
        """
        return await borrowed.enqueue(self._opened, connection, jobs)

    async def claim(self, request: Claim) -> Claimed:
        """See ``Driver.claim``."""
        return await self._call(work.claim, request)

    async def extend(self, renewals: Sequence[Renewal], lease: float) -> list[Extended]:
        """See ``Driver.extend``."""
        return await self._in_parts(work.extend, renewals, lease)

    async def settle(self, changes: Sequence[Change]) -> list[Settled]:
        """See ``Driver.settle``."""
        return await self._in_parts(work.settle, changes)

    async def expire(self, limit: int) -> list[str]:
        """See ``Driver.expire``."""
        return await self._call(work.expire, limit)

    async def cancel(self, ids: Sequence[str]) -> list[Cancelled]:
        """See ``Driver.cancel``."""
        return await self._in_parts(people.cancel, ids)

    async def fetch(self, ids: Sequence[str]) -> list[Fetched | None]:
        """See ``Driver.fetch``."""
        return await self._in_parts(people.fetch, ids)

    async def replay(self, ids: Sequence[str]) -> list[Replayed]:
        """See ``Driver.replay``."""
        return await self._in_parts(people.replay, ids)

    async def purge(self, queue: str) -> int:
        """See ``Driver.purge``; deletes in steps, and only what was there when it began."""
        return await self._call(people.purge, queue)

    async def pause(self, queues: Sequence[str]) -> None:
        """See ``Driver.pause``."""
        await self._call(people.pause, queues)

    async def resume(self, queues: Sequence[str]) -> None:
        """See ``Driver.resume``."""
        await self._call(people.resume, queues)

    async def list_jobs(self, query: JobQuery) -> Page:
        """See ``Driver.list_jobs``."""
        return await self._call(people.list_jobs, query)

    async def stats(self) -> list[QueueStats]:
        """See ``Driver.stats``."""
        return await self._call(people.stats)

    async def prune(self, limit: int, keep: float) -> int:
        """See ``Driver.prune``."""
        return await self._call(people.prune, limit, keep)

    async def wait(self, request: Wait) -> Wake:
        """See ``Driver.wait``."""
        return await self._call(_wait, request, timeout=request.timeout + SLACK)


async def _wait(store: Store, request: Wait) -> Wake:
    return await store.waits.wait(request)
