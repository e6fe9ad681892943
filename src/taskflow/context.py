"""``current()``: what a body may know about the job that it is."""

from __future__ import annotations

from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, final

from anyio.lowlevel import checkpoint

from taskflow._core.records import Leased, Progress, instant

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("Context", "Host", "current")

_current: ContextVar[Context] = ContextVar("taskflow_context")


class Host(Protocol):
    """Who runs the body: where its progress goes and its cancellation comes from."""

    @property
    def is_cancelled(self) -> bool:
        """The attempt is to stop: timeout, cancel, shutdown or a lost lease."""
        ...

    def report(self, progress: Progress) -> None:
        """Take a progress report; from any thread, never blocks."""
        ...

    def check_cancelled(self) -> None:
        """Raise what this lane raises into a body that asks whether to stop."""
        ...


@final
class Context:
    """The running job, as its body sees it. Get it with ``current()``."""

    __slots__ = ("_deadline", "_host", "_job", "_state", "_worker_id")

    def __init__(
        self, job: Leased, host: Host, *, worker_id: str, state: Any, deadline: float | None = None
    ) -> None:
        self._job = job
        self._host = host
        self._worker_id = worker_id
        self._state = state
        self._deadline = deadline

    def __repr__(self) -> str:
        return f"<Context of {self.kind} {self.id}, attempt {self.attempt}/{self.max_attempts}>"

    @property
    def id(self) -> str:
        """The job's id; the same in every attempt, so it serves as an idempotency key."""
        return self._job.spec.id

    @property
    def kind(self) -> str:
        """The task's kind."""
        return self._job.spec.kind

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self._job.spec.queue

    @property
    def attempt(self) -> int:
        """1 on the first run."""
        return self._job.attempt

    @property
    def max_attempts(self) -> int:
        """How many runs it may have, the first included."""
        return self._job.spec.max_attempts

    @property
    def delivery(self) -> int:
        """How often it was claimed; with ``id`` it names this very execution."""
        return self._job.token.delivery

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags it was dispatched with."""
        return self._job.spec.tags

    @property
    def dispatched_at(self) -> datetime:
        """When the store accepted it."""
        at = instant(self._job.enqueued_at)
        assert at is not None
        return at

    @property
    def deadline(self) -> datetime | None:
        """When this attempt's ``timeout`` strikes, by this machine's clock; ``None``: never."""
        return None if self._deadline is None else datetime.fromtimestamp(self._deadline, UTC)

    @property
    def worker_id(self) -> str:
        """The worker that runs it."""
        return self._worker_id

    @property
    def state(self) -> Any:
        """What the app's ``lifespan`` yielded; ``None`` without one."""
        return self._state

    @property
    def is_cancelled(self) -> bool:
        """The attempt is to stop. For loops in the thread and process lanes."""
        return self._host.is_cancelled

    def check_cancelled(self) -> None:
        """Stop here if the attempt is to stop: raises an exception that ends the body.

        In the thread lane this is the only way to be stopped; let it pass through.
        """
        self._host.check_cancelled()

    async def progress(self, fraction: float, note: str = "") -> None:
        """Report how far the job is; a checkpoint. Stored at most once a second.

        Args:
            fraction: From 0 to 1.
            note: What it does now.

        Raises:
            ValueError: ``fraction`` is not between 0 and 1.
        """
        self.progress_nowait(fraction, note)
        await checkpoint()

    def progress_nowait(self, fraction: float, note: str = "") -> None:
        """The same from any lane, without waiting."""
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"progress: expected a fraction from 0 to 1, got {fraction!r}")
        self._host.report(Progress(float(fraction), str(note)))


def current() -> Context:
    """The context of the job that is running here.

    Raises:
        LookupError: Nothing runs here: this is not the body of a task.
    """
    try:
        return _current.get()
    except LookupError:
        raise LookupError("current() works inside a running task only") from None
