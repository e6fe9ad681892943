"""The file, the writer thread and the errors of the SQLite driver."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from taskflow._core.records import MICRO, Accepted, Renewal
from taskflow._core.states import JobState
from taskflow.drivers.sqlite import SqliteDriver
from taskflow.errors import (
    ConfigError,
    DriverUnavailableError,
    SchemaMismatchError,
    StoreFullError,
    StoreRefusedError,
    UsageError,
)

from .sqlite_kit import claim, claim_one, ids, opened, record, spec, start

pytestmark = pytest.mark.anyio


async def _refusal(path: Path) -> str:
    driver = SqliteDriver(path)
    with pytest.raises(StoreRefusedError) as caught:
        await driver.open()
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "mkdir" in await _refusal(tmp_path / "none" / "jobs.db")


async def test_a_folder_in_the_files_place(tmp_path: Path) -> None:
    assert "is a folder" in await _refusal(tmp_path)


async def test_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.write_bytes(b"something else " * 100)
    assert "not a database" in await _refusal(path)


async def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    assert "write" in await _refusal(Path("/proc/jobs.db"))


async def test_a_folder_in_the_place_of_the_turn_file(tmp_path: Path) -> None:
    (tmp_path / "jobs.db-turn").mkdir()
    assert "rights" in await _refusal(tmp_path / "jobs.db")


async def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path):
        pass
    with sqlite3.connect(path) as conn:
        conn.execute("UPDATE taskflow_jobs_schema SET version = 99")
    conn.close()
    with pytest.raises(SchemaMismatchError, match="upgrade taskflow") as caught:
        await SqliteDriver(path).open()
    assert (caught.value.found, caught.value.expected) == (99, 1)


async def test_a_foreign_table_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE taskflow_jobs (x)")
    conn.close()
    assert "already exists" in await _refusal(path)


@pytest.mark.parametrize(
    "options",
    [
        {"queue_table": 'jobs"; DROP TABLE x'},
        {"queue_table": ""},
        {"queue_table": "1jobs"},
        {"queue_table": "j" * 42},
        {"queue_table": "sqlite_jobs"},
        {"dead_letter_table": "jobs\n"},
        {"dead_letter_table": "TASKFLOW_JOBS"},
        {"dead_letter_table": "taskflow_jobs_finished"},
    ],
)
def test_table_names_are_plain_words(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        SqliteDriver(tmp_path / "jobs.db", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b"])
def test_a_path_names_a_file(path: str) -> None:
    with pytest.raises(ConfigError):
        SqliteDriver(path)


async def test_tables_of_other_names_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with (
        opened(path) as one,
        opened(path, queue_table="order", dead_letter_table="select") as other,
    ):
        await one.enqueue([spec("a")])
        assert not (await claim(other)).jobs
        assert ids(await claim(one)) == ["a"]


async def test_a_foreign_writer_makes_it_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path, busy_timeout=0.1) as driver:
        conn = sqlite3.connect(path, isolation_level=None)
        conn.execute("BEGIN IMMEDIATE")
        with pytest.raises(DriverUnavailableError):
            await driver.enqueue([spec("a")])
        conn.execute("ROLLBACK")
        conn.close()
        assert (await driver.enqueue([spec("a")]))[0].verdict is Accepted.ACCEPTED


async def test_a_full_store_says_so_and_drains(tmp_path: Path) -> None:
    async with opened(tmp_path / "jobs.db") as driver:
        await driver.enqueue([spec("a")])
        writer = driver._opened

        def limit(tx: Any) -> None:
            pages = tx.run("PRAGMA page_count").fetchone()[0]
            tx.run(f"PRAGMA max_page_count = {pages}")

        await writer.call(limit)
        async with anyio.create_task_group() as group:
            # Together with one that needs no room: that one is served.
            group.start_soon(claim_one, driver)
            with pytest.raises(StoreFullError):
                await driver.enqueue([spec("big", tags={"x": "y" * 100_000})])
        assert (await record(driver, "a")).state is JobState.RUNNING


async def test_a_file_that_was_replaced_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as driver:
        path.rename(tmp_path / "moved.db")
        with pytest.raises(StoreRefusedError, match="replaced"):
            await driver.expire(1)
        (tmp_path / "moved.db").rename(path)
        assert await driver.expire(1) == []


async def test_closed_is_closed_and_may_be_opened_again(tmp_path: Path) -> None:
    driver = SqliteDriver(tmp_path / "jobs.db")
    for _ in range(2):
        with pytest.raises(DriverUnavailableError):
            await driver.expire(1)
        await driver.open()
        with pytest.raises(UsageError):
            await driver.open()
        assert await driver.expire(1) == []
        await driver.aclose()
        await driver.aclose()
    assert not [t for t in threading.enumerate() if t.name == "taskflow-sqlite"]
    assert not (tmp_path / "jobs.db-wal").exists()
    assert driver.redacted == f"sqlite:///{tmp_path / 'jobs.db'}"


async def test_calls_under_way_end_with_an_error_at_close(tmp_path: Path) -> None:
    driver = SqliteDriver(tmp_path / "jobs.db")
    await driver.open()
    writer = driver._opened
    gate = threading.Event()
    failed: list[Exception] = []

    async def late() -> None:
        try:
            await driver.expire(1)
        except DriverUnavailableError as exc:
            failed.append(exc)

    async with anyio.create_task_group() as group:
        group.start_soon(writer.call, lambda _: gate.wait(5))
        await anyio.sleep(0.05)
        group.start_soon(late)
        await anyio.sleep(0.05)
        group.start_soon(driver.aclose)
        await anyio.sleep(0.05)
        gate.set()
    assert len(failed) == 1


async def test_twins_share_one_writer_and_renewals_go_first(tmp_path: Path) -> None:
    async with opened(tmp_path / "jobs.db") as driver:
        await driver.enqueue([spec("a")])
        job = await claim_one(driver)
        twin = driver.twin()
        await twin.open()
        assert twin._opened is driver._opened
        gate = threading.Event()
        seen: list[int] = []

        def look(tx: Any) -> None:
            seen.append(tx.run("SELECT lease_until - ? FROM {jobs}", (tx.uptime,)).fetchone()[0])

        async with anyio.create_task_group() as group:
            group.start_soon(driver._opened.call, lambda _: gate.wait(5))
            await anyio.sleep(0.05)
            group.start_soon(driver._opened.call, look)
            await anyio.sleep(0.05)
            group.start_soon(twin.extend, [Renewal(job.token)], 600)
            await anyio.sleep(0.05)
            gate.set()
        assert seen[0] > 500 * MICRO
        await driver.aclose()
        assert await twin.expire(1) == []
        await twin.aclose()


async def test_twin_on_another_loop(tmp_path: Path, anyio_backend: str) -> None:
    async with opened(tmp_path / "jobs.db") as driver:
        await driver.enqueue([spec("a")])
        twin = driver.twin()
        found: list[str] = []

        async def elsewhere() -> None:
            await twin.open()
            found.extend(ids(await claim(twin)))
            await twin.aclose()

        await anyio.to_thread.run_sync(lambda: anyio.run(elsewhere, backend=anyio_backend))
        assert found == ["a"]


async def test_one_failing_operation_undoes_only_itself(tmp_path: Path) -> None:
    async with opened(tmp_path / "jobs.db") as driver:
        writer = driver._opened
        gate = threading.Event()
        outcomes: dict[str, object] = {}

        def spoil(tx: Any) -> None:
            tx.run("DELETE FROM {jobs}")
            tx.run("INSERT INTO {results} VALUES ('no number', NULL)")

        async def run(name: str, work: Any) -> None:
            try:
                outcomes[name] = await work()
            except StoreRefusedError as exc:
                outcomes[name] = exc

        async with anyio.create_task_group() as group:
            group.start_soon(writer.call, lambda _: gate.wait(5))
            await anyio.sleep(0.05)
            group.start_soon(run, "one", lambda: driver.enqueue([spec("a")]))
            await anyio.sleep(0.02)
            group.start_soon(run, "bad", lambda: writer.call(spoil))
            await anyio.sleep(0.02)
            group.start_soon(run, "two", lambda: driver.enqueue([spec("b")]))
            await anyio.sleep(0.02)
            gate.set()
        assert isinstance(outcomes["bad"], StoreRefusedError)
        assert ids(await claim(driver)) == ["a", "b"]


async def test_a_caller_that_leaves_is_not_served(tmp_path: Path) -> None:
    async with opened(tmp_path / "jobs.db") as driver:
        await driver.enqueue([spec("a")])
        gate = threading.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(driver._opened.call, lambda _: gate.wait(5))
            await anyio.sleep(0.05)
            with anyio.move_on_after(0.05):
                await claim(driver)
            gate.set()
        assert ids(await claim(driver)) == ["a"]


async def test_a_lease_of_another_boot_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as driver:
        await driver.enqueue([spec("a")])
        await claim(driver, lease=3600)
    with sqlite3.connect(path) as conn:
        conn.execute("UPDATE taskflow_jobs SET boot = 'the one before'")
    conn.close()
    async with opened(path) as driver:
        assert await driver.expire(10) == ["a"]


async def test_a_forked_child_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path / "jobs.db") as driver:
        writer = driver._opened
        writer._pid += 1  # as the child sees it
        with pytest.raises(StoreRefusedError, match="fork"):
            await driver.expire(1)
        writer._pid -= 1


async def test_many_processes_create_and_write_at_once(tmp_path: Path) -> None:
    program = """
async def main(path, name):
    async with opened(path) as driver:
        for n in range(20):
            await driver.enqueue([spec(f"{name}-{n}")])
anyio.run(main, Path(sys.argv[1]), sys.argv[2])
"""
    path = tmp_path / "jobs.db"
    children = [start(program, path, name) for name in ("a", "b", "c")]
    for child in children:
        await anyio.to_thread.run_sync(child.communicate)
        assert child.returncode == 0
    async with opened(path) as driver:
        assert len((await claim(driver, 100)).jobs) == 60


async def test_kill_in_the_middle_leaves_whole_jobs(tmp_path: Path) -> None:
    program = """
async def main(path):
    async with opened(path) as driver:
        print("ready", flush=True)
        n = 0
        while True:
            n += 1
            await driver.enqueue([spec(f"{n}-{k}") for k in range(50)])
            for job in (await claim(driver, 20)).jobs:
                await settle(driver, job, Event.COMPLETE, result=b"r")
anyio.run(main, Path(sys.argv[1]))
"""
    for pause in (0.1, 0.23, 0.31):
        path = tmp_path / f"{pause}.db"
        child = start(program, path)
        assert child.stdout is not None
        child.stdout.readline()
        await anyio.sleep(pause)
        child.kill()
        await anyio.to_thread.run_sync(child.communicate)
        _check_whole(path)


def _check_whole(path: Path) -> None:
    conn = sqlite3.connect(path)
    try:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (finished,) = conn.execute("SELECT count(*) FROM taskflow_jobs_finished").fetchone()
        (results,) = conn.execute("SELECT count(*) FROM taskflow_jobs_results").fetchone()
        (live,) = conn.execute("SELECT count(*) FROM taskflow_jobs").fetchone()
        assert finished == results
        assert (finished + live) % 50 == 0
        both = "SELECT count(*) FROM taskflow_jobs JOIN taskflow_jobs_finished USING (id)"
        assert conn.execute(both).fetchone() == (0,)
    finally:
        conn.close()


async def test_check_is_quiet_on_a_local_disk(tmp_path: Path) -> None:
    async with opened(tmp_path / "jobs.db") as driver:
        assert list(await driver.check()) == []
