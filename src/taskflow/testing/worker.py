"""Working jobs off inside a test: the real worker, no eager mode that lies.

Payloads are encoded and stored, retries wait for their delay, hooks run. With a ``VirtualClock``
the delays take no time::

    async def test_signup(app):                    # App("memory://", clock=clock)
        await sign_up("a@example.org")
        await assert_dispatched(app, SendEmail, to="a@example.org")
        await drain(app, clock=clock)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from taskflow import Worker
from taskflow._core.records import MICRO, JobRecord, micros
from taskflow._core.states import FINAL, JobState

if TYPE_CHECKING:
    from taskflow._core.registry import TaskDefinition
    from taskflow.app import App
    from taskflow.task import TaskFunction
    from taskflow.testing.clock import VirtualClock

T = TypeVar("T")

__all__ = ("assert_dispatched", "dispatched", "drain")

BUSY: Final = frozenset({JobState.AVAILABLE, JobState.RUNNING})
PAUSE: Final = 0.005
"""Real seconds between two looks at the store."""


async def drain(
    app: App[Any], *, clock: VirtualClock | None = None, timeout: float = 10.0, **options: Any
) -> list[JobRecord]:
    """Run a worker until nothing is left that could run.

    Args:
        app: Open, on a driver that lists.
        clock: The app's own. Scheduled jobs and retries are then run, too: time is shifted to
            the next one as soon as nothing else is to do. Without it they are left alone.
        timeout: Real seconds that all of it may take.
        options: Options of the worker.

    Returns:
        Every job of the store, in the order of dispatch.

    Raises:
        TimeoutError: It took longer.
    """
    worker = Worker(app, **options)
    with anyio.fail_after(timeout):
        async with anyio.create_task_group() as task_group:
            await task_group.start(worker.run)
            while not await _is_drained(app, clock):
                await anyio.sleep(PAUSE)
            worker.stop()
    return await _all(app)


async def _is_drained(app: App[Any], clock: VirtualClock | None) -> bool:
    await app.port.expire(100)  # what is due now is available, without waiting for the worker
    live = [record for record in await _all(app) if record.state not in FINAL]
    if any(record.state in BUSY for record in live):
        return False
    later = [record for record in live if record.state is not JobState.WAITING]
    if clock is None or not later:
        return True
    first = min(micros(record.due_at) for record in later)
    clock.shift(max(first - clock.now(), 0) / MICRO)
    return False


async def _all(app: App[Any]) -> list[JobRecord]:
    records: list[JobRecord] = []
    cursor: str | None = None
    while True:
        page = await app.jobs(limit=1000, cursor=cursor)
        records += page.jobs
        cursor = page.cursor
        if cursor is None:
            return records[::-1]


async def dispatched(
    app: App[Any], task: type[T] | TaskFunction[..., Any], **fields: Any
) -> list[T]:
    """The payloads of all stored jobs of a task whose fields have these values.

    Args:
        app: Open, on a driver that lists.
        task: A task class or decorated function.
        fields: Values of its fields; none for all.
    """
    definition = _definition(task)
    found: list[T] = []
    for record in await _all(app):
        if record.kind != definition.kind:
            continue
        payload = await _payload(app, record, definition)
        if all(getattr(payload, name) == value for name, value in fields.items()):
            found.append(payload)
    return found


def _definition(task: Any) -> TaskDefinition:
    found: TaskDefinition = task.__taskflow__
    return found


async def _payload(app: App[Any], record: JobRecord, definition: Any) -> Any:
    fetched = await app.fetch(record.id)
    assert fetched is not None
    return app.codec.decode(fetched.payload, definition.payload)


async def assert_dispatched(
    app: App[Any],
    task: type[T] | TaskFunction[..., Any],
    *,
    times: int | None = None,
    **fields: Any,
) -> list[T]:
    """Fail unless such a job was dispatched.

    Args:
        app: Open, on a driver that lists.
        task: A task class or decorated function.
        times: How many there must be; default: at least one.
        fields: Values of its fields.

    Returns:
        The payloads.

    Raises:
        AssertionError: Says what was dispatched instead.
    """
    found = await dispatched(app, task, **fields)
    if len(found) == times or (times is None and found):
        return found
    wanted = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    others = [repr(one) for one in await dispatched(app, task)]
    raise AssertionError(
        f"{_definition(task).kind}({wanted}) was dispatched {len(found)} time(s), expected "
        f"{'at least 1' if times is None else times}; of that kind there are: {others}"
    )
