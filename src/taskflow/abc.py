"""What an author of an extension implements: drivers, clocks, instruments, codecs.

A driver is storage only: no policy, no logging, no retries. Its operations speak of jobs and take
batches, so that one round trip serves many. The port in front of it adds deadlines, repeats and
events. Every mutating call is safe to send again with the same arguments, and every reply is
positional: one answer for each item.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import msgspec

from taskflow.errors import UnsupportedError

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
    from taskflow.events import TaskflowEvent

__all__ = (
    "Capability", "Clock", "Codec", "Driver", "Facts", "Instrument", "Migrated", "SchemaStep",
)  # fmt: skip


class Capability(StrEnum):
    """What a driver can do beyond storing, leasing and settling; declared, and proven by tests."""

    FETCH = "fetch"
    """``fetch``."""
    LIST = "list"
    """``list_jobs``."""
    COUNTS = "counts"
    """``stats``, exact."""
    CANCEL = "cancel"
    """``cancel``, ``replay`` and ``purge``."""
    PAUSE = "pause"
    """``pause`` and ``resume``."""
    PRIORITY = "priority"
    """Jobs of a higher priority number come first."""
    UNIQUE = "unique"
    """Unique keys."""
    RESULTS = "results"
    """Results are kept."""
    FLOWS = "flows"
    """Jobs with predecessors."""
    LIMITS = "limits"
    TRANSACTIONS = "transactions"
    """Dispatch inside the caller's own transaction."""
    NOTIFY = "notify"
    """``wait`` returns as soon as there is something to do, not only after its timeout."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a store can hold. Durations in seconds, sizes in bytes; ``None`` is no limit.

    Attributes:
        fence: A stale token changes nothing (True), or the store only promises best effort.
        shared: Other processes see the jobs.
        steady_leases: Leases are counted on a clock that does not jump with the wall clock.
        max_batch: The most items in one call.
        time_precision: The smallest difference between two due times that the store keeps.
    """

    fence: bool = True
    shared: bool = True
    steady_leases: bool = False
    max_delay: float | None = None
    max_lease: float | None = None
    max_payload: int | None = None
    max_batch: int = 500
    time_precision: float = 0.000_001


class SchemaStep(msgspec.Struct, frozen=True):
    """One step of a store's schema: to which version, the step's name, and its SQL."""

    version: int
    name: str
    sql: str


class Migrated(msgspec.Struct, frozen=True):
    """What became of a schema.

    Attributes:
        version: The schema's, once every step is applied.
        steps: What was applied, or would be, in order.
    """

    version: int
    steps: tuple[SchemaStep, ...]


class Clock(Protocol):
    """Where a driver without a server's clock reads the time; tests shift it."""

    def now(self) -> int:
        """Microseconds of Unix time."""
        ...

    def uptime(self) -> int:
        """Microseconds of a clock that never jumps and counts suspended time, for leases."""
        ...


@runtime_checkable
class Codec(Protocol):
    """Turns payloads and results into bytes and back, by type."""

    def encode(self, value: object) -> bytes:
        """Encode; raises ``ValueError`` or ``TypeError`` for what cannot be encoded."""
        ...

    def decode(self, data: bytes, type: Any) -> Any:
        """Decode and validate; raises ``ValueError`` or ``TypeError`` when it does not fit."""
        ...


class Instrument(Protocol):
    """Listens to what the library does. Called on the event loop; must be quick.

    What it raises is logged and goes no further.
    """

    def handle(self, event: TaskflowEvent) -> None:
        """Receive one event; the events are frozen Structs of ``taskflow.events``."""
        ...


class Driver(ABC):
    """A store behind the one seam.

    Raises, from every operation: ``DriverUnavailableError`` (surely not applied),
    ``OutcomeUnknownError`` (perhaps applied), ``StoreFullError``, ``StoreRefusedError`` or
    ``SchemaMismatchError``, and no exception of its client library.

    Cancellation: a call that is cancelled has been applied as a whole or not at all; leases that
    nobody learns of run out by themselves.
    """

    name: ClassVar[str]
    """The word for it in messages."""
    capabilities: ClassVar[frozenset[Capability]] = frozenset()
    facts: ClassVar[Facts] = Facts()

    @property
    def redacted(self) -> str:
        """Where the store is, without any secret."""
        return self.name

    @abstractmethod
    async def open(self) -> None:
        """Connect and check versions, settings and schema. May be opened again after a close."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close every connection and thread. Calls under way end with an error."""

    @abstractmethod
    def twin(self) -> Driver:
        """An unopened driver on the same store, for another event loop in another thread."""

    async def migrate(self, *, dry_run: bool = False) -> Migrated | None:  # noqa: ARG002
        """Create or upgrade the schema, of a driver that is not open; by many at once, and again
        after it was killed.

        Args:
            dry_run: Change nothing; say what would be done.

        Returns:
            ``None`` where a store has no schema.

        Raises:
            SchemaMismatchError: A newer version made it. Nothing was changed.
            DriverError: The store cannot be reached, or the right to create is missing.
        """
        return None

    @abstractmethod
    async def check(self) -> Sequence[str]:
        """Look for settings that would lose jobs; returns one warning a line.

        Raises:
            StoreRefusedError: A setting is too dangerous to go on.
        """

    @abstractmethod
    async def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        """Store jobs, each all or nothing.

        The due time is counted by the store's clock. The order of acceptance is kept. A job with
        a known id and the same content is a duplicate, whatever has become of it since. A job with
        predecessors (``after``) is accepted only where each of them is stored already, or stands
        earlier in the same call; it waits until they have ended.
        """

    async def enqueue_on(self, connection: object, jobs: Sequence[JobSpec]) -> list[Enqueued]:  # noqa: ARG002
        """Store jobs within the transaction that the caller has open on ``connection``.

        They are there, and workers are told, if and when the caller commits. Answers as
        ``enqueue`` does. Called on the caller's event loop, and never sent again: what it raises
        is the caller's to end the transaction for. While that is open, no lock of it keeps others
        from storing, claiming, renewing and settling other jobs.
        """
        raise self._unsupported(Capability.TRANSACTIONS)

    @abstractmethod
    async def claim(self, request: Claim) -> Claimed:
        """Stage what is due, end dead leases, then lease the most urgent jobs.

        Order: queues as named, higher priority number, earlier due, earlier accepted. At most
        each lane's room, nothing of a paused queue. Counts the attempt now. A request id under
        which jobs are still held gets those again and no new ones.
        """

    @abstractmethod
    async def extend(self, renewals: Sequence[Renewal], lease: float) -> list[Extended]:
        """Renew leases for ``lease`` seconds from now; never shortens one. Stores progress."""

    @abstractmethod
    async def settle(self, changes: Sequence[Change]) -> list[Settled]:
        """End attempts. Each change is one atomic step: check the fence, change the state by the
        law, store result and error, enqueue follow-ups, unblock or skip up to 100 successors of
        each job (claims and expires work off the rest). With a stale token nothing changes.
        """

    @abstractmethod
    async def expire(self, limit: int) -> list[str]:
        """End up to ``limit`` leases that ran out, lapse jobs whose ``expires_in`` is over, and
        release successors that are still to be released.

        Returns:
            The ids of the jobs whose lease was ended.
        """

    async def cancel(self, ids: Sequence[str]) -> list[Cancelled]:  # noqa: ARG002
        """Cancel jobs that have not begun; ask the workers of those that run."""
        raise self._unsupported(Capability.CANCEL)

    async def fetch(self, ids: Sequence[str]) -> list[Fetched | None]:  # noqa: ARG002
        """Read jobs and the results that are kept; ``None`` where there is no such job."""
        raise self._unsupported(Capability.FETCH)

    async def replay(self, ids: Sequence[str]) -> list[Replayed]:  # noqa: ARG002
        """Make failed and cancelled jobs available again, due now: counters and expiry are reset,
        the error is kept. Successors that were skipped because of them wait again.
        """
        raise self._unsupported(Capability.CANCEL)

    async def purge(self, queue: str) -> int:  # noqa: ARG002
        """Delete the queue's jobs that neither run nor have ended, and skip their successors.

        Returns:
            How many were deleted.
        """
        raise self._unsupported(Capability.CANCEL)

    async def pause(self, queues: Sequence[str]) -> None:  # noqa: ARG002
        """Hand out nothing of these queues to any claim that begins after this returns."""
        raise self._unsupported(Capability.PAUSE)

    async def resume(self, queues: Sequence[str]) -> None:  # noqa: ARG002
        """Undo a pause."""
        raise self._unsupported(Capability.PAUSE)

    async def list_jobs(self, query: JobQuery) -> Page:  # noqa: ARG002
        """One page of the jobs that match, the latest accepted first."""
        raise self._unsupported(Capability.LIST)

    async def stats(self) -> list[QueueStats]:
        """Every queue that has jobs or is paused, by name."""
        raise self._unsupported(Capability.COUNTS)

    async def prune(self, limit: int, keep: float) -> int:  # noqa: ARG002
        """Forget up to ``limit`` jobs whose time (``result_ttl``, ``failed_ttl``) is over.

        A job that ended less than ``keep`` seconds ago stays, so that a call that is sent again
        is recognised; so does one whose successors have not all ended. A store that forgets by
        itself has nothing to do here.

        Returns:
            How many were forgotten.
        """
        return 0

    @abstractmethod
    async def wait(self, request: Wait) -> Wake:
        """Return when there may be something to do, or after the timeout.

        True of each wake: a queue may have work that is due, one of the ids may be final, or a
        cancellation was asked of a job of this worker. Only a hint; nothing is taken.
        """

    def _unsupported(self, capability: Capability) -> Exception:
        return UnsupportedError(driver=self.name, capability=capability)
