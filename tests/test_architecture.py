"""The laws of the house that no linter knows."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import taskflow

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "taskflow"
MODULES = sorted(SRC.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

MAX_FILE = 500
MAX_FUNCTION = 50
NAMELESS = {"utils", "util", "helpers", "helper", "common", "base", "misc", "tools", "shared"}
OPTIONAL = {
    "redis", "asyncpg", "aiomysql", "aiobotocore", "trio", "rich", "click", "pytest", "hypothesis",
}  # fmt: skip
ASYNCIO_DRIVERS = {"redis", "_redis", "postgres", "mysql", "sqs"}

PUBLIC = """
    App AsyncProcessTask AsyncTask Backoff Config Conflict Context Discard ErrorInfo Job JobRecord
    JobState Lane Page Prepared Progress QueueStats Retry Snooze SyncProcessTask SyncTask TaskFunction Unique
    Worker configure current task
"""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path) -> Iterator[str]:
    """The first part of every absolute import, wherever in the file it stands."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]


def exported(module: ast.Module) -> set[str] | None:
    """What ``__all__`` names; ``None`` without one."""
    for node in module.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, ast.Assign)
            return set(ast.literal_eval(node.value))
    return None


def is_overload(node: Definition) -> bool:
    return any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in node.decorator_list)


def definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Public functions and classes with their public methods and inner classes."""
    for node in body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            if is_overload(node):
                continue
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node.body, f"{prefix}{node.name}.")


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_something_to_look_at() -> None:
    assert len(MODULES) > 60
    assert len(TESTS) > 15
    assert SRC / "_core" / "states.py" in MODULES


def test_files_are_short() -> None:
    sizes = {name_of(path): len(path.read_text().splitlines()) for path in (*MODULES, *TESTS)}
    assert {name: size for name, size in sizes.items() if size > MAX_FILE} == {}


def test_functions_are_short() -> None:
    long = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path in (*MODULES, *TESTS)
        for node in ast.walk(parsed(path))
        if isinstance(node, FUNCTIONS) and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION
    ]
    assert long == []


def test_modules_are_named_after_what_they_do() -> None:
    parts = {part.strip("_") for path in MODULES for part in path.relative_to(SRC).parts}
    assert {part.removesuffix(".py") for part in parts} & NAMELESS == set()


def test_every_module_says_what_it_is_for_and_what_it_gives() -> None:
    for path in MODULES:
        module = parsed(path)
        assert ast.get_docstring(module), name_of(path)
        private = path.stem == "__main__" or (
            path.stem == "__init__" and path.parent.name.startswith("_")
        )
        assert exported(module) is not None or private, f"{name_of(path)} has no __all__"


def test_what_all_names_is_there_once() -> None:
    for path in MODULES:
        module = parsed(path)
        names = exported(module) or set()
        bound = {name for node in module.body for name in _bound(node)}
        assert names <= bound, f"{name_of(path)}: {names - bound} in __all__ is not there"


def _bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.If)):
        yield from (
            inner.id
            for inner in ast.walk(node)
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
        )


def test_everything_public_has_a_docstring() -> None:
    silent = []
    for path in MODULES:
        module = parsed(path)
        public = exported(module) or set()
        silent += [
            f"{name_of(path)}:{node.lineno} {name}"
            for name, node in definitions(module.body)
            if name.partition(".")[0] in public and not ast.get_docstring(node)
        ]
    assert silent == []


def test_only_the_bridge_and_asyncio_drivers_know_asyncio() -> None:
    def may(path: Path) -> bool:
        place = path.relative_to(SRC)
        if place.parts[0] == "drivers":
            return place.parts[1].removesuffix(".py") in ASYNCIO_DRIVERS
        return place == Path("_bridge.py")

    assert [name_of(p) for p in MODULES if "asyncio" in set(imports(p)) and not may(p)] == []
    assert "asyncio" in set(imports(SRC / "_bridge.py"))


@pytest.mark.parametrize("module", ["pickle", "cloudpickle", "dill", "marshal", "shelve"])
def test_nothing_that_runs_code_on_reading_is_imported(module: str) -> None:
    assert [name_of(path) for path in MODULES if module in set(imports(path))] == []


def test_only_the_command_line_prints() -> None:
    printing = {
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        if SRC / "_cli" not in path.parents
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    }
    assert printing == set()


@pytest.mark.parametrize(
    "module", ["taskflow", "taskflow.worker", "taskflow.abc", "taskflow.drivers"]
)
def test_importing_loads_nothing_optional(module: str) -> None:
    loaded = run(f"import sys, {module}; print(*(name.partition('.')[0] for name in sys.modules))")
    assert "taskflow" in loaded.split()
    assert set(loaded.split()) & OPTIONAL == set()


def test_importing_has_no_side_effects() -> None:
    """No thread, no handler, no file: a library that is imported has done nothing yet."""
    code = (
        "import threading, logging, os; before = set(os.listdir('.'));"
        "import taskflow, taskflow.worker;"
        "print(threading.active_count(), len(logging.getLogger().handlers),"
        "len(logging.getLogger('taskflow').handlers), set(os.listdir('.')) - before)"
    )
    assert run(code).strip() == "1 0 0 set()"


def test_the_front_door_is_exactly_this() -> None:
    """A name that goes in here stays: this list is a promise."""
    assert sorted(taskflow.__all__) == sorted(PUBLIC.split())
    assert len(set(taskflow.__all__)) == len(taskflow.__all__)
    module = run(
        "import sys, taskflow; print(*(n for n in vars(taskflow) if n[0] != '_'"
        " and f'taskflow.{n}' not in sys.modules))"
    )
    assert set(module.split()) | {"task"} == set(PUBLIC.split())


def test_the_front_door_holds_no_code() -> None:
    module = parsed(SRC / "__init__.py")
    kinds = {type(node) for node in module.body[1:]}
    assert kinds <= {ast.ImportFrom, ast.Assign}


def test_all_that_is_exported_is_what_it_was_defined_as() -> None:
    for name in taskflow.__all__:
        assert getattr(taskflow, name) is not None
    assert callable(taskflow.task), "the decorator, not the module of the same name"
