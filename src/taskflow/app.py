"""``App``: the composition root. Settings, one driver, and the verbs on jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, Self, cast, final, overload

import anyio
from anyio import CancelScope
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import EventLoopToken, current_token
from typing_extensions import TypeVar

from taskflow import events
from taskflow._core.codec import MsgpackCodec
from taskflow._core.records import Accepted, Enqueued, Fetched, JobRecord, JobSpec
from taskflow._core.registry import registry
from taskflow._port import Batcher, Finals, Port
from taskflow._port.managing import missing_capability
from taskflow._port.open_apps import close_here, open_here, run_on_loop
from taskflow.config import Config
from taskflow.drivers import driver_for
from taskflow.errors import ConfigError, JobConflictError, NoAppError
from taskflow.job import Job, Prepared
from taskflow.managing import Managing
from taskflow.task import AsyncProcessTask, AsyncTask, SyncProcessTask, SyncTask, TaskFunction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from taskflow._core.queries import Page, QueueStats
    from taskflow.abc import Clock, Codec, Driver, Instrument

S = TypeVar("S", default=Any)
R = TypeVar("R")

Dispatchable = Prepared[R] | AsyncTask[R] | SyncTask[R] | AsyncProcessTask[R] | SyncProcessTask[R]
"""What can be dispatched: a task, or one with options."""

Lifespan = Callable[["App[Any]"], AbstractAsyncContextManager[S]]
"""Opens what the bodies share, once per worker process and once per process child."""

CLOSE_TIMEOUT: Final = 10.0
"""Seconds that closing the driver may take."""

__all__ = ("App", "Dispatchable", "Lifespan", "SyncApp", "SyncJob")


@final
class App(Managing, Generic[S]):
    """Where jobs are stored and how. The constructor does no I/O; ``async with app`` opens it.

    Args:
        url_or_config: A store's URL (``sqlite:///jobs.db``, ``memory://``) or a ``Config``.
            Default: the ``TASKFLOW_*`` settings; with none, SQLite in ``./taskflow.db``.
        driver: A driver of your own, instead of a URL.
        lifespan: ``Callable[[App], AsyncContextManager[S]]``; workers enter it, and bodies find
            what it yields as ``current().state``.
        codec: How payloads and results become bytes. Default: msgpack. Process children make
            one of their own, of the same class and without arguments.
        clock: For drivers without a server's clock; tests shift it.
        instrument: Receives the events of ``taskflow.events``.
        options: Any option of ``Config`` by name.
    """

    def __init__(
        self, url_or_config: str | Config | None = None, /, *, driver: Driver | None = None,
        lifespan: Lifespan[S] | None = None, codec: Codec | None = None,
        clock: Clock | None = None, instrument: Instrument | None = None, **options: Any,
    ) -> None:  # fmt: skip
        if isinstance(url_or_config, str):
            options = {"url": url_or_config, **options}
        elif not isinstance(url_or_config, Config | None):
            raise ConfigError(
                option="url", value=url_or_config,
                problem="expected text, as in sqlite:///jobs.db, or a Config",
            )  # fmt: skip
        self._given = url_or_config if isinstance(url_or_config, Config) else None
        if self._given is not None and options:
            raise ConfigError(
                option=next(iter(options)), value=next(iter(options.values())),
                problem="give a Config or keywords, not both",
            )  # fmt: skip
        self._options = options
        self._driver_given = driver
        self._clock = clock
        self._instrument = instrument
        self.lifespan = lifespan
        self._codec: Codec = MsgpackCodec() if codec is None else codec
        self._config: Config | None = None
        self._port: Port | None = None
        # Two lines, so that a unique key that is held up holds up none but its like.
        self._enqueues: dict[bool, Batcher[JobSpec, Enqueued]] = {}
        self._finals: Finals | None = None
        self._loop: EventLoopToken | None = None
        self._opening: tuple[EventLoopToken, anyio.Event] | None = None
        self._entries = 0

    def __repr__(self) -> str:
        where = "closed" if self._port is None else f"on {self._port.driver.redacted}"
        return f"<App {where}>"

    # ---- opening and closing

    def resolve(self, flags: Mapping[str, Any] | None = None) -> Config:
        """The settings: flag over keyword over environment over pyproject.toml over default.

        Raises:
            ConfigError: A setting is wrong; names it, its source and the remedy.
        """
        if self._given is not None:
            return Config.resolve(flags=flags, given=self._given) if flags else self._given
        return Config.resolve(flags=flags or {}, keywords=self._options)

    def make_driver(self, config: Config) -> Driver:
        """The driver that the settings name, not open; the one given to the app, if any.

        Raises:
            ConfigError: A setting is wrong.
        """
        return self._driver_given or driver_for(config, clock=self._clock)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def open(self, flags: Mapping[str, Any] | None = None) -> Self:
        """Open the driver on this event loop; entering an open app again is counted.

        Raises:
            ConfigError: A setting is wrong.
            DriverError: The store cannot be opened.
            NoAppError: It is open on another event loop.
        """
        here = current_token()
        while self._opening is not None:
            loop, ended = self._opening
            if loop != here:
                raise NoAppError(problem=f"{self!r} is being opened on another event loop")
            await ended.wait()
        if self._port is not None:
            if self._loop != here:
                raise NoAppError(problem=f"{self!r} is open on another event loop")
            self._entries += 1
            return self
        _, ended = self._opening = here, anyio.Event()
        try:
            await self._open(flags)
        finally:
            self._opening = None
            ended.set()
        return self

    async def _open(self, flags: Mapping[str, Any] | None) -> None:
        config = self.resolve(flags)
        driver = self.make_driver(config)
        await driver.open()
        self._config = config
        self._port = port = Port(
            driver, lease=config.lease, call_timeout=config.call_timeout,
            instrument=self._instrument,
        )  # fmt: skip
        most = driver.facts.max_batch
        self._enqueues = {
            keyed: Batcher(port.enqueue_soon, max_batch=most, alone=port.enqueue)
            for keyed in (False, True)
        }
        self._finals = Finals(port)
        self._loop = current_token()
        self._entries = 1
        open_here(self)

    async def aclose(self) -> None:
        """Leave once; the last one closes the driver, shielded and bounded."""
        self._entries -= 1
        if self._entries > 0 or self._port is None:
            return
        close_here(self)
        port, self._port, self._loop = self._port, None, None
        with CancelScope(shield=True), anyio.move_on_after(CLOSE_TIMEOUT):
            await port.driver.aclose()

    @property
    def loop(self) -> EventLoopToken | None:
        """The event loop on which it is open; ``None`` when it is closed."""
        return self._loop

    @property
    def config(self) -> Config:
        """The settings it was opened with; before that, those it would be opened with now."""
        return self.resolve() if self._config is None else self._config

    @property
    def codec(self) -> Codec:
        """How payloads and results become bytes."""
        return self._codec

    @property
    def port(self) -> Port:
        """The open port to the driver.

        Raises:
            NoAppError: The app is not open.
        """
        if self._port is None:
            raise NoAppError(problem=f"{self!r} is not open: enter it with `async with app:`")
        return self._port

    # ---- dispatching

    async def store(self, spec: JobSpec, connection: object | None = None) -> str:
        """Store one job, in one batch with whoever dispatches now; returns the stored job's id.

        With a ``connection`` it goes alone, within the transaction that is open on it.

        Raises:
            JobConflictError: The id or the unique key is taken; nothing was stored.
            DriverError: See ``dispatch``.
        """
        port = self.port
        _check_supported(port, spec)
        if connection is not None:
            (reply,) = await port.enqueue_on(connection, [spec])
            return self._accept(port, spec, reply)
        return self._accept(port, spec, await self._enqueues[spec.unique is not None].submit(spec))

    def _accept(self, port: Port, spec: JobSpec, reply: Enqueued) -> str:
        if reply.verdict is Accepted.ORPHAN:
            raise JobConflictError(
                job_id=spec.id, problem="a job that it is to follow is not there"
            )
        if reply.verdict is Accepted.CONFLICT:
            unique = spec.unique
            if unique is not None and reply.id != spec.id:
                raise JobConflictError(
                    job_id=reply.id, problem=f"it holds the unique key {unique.key!r}"
                )
            raise JobConflictError(job_id=spec.id)
        if port.is_watched and reply.verdict is Accepted.ACCEPTED:
            port.emit(events.JobDispatched(job_id=reply.id, kind=spec.kind, queue=spec.queue))
        return reply.id

    def store_blocking(self, spec: JobSpec) -> str:
        """``store`` from another thread than the event loop's."""
        return cast("str", run_on_loop(self._loop, self.store, spec))

    async def dispatch_many(
        self, tasks: Sequence[Dispatchable[R]], *, connection: object | None = None
    ) -> list[Job[R]]:
        """Store many jobs, one round trip a driver batch; returns handles in order.

        All payloads are validated before the first one is stored.

        Args:
            tasks: What to store.
            connection: Store them within the transaction that is open on this connection of
                yours; see ``dispatch``.

        Raises:
            PayloadError, ConfigError: Nothing was stored.
            JobConflictError: One was refused; the others of its batch are stored.
        """
        port, config = self.port, self.config
        prepared = [_prepare(task) for task in tasks]
        specs = [one.spec(config, self._codec) for one in prepared]
        for spec in specs:
            _check_supported(port, spec)
        jobs: list[Job[R]] = []
        step = port.driver.facts.max_batch
        for start in range(0, len(specs), step):
            batch = specs[start : start + step]
            if connection is None:
                replies = await port.enqueue(batch)
            else:
                replies = await port.enqueue_on(connection, batch)
            for spec, reply in zip(batch, replies, strict=True):
                stored = self._accept(port, spec, reply)
                jobs.append(Job(stored, prepared[len(jobs)]._definition, self))  # noqa: SLF001
        return jobs

    # ---- reading and steering

    async def job(self, job_id: str) -> JobRecord | None:
        """The job with this id as it is now, or ``None``."""
        fetched = await self.fetch(job_id)
        return None if fetched is None else fetched.record

    @overload
    def handle(self, job_id: str, task: type[AsyncTask[R]]) -> Job[R]: ...
    @overload
    def handle(self, job_id: str, task: type[SyncTask[R]]) -> Job[R]: ...
    @overload
    def handle(self, job_id: str, task: type[AsyncProcessTask[R]]) -> Job[R]: ...
    @overload
    def handle(self, job_id: str, task: type[SyncProcessTask[R]]) -> Job[R]: ...
    @overload
    def handle(self, job_id: str, task: TaskFunction[..., R]) -> Job[R]: ...
    @overload
    def handle(self, job_id: str, task: Any) -> Job[Any]: ...
    def handle(self, job_id: str, task: Any) -> Job[Any]:
        """A handle from an id, typed by the task class, decorated function or kind."""
        definition = registry.get(task) if isinstance(task, str) else task.__taskflow__
        return Job(job_id, definition, self)

    async def fetch(self, job_id: str) -> Fetched | None:
        """The record and the encoded result of one job."""
        return (await self.port.fetch([job_id]))[0]

    async def hint_final(self, job_id: str) -> None:
        """Return when the job may be final; shared by all who wait on this app."""
        _ = self.port
        assert self._finals is not None
        await self._finals.hint(job_id)

    # ---- from plain code

    def sync(self, *, backend: str = "asyncio") -> AbstractContextManager[SyncApp]:
        """The blocking twin, for code without an event loop (views, scripts).

        The app is opened on an event loop in a thread of its own, until the block is left.
        """
        return self._open_sync(backend)

    @contextmanager
    def _open_sync(self, backend: str) -> Iterator[SyncApp]:
        with start_blocking_portal(backend) as portal, portal.wrap_async_context_manager(self):
            yield SyncApp(self, portal)


def _check_supported(port: Port, spec: JobSpec) -> None:
    lacking = missing_capability(port.driver, spec)
    if lacking is not None:
        raise lacking


def _prepare(task: Dispatchable[R]) -> Prepared[R]:
    if isinstance(task, Prepared):
        return task
    if not isinstance(task, (AsyncTask, SyncTask, AsyncProcessTask, SyncProcessTask)):
        raise TypeError(f"expected a task, as Task(...) or Task(...).options(...), got {task!r}")
    return task._prepared()  # noqa: SLF001


@final
class SyncApp:
    """Blocking verbs on an app; made by ``app.sync()``."""

    def __init__(self, app: App[Any], portal: Any) -> None:
        self._app = app
        self._portal = portal

    def dispatch(self, task: Dispatchable[R]) -> SyncJob[R]:
        """Store a job; raises as ``dispatch`` of the task does."""
        return SyncJob(self._portal.call(self._dispatch, task), self._portal)

    async def _dispatch(self, task: Dispatchable[R]) -> Job[R]:
        return await _prepare(task).dispatch(app=self._app)

    def dispatch_many(self, tasks: Sequence[Dispatchable[R]]) -> list[SyncJob[R]]:
        """Store many jobs; returns handles in order."""
        jobs = self._portal.call(self._app.dispatch_many, tasks)
        return [SyncJob(job, self._portal) for job in jobs]

    def job(self, job_id: str) -> JobRecord | None:
        """The job with this id as it is now, or ``None``."""
        record: JobRecord | None = self._portal.call(self._app.job, job_id)
        return record

    def cancel(self, job_id: str) -> None:
        """Cancel a job by its id."""
        self._portal.call(self._app.cancel, job_id)

    def retry(self, job_id: str) -> None:
        """Make an ended job available again; see ``App.retry``."""
        self._portal.call(self._app.retry, job_id)

    def jobs(self, **filters: Any) -> Page:
        """One page of jobs; arguments as ``App.jobs`` takes them."""
        page: Page = self._portal.call(lambda: self._app.jobs(**filters))
        return page

    def stats(self) -> list[QueueStats]:
        """Every queue; see ``App.stats``."""
        found: list[QueueStats] = self._portal.call(self._app.stats)
        return found

    def pause(self, *queues: str) -> None:
        """Hand out no more jobs of these queues."""
        self._portal.call(lambda: self._app.pause(*queues))

    def resume(self, *queues: str) -> None:
        """Undo a pause."""
        self._portal.call(lambda: self._app.resume(*queues))

    def purge(self, queue: str) -> int:
        """Delete what has not begun; returns how many."""
        count: int = self._portal.call(self._app.purge, queue)
        return count


@final
class SyncJob(Generic[R]):
    """A handle with blocking verbs."""

    def __init__(self, job: Job[R], portal: Any) -> None:
        self._job = job
        self._portal = portal
        self.id = job.id

    def result(self, *, timeout: float | timedelta | None = None) -> R:
        """Wait for the result; raises as ``Job.result`` does."""
        value: R = self._portal.call(lambda: self._job.result(timeout=timeout))
        return value

    def record(self) -> JobRecord:
        """The job as it is now."""
        record: JobRecord = self._portal.call(self._job.record)
        return record

    def cancel(self) -> None:
        """Stop the job."""
        self._portal.call(self._job.cancel)
