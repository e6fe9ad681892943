"""From ``jobs:app`` to the App object."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any, Final

import taskflow
from taskflow._cli.errors import FAILURE, CommandError
from taskflow.app import App
from taskflow.config import project_table

__all__ = ("check_backend", "find_app", "find_object")

PACKAGE: Final = Path(taskflow.__file__).parent


def check_backend(name: str) -> None:
    """See that the event loop is installed.

    Raises:
        CommandError: It is not; says how to get it.
    """
    try:
        importlib.import_module(name)
    except ImportError as exc:
        raise CommandError(
            f"backend {name!r} is not installed: pip install 'taskflow-anyio[{name}]', or give "
            "--backend asyncio"
        ) from exc


def find_app(path: str | None, folder: str) -> App[Any]:
    """The app at ``module:attribute``; from TASKFLOW_APP or pyproject.toml when not given.

    Raises:
        CommandError: It cannot be found; says where it was looked for and why not.
    """
    path = path or os.environ.get("TASKFLOW_APP") or project_table().get("app")
    if not path:
        raise CommandError(
            "which app? Give it as in `taskflow run worker jobs:app`, in TASKFLOW_APP, or in "
            "pyproject.toml as [tool.taskflow] app"
        )
    found = find_object(str(path), folder, default="app")
    if not isinstance(found, App):
        raise CommandError(f"{path!r} is of type {type(found).__name__}, not an App")
    return found


def find_object(path: str, folder: str, *, default: str = "") -> Any:
    """What stands at ``module:attribute``; ``default`` is the attribute when the path names none.

    Raises:
        CommandError: It cannot be found; says where it was looked for and why not.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not all(part.isidentifier() for part in module_name.split(".")):
        raise CommandError(f"{path!r} is no path: expected module:attribute, as in jobs:app")
    return _attribute(_module(module_name, folder), attribute or default, path)


def _module(name: str, folder: str) -> Any:
    where = Path(folder).resolve()
    if not where.is_dir():
        raise CommandError(f"--app-dir = {folder!r}: there is no folder {where}")
    # Last, so that nothing in the working directory shadows a library.
    if str(where) not in sys.path:
        sys.path.append(str(where))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(exc.name + ".")):
            raise CommandError(
                f"no module {name!r} in {where}: run this where it is, or give --app-dir"
            ) from exc
        raise _broken(name, exc) from exc
    except (Exception, SystemExit) as exc:
        raise _broken(name, exc) from exc


def _broken(name: str, exc: BaseException) -> CommandError:
    if isinstance(exc, SyntaxError) and exc.filename:
        place = f"{exc.filename}:{exc.lineno}"
    else:
        frames = traceback.extract_tb(exc.__traceback__)
        # The line to mend is the user's, also when taskflow refused what it says.
        theirs = [frame for frame in frames if PACKAGE not in Path(frame.filename).parents]
        last = (theirs or frames)[-1]
        place = f"{last.filename}:{last.lineno}"
    return CommandError(
        f"importing {name!r} failed at {place}: {type(exc).__name__}: {exc}", FAILURE
    )


def _attribute(module: Any, names: str, path: str) -> Any:
    found = module
    for name in names.split("."):
        if not hasattr(found, name):
            near = difflib.get_close_matches(name, dir(found), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise CommandError(f"{path!r}: {module.__name__} has no {name!r}{hint}")
        found = getattr(found, name)
    return found
