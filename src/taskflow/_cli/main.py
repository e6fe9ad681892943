"""The commands and what they share."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import TYPE_CHECKING, Any

import anyio
import click

from taskflow._cli.errors import parsing, reporting
from taskflow._cli.flags import given_flags, store_flags, worker_flags
from taskflow._cli.loading import check_backend, find_app
from taskflow._cli.output import banner, set_up_logging
from taskflow._cli.supervisor import Supervisor, follow_supervisor
from taskflow.worker import Worker

if TYPE_CHECKING:
    from taskflow.app import App
    from taskflow.config import Config

__all__ = ("main",)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(importlib.metadata.version("taskflow-anyio"), prog_name="taskflow")
def cli() -> None:
    """Typed background jobs under structured concurrency."""


@cli.group()
def run() -> None:
    """Run a worker or the demo."""


@run.command()
@click.argument("app", required=False)
@click.option("--app-dir", default=".", show_default=True, help="Where APP is imported from.")
@click.option("-v", "--verbose", is_flag=True, help="More log lines, and tracebacks of errors.")
@worker_flags
def worker(app: str | None, app_dir: str, verbose: bool, **flags: Any) -> None:
    """Run a worker for APP, as in `jobs:app`.

    APP may stand in TASKFLOW_APP or in [tool.taskflow] app of pyproject.toml. Every option may
    stand in an environment variable TASKFLOW_<NAME> or in [tool.taskflow].
    """
    with reporting(verbose):
        set_up_logging(verbose)
        follow_supervisor()
        found = find_app(app, app_dir)
        chosen = given_flags(flags)
        config = found.resolve(chosen)
        check_backend(config.backend)
        if config.processes > 1:
            sys.exit(anyio.run(Supervisor(config.processes).run, backend=config.backend))
        one = Worker(found, handle_signals=True, flags=chosen)
        anyio.run(_work, found, one, config, backend=config.backend)
        sys.exit(one.exit_code)


async def _work(app: App[Any], one: Worker, config: Config) -> None:
    """Run the worker; say what it is once it is up, so that a failure is one line."""
    async with anyio.create_task_group() as task_group:
        await task_group.start(one.run)
        banner(config, app.port.driver.redacted)


@run.command()
@click.option("--backend", type=click.Choice(["asyncio", "trio"]), default="asyncio",
              show_default=True, help="The event loop to run on.")  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Tracebacks of errors.")
def demo(backend: str, verbose: bool) -> None:
    """Dispatch some twenty jobs, work them off on SQLite and print the results."""
    from taskflow._cli.demo import run_demo

    with reporting(verbose):
        check_backend(backend)
        sys.exit(run_demo(backend))


@cli.command()
@click.argument("app", required=False)
@click.option("--app-dir", default=".", show_default=True, help="Where APP is imported from.")
@click.option("--dry-run", is_flag=True, help="Print the SQL that would run; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done for programs.")
@click.option("-v", "--verbose", is_flag=True, help="Tracebacks of errors.")
@store_flags
def migrate(
    app: str | None, app_dir: str, dry_run: bool, as_json: bool, verbose: bool, **flags: Any
) -> None:
    """Create or upgrade the tables of a store.

    The store is that of APP, as in `jobs:app`, or of the settings when no app is named. May be run
    by many at once, and again after it was killed.
    """
    from taskflow._cli import migrating

    with reporting(verbose):
        migrating.migrate(app, app_dir, given_flags(flags), dry_run=dry_run, as_json=as_json)


@cli.group()
def driver() -> None:
    """Tools for authors of drivers."""


@driver.command()
@click.argument("path", metavar="MODULE:FUNCTION")
@click.option("--app-dir", default=".", show_default=True, help="Where the module is.")
@click.option("--level", type=click.Choice(["storage", "full"]), default="full",
              show_default=True, help="Level 1 only, or by declared capabilities.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Replays the same programs.")
@click.option("--backend", type=click.Choice(["asyncio", "trio"]), default="asyncio",
              show_default=True, help="The event loop to run on.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report for programs.")
@click.option("-v", "--verbose", is_flag=True, help="Tracebacks of errors.")
def check(
    path: str, app_dir: str, level: str, seed: int, backend: str, as_json: bool, verbose: bool
) -> None:
    """Hold a driver to the contract.

    MODULE:FUNCTION takes a clock and returns an async context manager around an open driver on an
    empty store. Needs the extra `testing`.
    """
    from taskflow._cli import driver_check

    with reporting(verbose):
        sys.exit(
            driver_check.check(
                path,
                app_dir,
                level=level,
                seed=seed,
                backend=backend,
                as_json=as_json,
                verbose=verbose,
            )
        )


def main() -> None:
    """The entry point of ``taskflow`` and ``python -m taskflow``."""
    with parsing():
        sys.exit(cli.main(standalone_mode=False))
