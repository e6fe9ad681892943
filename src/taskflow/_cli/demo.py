"""``taskflow run demo``: dispatch, work off and show, in one go."""

from __future__ import annotations

import logging
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
from rich.console import Console
from rich.live import Live
from rich.table import Table

from taskflow import App, Job, JobRecord, JobState, Worker
from taskflow._cli import demo_tasks as tasks
from taskflow._cli.errors import plain
from taskflow._core.states import FINAL
from taskflow.errors import JobFailedError

__all__ = ("run_demo",)

LIMIT: Final = 30.0
"""Seconds after which the demo gives up."""


def run_demo(backend: str) -> int:
    """Run it; the exit code is 0 when every job ended as it should."""
    logging.getLogger("taskflow").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="taskflow-demo-") as folder:
        url = f"sqlite:///{Path(folder) / 'demo.db'}"
        return anyio.run(partial(_demo, url, backend), backend=backend)


def _chosen() -> list[Any]:
    some: list[Any] = [tasks.Fetch(name=name) for name in ("a page", "a picture", "a song")]
    some += [tasks.Hash(text=text) for text in ("one", "two", "three")]
    some += [tasks.Primes(below=below) for below in (10_000, 30_000, 50_000)]
    some += [tasks.Count(to=to) for to in (10, 20)]
    some += [tasks.square(x) for x in range(4)]
    some += [tasks.shout(text) for text in ("hello", "world")]
    return [*some, tasks.Flaky(), tasks.Hopeless(), tasks.Later().delay(1.0)]


async def _demo(url: str, backend: str) -> int:
    console = Console(highlight=False)
    async with App(url, lease=10, concurrency=8, process_slots=2) as app:
        jobs: list[Job[Any]] = await app.dispatch_many(_chosen())
        console.print(f"{len(jobs)} jobs on SQLite, one worker on {backend}", markup=False)
        worker = Worker(app)
        async with anyio.create_task_group() as task_group:
            await task_group.start(worker.run)
            with anyio.move_on_after(LIMIT):
                await _watch(app, jobs, console)
            worker.stop()
        records = await _records(app, jobs)
        results = [await _result(job, record) for job, record in zip(jobs, records, strict=True)]
    console.print(_table(records, results))
    return 0 if all(_is_expected(record) for record in records) else 1


async def _records(app: App[Any], jobs: list[Job[Any]]) -> list[JobRecord]:
    fetched = await app.port.fetch([job.id for job in jobs])
    return [one.record for one in fetched if one is not None]


async def _watch(app: App[Any], jobs: list[Job[Any]], console: Console) -> None:
    """Show what changes until all have ended: live on a terminal, by lines elsewhere."""
    seen: dict[str, str] = {}
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while True:
            records = await _records(app, jobs)
            if console.is_terminal:
                live.update(_table(records, [""] * len(records)), refresh=True)
            else:
                _print_changes(records, seen, console)
            if all(record.state in FINAL for record in records):
                return
            await anyio.sleep(0.1)


def _print_changes(records: list[JobRecord], seen: dict[str, str], console: Console) -> None:
    for record in records:
        if record.state in FINAL and seen.get(record.id) != record.state:
            seen[record.id] = record.state
            console.print(f"{record.kind} {record.state}", markup=False)


async def _result(job: Job[Any], record: JobRecord) -> str:
    if record.state not in FINAL:
        return "did not end"
    try:
        return plain(str(await job.result(timeout=0)))
    except JobFailedError as exc:
        return plain(f"{exc.type}: {exc.message}")


def _table(records: list[JobRecord], results: list[str]) -> Table:
    table = Table("task", "lane", "state", "attempts", "result or error")
    for record, result in zip(records, results, strict=True):
        progress = record.progress
        note = result or (f"{progress.fraction:.0%} {progress.note}" if progress else "")
        table.add_row(record.kind, record.lane, record.state, str(record.attempt), note)
    return table


def _is_expected(record: JobRecord) -> bool:
    wanted = JobState.FAILED if record.kind == "Hopeless" else JobState.COMPLETED
    return record.state is wanted
