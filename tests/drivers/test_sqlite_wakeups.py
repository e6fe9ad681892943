"""Waiting: told within the process and from other processes, and never busy."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from taskflow._core.records import Lane, Wait, Wake
from taskflow._core.states import Event
from taskflow.drivers.sqlite import SqliteDriver, waits
from taskflow.errors import DriverUnavailableError

from .sqlite_kit import claim_one, opened, settle, spec, stall, start, until

pytestmark = pytest.mark.anyio

LONG = 8.0


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[SqliteDriver]:
    async with opened(tmp_path / "jobs.db") as driver:
        yield driver


async def _while_waiting(driver: SqliteDriver, request: Wait, act: Any) -> Wake:
    found: list[Wake] = []

    async def wait() -> None:
        found.append(await driver.wait(request))

    began = time.monotonic()
    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.sleep(0.1)
        await act()
    assert time.monotonic() - began < LONG / 2
    return found[0]


async def test_nothing_happens(driver: SqliteDriver) -> None:
    assert await driver.wait(Wait(queues=("default",), timeout=0.05)) == Wake()


async def test_what_is_there_already(driver: SqliteDriver) -> None:
    await driver.enqueue([spec("a"), spec("later", queue="other", delay=60)])
    assert (await driver.wait(Wait(queues=("default",), timeout=LONG))).work
    assert (await driver.wait(Wait(others=True, timeout=LONG))).work
    threads = frozenset({Lane.THREAD})
    assert await driver.wait(Wait(others=True, lanes=threads, timeout=0.05)) == Wake()
    job = await claim_one(driver)
    assert await driver.wait(Wait(others=True, timeout=0)) == Wake()
    await driver.cancel(["a"])
    assert (await driver.wait(Wait(worker_id="worker", timeout=LONG))).cancels
    known = Wait(worker_id="worker", cancelling=frozenset({"a"}), timeout=0.05)
    assert await driver.wait(known) == Wake()
    await settle(driver, job, Event.COMPLETE)
    await driver.enqueue([spec("b")])
    wake = await driver.wait(Wait(ids=frozenset({"a", "b", "unknown"}), timeout=LONG))
    assert wake.finals == {"a", "unknown"}


async def test_told_by_a_twin(driver: SqliteDriver) -> None:
    twin = driver.twin()
    await twin.open()
    request = Wait(queues=("default",), worker_id="worker", timeout=LONG)
    wake = await _while_waiting(driver, request, lambda: twin.enqueue([spec("a")]))
    assert wake == Wake(work=True)
    job = await claim_one(twin)
    wake = await _while_waiting(driver, request, lambda: twin.cancel(["a"]))
    assert wake == Wake(cancels=True)
    request = Wait(ids=frozenset({"a"}), timeout=LONG)
    wake = await _while_waiting(driver, request, lambda: settle(twin, job, Event.CANCEL))
    assert wake == Wake(finals=frozenset({"a"}))
    await twin.aclose()


async def test_told_by_another_driver_on_the_file(tmp_path: Path, driver: SqliteDriver) -> None:
    async with opened(tmp_path / "jobs.db") as other:
        request = Wait(queues=("default",), timeout=LONG)
        wake = await _while_waiting(driver, request, lambda: other.enqueue([spec("a")]))
        assert wake.work


async def test_long_paths_and_other_processes(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120) / ("y" * 120)
    folder.mkdir(parents=True)
    program = """
async def main(path):
    async with opened(path) as driver:
        for line in sys.stdin:
            await driver.enqueue([spec(line.strip())])
            print(time.time(), flush=True)
import time
anyio.run(main, Path(sys.argv[1]))
"""
    async with opened(folder / "jobs.db") as driver:
        child = start(program, folder / "jobs.db")
        assert child.stdin is not None
        assert child.stdout is not None

        async def send() -> None:
            assert child.stdin is not None
            child.stdin.write("a\n")
            child.stdin.flush()

        wake = await _while_waiting(driver, Wait(queues=("default",), timeout=LONG), send)
        woken = time.time()
        assert wake.work
        told = float(await anyio.to_thread.run_sync(child.stdout.readline))
        assert woken - told < 0.5
        await anyio.to_thread.run_sync(child.communicate)


async def test_many_waits_share_one_mailbox(tmp_path: Path, driver: SqliteDriver) -> None:
    found: list[int] = []

    async def wait(n: int) -> None:
        wake = await driver.wait(Wait(queues=(f"q{n}",), timeout=LONG))
        assert wake.work
        found.append(n)

    async with opened(tmp_path / "jobs.db") as other, anyio.create_task_group() as group:
        for n in range(5):
            group.start_soon(wait, n)
        await anyio.sleep(0.1)
        assert len(list((tmp_path / "jobs.db-wake").iterdir())) == 1
        for n in range(5):  # the leader leaves first, each next one takes over
            await other.enqueue([spec(f"j{n}", queue=f"q{n}")])
            with anyio.fail_after(2):
                await until(lambda: len(found) > n)  # noqa: B023 - awaited at once
    assert found == [0, 1, 2, 3, 4]


async def test_a_cancelled_leader_hands_over(tmp_path: Path, driver: SqliteDriver) -> None:
    async with opened(tmp_path / "jobs.db") as other, anyio.create_task_group() as group:
        leader = anyio.CancelScope()

        async def lead() -> None:
            with leader:
                await driver.wait(Wait(queues=("none",), timeout=LONG))

        group.start_soon(lead)
        await anyio.sleep(0.05)

        async def act() -> None:
            leader.cancel()
            await anyio.sleep(0.05)
            await other.enqueue([spec("a")])

        assert (await _while_waiting(driver, Wait(queues=("default",), timeout=LONG), act)).work


async def test_close_ends_waits_and_removes_the_mailbox(tmp_path: Path) -> None:
    driver = SqliteDriver(tmp_path / "jobs.db")
    await driver.open()
    errors: list[Exception] = []

    async def wait() -> None:
        try:
            await driver.wait(Wait(queues=("default",), timeout=LONG))
        except DriverUnavailableError as exc:
            errors.append(exc)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        group.start_soon(wait)
        await anyio.sleep(0.1)
        await driver.aclose()
    assert len(errors) == 2
    assert list((tmp_path / "jobs.db-wake").iterdir()) == []


async def test_sockets_of_the_dead_are_removed(tmp_path: Path, driver: SqliteDriver) -> None:
    folder = tmp_path / "jobs.db-wake"
    folder.mkdir()
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    stale.bind(str(folder / "stale"))
    stale.close()
    await driver.enqueue([spec("a")])
    with anyio.fail_after(2):
        await until(lambda: not list(folder.iterdir()))


async def test_a_flood_of_hints_loses_nobody(tmp_path: Path, driver: SqliteDriver) -> None:
    async with opened(tmp_path / "jobs.db") as other:

        async def act() -> None:
            for n in range(30):
                await other.enqueue([spec(f"j{n}", queue="noise")])
            await other.enqueue([spec("a")])

        async def blocked() -> None:
            await act()
            stall(0.1)  # the reader does not get its turn

        request = Wait(queues=("default",), timeout=LONG)
        assert (await _while_waiting(driver, request, blocked)).work


async def test_without_mailboxes_it_polls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "has_mailboxes", lambda: False)
    async with opened(tmp_path / "jobs.db") as driver, opened(tmp_path / "jobs.db") as other:
        request = Wait(queues=("default",), timeout=LONG)
        assert (await _while_waiting(driver, request, lambda: other.enqueue([spec("a")]))).work


async def test_garbage_in_the_mailbox_is_a_hint_to_look(
    tmp_path: Path, driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's address holds 107 bytes

    async def act() -> None:
        (name,) = os.listdir("jobs.db-wake")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            for data in (b"", b"\xff", b"\x93\x01\x02\x03"):
                sender.sendto(data, f"jobs.db-wake/{name}")
        await anyio.sleep(0.05)
        await driver.enqueue([spec("a")])

    assert (await _while_waiting(driver, Wait(queues=("default",), timeout=LONG), act)).work


async def test_waiting_costs_next_to_nothing(driver: SqliteDriver) -> None:
    began = time.process_time()
    await driver.wait(Wait(queues=("default",), timeout=1))
    assert time.process_time() - began < 0.1
