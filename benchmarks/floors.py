"""What the machine allows: the same work without taskflow. Fixed; never tuned."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import msgspec
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from taskflow._core.codec import MsgpackCodec
from taskflow._core.records import Change, Claim, JobSpec, Lane, Room
from taskflow._core.states import Event
from taskflow.drivers.sqlite.claim import claim
from taskflow.drivers.sqlite.clock import SystemClock
from taskflow.drivers.sqlite.connection import Place, Store
from taskflow.drivers.sqlite.enqueue import enqueue
from taskflow.drivers.sqlite.schema import Names
from taskflow.drivers.sqlite.settle import settle
from taskflow.drivers.sqlite.tx import Statements, Tx

from .tasks import Noop


async def slots(count: int, concurrency: int) -> float:
    """Jobs a second of slot tasks that decode a payload and run a body in a cancel scope."""
    data = msgspec.msgpack.encode(Noop())
    decoder = msgspec.msgpack.Decoder(Noop)
    left = count

    async def slot() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            payload = decoder.decode(data)
            with CancelScope():
                await payload.execute()
            await checkpoint()

    began = time.perf_counter()
    async with anyio.create_task_group() as task_group:
        for _ in range(concurrency):
            task_group.start_soon(slot)
    return count / (time.perf_counter() - began)


def transactions(folder: Path, count: int, batch: int) -> float:
    """Jobs a second of a bare loop: claim and settle ``batch`` jobs in one transaction each."""
    names = Names("floor", "floor_dead")
    store = Store(Place(str(folder / f"floor-{batch}.db"), names, SystemClock(), 10.0))
    statements = Statements(names.words)
    payload = MsgpackCodec().encode(Noop())
    specs = [JobSpec(id=f"job-{n}", kind="Noop", payload=payload) for n in range(count)]
    for start in range(0, count, 500):
        _transact(store, statements, lambda tx, part=specs[start : start + 500]: enqueue(tx, part))

    def work(tx: Tx, number: int) -> None:
        request = Claim(
            queues=("default",), rooms={Lane.ASYNC: Room(batch)}, lease=60.0,
            request_id=f"request-{number}", worker_id="floor",
        )  # fmt: skip
        jobs = claim(tx, request).jobs
        settle(tx, [Change(token=j.token, event=Event.COMPLETE, result=b"\xc0") for j in jobs])

    began = time.perf_counter()
    for number in range(count // batch):
        _transact(store, statements, lambda tx, number=number: work(tx, number))
    rate = count / (time.perf_counter() - began)
    store.close()
    return rate


def _transact(store: Store, statements: Statements, work: object) -> None:
    store.begin(writes=True)
    work(Tx(store, statements))  # type: ignore[operator]
    store.commit()
