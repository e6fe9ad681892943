"""Examples of level 1, which every driver passes: storing, claiming, leases, settling."""

from __future__ import annotations

from typing import Final

import anyio

from taskflow._core.records import (
    Change,
    ErrorInfo,
    Lane,
    Leased,
    Progress,
    Renewal,
    Timing,
    Token,
)
from taskflow._core.states import SETTLES, Event
from taskflow.errors import DriverError
from taskflow.testing.bench import Bench, ContractError
from taskflow.testing.checks import LEASE, check, claim_of, spec_of, take

__all__ = ()

PAST_LEASE: Final = LEASE + Timing(LEASE).grace + 60.0
ERROR: Final = ErrorInfo("ValueError", "no")


@check()
async def empty_calls(bench: Bench) -> None:
    """Calls without items answer with nothing and change nothing."""
    await bench.enqueue([])
    await bench.extend([], LEASE)
    await bench.settle([])
    await bench.claim(claim_of("r"))
    await bench.check()


@check()
async def any_bytes_any_names(bench: Bench) -> None:
    """Payloads, ids, queues and kinds come back byte by byte, whatever is in them."""
    limit = bench.driver.facts.max_payload or 1 << 20
    odd = ["a:b", "a'b\"c", "%s {x} $1", "ü 漢 \U0001f600", "x" * 128, "{tag}", "a/b\\c"]
    for number, word in enumerate(odd):
        spec = spec_of(
            word, queue=word, kind=word, payload=bytes(range(256)) * 2, tags={word: word}
        )
        await bench.enqueue([spec])
        await bench.claim(claim_of(f"r{number}", queues=(word,)))
    await bench.enqueue([spec_of("big", payload=b"\x00\xff" * (limit // 2))])
    await bench.claim(claim_of("big"))
    await bench.check()


@check()
async def same_call_again(bench: Bench) -> None:
    """Enqueueing the same jobs again changes nothing; other content under an id is a conflict."""
    specs = [spec_of("a"), spec_of("b", tags={"x": "y", "a": "b"})]
    await bench.enqueue(specs)
    await bench.enqueue(specs)
    await bench.enqueue([spec_of("a", payload=b"\x81")])
    await bench.enqueue([spec_of("c"), spec_of("c"), spec_of("c", queue="x")])
    jobs = await bench.claim(claim_of("r"))
    await bench.settle([Change(token=job.token, event=Event.COMPLETE) for job in jobs])
    await bench.enqueue(specs)
    await bench.check()


@check()
async def order(bench: Bench) -> None:
    """Queues as named, then earlier due, then earlier accepted."""
    await bench.enqueue([spec_of(f"late{n}", queue="low") for n in range(2)])
    await bench.enqueue([spec_of("delayed", delay=50.0), spec_of("first"), spec_of("second")])
    bench.shift(100.0)
    await bench.enqueue([spec_of("third")])
    await bench.expire()
    for number in range(7):
        await bench.claim(claim_of(f"r{number}", queues=("default", "low"), free=1))


@check()
async def unnamed_queues(bench: Bench) -> None:
    """Queues that a claim does not name are served only where it asks for others, by name."""
    await bench.enqueue([spec_of(f"job {name}", queue=name) for name in ("c", "a", "b", "d")])
    await bench.claim(claim_of("r0", queues=("b",), free=3))
    await bench.claim(claim_of("r1", queues=("d",), others=True))


@check()
async def lanes(bench: Bench) -> None:
    """A lane gets no more than its room, and one without room gets nothing."""
    await bench.enqueue([
        spec_of(f"{lane} {n}", lane=lane) for n in range(4) for lane in Lane
    ])  # fmt: skip
    request = claim_of("r0", free=2, lanes=(Lane.ASYNC, Lane.PROCESS))
    await bench.claim(request)
    await bench.claim(claim_of("r1", free=9, lanes=(Lane.THREAD,)))
    await bench.claim(claim_of("r2", free=9, lanes=tuple(Lane)))


@check()
async def ahead(bench: Bench) -> None:
    """Beyond the free room only jobs are taken that have an attempt to spare and no crash."""
    await bench.enqueue([spec_of("fragile", max_attempts=1), spec_of("crashed", max_attempts=9)])
    await bench.claim(claim_of("dies", free=2))
    bench.shift(PAST_LEASE)
    await bench.expire()
    await bench.enqueue([spec_of("last", max_attempts=1), spec_of("sound"), spec_of("more")])
    await bench.claim(claim_of("r0", free=1, ahead=9))
    await bench.claim(claim_of("r1", free=9))
    await bench.check()


@check()
async def same_claim_again(bench: Bench) -> None:
    """A request id under which jobs are held gets those again, and no others."""
    await bench.enqueue([spec_of(f"job {n}") for n in range(6)])
    first = await bench.claim(claim_of("r", free=2))
    await bench.claim(claim_of("r", free=2))
    await bench.settle([Change(token=first[0].token, event=Event.COMPLETE)])
    await bench.claim(claim_of("r", free=2))
    await bench.settle([Change(token=first[1].token, event=Event.COMPLETE)])
    await bench.claim(claim_of("r", free=2))  # nothing is held any more: a fresh claim


@check()
async def attempts_count_at_claim(bench: Bench) -> None:
    """A claim counts the attempt; a dead lease keeps it counted and adds a crash."""
    await bench.enqueue([spec_of("job", max_attempts=9), spec_of("other")])
    for number in range(3):
        await bench.claim(claim_of(f"r{number}", free=1))
        bench.shift(PAST_LEASE)
        await bench.expire()
        await bench.check()
    await bench.claim(claim_of("last", free=1))


@check()
async def claim_rescues(bench: Bench) -> None:
    """A claim ends dead leases by itself and hands those jobs out again."""
    await bench.enqueue([spec_of("job", max_attempts=9)])
    await bench.claim(claim_of("dies"))
    bench.shift(LEASE / 2)
    await bench.claim(claim_of("too early"))
    bench.shift(PAST_LEASE)
    await bench.claim(claim_of("rescue"))
    await bench.check()


@check()
async def extend_never_shortens(bench: Bench) -> None:
    """A renewal with a shorter lease leaves the longer one, and a lease may be kept for ever."""
    token = await take(bench, "job")
    for _ in range(4):
        await bench.extend([Renewal(token)], LEASE)
        await bench.extend([Renewal(token)], 2.0)
        bench.shift(LEASE - 30.0)
        await bench.expire()
    await bench.check()


@check()
async def late_but_not_ended(bench: Bench) -> None:
    """A lease that ran out is still good until somebody has ended it."""
    one, other = await take(bench, "one"), await take(bench, "other")
    bench.shift(PAST_LEASE)
    await bench.extend([Renewal(one)], LEASE)
    await bench.settle([Change(token=other, event=Event.COMPLETE, result=b"\x01")])
    await bench.expire()
    await bench.check()


@check()
async def stale_tokens(bench: Bench) -> None:
    """A token of an earlier lease, of another request or of no lease can do nothing at all."""
    old = await take(bench, "job", max_attempts=9)
    bench.shift(PAST_LEASE)
    new = (await bench.claim(claim_of("again", queues=("queue of job",))))[0].token
    for token in (
        old, Token(new.id, new.delivery, old.request_id), Token(new.id, 0, new.request_id),
        Token(new.id, new.delivery + 1, new.request_id), Token("nobody", 1, "r"),
    ):  # fmt: skip
        await bench.extend([Renewal(token, Progress(0.9))], LEASE)
        for event in sorted(SETTLES):
            follow_up = spec_of(f"after {event} {token.request_id} {token.delivery}")
            change = Change(token=token, event=event, result=b"\x01", follow_ups=(follow_up,))
            await bench.settle([change])
    await bench.check()
    await bench.claim(claim_of("nothing else", others=True))


@check()
async def every_settle(bench: Bench) -> None:
    """Each event does what the law says, once; sent again it was done already."""
    for event in sorted(SETTLES):
        for refund in (False, True):
            token = await take(bench, f"{event} {refund}")
            change = Change(
                token=token, event=event, delay=50.0 if event is not Event.RELEASE else 0.0,
                refund=refund, error=ERROR if event is Event.FAIL else None, reason=f"{event}",
                result=b"\x01" if event is Event.COMPLETE else None,
            )  # fmt: skip
            await bench.settle([change])
            await bench.settle([change])
            others = [e for e in sorted(SETTLES) if e is not event]
            await bench.settle([Change(token=token, event=e) for e in others])
            await bench.check()
    bench.shift(100.0)
    await bench.claim(claim_of("what came back", others=True))


@check()
async def release_keeps_its_place(bench: Bench) -> None:
    """A job that is handed back stands where it stood; one that is retried stands by its new time."""
    await bench.enqueue([spec_of(name) for name in ("a", "b", "c")])
    jobs = await bench.claim(claim_of("r", free=2))
    await bench.settle([
        Change(token=jobs[0].token, event=Event.RETRY, error=ERROR),
        Change(token=jobs[1].token, event=Event.RELEASE, refund=True),
    ])  # fmt: skip
    await bench.expire()
    await bench.claim(claim_of("again"))
    await bench.check()


@check()
async def follow_ups(bench: Bench) -> None:
    """Follow-ups are stored in the step that ends their job, and not with a stale token."""
    token = await take(bench, "parent")
    change = Change(
        token=token, event=Event.COMPLETE,
        follow_ups=(spec_of("child", delay=50.0), spec_of("child 2"), spec_of("parent")),
    )  # fmt: skip
    await bench.settle([change])
    await bench.settle([change])
    bench.shift(100.0)
    await bench.claim(claim_of("children"))
    await bench.check()


@check()
async def scheduled(bench: Bench) -> None:
    """Nothing starts early; what is due starts without any hint; the next due time is told."""
    eta = bench.now + 250_000_000
    await bench.enqueue([
        spec_of("soon", delay=50.0), spec_of("later", delay=150.0), spec_of("eta", eta=eta),
        spec_of("past", eta=bench.now - 500_000_000),
    ])  # fmt: skip
    for number in range(4):
        request = claim_of(f"r{number}")
        reply = await bench.call("claim", lambda request=request: bench.driver.claim(request))  # type: ignore[misc]
        bench.model.claim(request, bench.now)
        due = [job.due for job in bench.model.jobs.values() if job.state == "scheduled"]
        wanted = (min(due) - bench.now) / 1e6 if due else None
        if wanted is None or reply.next_due_in is None or abs(reply.next_due_in - wanted) > 20:
            bench.agree("next_due_in", reply.next_due_in, wanted)
        bench.shift(100.0)
    await bench.expire()
    await bench.check()


@check()
async def several_claimers(bench: Bench) -> None:
    """Claims at one time share the jobs out: none is given twice, none is left."""
    await bench.enqueue([spec_of(f"job {n}") for n in range(40)])
    taken: list[Leased] = []

    async def claimer(number: int) -> None:
        for turn in range(30):
            reply = await bench.driver.claim(claim_of(f"r{number} {turn}", free=3))
            taken.extend(reply.jobs)
            if not reply.jobs:
                return

    async with anyio.create_task_group() as task_group:
        for number in range(6):
            task_group.start_soon(claimer, number)
    ids = [job.token.id for job in taken]
    bench.agree("jobs given out", sorted(ids), sorted(f"job {n}" for n in range(40)))


@check()
async def large_batches(bench: Bench) -> None:
    """A full batch goes through every call."""
    size = bench.driver.facts.max_batch
    await bench.enqueue([spec_of(f"job {n}") for n in range(size)])
    jobs = await bench.claim(claim_of("r", free=size))
    await bench.extend([Renewal(job.token) for job in jobs], LEASE)
    await bench.settle([Change(token=job.token, event=Event.COMPLETE) for job in jobs])
    await bench.check()


@check()
async def twin(bench: Bench) -> None:
    """A twin is another way to the same jobs."""
    token = await take(bench, "job")
    other = bench.driver.twin()
    await other.open()
    try:
        reply = await other.extend([Renewal(token)], LEASE)
        bench.agree(
            "the twin's extend", reply, bench.model.extend([Renewal(token)], LEASE, bench.now)
        )
        await other.enqueue([spec_of("from the twin")])
        bench.model.enqueue([spec_of("from the twin")], bench.now)
    finally:
        await other.aclose()
    await bench.claim(claim_of("r"))


@check()
async def closing(bench: Bench) -> None:
    """A closed driver answers with a DriverError, and may be opened again."""
    await bench.driver.aclose()
    try:
        await bench.driver.enqueue([spec_of("job")])
    except DriverError:
        pass
    else:
        raise ContractError("a closed driver took a job")
    finally:
        await bench.driver.open()
    await bench.enqueue([spec_of("job")])


@check()
async def checks_itself(bench: Bench) -> None:
    """``check()`` answers with lines of text."""
    warnings = await bench.driver.check()
    if not all(line and "\n" not in line for line in warnings):
        raise ContractError(f"check() answered {warnings!r}")
