"""``taskflow migrate``: what it prints and does, for every kind of store."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskflow.drivers.postgres.schema import MIGRATIONS
from tests.drivers.servers import PostgresServer, program

from ..integration.processes import environment
from .commands import JOBS, side_by_side, taskflow

pytestmark = [pytest.mark.timeout(90), pytest.mark.slow("starts Python several times")]

NEWEST = MIGRATIONS[-1].version
_numbers = itertools.count()


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    """An empty database."""
    return postgres_server.create_database(f"migrate{os.getpid()}_{next(_numbers)}")


def psql(url: str, *words: str, text: str | None = None) -> str:
    command = program("psql")
    assert command is not None
    done = subprocess.run(
        [command, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url, *words], input=text,
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def relations(url: str) -> str:
    return psql(url, "-c", "SELECT count(*) FROM pg_class WHERE relname LIKE 'task%'")


def done(*argv: str, cwd: Path, **env: str) -> list[str]:
    """The lines that a command prints that does what it should."""
    one = taskflow("migrate", *argv, cwd=cwd, env=env, timeout=60)
    assert (one.returncode, one.stderr) == (0, "")
    return one.stdout.splitlines()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_settings_alone_are_enough(backend: str, url: str, tmp_path: Path) -> None:
    env = {"TASKFLOW_URL": url, "TASKFLOW_BACKEND": backend}
    lines = done(cwd=tmp_path, **env)
    assert lines == [f"{url}: applied {one.version} ({one.name})" for one in MIGRATIONS]
    assert done(cwd=tmp_path, **env) == [f"{url}: nothing to do: the schema is at version {NEWEST}"]
    assert list(tmp_path.iterdir()) == []


def test_by_file_by_app_and_by_flag(url: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[tool.taskflow]\npostgres_dsn = "{url}"\n')
    (tmp_path / "jobs.py").write_text(JOBS.replace("App()", f"App({url!r})"))
    assert len(done(cwd=tmp_path)) == len(MIGRATIONS)
    (line,) = done("jobs:app", cwd=tmp_path)
    assert "nothing to do" in line
    flags = ("--url", url, "--postgres-queue-table", "Order.user")
    assert len(done("jobs:app", *flags, cwd=tmp_path)) == len(MIGRATIONS)
    assert psql(url, "-c", 'SELECT count(*) FROM "Order"."user"') == "0"


def test_a_dry_run_prints_what_may_be_run_by_hand(url: str, tmp_path: Path) -> None:
    script = "\n".join(done("--dry-run", cwd=tmp_path, TASKFLOW_URL=url))
    assert relations(url) == "0"
    psql(url, text=script)
    assert done("--dry-run", cwd=tmp_path, TASKFLOW_URL=url) == [
        f"-- {url}: nothing to do: the schema is at version {NEWEST}"
    ]


def test_json(url: str, tmp_path: Path) -> None:
    (line,) = done("--json", "--dry-run", cwd=tmp_path, TASKFLOW_URL=url)
    shown = json.loads(line)
    assert relations(url) == "0"
    assert (shown["store"], shown["version"]) == (url, NEWEST)
    assert [step["name"] for step in shown["steps"]] == [one.name for one in MIGRATIONS]
    assert "CREATE TABLE" in shown["steps"][0]["sql"]
    assert [json.loads(done("--json", cwd=tmp_path, TASKFLOW_URL=url)[0]) for _ in range(2)] == [
        shown,
        {**shown, "steps": []},
    ]


def test_eight_at_once(url: str, tmp_path: Path) -> None:
    commands = [("migrate",)] * 8
    ended = side_by_side(*commands, cwd=tmp_path, env={"TASKFLOW_URL": url}, timeout=80)
    assert {(code, err) for code, _, err in ended} == {(0, "")}
    lines = [line for _, out, _ in ended for line in out.splitlines() if "applied" in line]
    assert sorted(lines) == [f"{url}: applied {one.version} ({one.name})" for one in MIGRATIONS]


def test_a_newer_schema_is_left_alone(url: str, tmp_path: Path) -> None:
    env = {"TASKFLOW_URL": url}
    done(cwd=tmp_path, **env)
    psql(url, "-c", "UPDATE task_queue_schema SET version = 1000 WHERE version = 2")
    (tmp_path / "jobs.py").write_text(JOBS)
    commands = [("migrate",), ("migrate", "--dry-run"), ("run", "worker", "jobs:app")]
    for code, out, err in side_by_side(*commands, cwd=tmp_path, env=env, timeout=60):
        assert (code, out) == (1, "")
        assert err == (
            "taskflow: postgres: the schema is version 1000, this version needs version "
            f"{NEWEST}: upgrade taskflow\n"
        )


@pytest.mark.parametrize("version", [None, 1])
def test_who_needs_a_schema_says_what_to_run(version: int | None, url: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "send.py").write_text(SEND)
    if version is not None:
        done(cwd=tmp_path, TASKFLOW_URL=url)
        psql(url, "-c", f"DELETE FROM task_queue_schema WHERE version > {version}")
    worker = taskflow("run", "worker", "jobs:app", cwd=tmp_path, env={"TASKFLOW_URL": url})
    found = "missing (no table public.task_queue_schema)" if version is None else "version 1"
    says = f"the schema is {found}, this version needs version {NEWEST}: run `taskflow migrate`"
    assert (worker.returncode, worker.stderr) == (1, f"taskflow: postgres: {says}\n")
    sent = subprocess.run(
        [sys.executable, "send.py"], cwd=tmp_path, env=environment(TASKFLOW_URL=url),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (sent.stdout, sent.stderr) == (f"postgres: {says}\n", "")


SEND = """\
import anyio
from jobs import app, hello
from taskflow.errors import DriverError


async def main() -> None:
    try:
        async with app:
            await hello.dispatch(name="you")
    except DriverError as exc:
        print(exc)


anyio.run(main)
"""


# ---- the other stores


@pytest.mark.parametrize("store", ["memory://", "redis://me:hush@127.0.0.1:1/0"])
@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_a_store_without_a_schema(store: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    (line,) = done(*flags, cwd=tmp_path, TASKFLOW_URL=store)
    shown = store.replace("hush", "***")
    assert line.removeprefix("-- ") == f"{shown}: nothing to do: this store has no schema"
    (line,) = done("--json", *flags, cwd=tmp_path, TASKFLOW_URL=store)
    assert json.loads(line) == {"store": shown, "version": None, "steps": []}


def schema_of(file: Path) -> list[str]:
    with sqlite3.connect(file) as conn:
        rows = conn.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
        found = [row[0] for row in rows]
    conn.close()
    return found


@pytest.fixture
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield


@pytest.mark.usefixtures("_in_folder")
def test_a_file(tmp_path: Path) -> None:
    store = "sqlite:///jobs.db"
    script = "\n".join(done("--dry-run", "--url", store, cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert done("--url", store, cwd=tmp_path) == [f"{store}: applied 1 (tables)"]
    before = schema_of(tmp_path / "jobs.db")
    nothing = f"{store}: nothing to do: the schema is at version 1"
    assert done("--url", store, cwd=tmp_path) == [nothing]
    assert done("--url", store, "--dry-run", cwd=tmp_path) == [f"-- {nothing}"]
    by_hand = sqlite3.connect("by_hand.db")
    by_hand.executescript(script)
    by_hand.close()
    assert schema_of(tmp_path / "by_hand.db") == before
    assert done("--url", "sqlite:///by_hand.db", cwd=tmp_path) == [
        "sqlite:///by_hand.db: nothing to do: the schema is at version 1"
    ]


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_a_file_that_will_not_do(flags: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_bytes(b"A diary, and nothing for a worker.\n" * 300)
    one = taskflow("migrate", "--url", "sqlite:///jobs.db", *flags, cwd=tmp_path)
    assert (one.returncode, one.stdout, one.stderr.count("\n")) == (1, "", 1)
    assert "jobs.db: the file is not a database" in one.stderr
    one = taskflow("migrate", "--url", "sqlite:///no/jobs.db", *flags, cwd=tmp_path)
    assert (one.returncode, one.stdout, one.stderr.count("\n")) == (1, "", 1)
    assert "mkdir -p" in one.stderr
