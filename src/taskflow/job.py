"""``Job``, the handle of a dispatched task, and ``Prepared``, the chain that leads to it."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, final
from weakref import WeakKeyDictionary

import anyio

from taskflow._core.codec import encode_checked
from taskflow._core.ids import MAX_ID, uuid7
from taskflow._core.options import PRIORITIES, TaskOptions
from taskflow._core.records import Conflict, Fetched, JobRecord, JobSpec, Unique, micros
from taskflow._core.retry import Backoff, seconds
from taskflow._core.states import FINAL, JobState
from taskflow.errors import (
    ConfigError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    PayloadTooLargeError,
    ResultNotKeptError,
)

if TYPE_CHECKING:
    from taskflow._core.registry import TaskDefinition
    from taskflow.abc import Codec
    from taskflow.config import Config

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

__all__ = ("Job", "Prepared", "read_options")

NO_OPTIONS: Final = TaskOptions()
MAX_ATTEMPTS: Final = 2**31 - 1
STORABLE: Final = "without NUL and lone surrogates"
UNSET: Any = ...
"""An option that was not given, where ``None`` means something."""


class Dispatcher(Protocol):
    """What a handle and a chain need of an app."""

    @property
    def config(self) -> Config: ...
    @property
    def codec(self) -> Codec: ...
    async def store(self, spec: JobSpec, connection: object | None = None) -> str: ...
    def store_blocking(self, spec: JobSpec) -> str: ...
    async def fetch(self, job_id: str) -> Fetched | None: ...
    async def hint_final(self, job_id: str) -> None: ...
    async def cancel(self, job_id: str) -> None: ...


@final
class Job(Generic[R_co]):
    """A handle on one dispatched job. Made by ``dispatch()`` and ``app.handle()``."""

    __slots__ = ("_app", "_definition", "id")

    id: str
    """The job's id."""

    def __init__(self, job_id: str, definition: TaskDefinition, app: Dispatcher) -> None:
        self.id = job_id
        self._definition = definition
        self._app = app

    def __repr__(self) -> str:
        return f"<Job {self._definition.kind} {self.id}>"

    async def result(self, *, timeout: float | timedelta | None = None) -> R_co:
        """Wait until the job has ended and return what its body returned.

        Args:
            timeout: Seconds to wait; ``None`` waits for ever, 0 only looks.

        Raises:
            JobFailedError: It failed for good; the last error is attached.
            JobCancelledError: It was cancelled, or expired before it began.
            JobNotFoundError: The store knows no such job.
            ResultNotKeptError: It completed, but ``result_ttl`` let its result go.
            TimeoutError: It has not ended in time; it goes on.

        Cancellation: The job goes on; call ``cancel()`` to stop it.
        """
        limit = math.inf if timeout is None else seconds(timeout, what="timeout")
        deadline = time.monotonic() + limit
        while True:
            fetched = await self._app.fetch(self.id)
            if fetched is None:
                raise JobNotFoundError(job_id=self.id)
            if fetched.record.state in FINAL:
                value: R_co = self._value(fetched)
                return value
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"job {self.id} is {fetched.record.state} after {limit:g} s")
            with anyio.move_on_after(None if math.isinf(left) else left):
                await self._app.hint_final(self.id)

    async def record(self) -> JobRecord:
        """The job as it is now.

        Raises:
            JobNotFoundError: The store knows no such job.
        """
        fetched = await self._app.fetch(self.id)
        if fetched is None:
            raise JobNotFoundError(job_id=self.id)
        return fetched.record

    async def cancel(self) -> None:
        """Stop the job: one that waits never runs, one that runs is cancelled as its lane can.

        Returns when the store knows; a job that has ended already is left alone.
        """
        await self._app.cancel(self.id)

    def _value(self, fetched: Fetched) -> Any:
        record = fetched.record
        if record.state is JobState.CANCELLED:
            raise JobCancelledError(job_id=self.id, reason=record.reason or "cancelled")
        if record.state is JobState.FAILED:
            error = record.error
            raise JobFailedError(
                job_id=self.id, reason=record.reason, type=error.type if error else "",
                message=error.message if error else "", traceback=error.traceback if error else "",
            )  # fmt: skip
        if fetched.result is None:
            raise ResultNotKeptError(job_id=self.id)
        return self._app.codec.decode(fetched.result, self._definition.result)


@final
class Prepared(Generic[R]):
    """A task with options, not yet dispatched. Each call of the chain returns a new one."""

    __slots__ = ("_definition", "_find", "_options", "_payload", "_placement")

    def __init__(
        self, definition: TaskDefinition, payload: Any, find: Callable[[Any], Dispatcher],
        options: TaskOptions = NO_OPTIONS, placement: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self._definition = definition
        self._payload = payload
        self._find = find
        self._options = options
        self._placement: Mapping[str, Any] = placement or {}

    def __repr__(self) -> str:
        return f"<Prepared {self._definition.kind}>"

    def _with(self, options: TaskOptions | None = None, **placement: Any) -> Prepared[R]:
        return Prepared(
            self._definition, self._payload, self._find,
            options.over(self._options) if options else self._options,
            {**self._placement, **placement},
        )  # fmt: skip

    def on_queue(self, name: str) -> Prepared[R]:
        """Use this queue instead of the task's own."""
        return self._with(read_options({"queue": name}))

    def delay(self, delay: float | timedelta) -> Prepared[R]:
        """Make it due only ``delay`` (seconds or a timedelta) after the store accepted it."""
        return self._with(delay=_duration("delay", delay))

    def retry_after(self, delay: float | timedelta | Backoff) -> Prepared[R]:
        """Use this delay between attempts instead of the task's own."""
        return self._with(read_options({"retry_delay": delay}))

    def options(
        self, *, id: str | None = None, eta: datetime | None = None, priority: int | None = None,
        tags: Mapping[str, str] | None = None, unique: str | Unique | None = None,
        timeout: float | timedelta | None = UNSET, max_attempts: int | None = None,
        expires_in: float | timedelta | None = None,
        result_ttl: float | timedelta | None = UNSET,
    ) -> Prepared[R]:  # fmt: skip
        """Set any other option of this one job.

        Args:
            id: The job's id, up to 128 characters; a second dispatch with the same id and
                content is answered with the first job. Default: a UUIDv7.
            eta: The instant at which it is due, with a time zone.
            priority: -100 to 100, higher first.
            tags: Text by which it is found again; added to the task's own.
            unique: A key, or a ``Unique``: at most one live job with it.
            timeout: Seconds that one attempt may run; ``None`` for no limit.
            max_attempts: Runs at most, the first included.
            expires_in: Seconds from dispatch after which it must not start any more.
            result_ttl: Seconds that the result is kept; ``None`` for ever, 0 not at all.
        """
        given: dict[str, Any] = {
            "priority": priority, "tags": tags, "max_attempts": max_attempts,
            "expires_in": expires_in,
        }  # fmt: skip
        chosen = {name: value for name, value in given.items() if value is not None}
        kept = {"timeout": timeout, "result_ttl": result_ttl}
        chosen.update({name: value for name, value in kept.items() if value is not UNSET})
        placement: dict[str, Any] = {}
        if id is not None:
            placement["id"] = _job_id(id)
        if eta is not None:
            placement["eta"] = _eta(eta)
        if unique is not None:
            placement["unique"] = _unique(unique)
        return self._with(read_options(chosen), **placement)

    def spec(self, config: Config, codec: Codec) -> JobSpec:
        """Resolve and validate everything; what is stored if nothing is said any more.

        Raises:
            PayloadError, PayloadTooLargeError, ConfigError: Nothing was stored.
        """
        definition = self._definition
        data = encode_checked(codec, definition.kind, self._payload)
        if len(data) > config.max_payload:
            raise PayloadTooLargeError(
                kind=definition.kind, size=len(data), limit=config.max_payload
            )
        place = self._placement
        if "delay" in place and "eta" in place:
            raise ConfigError(option="eta", value=None, problem="give an eta or a delay, not both")
        chosen = _resolved(definition, config)
        if self._options is not NO_OPTIONS:
            chosen = self._options.over(chosen)
        assert chosen.queue is not None
        assert chosen.max_attempts is not None
        assert chosen.retry_delay is not None
        return JobSpec(
            id=place.get("id") or uuid7(time.time_ns() // 1_000_000, os.urandom(10)),
            kind=definition.kind, payload=data, queue=chosen.queue, lane=definition.lane,
            priority=chosen.priority or 0, delay=place.get("delay", 0.0), eta=place.get("eta"),
            max_attempts=chosen.max_attempts, retry=chosen.retry_delay,
            timeout=chosen.timeout or None, expires_in=chosen.expires_in,
            result_ttl=_ttl(chosen.result_ttl), failed_ttl=config.failed_ttl,
            tags=chosen.tags or {}, unique=place.get("unique"),
        )  # fmt: skip

    async def dispatch(self, *, app: Any = None, connection: object | None = None) -> Job[R]:
        """Store the job; returns its handle once it is stored.

        Args:
            app: The app to use. Default: the one that is open here.
            connection: A connection of yours to the app's PostgreSQL database, of asyncpg or
                SQLAlchemy: the job is there if and when its transaction is committed.

        Raises:
            PayloadError: A field is not what the task declares; nothing was stored.
            JobConflictError: The id is taken by other content, or the unique key may not be had.
            NoAppError: No app is open, or several are.
            UnsupportedError: The app's driver takes no ``connection``.
            DriverError: The store did not answer; ``OutcomeUnknownError`` means perhaps stored:
                dispatch again with the same ``id``. With a ``connection``: roll back, and begin
                the transaction again.

        Cancellation: The job was stored or not; an ``id`` of your own makes repeating safe.
        """
        found = self._find(app)
        stored = await found.store(self.spec(found.config, found.codec), connection)
        return Job(stored, self._definition, found)

    def dispatch_blocking(self, *, app: Any = None) -> Job[R]:
        """The same from a body in the thread or process lane. Raises as ``dispatch`` does."""
        found = self._find(app)
        stored = found.store_blocking(self.spec(found.config, found.codec))
        return Job(stored, self._definition, found)


_known: Final[WeakKeyDictionary[TaskDefinition, tuple[Config, TaskOptions]]] = WeakKeyDictionary()


def _resolved(definition: TaskDefinition, config: Config) -> TaskOptions:
    """The definition's options over the settings; worked out once, not for each dispatch."""
    known = _known.get(definition)
    if known is None or known[0] is not config:
        known = _known[definition] = (config, definition.options.over(_defaults(config)))
    return known[1]


def _defaults(config: Config) -> TaskOptions:
    return TaskOptions(
        queue=_queue("default_queue", config.default_queue),
        max_attempts=_attempts("max_attempts", config.max_attempts),
        retry_delay=_backoff("retry_delay", config.retry_delay), timeout=config.timeout,
        result_ttl=math.inf if config.result_ttl is None else config.result_ttl,
    )  # fmt: skip


def _ttl(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value


def read_options(given: Mapping[str, Any]) -> TaskOptions:
    """Validate options as users write them (class attributes, decorator, chain).

    Raises:
        ConfigError: Names the option, the value and what is expected.
    """
    if "max_retries" in given:
        raise ConfigError(
            option="max_retries", value=given["max_retries"],
            problem="use `max_attempts`, which counts the first run: max_retries + 1",
        )  # fmt: skip
    read: dict[str, Any] = {name: _READERS[name](name, value) for name, value in given.items()}
    return TaskOptions(**read)


def _duration(name: str, value: Any) -> float:
    try:
        return seconds(value, what=name)
    except ValueError as exc:
        raise _bad(name, value, "expected seconds or a timedelta, not negative") from exc


def _bad(name: str, value: object, problem: str) -> ConfigError:
    return ConfigError(option=name, value=value, problem=problem)


def _queue(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_ID or not value.isprintable():
        raise _bad(name, value, f"expected a printable name of 1 to {MAX_ID} characters")
    return value


def _attempts(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_ATTEMPTS:
        problem = f"expected a whole number of at least 1, at most {MAX_ATTEMPTS}: it counts the first run"
        raise _bad(name, value, problem)
    return value


def _priority(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in PRIORITIES:
        raise _bad(name, value, f"expected {PRIORITIES.start} to {PRIORITIES.stop - 1}")
    return value


def _backoff(name: str, value: Any) -> Backoff:
    return value if isinstance(value, Backoff) else Backoff.fixed(_duration(name, value))


def _timeout(name: str, value: Any) -> float:
    if value is None:
        return 0.0
    number = _duration(name, value)
    if number == 0:
        raise _bad(name, value, "expected more than 0 seconds, or None for no limit")
    return number


def _keep(name: str, value: Any) -> float:
    return math.inf if value is None else _duration(name, value)


def _tags(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(
        _is_text(part) for pair in value.items() for part in pair
    ):
        raise _bad(name, value, f"expected a mapping of text to text, {STORABLE}")
    return dict(value)


def _is_text(value: Any) -> bool:
    """Every store can hold it."""
    return isinstance(value, str) and re.search("[\0\ud800-\udfff]", value) is None


def _job_id(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_ID or not value.isprintable():
        raise _bad("id", value, f"expected printable text of 1 to {MAX_ID} characters")
    return value


def _eta(value: Any) -> int:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise _bad("eta", value, "expected a datetime with a time zone, as datetime.now(UTC)")
    return micros(value)


def _unique(value: Any) -> Unique:
    unique = Unique(value) if isinstance(value, str) else value
    if not isinstance(unique, Unique) or not unique.key or not _is_text(unique.key):
        raise _bad("unique", value, f"expected a key (text, {STORABLE}) or a Unique")
    try:
        states = tuple(JobState(state) for state in unique.states)
        conflict = Conflict(unique.on_conflict)
    except ValueError as exc:
        raise _bad("unique", value, str(exc)) from exc
    if not states or FINAL.intersection(states):
        raise _bad(
            "unique", value, "a key is held by live jobs only: name states that are not final"
        )
    return Unique(unique.key, states, conflict)


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "queue": _queue, "max_attempts": _attempts, "retry_delay": _backoff, "timeout": _timeout,
    "priority": _priority, "expires_in": _duration, "result_ttl": _keep, "tags": _tags,
}  # fmt: skip
