"""What an app can do about jobs and queues beside dispatching."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from taskflow._core.queries import JobQuery, Page, QueueStats, Replayed
from taskflow._core.records import micros
from taskflow._core.states import Event, JobState
from taskflow.errors import ConfigError, IllegalTransitionError, JobConflictError, JobNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taskflow._port import Port

__all__ = ("Managing", "Page", "QueueStats")

MOST: Final = 1000
"""Jobs on one page at most."""


class Managing:
    """Verbs on stored jobs and queues; part of ``App``."""

    @property
    def port(self) -> Port:
        """The open port to the driver."""
        raise NotImplementedError

    async def cancel(self, job_id: str) -> None:
        """Cancel a job by its id; see ``Job.cancel``."""
        await self.port.cancel([job_id])

    async def retry(self, job_id: str) -> None:
        """Make a failed or cancelled job available again, with all its attempts.

        Its error is kept until the next attempt ends. Jobs that were skipped because of it wait
        for it again.

        Raises:
            JobNotFoundError: There is no such job.
            IllegalTransitionError: It has neither failed nor been cancelled.
            JobConflictError: Another live job holds its unique key.
        """
        reply = (await self.port.replay([job_id]))[0]
        if reply is Replayed.UNKNOWN:
            raise JobNotFoundError(job_id=job_id)
        if reply is Replayed.CONFLICT:
            raise JobConflictError(job_id=job_id, problem="another live job holds its unique key")
        if reply is Replayed.REFUSED:
            found = (await self.port.fetch([job_id]))[0]
            state = None if found is None else found.record.state
            raise IllegalTransitionError(state=state, event=Event.REPLAY)

    async def jobs(
        self, *, state: JobState | str | Iterable[JobState | str] | None = None,
        kind: str | None = None, queue: str | None = None, tags: Mapping[str, str] | None = None,
        since: datetime | None = None, until: datetime | None = None, limit: int = 100,
        cursor: str | None = None,
    ) -> Page:  # fmt: skip
        """One page of the jobs that match, the latest dispatched first.

        Args:
            state: One state or several.
            kind: Of this kind.
            queue: In this queue.
            tags: With all of these tags.
            since: Dispatched at or after this aware datetime.
            until: Dispatched before this one.
            limit: Jobs on the page at most, 1 to 1000.
            cursor: ``cursor`` of the page before.

        Returns:
            A page. It may be short and yet lead on: only ``cursor`` None is the end.

        Raises:
            ConfigError: An argument cannot be used.
            UnsupportedError: The store cannot list.
        """
        return await self.port.list_jobs(
            JobQuery(
                states=_states(state), kind=kind, queue=queue, tags=tags or {},
                since=_instant("since", since), until=_instant("until", until), limit=_limit(limit),
                cursor=cursor,
            )
        )  # fmt: skip

    async def stats(self) -> list[QueueStats]:
        """Every queue that has jobs or is paused, by name."""
        return await self.port.stats()

    async def pause(self, *queues: str) -> None:
        """Hand out no more jobs of these queues; running ones go on, dispatches are kept."""
        await self.port.pause(queues)

    async def resume(self, *queues: str) -> None:
        """Undo a pause."""
        await self.port.resume(queues)

    async def purge(self, queue: str) -> int:
        """Delete the queue's jobs that neither run nor have ended; returns how many.

        Jobs that were to follow them in a flow are cancelled as skipped.
        """
        return await self.port.purge(queue)


def _states(given: Any) -> frozenset[JobState]:
    if given is None:
        return frozenset()
    words = [given] if isinstance(given, str) else list(given)
    try:
        return frozenset(JobState(word) for word in words)
    except ValueError:
        names = ", ".join(JobState)
        raise ConfigError(
            option="state", value=given, problem=f"expected some of {names}"
        ) from None


def _limit(given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= MOST:
        raise ConfigError(option="limit", value=given, problem=f"expected 1 to {MOST}")
    return given


def _instant(name: str, given: Any) -> int | None:
    if given is None:
        return None
    if not isinstance(given, datetime) or given.utcoffset() is None:
        raise ConfigError(option=name, value=given, problem="expected a datetime with a time zone")
    return micros(given)
