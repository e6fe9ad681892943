"""Types flow from the task to ``job.result()``; run by mypy and pyright, never executed."""

from __future__ import annotations

from typing import assert_type

from taskflow import (
    App,
    AsyncProcessTask,
    AsyncTask,
    Backoff,
    Job,
    Prepared,
    SyncProcessTask,
    SyncTask,
    task,
)


class Send(AsyncTask[str]):
    queue = "emails"
    max_attempts = 5
    retry_delay = Backoff(base=2, factor=2, cap=600)
    timeout = 30

    to: str
    subject: str = "Hello"

    async def execute(self) -> str:
        return self.to

    def should_retry(self, error: Exception) -> bool:
        return isinstance(error, ConnectionError)

    async def failed(self, error: Exception) -> None: ...


class Thumbnail(SyncTask[bytes]):
    path: str

    def execute(self) -> bytes:
        return b""


class Fft(SyncProcessTask[list[float]]):
    values: list[float]

    def execute(self) -> list[float]:
        return self.values


class Infer(AsyncProcessTask[float]):
    async def execute(self) -> float:
        return 0.0


@task
async def bare(x: int) -> int:
    return x


@task
def plain(x: int) -> str:
    return str(x)


@task(queue="reports", max_attempts=5, timeout=600)
def report(report_id: int, *, title: str = "") -> bytes:
    return b""


@task(process=True)
def crunch(n: int) -> float:
    return float(n)


async def dispatching(app: App[None]) -> None:
    assert_type(await Send(to="a").dispatch(), Job[str])
    assert_type(await (await Send(to="a").dispatch()).result(timeout=10), str)
    assert_type(Send(to="a").on_queue("high").delay(60).retry_after(30), Prepared[str])
    assert_type(await Thumbnail(path="x").options(priority=5).dispatch(), Job[bytes])
    assert_type(await Fft(values=[1.0]).dispatch(), Job[list[float]])
    assert_type(await Infer().dispatch(), Job[float])
    assert_type(await bare(1).dispatch(), Job[int])
    assert_type(await bare(x=1).dispatch(), Job[int])
    assert_type(await plain(1).dispatch(), Job[str])
    assert_type(await report(3, title="x").options(unique="report-3").dispatch(), Job[bytes])
    assert_type(await report.dispatch(report_id=3), Job[bytes])
    assert_type(await crunch(1).dispatch(), Job[float])
    assert_type(await app.dispatch_many([Send(to="a"), Send(to="b")]), list[Job[str]])
    assert_type(app.handle("id", Send), Job[str])


async def refused() -> None:
    Send()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Send(to=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Send("a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Send(to="a").to = "b"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    bare("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
