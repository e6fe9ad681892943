"""A worker in the test's own event loop, on the memory driver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest

from taskflow import App, Worker

RunWorker = Callable[..., AbstractAsyncContextManager[Worker]]


@asynccontextmanager
async def open_worker(app: App[Any], **options: Any) -> AsyncIterator[Worker]:
    """Run a worker until the block is left, then stop it in order."""
    worker = Worker(app, **{"queues": ("default",), "grace": 5.0, **options})
    async with anyio.create_task_group() as task_group:
        await task_group.start(worker.run)
        yield worker
        worker.stop()


@pytest.fixture
def run_worker() -> RunWorker:
    return open_worker


@pytest.fixture
async def app() -> AsyncIterator[App[Any]]:
    async with App("memory://", lease=2, cancel_grace=0.5) as opened:
        yield opened
