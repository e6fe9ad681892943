"""Whatever is wrong: one line that names it and the remedy, an exit code, and nothing touched."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from taskflow import App

from .commands import JOBS, side_by_side, taskflow

FAILURE, USAGE = 1, 2


@dataclass(frozen=True)
class Case:
    """``argv`` follows ``taskflow run worker`` unless it is ``whole``."""

    argv: tuple[str, ...] = ("jobs:app",)
    code: int = USAGE
    says: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    before: Callable[[Path], None] | None = None


def store(url: str) -> tuple[str, ...]:
    return ("jobs:app", "--url", url)


def make_folder(folder: Path) -> None:
    (folder / "jobs.db").mkdir()


def make_newer(folder: Path) -> None:
    """A store whose tables a later version made."""

    async def make() -> None:
        async with App(f"sqlite:///{folder / 'jobs.db'}"):
            pass

    anyio.run(make)
    with sqlite3.connect(folder / "jobs.db") as conn:
        conn.execute("UPDATE taskflow_jobs_schema SET version = 1000")
    conn.close()


def table(text: str) -> dict[str, str]:
    return {"pyproject.toml": f"[tool.taskflow]\n{text}\n"}


APPS = {
    "no app": Case((), says=("which app", "TASKFLOW_APP", "pyproject.toml")),
    "no path": Case(("jobs app",), says=("'jobs app'", "module:attribute")),
    "no module": Case(("nonesuch:app",), says=("'nonesuch'", "--app-dir")),
    "no module inside": Case(("jobs.more:app",), says=("'jobs.more'", "--app-dir")),
    "no attribute": Case(("jobs:ap",), says=("'jobs:ap'", "did you mean 'app'")),
    "not an app": Case(("jobs:text",), says=("'jobs:text'", "str", "not an App")),
    "not an app, by variable": Case(
        (), env={"TASKFLOW_APP": "jobs:text"}, says=("'jobs:text'", "str")
    ),
    "not an app, by file": Case((), files=table('app = "jobs:text"'), says=("'jobs:text'", "str")),
    "no folder": Case(("jobs:app", "--app-dir", "nowhere"), says=("--app-dir", "nowhere")),
    "syntax error": Case(
        ("broken:app",), FAILURE, ("broken.py:2", "SyntaxError"), files={"broken.py": "\ndef f(:"}
    ),
    "error at import": Case(
        ("broken:app",), FAILURE, ("broken.py:1", "ZeroDivisionError"), files={"broken.py": "1 / 0"}
    ),
    "missing library": Case(
        ("broken:app",), FAILURE, ("broken.py:1", "nonesuch"),
        files={"broken.py": "import nonesuch"},
    ),
    "a script": Case(
        ("broken:app",), FAILURE, ("broken.py:1", "SystemExit"),
        files={"broken.py": "raise SystemExit(0)"},
    ),
    "two tasks of one kind": Case(
        ("broken:app",), FAILURE, ("broken.py:5", "'hello'", "kind"),
        files={
            "broken.py": "from jobs import app\nfrom taskflow import task\n\n\n"
            "@task\ndef hello() -> None: ..."
        },
    ),
}  # fmt: skip

STORES = {
    "no folder": Case(store("sqlite:///no/jobs.db"), FAILURE, ("no/jobs.db", "mkdir -p")),
    "a folder": Case(
        store("sqlite:///jobs.db"), FAILURE, ("jobs.db", "is a folder"), before=make_folder
    ),
    "nowhere to write": Case(
        store("sqlite:////proc/jobs.db"), FAILURE, ("/proc/jobs.db", "may write there")
    ),
    "not a database": Case(
        store("sqlite:///jobs.db"), FAILURE, ("jobs.db", "not a database", "name another file"),
        files={"jobs.db": b"A diary, and nothing for a worker.\n" * 300},
    ),
    "newer tables": Case(
        store("sqlite:///jobs.db"), FAILURE, ("1000", "upgrade taskflow"), before=make_newer
    ),
    "memory": Case(store("memory://"), says=("memory://", "another process", "sqlite:///")),
    "memory by name": Case(store("memory://jobs"), says=("memory://jobs", "sqlite:///")),
    "memory, two processes": Case(
        (*store("memory://"), "--processes", "2"), says=("memory://", "sqlite:///")
    ),
    "no driver": Case(
        store("carrier://me:hush@pigeon/1"), says=("--url", "carrier", "sqlite://", "me:***@")
    ),
    "no scheme": Case(store("jobs.db"), says=("--url", "jobs.db", "sqlite://")),
    "no file": Case(store("sqlite://"), says=("url", "sqlite:///relative.db")),
    "not a table": Case(
        ("jobs:app", "--sqlite-queue-table", "a b"), says=("sqlite_queue_table", "'a b'", "letter")
    ),
    "url and driver": Case(
        env={"TASKFLOW_URL": "sqlite:///jobs.db", "TASKFLOW_DRIVER": "memory"},
        says=("TASKFLOW_DRIVER", "TASKFLOW_URL", "one of the two"),
    ),
    "two stores": Case(
        env={
            "TASKFLOW_POSTGRES_DSN": "postgresql://me:hush@host/db",
            "TASKFLOW_SQLITE_QUEUE_TABLE": "work",
        },
        says=("TASKFLOW_POSTGRES_DSN", "TASKFLOW_SQLITE_QUEUE_TABLE", "TASKFLOW_URL", "DRIVER"),
    ),
    "another store's dsn": Case(
        env={"TASKFLOW_POSTGRES_DSN": "redis://me:hush@host"},
        says=("TASKFLOW_POSTGRES_DSN", "postgresql://", "me:***@host"),
    ),
}  # fmt: skip

VALUES = {
    "flag, unknown": Case(("jobs:app", "--leese", "3"), says=("--leese", "--lease")),
    "flag, a word": Case(("jobs:app", "--lease", "long"), says=("--lease", "'long'", "at least 2")),
    "flag, too small": Case(("jobs:app", "--lease", "1"), says=("--lease", "'1'", "at least 2")),
    "flag, no integer": Case(("jobs:app", "--threads", "1.5"), says=("--threads", "whole number")),
    "flag, backend": Case(("jobs:app", "--backend", "curio"), says=("--backend", "asyncio, trio")),
    "flag, empty": Case(("jobs:app", "--default-queue", ""), says=("--default-queue", "text")),
    "variable, unknown": Case(
        env={"TASKFLOW_CONCURENCY": "3"}, says=("TASKFLOW_CONCURENCY", "mean TASKFLOW_CONCURRENCY")
    ),
    "variable, unlike any": Case(env={"TASKFLOW_QQQ": "3"}, says=("TASKFLOW_QQQ", "remove it")),
    "variable, retries": Case(
        env={"TASKFLOW_MAX_RETRIES": "3"}, says=("TASKFLOW_MAX_RETRIES", "use max_attempts")
    ),
    "variable, a word": Case(
        env={"TASKFLOW_GRACE": "25s"}, says=("TASKFLOW_GRACE", "'25s'", "number of at least 0")
    ),
    "variable, choice": Case(env={"TASKFLOW_STALL": "sit"}, says=("TASKFLOW_STALL", "exit, log")),
    "variable, backend": Case(
        env={"TASKFLOW_BACKEND": "curio"}, says=("TASKFLOW_BACKEND", "asyncio, trio")
    ),
    "file, unknown": Case(files=table("leese = 3"), says=("pyproject.toml", "leese", "mean lease")),
    "file, a word": Case(files=table('lease = "x"'), says=("pyproject.toml", "lease", "seconds")),
    "file, wrong type": Case(files=table("queues = 3"), says=("pyproject.toml", "queues", "commas")),
    "file, no toml": Case(files=table("lease ="), says=("pyproject.toml", "line 2")),
    "file, no table": Case(
        files={"pyproject.toml": "[tool]\ntaskflow = 3"}, says=("pyproject.toml", "no table")
    ),
    "backend not installed": Case(
        ("jobs:app", "--backend", "trio"), files={"trio.py": "raise ImportError"},
        env={"PYTHONPATH": "."}, says=("'trio'", "pip install", "--backend asyncio"),
    ),
}  # fmt: skip

CASES = {
    f"{group}: {name}": case
    for group, cases in {"app": APPS, "store": STORES, "value": VALUES}.items()
    for name, case in cases.items()
}

MANY_LINES = {"store: memory, two processes"}
"""Each process of them says so."""
NOT_OURS = {"value: flag, unknown"}
"""The parser's own errors, before ``--verbose`` is known."""


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.slow("starts Python twice")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", CASES)
def test_one_line_and_an_exit_code(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    (tmp_path / "jobs.py").write_text(JOBS)
    for file, text in case.files.items():
        (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    if case.before is not None:
        case.before(tmp_path)
    untouched = contents(tmp_path)
    argv = ("run", "worker", *case.argv)
    (code, out, err), (loud_code, _, loud) = side_by_side(
        argv, (*argv, "--verbose"), cwd=tmp_path, env=case.env, timeout=40
    )
    assert (code, out) == (case.code, ""), err
    lines = [line for line in err.splitlines() if line.startswith("taskflow: ")]
    if name not in MANY_LINES:
        assert len(lines) == 1
        assert err == lines[0] + "\n"
    for words in case.says:
        assert words in lines[-1]
    assert "hush" not in err + loud
    assert "Traceback" not in err
    assert loud_code == code
    assert ("Traceback" in loud) is (name not in NOT_OURS)
    assert loud.endswith(lines[-1] + "\n")
    assert contents(tmp_path) == untouched


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("walk",), "No such command 'walk'"),
        (("run", "wrker"), "Did you mean 'worker'?"),
        (("run", "worker", "jobs:app", "more"), "unexpected extra argument"),
        (("run", "worker", "jobs:app", "--lease"), "--lease"),
        (("run", "demo", "--backend", "curio"), "'asyncio', 'trio'"),
    ],
)
def test_wrong_command_lines(argv: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = taskflow(*argv, cwd=tmp_path)
    assert done.returncode == USAGE
    assert done.stderr.startswith("taskflow: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    assert "--help`" in done.stderr


@pytest.mark.timeout(30)
def test_stored_text_does_not_steer_the_terminal(tmp_path: Path) -> None:
    done = taskflow("run", "worker", "jobs\x1b[31m:app", cwd=tmp_path)
    assert done.returncode == USAGE
    assert "\x1b" not in done.stderr
