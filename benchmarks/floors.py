"""What the machine allows: the same work without taskflow. Fixed; compare with nothing else."""

from __future__ import annotations

import time

import anyio
import msgspec
from anyio import CancelScope
from anyio.lowlevel import checkpoint

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
