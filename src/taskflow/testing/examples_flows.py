"""Examples for flows: jobs that wait for others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskflow._core.flows import Edge, On
from taskflow._core.records import Change, ErrorInfo, Token
from taskflow._core.states import Event, JobState
from taskflow.abc import Capability
from taskflow.testing.checks import check, claim_of, spec_of, take

if TYPE_CHECKING:
    from taskflow.testing.bench import Bench

__all__ = ()

ERROR: Final = ErrorInfo("ValueError", "no")
ENDS: Final = (Event.COMPLETE, Event.FAIL, Event.CANCEL)


async def _end(bench: Bench, token: Token, event: Event) -> None:
    await bench.settle(
        [Change(token=token, event=event, result=b"\x01" if event == "complete" else None)]
    )
    await bench.check()
    if bench.model.is_behind:
        await bench.expire()
    await bench.check()


@check(Capability.FLOWS)
async def edges(bench: Bench) -> None:
    """A successor goes when its predecessor ended as the edge asks, else it is skipped."""
    for event in ENDS:
        token = await take(bench, f"{event}")
        specs = [spec_of(f"{event} {on}", after=(Edge(token.id, on),)) for on in On]
        await bench.enqueue(specs)
        await bench.claim(claim_of(f"early {event}"))
        await _end(bench, token, event)
        await bench.enqueue(specs)
        await bench.claim(claim_of(f"r {event}"))
        late = [spec_of(f"late {event} {on}", after=(Edge(token.id, on),)) for on in On]
        await bench.enqueue(late)
        await bench.check()
    await bench.enqueue([spec_of("orphan", after=(Edge("nobody"),))])
    await bench.enqueue([spec_of("a"), spec_of("b", after=(Edge("a"),)), spec_of("a 2")])
    await bench.check()


@check(Capability.FLOWS)
async def fan_in(bench: Bench) -> None:
    """A job waits for all its predecessors; one that ends the other way skips it at once."""
    for name, ends in (("good", [Event.COMPLETE] * 3), ("bad", [Event.COMPLETE, Event.FAIL])):
        tokens = [await take(bench, f"{name} {n}") for n in range(3)]
        await bench.enqueue([
            spec_of(f"{name} end", after=tuple(Edge(token.id) for token in tokens), delay=50.0)
        ])  # fmt: skip
        for token, event in zip(tokens, ends, strict=False):
            await _end(bench, token, event)
    bench.shift(100.0)
    await bench.claim(claim_of("r"))
    await bench.check()


@check(Capability.FLOWS)
async def cascade(bench: Bench) -> None:
    """Skips run on through a chain; an edge on any end lets the job behind it go."""
    token = await take(bench, "head")
    last = "head"
    for n in range(6):
        await bench.enqueue([spec_of(f"link {n}", after=(Edge(last),))])
        last = f"link {n}"
    await bench.enqueue([spec_of("clean up", after=(Edge(last, On.END), Edge("head", On.END)))])
    await _end(bench, token, Event.FAIL)
    await bench.claim(claim_of("r"))
    if bench.can(Capability.CANCEL):
        await bench.replay(["head"])
        await bench.expire()
        await bench.check()


@check(Capability.FLOWS)
async def fan_out(bench: Bench) -> None:
    """Many successors are released a bounded number at a time, by claims and expires, all of them."""
    token = await take(bench, "head")
    count = 1300
    step = bench.driver.facts.max_batch
    specs = [spec_of(f"job {n}", after=(Edge("head"),)) for n in range(count)]
    for start in range(0, count, step):
        await bench.enqueue(specs[start : start + step])
    await bench.settle([Change(token=token, event=Event.COMPLETE)])
    for _ in range(20):
        if not await _waiting(bench):
            break
        await bench.driver.expire(1000)
    await bench.check()
    taken: set[str] = set()
    for turn in range(30):
        reply = await bench.driver.claim(claim_of(f"r{turn}", free=step))
        taken.update(job.token.id for job in reply.jobs)
    bench.agree("successors that were given out", len(taken), count)


async def _waiting(bench: Bench) -> bool:
    if not bench.can(Capability.FETCH):
        return True
    ids = [job_id for job_id in bench.model.jobs if job_id != "head"]
    found = await bench.driver.fetch(ids)
    return any(one is not None and one.record.state is JobState.WAITING for one in found)


@check(Capability.FLOWS, Capability.CANCEL)
async def rejoin(bench: Bench) -> None:
    """When a failed predecessor is replayed, what was skipped because of it waits again."""
    token, other = await take(bench, "head"), await take(bench, "other")
    await bench.enqueue([
        spec_of("next", after=(Edge("head"),)), spec_of("last", after=(Edge("next"),)),
        spec_of("both", after=(Edge("head"), Edge("other"))),
        spec_of("on failure", after=(Edge("head", On.FAILURE),)),
    ])  # fmt: skip
    await _end(bench, token, Event.FAIL)
    await _end(bench, other, Event.FAIL)
    await bench.replay(["head"])
    await bench.expire()
    await bench.check()
    again = await bench.claim(claim_of("r", queues=("queue of head",)))
    await _end(bench, again[0].token, Event.COMPLETE)
    await bench.claim(claim_of("rest", others=True))
    await bench.check()


@check(Capability.FLOWS, Capability.CANCEL)
async def purge_skips_successors(bench: Bench) -> None:
    """A purged predecessor never ends: its successors elsewhere are skipped, whatever they ask."""
    await bench.enqueue([spec_of("head", queue="doomed")])
    await bench.enqueue([spec_of(f"{on}", after=(Edge("head", on),)) for on in On])
    await bench.enqueue([spec_of("with it", queue="doomed", after=(Edge("head"),))])
    await bench.purge("doomed")
    await bench.expire()
    await bench.check()


@check(Capability.FLOWS, Capability.RESULTS)
async def results_are_kept_for_successors(bench: Bench) -> None:
    """A result and its job stay until the successors have ended, whatever ``result_ttl`` says."""
    token = await take(bench, "head", result_ttl=0.0)
    await bench.enqueue([spec_of("next", after=(Edge("head"),), result_ttl=0.0)])
    await _end(bench, token, Event.COMPLETE)
    await bench.prune(0.0)
    await bench.check()
    jobs = await bench.claim(claim_of("r"))
    await _end(bench, jobs[0].token, Event.COMPLETE)
    await bench.prune(0.0)
    await bench.check()
