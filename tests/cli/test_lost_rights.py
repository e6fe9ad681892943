"""A worker whose user loses its rights while it runs: it says so once, goes on trying, and works on
when it has them again; no job is lost.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.redis_server import RedisServer
from tests.drivers.servers import PostgresServer, program

from ..integration.processes import environment, running_worker, terminate, wait_until
from .commands import taskflow

pytestmark = [pytest.mark.timeout(150), pytest.mark.slow("waits until leases end")]

JOBS = """\
import time
from pathlib import Path

from taskflow import App, task

app = App(lease=2)


@task
def held(name: str) -> None:
    Path(f"{name}.begun").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    with Path(name).open("a") as file:
        file.write("run ")
"""
SEND = """\
import sys

from jobs import app, held

with app.sync() as blocking:
    for name in sys.argv[1:]:
        blocking.dispatch(held(name=name))
"""
RIGHTS = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lost"
REFUSALS = 8
"""So many calls are refused before the rights come back."""


def send(folder: Path, url: str, *names: str, **env: str) -> None:
    subprocess.run(
        [sys.executable, "send.py", *names], cwd=folder, env=environment(TASKFLOW_URL=url, **env),
        check=True, timeout=60,
    )  # fmt: skip


def live_through(
    folder: Path, url: str, backend: str, *, take: Callable[[], object],
    refused: Callable[[], int], give: Callable[[], object], owner: str, **env: str,
) -> None:  # fmt: skip
    """The rights go while a job runs and another is to come, and return."""
    (folder / "jobs.py").write_text(JOBS)
    (folder / "send.py").write_text(SEND)
    log = folder / "log"
    flags = ("--backend", backend, "--concurrency", "2")
    with running_worker("jobs:app", *flags, log=log, TASKFLOW_URL=url, **env) as worker:
        send(folder, owner, "first", **env)
        wait_until((folder / "first.begun").exists, 60, "the first job runs")
        before = refused()
        take()
        send(folder, owner, "second", **env)
        (folder / "go").touch()
        wait_until(lambda: refused() >= before + REFUSALS, 60, "the worker is refused")
        assert not (folder / "second").exists()
        give()
        for name in ("first", "second"):
            wait_until((folder / name).exists, 60, f"the {name} job has run")
        wait_until(lambda: "refuses no more" in log.read_text(), 60, "it says that it works")
        assert terminate(worker, 60) == 0
    text = log.read_text()
    assert "Traceback" not in text
    loud = [line for line in text.splitlines() if re.search(" (ERROR|WARNING) ", line)]
    refusals = [line for line in loud if "the store refuses, trying again" in line]
    assert len(refusals) == 1
    assert sum("leases could not be renewed" in line for line in loud) <= 1
    # Of the others none repeats the refusal: they tell of settings and of leases that ended.
    assert sum("permission" in line for line in loud) <= 2, text


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_on_postgres(backend: str, postgres_server: PostgresServer, tmp_path: Path) -> None:
    owner = postgres_server.create_database(f"lost{os.getpid()}_{backend}")
    psql = program("psql")
    assert psql is not None

    def sql(text: str) -> None:
        command = [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", owner, "-c", text]
        subprocess.run(command, check=True, timeout=60)

    def refused() -> int:
        return (
            (postgres_server.folder / "log").read_text(errors="replace").count("permission denied")
        )

    role = f"lost_{os.getpid()}_{backend}"
    env = {"TASKFLOW_POSTGRES_QUEUE_TABLE": "lost.task_queue"}
    assert taskflow("migrate", "--url", owner, cwd=tmp_path, env=env).returncode == 0
    sql(
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA lost TO {role}; GRANT {RIGHTS} TO {role};"
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA lost TO {role}"
    )
    live_through(
        tmp_path, owner.replace("postgres@", f"{role}@"), backend, refused=refused, owner=owner,
        take=lambda: sql(f"REVOKE {RIGHTS} FROM {role}"),
        give=lambda: sql(f"GRANT {RIGHTS} TO {role}"), **env,
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_on_redis(backend: str, redis_server: RedisServer, tmp_path: Path) -> None:
    command = program("redis-cli")
    assert command is not None

    def cli(*words: str) -> str:
        return subprocess.run(
            [command, "-e", "-p", str(redis_server.port), *words], check=True, timeout=60,
            capture_output=True, text=True,
        ).stdout  # fmt: skip

    def refused() -> int:
        found = re.search(r"errorstat_NOPERM:count=(\d+)", cli("INFO", "errorstats"))
        return int(found[1]) if found else 0

    user = f"lost_{backend}"
    cli("ACL", "SETUSER", user, "on", "nopass", "~{lost}*", "&{lost}*", "+@all")
    live_through(
        tmp_path, redis_server.url.replace("//", f"//{user}:any@"), backend, refused=refused,
        owner=redis_server.url, take=lambda: cli("ACL", "SETUSER", user, "-evalsha"),
        give=lambda: cli("ACL", "SETUSER", user, "+evalsha"),
        TASKFLOW_REDIS_NAMESPACE="lost",
    )  # fmt: skip
    cli("ACL", "DELUSER", user)
