"""Random programs: the next command is drawn where the model says it is legal, and run on both.

The form was chosen by trial: commands drawn inside the coroutine found planted faults in a quarter
of the calls that a synchronous rule machine needed, and a command may open a task group. Stale
tokens are drawn as often as fresh ones, because that is where the faults are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskflow._core.flows import Edge, On
from taskflow._core.records import (
    Change,
    Claim,
    Conflict,
    ErrorInfo,
    JobSpec,
    Lane,
    Leased,
    Progress,
    Renewal,
    Room,
    Timing,
    Token,
    Unique,
)
from taskflow._core.retry import Backoff
from taskflow._core.states import FINAL, SETTLES, Event, JobState
from taskflow.abc import Capability

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from taskflow.testing.bench import Bench
    from taskflow.testing.draws import Draws

__all__ = ("QUEUES", "UNIT", "Program")

UNIT: Final = 100.0
"""Seconds. Time moves by whole units and everything is due in the middle of one, so that a store
whose clock runs on by itself comes to the same answers."""
HALF: Final = UNIT / 2
LEASE: Final = 1.5 * UNIT - Timing(1.5 * UNIT).grace
QUEUES: Final = ("default", "mail", "reports: ü")
LANES: Final = tuple(Lane)
MOST_TURNS: Final = 60
"""Claims within which a store must be drained."""
EVENTS: Final = tuple(sorted(SETTLES))
DELAYS: Final = (0.0, 0.0, 0.0, HALF, UNIT + HALF, 3 * UNIT + HALF)


class Program:
    """Draws and runs commands on a bench.

    Args:
        bench: A driver and the model.
        draws: Makes the choices.
    """

    def __init__(self, bench: Bench, draws: Draws) -> None:
        self._bench = bench
        self._draws = draws
        self._made = 0
        self._live: list[Leased] = []
        self._tokens: list[Token] = []
        self._sent: list[list[JobSpec]] = []
        self._changes: list[list[Change]] = []
        self._claims: list[Claim] = []

    async def run(self, steps: int) -> None:
        """Run so many commands; the store and the model agree after each. Then drain."""
        for _ in range(steps):
            command = self._next()
            await command()
            await self._agree()
        await self._drain()

    async def _agree(self) -> None:
        if self._bench.model.is_behind:
            await self._bench.expire()
        await self._bench.check()

    async def _drain(self) -> None:
        """I20 to I23: whatever has happened, one healthy worker brings every job to its end."""
        bench = self._bench
        for queue in sorted(bench.model.paused):
            await bench.resume(queue)
        for turn in range(MOST_TURNS):
            if all(job.state in FINAL for job in bench.model.jobs.values()):
                return
            rooms = dict.fromkeys(Lane, Room(100))
            request = Claim(
                queues=QUEUES, rooms=rooms, lease=LEASE, request_id=f"drain-{turn}",
                worker_id="healthy", others=True,
            )  # fmt: skip
            jobs = await bench.claim(request)
            await bench.settle([Change(token=job.token, event=Event.COMPLETE) for job in jobs])
            await self._agree()
            bench.shift(UNIT)
        left = [job.spec.id for job in bench.model.jobs.values() if job.state not in FINAL]
        bench.agree("jobs that a healthy worker could not end", left, [])

    def _next(self) -> Callable[[], Awaitable[object]]:
        if self._bench.is_late:
            # What is due, dead or expired is nobody's until a claim or an expire has seen it.
            return self._draws.choice(
                (self._claim_all, self._claim_all, self._bench.expire, self._settle, self._extend)
            )
        commands: list[Callable[[], Awaitable[object]]] = [
            self._enqueue, self._enqueue, self._claim, self._claim, self._claim_again,
            self._settle, self._settle, self._settle, self._settle_again, self._extend,
            self._shift, self._shift, self._crash, self._enqueue_again,
        ]  # fmt: skip
        if self._bench.can(Capability.FETCH):
            commands.append(self._prune)
        if self._bench.driver.facts.steady_leases:
            commands.append(self._jump)
        if self._bench.can(Capability.CANCEL):
            commands += [self._cancel, self._cancel, self._replay, self._replay, self._purge]
        if self._bench.can(Capability.PAUSE):
            commands += [self._pause, self._resume]
        return self._draws.choice(commands)

    # ---- producers

    async def _enqueue(self) -> None:
        specs = [self._spec() for _ in range(self._draws.integer(1, 4))]
        self._sent.append(specs)
        await self._bench.enqueue(specs)

    async def _enqueue_again(self) -> None:
        """The very same call once more, or one id with other content."""
        gone = self._bench.model.gone
        earlier = [specs for specs in self._sent if not gone & {spec.id for spec in specs}]
        if not earlier:
            return await self._enqueue()
        specs = self._draws.choice(earlier)
        if self._draws.chance(20):
            specs = [_other(spec) for spec in specs]
        await self._bench.enqueue(specs)
        return None

    def _spec(self, *, plain: bool = False) -> JobSpec:
        draws, can = self._draws, self._bench.can
        self._made += 1
        made: dict[str, Any] = {}
        if can(Capability.PRIORITY) and draws.chance(40):
            made["priority"] = draws.choice((-100, -1, 1, 100))
        if draws.chance(30):
            made["delay"] = draws.choice(DELAYS)
        elif draws.chance(15):
            units = draws.integer(-2, 3)
            # Not at one time with delays, which a store counts by its own clock: which of the two
            # comes first would be chance.
            made["eta"] = self._bench.now + round((units * UNIT + HALF + 10.0) * 1_000_000)
        if draws.chance(20):
            made["result_ttl"] = draws.choice((0.0, UNIT + HALF, None))
        if draws.chance(20):
            made["failed_ttl"] = draws.choice((HALF, None))
        if can(Capability.UNIQUE) and not plain and draws.chance(25):
            made["unique"] = self._unique()
        elif can(Capability.FLOWS) and not plain and draws.chance(35):
            made["after"] = self._edges()
        elif draws.chance(25):
            # Not with edges: whether a job lapses or is skipped first is the store's choice.
            made["expires_in"] = draws.choice((HALF, 2 * UNIT + HALF))
        if draws.chance(20):
            made["tags"] = {"colour": draws.choice(("red", "blue"))}
        return JobSpec(
            id=f"job-{self._made}", kind=draws.choice(("Mail", "Report")),
            payload=bytes([0, self._made % 256, 255]), queue=draws.choice(QUEUES),
            lane=draws.choice(LANES) if draws.chance(30) else Lane.ASYNC,
            max_attempts=draws.choice((1, 2, 3, 8)), retry=Backoff.fixed(HALF),
            timeout=draws.choice((None, 30.0)), **made,
        )  # fmt: skip

    def _unique(self) -> Unique:
        states = self._draws.choice(
            (None, None, (JobState.AVAILABLE, JobState.SCHEDULED), (JobState.RUNNING,))
        )
        conflict = self._draws.choice(tuple(Conflict))
        key = self._draws.choice(("a", "b"))
        return (
            Unique(key, on_conflict=conflict) if states is None else Unique(key, states, conflict)
        )

    def _edges(self) -> tuple[Edge, ...]:
        ids = list(self._bench.model.jobs)[-6:]
        if self._draws.chance(3):
            ids.append("nobody")
        chosen = dict.fromkeys(
            self._draws.choice(ids) for _ in range(self._draws.integer(1, 2)) if ids
        )
        return tuple(Edge(job_id, self._draws.choice(tuple(On))) for job_id in chosen)

    # ---- workers

    async def _claim(self) -> None:
        draws = self._draws
        lanes = LANES if draws.chance(60) else (draws.choice(LANES),)
        rooms = {lane: Room(draws.integer(0, 2), draws.integer(0, 2)) for lane in lanes}
        rooms = {lane: room for lane, room in rooms.items() if room.free or room.ahead}
        first = draws.integer(0, len(QUEUES) - 1)
        queues = (QUEUES[first:] + QUEUES[:first])[: draws.integer(1, len(QUEUES))]
        if self._bench.is_late:
            queues = QUEUES  # a claim may catch up for its own queues only
        await self._send_claim(queues, rooms or {Lane.ASYNC: Room(1)}, others=draws.chance(30))

    async def _claim_all(self) -> None:
        rooms = dict.fromkeys(Lane, Room(self._draws.integer(1, 3)))
        await self._send_claim(QUEUES, rooms, others=True)

    async def _send_claim(
        self, queues: tuple[str, ...], rooms: dict[Lane, Room], *, others: bool
    ) -> None:
        request = Claim(
            queues=queues, rooms=rooms, lease=LEASE, request_id=f"request-{len(self._claims)}",
            worker_id=f"worker-{self._draws.integer(1, 2)}", others=others,
        )  # fmt: skip
        self._claims.append(request)
        self._keep(await self._bench.claim(request))

    async def _claim_again(self) -> None:
        """A request whose reply was lost is sent once more."""
        held = {leased.token.request_id for leased in self._live}
        again = [claim for claim in self._claims if claim.request_id in held]
        if not again:
            return await self._claim()
        await self._bench.claim(self._draws.choice(again))
        return None

    def _keep(self, jobs: list[Leased]) -> None:
        self._live += jobs
        self._tokens += [job.token for job in jobs]

    async def _crash(self) -> None:
        """A worker dies: what it holds is left to time."""
        if self._live:
            self._live.remove(self._draws.choice(self._live))

    def _token(self) -> Token | None:
        """A fresh one, a stale one, or one that never was, equally often."""
        live = [leased.token for leased in self._live]
        stale = [token for token in self._tokens if token not in live]
        kind = self._draws.integer(0, 4)
        if live and kind <= 1:
            return self._draws.choice(live)
        if stale and kind <= 3:
            return self._draws.choice(stale)
        if not self._tokens:
            return None
        token = self._draws.choice(self._tokens)
        if self._draws.chance(50):
            return Token(token.id, token.delivery + self._draws.choice((-1, 1)), token.request_id)
        return Token(token.id, token.delivery, "request-of-nobody")

    def _some_tokens(self) -> list[Token]:
        drawn = [self._token() for _ in range(self._draws.integer(1, 3))]
        return list(dict.fromkeys(token for token in drawn if token is not None))

    async def _settle(self) -> None:
        changes = [self._change(token) for token in self._some_tokens()]
        if changes:
            self._changes.append(changes)
            await self._bench.settle(changes)
            settled = {change.token for change in changes}
            self._live = [one for one in self._live if one.token not in settled]

    async def _settle_again(self) -> None:
        """The very same changes once more: applied at most once."""
        if self._changes:
            await self._bench.settle(self._draws.choice(self._changes))

    def _change(self, token: Token) -> Change:
        draws, event = self._draws, self._draws.choice(EVENTS)
        made: dict[str, Any] = {}
        if event is Event.COMPLETE:
            made["result"] = draws.choice((b"\xc0", b"", bytes(range(256))))
        if event in {Event.RETRY, Event.SNOOZE, Event.PARK}:
            made["delay"] = draws.choice(DELAYS)
        if event in {Event.RETRY, Event.FAIL} and draws.chance(80):
            made["error"] = ErrorInfo("ValueError", "no\u2028 line", "Traceback …")
        if event is Event.FAIL:
            made["reason"] = draws.choice(("exhausted", "crashed", "refused"))
        if event is Event.RELEASE:
            made["started"] = draws.chance(50)
        if event not in {Event.COMPLETE, Event.RETRY}:
            made["refund"] = draws.chance(60)
        if draws.chance(15):
            plain = self._bench.is_late
            made["follow_ups"] = tuple(self._spec(plain=plain) for _ in range(draws.integer(1, 2)))
        return Change(token=token, event=event, **made)

    async def _extend(self) -> None:
        renewals = [
            Renewal(token, Progress(0.5, "half") if self._draws.chance(30) else None)
            for token in self._some_tokens()
        ]
        if renewals:
            lease = self._draws.choice((LEASE, LEASE + UNIT, 2.0))
            await self._bench.extend(renewals, lease)

    # ---- people and time

    async def _shift(self) -> None:
        self._bench.shift(UNIT * self._draws.integer(1, 3))

    async def _jump(self) -> None:
        self._bench.jump(UNIT * self._draws.choice((-2, -1, 1, 5)))

    def _ids(self) -> list[str]:
        model = self._bench.model
        known = [*model.jobs, "nobody"]
        # One at a time where cascades may run: how far they get within a call is the store's choice.
        most = 1 if any(job.fired for job in model.jobs.values()) else 3
        return [self._draws.choice(known) for _ in range(self._draws.integer(1, most))]

    async def _cancel(self) -> None:
        await self._bench.cancel(self._ids())

    async def _replay(self) -> None:
        await self._bench.replay(self._ids())

    async def _purge(self) -> None:
        if self._draws.chance(30):
            await self._bench.purge(self._draws.choice(QUEUES))

    async def _prune(self) -> None:
        await self._bench.prune(self._draws.choice((0.0, HALF, UNIT + HALF)))

    async def _pause(self) -> None:
        await self._bench.pause(self._draws.choice(QUEUES))

    async def _resume(self) -> None:
        await self._bench.resume(self._draws.choice(QUEUES))


def _other(spec: JobSpec) -> JobSpec:
    return JobSpec(id=spec.id, kind=spec.kind, payload=spec.payload + b"!", queue=spec.queue)
