"""Examples for what people and producers ask: cancel, replay, purge, pause, lists, unique keys."""

from __future__ import annotations

from typing import Final

import anyio

from taskflow._core.flows import Edge
from taskflow._core.queries import JobQuery
from taskflow._core.records import (
    MICRO,
    Change,
    Conflict,
    ErrorInfo,
    JobRecord,
    Lane,
    Progress,
    Renewal,
    Unique,
    Wait,
)
from taskflow._core.states import SETTLES, Event, JobState
from taskflow.abc import Capability
from taskflow.testing.bench import SLACK, Bench, ContractError
from taskflow.testing.checks import LEASE, check, claim_of, spec_of, take

__all__ = ("in_every_state",)

ERROR: Final = ErrorInfo("ValueError", "no")
LONG: Final = 3.0
"""Seconds that a wait may take which ought to return at once."""


async def in_every_state(bench: Bench, name: str) -> list[str]:
    """Make one job in each state that this driver knows; returns their ids."""
    await bench.enqueue([
        spec_of(f"{name} available", queue=name), spec_of(f"{name} scheduled", delay=5000.0),
    ])  # fmt: skip
    ids = [f"{name} available", f"{name} scheduled"]
    for event in (None, *sorted(SETTLES - {Event.RELEASE})):
        token = await take(bench, f"{name} {event}", max_attempts=9)
        ids.append(token.id)
        if event is not None:
            delay = 5000.0 if event in {Event.RETRY, Event.SNOOZE, Event.PARK} else 0.0
            await bench.settle([Change(token=token, event=event, delay=delay, reason="why")])
    if bench.can(Capability.FLOWS):
        await bench.enqueue([spec_of(f"{name} waiting", after=(Edge(f"{name} scheduled"),))])
        ids.append(f"{name} waiting")
    return ids


@check(Capability.CANCEL)
async def cancel_from_every_state(bench: Bench) -> None:
    """What has not begun never will; what runs is asked; what has ended stays."""
    ids = await in_every_state(bench, "x")
    for job_id in (*ids, "nobody"):
        await bench.cancel([job_id])
        await bench.cancel([job_id])
        if bench.model.is_behind:
            await bench.expire()
        await bench.check()
    await bench.claim(claim_of("nothing", others=True))


@check(Capability.CANCEL)
async def replay_from_every_state(bench: Bench) -> None:
    """Failed and cancelled jobs become available with counters reset; nothing else changes."""
    ids = await in_every_state(bench, "x")
    for job_id in (*ids, "nobody"):
        await bench.replay([job_id])
        await bench.replay([job_id])
        await bench.check()
    await bench.claim(claim_of("again", others=True))
    await bench.check()


@check(Capability.CANCEL)
async def cancel_while_running(bench: Bench) -> None:
    """Asked to stop: complete and fail stand, everything else becomes cancelled."""
    for event in sorted(SETTLES):
        token = await take(bench, f"{event}")
        await bench.cancel([token.id])
        await bench.extend([Renewal(token)], LEASE)
        await bench.settle([Change(token=token, event=event, delay=50.0, reason="why")])
        await bench.check()
    crashed = await take(bench, "crashed", max_attempts=9)
    await bench.cancel([crashed.id])
    bench.shift(1000.0)
    await bench.claim(claim_of("told", others=True))
    await bench.check()


@check(Capability.CANCEL)
async def purge(bench: Bench) -> None:
    """A purge deletes what neither runs nor has ended, of that queue only."""
    await in_every_state(bench, "x")
    await in_every_state(bench, "y")
    for queue in ("default", "x", "queue of x None", "no such queue"):
        await bench.purge(queue)
        if bench.model.is_behind:
            await bench.expire()
        await bench.check()
    await bench.claim(claim_of("rest", others=True))


@check(Capability.PAUSE)
async def pause(bench: Bench) -> None:
    """A paused queue hands out nothing, keeps what it gets, and goes on when resumed."""
    await bench.enqueue([spec_of("a"), spec_of("b", queue="other")])
    await bench.pause("default")
    await bench.pause("default")
    await bench.enqueue([spec_of("c")])
    await bench.claim(claim_of("r0", queues=("default", "other")))
    await bench.claim(claim_of("r1", others=True))
    request = Wait(queues=("default",), timeout=0.0)
    wake = await bench.driver.wait(request)
    bench.agree("a wait at a paused queue: work", wake.work, False)
    await bench.resume("default")
    await bench.resume("never paused")
    await bench.claim(claim_of("r2", others=True))


@check(Capability.PRIORITY)
async def priority(bench: Bench) -> None:
    """A higher number comes first, before due times, within one queue."""
    for number in (0, -100, 100, 5, 5, -1):
        await bench.enqueue([spec_of(f"{number} {len(bench.log)}", priority=number)])
    await bench.enqueue([spec_of("other", queue="other", priority=100)])
    for turn in range(4):
        await bench.claim(claim_of(f"r{turn}", queues=("default", "other"), free=2))


@check(Capability.UNIQUE)
async def unique(bench: Bench) -> None:
    """One live job holds a key: keep, raise and replace do what they say."""
    keep, refuse, replace = (Unique("key", on_conflict=how) for how in Conflict)
    await bench.enqueue([spec_of("first", unique=keep), spec_of("other", unique=Unique("key 2"))])
    await bench.enqueue([spec_of("held", unique=keep), spec_of("refused", unique=refuse)])
    await bench.enqueue([spec_of("second", unique=replace)])
    await bench.claim(claim_of("r"))
    await bench.enqueue([spec_of("third", unique=replace), spec_of("kept", unique=keep)])
    await bench.check()


@check(Capability.UNIQUE)
async def unique_key_is_freed(bench: Bench) -> None:
    """A key is free in the very step that ends its job, for the follow-ups of that step, too."""
    for number, event in enumerate((Event.COMPLETE, Event.FAIL, Event.CANCEL)):
        key = Unique(f"key {number}", on_conflict=Conflict.RAISE)
        token = await take(bench, f"holder {number}", unique=key)
        await bench.enqueue([spec_of(f"refused {number}", unique=key)])
        await bench.settle([
            Change(token=token, event=event, follow_ups=(spec_of(f"next {number}", unique=key),))
        ])  # fmt: skip
        await bench.enqueue([spec_of(f"refused again {number}", unique=key)])
    token = await take(bench, "retried", unique=Unique("key"))
    await bench.settle([Change(token=token, event=Event.RETRY, delay=50.0)])
    await bench.enqueue([spec_of("held", unique=Unique("key"))])
    await bench.check()


@check(Capability.UNIQUE)
async def unique_states(bench: Bench) -> None:
    """A key is held only while its job is in one of the states that it named."""
    only = Unique("key", (JobState.SCHEDULED, JobState.AVAILABLE))
    token = await take(bench, "runs", unique=only)
    await bench.enqueue([spec_of("accepted", delay=50.0, unique=only)])
    await bench.enqueue([spec_of("held", unique=only)])
    await bench.settle([Change(token=token, event=Event.RELEASE)])
    await bench.enqueue([spec_of("held, too", unique=only)])
    await bench.check()


@check(Capability.UNIQUE, Capability.CANCEL)
async def unique_and_people(bench: Bench) -> None:
    """Cancel and purge free keys; a replay is refused while another job holds the key."""
    await bench.enqueue([spec_of("a", unique=Unique("key")), spec_of("b", unique=Unique("key 2"))])
    await bench.cancel(["a"])
    await bench.enqueue([spec_of("c", unique=Unique("key"))])
    await bench.replay(["a"])
    await bench.purge("default")
    await bench.replay(["a"])
    await bench.enqueue([spec_of("d", unique=Unique("key")), spec_of("e", unique=Unique("key 2"))])
    await bench.check()


@check(Capability.FETCH)
async def fetch(bench: Bench) -> None:
    """Records tell everything in the order asked; unknown ids are None."""
    ids = await in_every_state(bench, "x")
    found = await bench.driver.fetch([*reversed(ids), "nobody", ids[0]])
    names = [None if one is None else one.record.id for one in found]
    bench.agree("ids", names, [*reversed(ids), None, ids[0]])
    token = await take(bench, "job", tags={"a": "b"}, lane=Lane.ASYNC)
    await bench.extend([Renewal(token, Progress(0.25, "a quarter"))], LEASE)
    await bench.check()
    await bench.extend([Renewal(token)], LEASE)
    await bench.extend([Renewal(token, Progress(0.75))], LEASE)
    await bench.check()


@check(Capability.RESULTS)
async def results(bench: Bench) -> None:
    """Results are kept byte by byte, and not at all where ``result_ttl`` is 0."""
    for number, ttl in enumerate((None, 50.0, 0.0)):
        token = await take(bench, f"job {number}", result_ttl=ttl)
        change = Change(token=token, event=Event.COMPLETE, result=bytes(range(256)) * 64)
        await bench.settle([change])
    await bench.check()


@check(Capability.FETCH)
async def prune(bench: Bench) -> None:
    """What is over is forgotten: by its own time, not before ``keep``, and never what is live."""
    await in_every_state(bench, "x")
    token = await take(bench, "short", result_ttl=0.0)
    await bench.settle([Change(token=token, event=Event.COMPLETE)])
    for keep in (1000.0, 0.0):
        await bench.prune(keep)
        await bench.check()
    bench.shift(100_000.0)
    await bench.expire()
    await bench.prune(0.0)
    bench.shift(3_000_000.0)
    await bench.expire()
    await bench.prune(0.0)
    await bench.check()


@check()
async def lapse(bench: Bench) -> None:
    """What may not start any more is cancelled as expired, unless it runs; then when handed back."""
    await bench.enqueue([
        spec_of("available", expires_in=50.0), spec_of("scheduled", delay=5000.0, expires_in=50.0),
        spec_of("lives", expires_in=500.0),
    ])  # fmt: skip
    runs = await take(bench, "runs", expires_in=50.0, max_attempts=9)
    retried = await take(bench, "retried", expires_in=50.0)
    await bench.settle([Change(token=retried, event=Event.RETRY, delay=5000.0, error=ERROR)])
    if bench.can(Capability.FLOWS):
        edge = (Edge("scheduled"),)
        await bench.enqueue([spec_of("long", delay=9e5), spec_of("waiting", after=(Edge("long"),),
                             expires_in=50.0), spec_of("skipped", after=edge)])  # fmt: skip
    bench.shift(100.0)
    await bench.claim(claim_of("r", queues=("default", "queue of retried")))
    await bench.expire()
    await bench.check()
    await bench.settle([Change(token=runs, event=Event.RELEASE)])
    await bench.claim(claim_of("nothing", others=True))
    await bench.expire()
    await bench.check()


@check(Capability.LIST)
async def listing(bench: Bench) -> None:
    """Filters, and pages on which a job that matches throughout stands exactly once."""
    for n in range(12):
        fields = {"kind": f"Kind {n % 2}", "tags": {"n": str(n % 3)}, "queue": f"q{n % 2}"}
        await bench.enqueue([spec_of(f"job {n}", **fields)])
    bench.clock.shift(2 * SLACK)  # a store's own clock runs on meanwhile
    between = bench.now - round(SLACK * MICRO)
    await bench.enqueue([spec_of(f"late {n}") for n in range(3)])
    await _listed(bench, JobQuery(kind="Kind 1"))
    await _listed(bench, JobQuery(queue="q0", tags={"n": "0"}))
    await _listed(bench, JobQuery(since=between))
    await _listed(bench, JobQuery(until=between, limit=5))
    jobs = await bench.claim(claim_of("r", queues=("q0", "q1"), free=6))
    await _listed(bench, JobQuery(states=frozenset({JobState.RUNNING}), limit=4))
    seen: list[str] = []
    cursor: str | None = None
    for turn in range(100):
        page = await bench.driver.list_jobs(JobQuery(limit=3, cursor=cursor))
        seen += [record.id for record in page.jobs]
        cursor = page.cursor
        if turn < len(jobs):  # jobs move while somebody pages
            event = Event.FAIL if turn % 2 else Event.COMPLETE
            await bench.settle([Change(token=jobs[turn].token, event=event, error=ERROR)])
        if cursor is None:
            break
    bench.agree("paged through", sorted(seen), sorted(bench.model.jobs))


async def _listed(bench: Bench, query: JobQuery) -> None:
    found: list[JobRecord] = []
    cursor: str | None = None
    for _ in range(1000):
        page = await bench.driver.list_jobs(
            JobQuery(
                states=query.states, kind=query.kind, queue=query.queue, tags=query.tags,
                since=query.since, until=query.until, limit=query.limit, cursor=cursor,
            )
        )  # fmt: skip
        if len(page.jobs) > query.limit:
            raise ContractError(f"a page of {len(page.jobs)} for a limit of {query.limit}")
        found += page.jobs
        cursor = page.cursor
        if cursor is None:
            break
    wanted = [
        job.spec.id
        for job in sorted(bench.model.jobs.values(), key=lambda job: -job.seq)
        if (not query.states or job.state in query.states)
        and query.kind in (None, job.spec.kind) and query.queue in (None, job.spec.queue)
        and (query.since is None or job.enqueued_at >= query.since)
        and (query.until is None or job.enqueued_at < query.until)
        and all(job.spec.tags.get(name) == value for name, value in query.tags.items())
    ]  # fmt: skip
    bench.agree(f"listed by {query}", [record.id for record in found], wanted)


@check(Capability.COUNTS)
async def stats(bench: Bench) -> None:
    """Counts are exact, by queue and state; the oldest due job and what ended lately are told."""
    await in_every_state(bench, "x")
    if bench.can(Capability.PAUSE):
        await bench.pause("empty and paused")
    bench.shift(10_000.0)
    await bench.expire()
    token = await take(bench, "lately")
    await bench.settle([Change(token=token, event=Event.COMPLETE)])
    wanted: dict[str, dict[JobState, int]] = {queue: {} for queue in bench.model.paused}
    for job in bench.model.jobs.values():
        counts = wanted.setdefault(job.spec.queue, {})
        counts[job.state] = counts.get(job.state, 0) + 1
    found = await bench.driver.stats()
    bench.agree("queues", [one.queue for one in found], sorted(wanted))
    for one in found:
        bench.agree(f"counts of {one.queue}", dict(one.counts), wanted[one.queue])
        bench.agree(f"{one.queue} paused", one.paused, one.queue in bench.model.paused)
    by_name = {one.queue: one for one in found}
    bench.agree("finished lately", by_name["queue of lately"].finished, 1)
    bench.agree("finished lately", by_name["queue of x complete"].finished, 0)
    oldest = by_name["x"].oldest
    if oldest is None or abs(oldest - 10_000.0) > 20:
        bench.agree("oldest due of x", oldest, 10_000.0)


async def _wakes(bench: Bench, request: Wait, act: object = None) -> None:
    """The wait returns soon after ``act``, with what it promises."""
    woken = anyio.Event()

    async def waiting() -> None:
        with anyio.fail_after(LONG):
            wake = await bench.driver.wait(request)
        if not (wake.work or wake.finals or wake.cancels):
            raise ContractError(f"{request} ended with nothing to tell\n" + "\n".join(bench.log))
        woken.set()

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(waiting)
        if act is not None:
            await anyio.sleep(0.05)  # let the wait begin; either order must do
            bench.agree("woken before anything happened", woken.is_set(), False)
            await act  # type: ignore[misc]


@check(Capability.NOTIFY)
async def wakes_for_work(bench: Bench) -> None:
    """A wait returns when a job is enqueued, handed back or resumed, and at once if one is there."""
    request = Wait(queues=("default",), timeout=60.0)
    await _wakes(bench, request, bench.enqueue([spec_of("job")]))
    await _wakes(bench, request)
    jobs = await bench.claim(claim_of("r"))
    await _wakes(bench, request, bench.settle([Change(token=jobs[0].token, event=Event.RELEASE)]))
    await bench.claim(claim_of("r2"))
    everything = Wait(others=True, timeout=60.0)
    await _wakes(bench, everything, bench.enqueue([spec_of("other", queue="any")]))


@check(Capability.NOTIFY, Capability.FETCH)
async def wakes_for_finals(bench: Bench) -> None:
    """A wait for jobs returns when one has ended, and at once for one that is not there."""
    token = await take(bench, "job")
    request = Wait(ids=frozenset({"job"}), timeout=60.0)
    done = bench.settle([Change(token=token, event=Event.COMPLETE)])
    await _wakes(bench, request, done)
    await _wakes(bench, request)
    await _wakes(bench, Wait(ids=frozenset({"nobody"}), timeout=60.0))


@check(Capability.NOTIFY, Capability.CANCEL)
async def wakes_for_cancels(bench: Bench) -> None:
    """A worker's wait returns when a cancellation is asked of one of its jobs."""
    await take(bench, "job")
    request = Wait(worker_id="worker-1", timeout=60.0)
    await _wakes(bench, request, bench.cancel(["job"]))
    await _wakes(bench, request)


@check()
async def waits_for_nothing(bench: Bench) -> None:
    """A wait ends with its timeout, and jobs of other queues and lanes are no work for it."""
    await bench.enqueue([spec_of("job", queue="other"), spec_of("thread", lane=Lane.THREAD)])
    for request in (
        Wait(queues=("default",), lanes=frozenset({Lane.ASYNC}), timeout=0.05),
        Wait(timeout=0.0),
    ):
        with anyio.fail_after(LONG):
            wake = await bench.driver.wait(request)
        bench.agree(f"work for {request}", wake.work, False)
