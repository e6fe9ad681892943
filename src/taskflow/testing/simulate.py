"""Days of a store and its workers in seconds: virtual time, seeded faults, a seed that replays.

The real worker runs here, all services included, on the memory driver and on trio's virtual clock;
what its tasks do, when workers die and which calls fail is drawn from the seed. First with faults:
nothing may be lost, started early or ended twice. Then healed: everything must drain. After the
simulation testing of FoundationDB (Zhou et al., SIGMOD 2021) and TigerBeetle.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec
import trio
import trio.testing
from anyio import CancelScope

from taskflow import App, AsyncTask, Backoff, Discard, Retry, Snooze, Worker, current
from taskflow._core.records import MICRO, JobRecord
from taskflow._core.states import FINAL, JobState
from taskflow.abc import Facts
from taskflow.drivers.memory import MemoryDriver
from taskflow.drivers.memory.store import MemoryStore
from taskflow.testing.bench import ContractError
from taskflow.testing.faults import Fault, FaultyDriver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from taskflow.job import Prepared

__all__ = ("Simulated", "Simulation", "SimulationError", "simulate")

EPOCH: Final = 1_700_000_000.0
"""Where virtual time begins, in Unix time."""
DRAIN: Final = 6 * 3600.0
"""Virtual seconds in which a healed store must drain."""
SERVICE: Final = 0.002
"""Virtual seconds that a call of the store takes."""


class SimulationError(ContractError):
    """An invariant broke; the message names the seed that replays it."""


class Simulation(msgspec.Struct, kw_only=True):
    """What happened in one simulation.

    Attributes:
        seed: Replays it.
        jobs: How many were accepted.
        hours: Virtual hours that passed.
        states: Final states.
        faults: Planted faults by kind.
        runs: Bodies that were started.
        deaths: Workers that died.
    """

    seed: int
    jobs: int
    hours: float
    states: dict[str, int]
    faults: dict[str, int]
    runs: int
    deaths: int


class _World:
    """What the simulated bodies, workers and checks share. One per run, on one thread."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311 - a simulation
        self.starts: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self.ends: dict[str, int] = Counter()
        self.due: dict[str, float] = {}
        self.deaths = 0
        self.faults: Counter[str] = Counter()
        self.is_healed = False

    def fail(self, what: str) -> SimulationError:
        return SimulationError(f"{what}\nreplay it with simulate(seed={self.seed})")


class Simulated(AsyncTask[int]):
    """A job that does what its seed and attempt say."""

    kind = "taskflow.simulated"
    retry_delay = Backoff(base=1, cap=600)

    seed: int

    async def execute(self) -> int:
        """Sleep, then end one way or another."""
        context = current()
        world: _World = context.state
        world.starts[context.id].append((trio.current_time(), context.attempt))
        draw = random.Random(f"{self.seed}:{context.delivery}")  # noqa: S311 - a simulation
        await anyio.sleep(draw.choice((0.0, 0.01, 1.0, 40.0, 300.0)))
        if draw.random() < 0.3:
            await context.progress(draw.random(), "on the way")
        chance = draw.random()
        if chance < 0.15:
            raise ValueError("a simulated failure")
        if chance < 0.2:
            raise Snooze(draw.choice((1.0, 400.0)))
        if chance < 0.25:
            raise Retry(after=draw.choice((None, 5.0)))
        if chance < 0.27:
            raise Discard("simulated")
        if chance < 0.3:
            await anyio.sleep_forever()  # until its timeout
        world.ends[context.id] += 1
        return self.seed


class _Clock:
    """The driver's clock: trio's virtual one."""

    def now(self) -> int:
        return round((EPOCH + trio.current_time()) * MICRO)

    uptime = now


class _Line(FaultyDriver):
    """One worker's line to the store; when the worker dies, nothing comes back any more."""

    def __init__(self, store: MemoryStore, world: _World, seed: int, percent: int) -> None:
        faults = (Fault.BEFORE, Fault.AFTER, Fault.DELAY, Fault.CANCEL)
        super().__init__(MemoryDriver(store=store), seed=seed, percent=percent, faults=faults)
        self._store, self._world, self._seed_of_twin = store, world, seed + 1
        self._percent_of_twin = percent
        self.facts = Facts()  # type: ignore[misc]  # shared: every worker here sees the store
        self.is_dead = False
        self._twins: list[_Line] = []

    def twin(self) -> _Line:
        line = _Line(self._store, self._world, self._seed_of_twin, self._percent_of_twin)
        self._twins.append(line)
        return line

    def die(self) -> None:
        for line in (self, *self._twins):
            line.is_dead = True

    async def _run(self, what: str, call: Any) -> Any:
        self.is_healed = self._world.is_healed
        if self.is_dead:
            await anyio.sleep_forever()
        if what != "wait":
            await anyio.sleep(SERVICE)
        try:
            return await super()._run(what, call)
        finally:
            if self.is_dead:
                await anyio.sleep_forever()


@contextmanager
def _virtual_time(clock: trio.testing.MockClock, seed: int) -> Iterator[None]:
    """Have everything read the virtual clock and draw from the seed."""
    from trio._core import _run

    real, deterministic = time.monotonic, _run._ALLOW_DETERMINISTIC_SCHEDULING  # noqa: SLF001
    time.monotonic = clock.current_time
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # noqa: SLF001
    _run._r.seed(seed)  # noqa: SLF001
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        time.monotonic = real
        _run._ALLOW_DETERMINISTIC_SCHEDULING = deterministic  # type: ignore[misc]  # noqa: SLF001
        random.setstate(state)


def simulate(
    seed: int, *, hours: float = 0.5, jobs: int = 40, workers: int = 2, percent: int = 15
) -> Simulation:
    """Run one simulation; blocks until it is over.

    Args:
        seed: The same seed makes the same run.
        hours: Virtual hours with faults, before the store is healed and has to drain.
        jobs: How many are dispatched in that time.
        workers: How many work at one time; some of them die and are replaced.
        percent: How many of a hundred calls fail while there are faults.

    Raises:
        SimulationError: An invariant broke.
    """
    clock = trio.testing.MockClock(autojump_threshold=0)
    world = _World(seed)
    with _virtual_time(clock, seed):
        return trio.run(_simulate, world, hours, jobs, workers, percent, clock=clock)


async def _simulate(
    world: _World, hours: float, jobs: int, workers: int, percent: int
) -> Simulation:
    store = MemoryStore(_Clock())
    records: list[JobRecord] = []
    async with App(driver=MemoryDriver(store=store)) as app, anyio.create_task_group() as group:
        for _ in range(workers):
            group.start_soon(_keep_working, world, store, percent)
        ids = await _dispatch(world, app, jobs, hours * 3600.0)
        world.is_healed = True
        records += await _drained(world, app, ids)
        group.cancel_scope.cancel()
    _check(world, records)
    states = Counter(str(record.state) for record in records)
    return Simulation(
        seed=world.seed, jobs=len(records), hours=trio.current_time() / 3600.0, states=dict(states),
        faults=dict(world.faults), runs=sum(map(len, world.starts.values())), deaths=world.deaths,
    )  # fmt: skip


async def _keep_working(world: _World, store: MemoryStore, percent: int) -> None:
    """One place for a worker: when it dies, another one takes it."""
    while True:
        line = _Line(store, world, world.random.getrandbits(30), percent)

        @asynccontextmanager
        async def lifespan(_: App[Any]) -> AsyncIterator[_World]:
            yield world

        app = App(driver=line, lifespan=lifespan, lease=60, max_crashes=5, max_attempts=4)
        worker = Worker(app, concurrency=4, grace=5.0)
        worker._beats_as_task = True  # noqa: SLF001
        life = world.random.uniform(20.0, 1500.0)
        with CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(_end_after, world, life, line, worker, scope)
                await worker.run()
                group.cancel_scope.cancel()
        world.faults.update({str(kind): count for kind, count in line.counts.items()})
        await anyio.sleep(world.random.uniform(0.1, 20.0))


async def _end_after(
    world: _World, life: float, line: _Line, worker: Worker, scope: CancelScope
) -> None:
    await anyio.sleep(life)
    if world.is_healed or world.random.random() < 0.3:
        worker.stop()  # a deploy
    else:
        world.deaths += 1
        line.die()
        scope.cancel()


async def _dispatch(world: _World, app: App[Any], jobs: int, seconds: float) -> list[str]:
    ids: list[str] = []
    draw = world.random
    for number in range(jobs):
        await anyio.sleep(draw.expovariate(jobs / seconds))
        job_id = f"job-{number}"
        delay = draw.choice((0.0, 0.0, 30.0, 2000.0))
        prepared: Prepared[int] = Simulated(seed=draw.getrandbits(30)).options(
            id=job_id, priority=draw.randint(-1, 1), timeout=draw.choice((20.0, 900.0)),
            expires_in=draw.choice((None, None, None, 4000.0)),
        )  # fmt: skip
        world.due[job_id] = trio.current_time() + delay
        await prepared.delay(delay).dispatch(app=app)
        ids.append(job_id)
        if draw.random() < 0.05:
            await app.cancel(draw.choice(ids))
    await anyio.sleep(max(0.0, seconds - trio.current_time()))
    return ids


async def _drained(world: _World, app: App[Any], ids: Sequence[str]) -> list[JobRecord]:
    until = trio.current_time() + DRAIN
    while True:
        found = await app.port.fetch(ids)
        records = [one.record for one in found if one is not None]
        if len(records) < len(ids):
            raise world.fail("accepted jobs are gone")
        left = [record for record in records if record.state not in FINAL]
        if not left:
            return records
        if trio.current_time() > until:
            raise world.fail(f"a healed store does not drain: {left}")
        await anyio.sleep(30.0)


def _check(world: _World, records: Sequence[JobRecord]) -> None:
    for record in records:
        starts = world.starts.get(record.id, [])
        if any(at < world.due[record.id] for at, _ in starts):
            raise world.fail(f"{record.id} started early: {starts}")
        if any(attempt > record.max_attempts for _, attempt in starts):
            raise world.fail(f"{record.id} ran after its last attempt: {starts}")
        if record.state is JobState.COMPLETED and not world.ends[record.id]:
            raise world.fail(f"{record.id} completed, but no body did: {record}")
        if record.state is JobState.FAILED and not record.reason:
            raise world.fail(f"{record.id} failed without a reason: {record}")
        if record.state is JobState.FAILED and record.error is None:
            raise world.fail(f"{record.id} failed without an error: {record}")
