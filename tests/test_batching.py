"""Callers who share calls: one enqueue for those who dispatch, one wait for those who wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from taskflow import App, AsyncTask, Worker
from taskflow._port import Batcher
from taskflow._port.finals import FLOOR
from taskflow.drivers.memory import MemoryDriver
from taskflow.errors import StoreBusyError
from taskflow.events import DriverCall, TaskflowEvent

pytestmark = pytest.mark.anyio


class Shares(AsyncTask[int]):
    n: int

    async def execute(self) -> int:
        await checkpoint()
        return self.n


class Calls:
    """An instrument that keeps the driver's calls."""

    def __init__(self) -> None:
        self.calls: list[DriverCall] = []

    def handle(self, event: TaskflowEvent) -> None:
        if isinstance(event, DriverCall):
            self.calls.append(event)

    def batches(self, operation: str) -> list[int]:
        return [call.batch for call in self.calls if call.operation == operation]


class Line:
    """What a batcher sends to: each call is held until it is let go."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.held: list[anyio.Event] = []
        self.reply_short = False

    async def send(self, items: Sequence[str]) -> list[str]:
        held = anyio.Event()
        self.sent.append(list(items))
        self.held.append(held)
        await held.wait()
        return [item.upper() for item in items[: -1 if self.reply_short else None]]

    def let_go(self) -> None:
        self.held.pop(0).set()

    def drop(self) -> None:
        """The call whose caller was cancelled."""
        self.held.pop(0)


class Callers:
    """Callers of one batcher, each in a cancel scope of its own."""

    def __init__(self, max_batch: int = 10) -> None:
        self.line = Line()
        self.batcher = Batcher(self.line.send, max_batch=max_batch)
        self.replies: dict[str, str] = {}
        self.errors: dict[str, Exception] = {}
        self.scopes: dict[str, CancelScope] = {}

    async def call(self, item: str) -> None:
        with CancelScope() as self.scopes[item]:
            try:
                self.replies[item] = await self.batcher.submit(item)
            except Exception as exc:
                self.errors[item] = exc

    async def start(self, group: Any, *items: str) -> None:
        """Start callers in this order; returns when each waits."""
        for item in items:
            group.start_soon(self.call, item)
            await anyio.wait_all_tasks_blocked()

    async def cancel(self, *items: str) -> None:
        for item in items:
            self.scopes[item].cancel()
        await anyio.wait_all_tasks_blocked()

    async def let_go(self) -> None:
        self.line.let_go()
        await anyio.wait_all_tasks_blocked()


async def test_callers_gather_while_a_call_is_under_way() -> None:
    callers = Callers(max_batch=2)
    async with anyio.create_task_group() as group:
        await callers.start(group, "a", "b", "c", "d")
        for _ in range(3):
            await callers.let_go()
    assert callers.line.sent == [["a"], ["b", "c"], ["d"]]
    assert callers.replies == {"a": "A", "b": "B", "c": "C", "d": "D"}


async def test_a_cancelled_leader_leaves_the_lead_to_its_followers() -> None:
    callers = Callers()
    async with anyio.create_task_group() as group:
        await callers.start(group, "a", "b", "c", "d")
        await callers.let_go()  # now b leads for c and d
        await callers.cancel("b")
        callers.line.drop()
        await callers.let_go()
    assert callers.line.sent == [["a"], ["b", "c", "d"], ["c", "d"]]
    assert callers.replies == {"a": "A", "c": "C", "d": "D"}


async def test_one_who_left_a_batch_does_not_take_the_wake_of_the_next() -> None:
    callers = Callers()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            await callers.start(group, "a", "leader", "left")
            await callers.let_go()  # the leader's call carries both
            await callers.start(group, "next")
            await callers.cancel("left")
            await callers.cancel("leader")
            callers.line.drop()
            await callers.let_go()
    assert callers.line.sent == [["a"], ["leader", "left"], ["next"]]
    assert callers.replies == {"a": "A", "next": "NEXT"}


async def test_all_waiting_callers_may_be_cancelled_at_once() -> None:
    callers = Callers()
    async with anyio.create_task_group() as group:
        await callers.start(group, "a", "b", "c")
        await callers.let_go()
        await callers.start(group, "d", "e")
        await callers.cancel("b", "c", "d")
        callers.line.drop()
        await callers.let_go()
    assert callers.line.sent == [["a"], ["b", "c"], ["e"]]
    assert callers.replies == {"a": "A", "e": "E"}


async def test_one_who_is_held_up_holds_up_nobody_else() -> None:
    """A batch that meets somebody's open transaction is taken apart, and the next goes on."""
    callers, line = Callers(), Line()

    async def send(items: Sequence[str]) -> list[str]:
        await checkpoint()
        if "held" in items:
            raise StoreBusyError(driver="any", problem="held")
        return [item.upper() for item in items]

    callers.batcher = Batcher(send, max_batch=10, alone=line.send)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for item in ("a", "held", "b"):
                group.start_soon(callers.call, item)
            await anyio.wait_all_tasks_blocked()
            assert sorted(line.sent) == [["a"], ["b"], ["held"]]
            await callers.start(group, "c", "d")
            assert callers.replies == {"c": "C", "d": "D"}
            for held in line.held:
                held.set()
    assert callers.replies == {"a": "A", "b": "B", "c": "C", "d": "D", "held": "HELD"}
    assert callers.errors == {}


async def test_an_error_reaches_every_caller_of_its_batch() -> None:
    callers = Callers()
    callers.line.reply_short = True  # a driver that breaks its contract
    async with anyio.create_task_group() as group:
        await callers.start(group, "a", "b", "c")
        callers.line.reply_short = False
        await callers.let_go()
        callers.line.reply_short = True
        await callers.let_go()
    assert callers.replies == {"a": "A"}
    assert {item: type(error) for item, error in callers.errors.items()} == {
        "b": ValueError, "c": ValueError
    }  # fmt: skip


class Held(MemoryDriver):  # type: ignore[misc]  # final for users, not for us
    """The memory store, whose enqueues wait while ``gate`` is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = anyio.Event()

    async def enqueue(self, jobs: Any) -> Any:
        await self.gate.wait()
        return await super().enqueue(jobs)


async def test_concurrent_dispatches_share_one_enqueue() -> None:
    calls = Calls()
    async with App("memory://", instrument=calls) as app, anyio.create_task_group() as group:
        for n in range(20):
            group.start_soon(Shares(n=n).dispatch)
        await anyio.wait_all_tasks_blocked()
        assert sum(calls.batches("enqueue")) == 20
        assert max(calls.batches("enqueue")) > 1
        assert {job.kind for job in (await app.jobs()).jobs} == {"Shares"}


@pytest.mark.parametrize("leaver", [0, 1, 9])
async def test_a_cancelled_dispatch_does_not_lose_the_others(leaver: int) -> None:
    driver = Held()
    jobs: dict[int, str] = {}
    scopes = [CancelScope() for _ in range(10)]

    async def dispatch(n: int) -> None:
        with scopes[n]:
            jobs[n] = (await Shares(n=n).dispatch()).id

    async with App(driver=driver) as app:
        async with anyio.create_task_group() as group:
            for n in range(10):
                group.start_soon(dispatch, n)
                await anyio.wait_all_tasks_blocked()
            scopes[leaver].cancel()
            await anyio.wait_all_tasks_blocked()
            driver.gate.set()
        assert set(jobs) == set(range(10)) - {leaver}
        for job_id in jobs.values():
            assert await app.job(job_id) is not None


async def test_many_wait_for_one_job() -> None:
    results: list[int] = []
    async with App("memory://", lease=2) as app, anyio.create_task_group() as group:
        job = await Shares(n=7).dispatch()

        async def wait() -> None:
            results.append(await job.result(timeout=5))

        for _ in range(50):
            group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        worker = Worker(app)
        await group.start(worker.run)
        with anyio.fail_after(FLOOR - 1):  # by wake-ups, not by the floor
            while len(results) < 50:
                await anyio.sleep(0.01)
        worker.stop()
    assert results == [7] * 50


async def test_each_of_many_waits_for_a_job_of_its_own() -> None:
    calls, count = Calls(), 60
    results: dict[int, int] = {}

    async with App("memory://", lease=2, instrument=calls) as app:
        jobs = await app.dispatch_many([Shares(n=n) for n in range(count)])

        async def wait(n: int) -> None:
            results[n] = await jobs[n].result(timeout=5)

        async with anyio.create_task_group() as group:
            for n in range(count):
                group.start_soon(wait, n)
            await anyio.wait_all_tasks_blocked()
            worker = Worker(app, concurrency=1)
            await group.start(worker.run)
            with anyio.fail_after(FLOOR - 1):
                while len(results) < count:
                    await anyio.sleep(0.01)
            worker.stop()
    assert results == {n: n for n in range(count)}
    # One look before the wait and one after it, not one whenever somebody else's job ends.
    assert len(calls.batches("fetch")) == 2 * count


async def test_who_leaves_a_shared_wait_hands_it_on() -> None:
    async with App("memory://", lease=2), anyio.create_task_group() as group:
        jobs = [await Shares(n=n).delay(3600).dispatch() for n in range(3)]
        ended: list[int] = []

        async def wait(n: int) -> None:
            with anyio.fail_after(FLOOR - 1), pytest.raises(Exception, match="cancelled"):
                await jobs[n].result()
            ended.append(n)

        async with anyio.create_task_group() as leader:
            leader.start_soon(jobs[0].result)
            await anyio.wait_all_tasks_blocked()
            for n in (1, 2):
                group.start_soon(wait, n)
            await anyio.wait_all_tasks_blocked()
            leader.cancel_scope.cancel()
        for n in (2, 1):
            await jobs[n].cancel()
            await anyio.wait_all_tasks_blocked()
        assert sorted(ended) == [1, 2]
        assert (await jobs[0].record()).state == "scheduled"


async def test_a_crowd_that_comes_again_and_again_goes_together() -> None:
    sizes: list[int] = []

    async def send(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        await checkpoint()
        return list(items)

    batcher: Batcher[int, int] = Batcher(send, max_batch=100)

    async def caller() -> None:
        for number in range(1, 11):
            assert await batcher.submit(number) == number

    with anyio.fail_after(30):
        async with anyio.create_task_group() as task_group:
            for _ in range(20):
                task_group.start_soon(caller)
    assert sizes == [20] * 10
