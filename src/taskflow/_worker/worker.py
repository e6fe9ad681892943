"""``Worker``: one task group in which every service runs, and the order of start and end."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, final

import anyio
from anyio import CancelScope
from anyio.lowlevel import current_token

from taskflow import events
from taskflow._core.registry import registry
from taskflow._port.open_apps import enter_context
from taskflow._worker.assembly import (
    ProcessRunner,
    check_tasks,
    kill_all,
    leave_process,
    make_pools,
)
from taskflow._worker.fetcher import Fetcher
from taskflow._worker.leases import Leases
from taskflow._worker.maintenance import Maintenance
from taskflow._worker.posting import backend_of
from taskflow._worker.runtime import Runtime
from taskflow._worker.settler import Settler
from taskflow._worker.shutdown import Shutdown
from taskflow._worker.stuck import Stuck
from taskflow._worker.wakeups import Wakeups
from taskflow.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyio.abc import TaskGroup, TaskStatus

    from taskflow.app import App
    from taskflow.config import Config

__all__ = ("Worker",)

logger = logging.getLogger("taskflow.worker")

EXIT_ABANDONED = 1
"""The exit code when a job ignored its cancellation and was left behind."""


@final
class Worker:
    """Claims jobs of an app and runs them in three lanes.

    Args:
        app: Opened by ``run`` if it is not open yet.
        queues: The most important first. Default: ``default``, every queue that a registered
            task names, then every other queue with due jobs.
        concurrency: Jobs running at one time over all lanes.
        handle_signals: The process is this worker's own: SIGTERM and SIGINT begin a shutdown, and
            a stalled event loop ends it (see ``Config.stall``); only on the main thread.
        flags: Options that stand above keywords, environment and files, as a command line gives.
        options: Any option of ``Config`` by name.
    """

    def __init__(
        self, app: App[Any], *, queues: Sequence[str] | None = None,
        concurrency: int | None = None, handle_signals: bool = False,
        flags: Mapping[str, Any] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        given = {"queues": None if queues is None else tuple(queues), "concurrency": concurrency}
        chosen = {name: value for name, value in given.items() if value is not None}
        self._app = app
        self._flags: dict[str, Any] = {**options, **chosen, **(flags or {})}
        self._handle_signals = handle_signals
        self._shutdown: Shutdown | None = None
        self.worker_id = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.exit_code = 0
        self._beats_as_task = False  # the simulator sets it: virtual time has one thread

    def __repr__(self) -> str:
        return f"<Worker {self.worker_id}>"

    def stop(self, *, grace: float | None = None) -> None:
        """Begin a shutdown from the event loop's thread; ``grace`` 0 skips the wait."""
        if self._shutdown is not None:
            self._shutdown.ask(grace=grace)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Work until stopped; ready when all services are up.

        Raises:
            ConfigError, TaskDefinitionError: Nothing was started.
            DriverError: The store could not be opened, or has a setting that would lose jobs.

        Cancellation: A shutdown without grace: running jobs are stopped and handed back, then
        the cancellation goes on. Jobs that ignore it hold the call.
        """
        async with AsyncExitStack() as stack:
            was_open = self._app.loop is not None
            await self._app.open(self._flags)
            stack.push_async_callback(self._app.aclose)
            config = self._app.resolve(self._flags)
            await self._check(was_open=was_open)
            enter_context(self._app)
            state = None
            if self._app.lifespan is not None:
                state = await stack.enter_async_context(self._app.lifespan(self._app))
            await self._supervise(config, state, task_status)

    async def _check(self, *, was_open: bool) -> None:
        driver = self._app.port.driver
        if not driver.facts.shared and not was_open:
            raise ConfigError(
                option="url", value=driver.redacted,
                problem="a worker of its own cannot see jobs in another process's memory: use "
                "sqlite:///jobs.db, or run the worker inside the program that dispatches",
            )  # fmt: skip
        check_tasks()
        for warning in await driver.check():
            if driver.facts.shared:  # that memory forgets is no news
                logger.warning("%s", warning)

    async def _supervise(self, config: Config, state: Any, task_status: TaskStatus[None]) -> None:
        """Services run shielded, so that a cancelled ``run`` still ends in order."""
        queues, others = _queues(config)
        runtime = Runtime(
            self._app, self._app.port, config, worker_id=self.worker_id, queues=queues,
            others=others, state=state,
        )  # fmt: skip
        settler = Settler(runtime)
        self._shutdown = shutdown = Shutdown(runtime, settler)
        ended = anyio.Event()
        async with anyio.create_task_group() as outer:
            outer.start_soon(self._services, runtime, settler, shutdown, task_status, ended)
            try:
                await ended.wait()
            except BaseException:
                shutdown.ask(grace=0)
                raise
        if shutdown.abandoned:
            self.exit_code = EXIT_ABANDONED

    async def _services(
        self, runtime: Runtime, settler: Settler, shutdown: Shutdown,
        task_status: TaskStatus[None], ended: anyio.Event,
    ) -> None:  # fmt: skip
        port = runtime.port
        port.emit(events.WorkerStarted(worker_id=self.worker_id))
        runners: list[ProcessRunner] = []
        with CancelScope(shield=True):
            async with anyio.create_task_group() as services:
                async with anyio.create_task_group() as slots:
                    runtime.pools = make_pools(runtime, settler, slots, runners)
                    await self._start(runtime, settler, shutdown, services, runners)
                    task_status.started()
                    await shutdown.asked()
                    await shutdown.perform()
                    if shutdown.abandoned and self._handle_signals:
                        leave_process(EXIT_ABANDONED, runners)
                await shutdown.flush()  # of a body that has ended after all
                services.cancel_scope.cancel()
        port.emit(events.WorkerStopped(worker_id=self.worker_id, abandoned=shutdown.abandoned))
        ended.set()

    async def _start(
        self, runtime: Runtime, settler: Settler, shutdown: Shutdown, services: TaskGroup,
        runners: list[ProcessRunner],
    ) -> None:  # fmt: skip
        """Start the services in the order in which they need each other."""
        leases = Leases(
            runtime, backend=backend_of(current_token()),
            kill_children=partial(kill_all, runners), owns_process=self._handle_signals,
            as_task=self._beats_as_task,
        )  # fmt: skip
        for run in (settler.run, leases.run, Maintenance(runtime).run, Stuck(runtime).run):
            await services.start(run)
        if self._handle_signals:
            await services.start(shutdown.run_signals)
        await services.start(Fetcher(runtime, leases).run)
        await services.start(Wakeups(runtime, leases).run)
        runtime.port.emit(events.WorkerReady(worker_id=self.worker_id))
        logger.info("worker %s is ready", self.worker_id)


def _queues(config: Config) -> tuple[tuple[str, ...], bool]:
    """The queues to serve in order, and whether every other queue follows."""
    if config.queues:
        return tuple(config.queues), False
    named = sorted({d.options.queue for d in registry if d.options.queue is not None})
    return tuple(dict.fromkeys((config.default_queue, *named))), True
