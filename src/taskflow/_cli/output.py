"""What people see: logging and the banner."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.logging import RichHandler

from taskflow._cli.errors import plain
from taskflow._core.records import Lane
from taskflow._core.registry import registry

if TYPE_CHECKING:
    from taskflow.config import Config

__all__ = ("banner", "set_up_logging")


class _OneLine(logging.Formatter):
    """Plain lines; stored text cannot steer the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = "\n".join(plain(line) for line in record.getMessage().splitlines())
        return super().formatMessage(record)


def set_up_logging(verbose: bool) -> None:
    """Log to stderr: by rich on a terminal, in plain lines elsewhere."""
    handler: logging.Handler
    if sys.stderr.isatty():
        console = Console(stderr=True)
        handler = RichHandler(console=console, markup=False, show_path=False)
        handler.setFormatter(_OneLine("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("taskflow").setLevel(logging.DEBUG if verbose else logging.INFO)


def banner(config: Config, store: str) -> None:
    """Say what this worker is."""
    lanes = {
        Lane.ASYNC: config.concurrency,
        Lane.THREAD: min(config.threads or config.concurrency, config.concurrency),
        Lane.PROCESS: min(config.process_slots or os.cpu_count() or 1, config.concurrency),
    }
    tasks = sorted(registry, key=lambda definition: definition.kind)
    used = {definition.lane for definition in tasks} | {Lane.ASYNC}
    shown = ", ".join(f"{lane} {size}" for lane, size in lanes.items() if lane in used)
    queues = ", ".join(config.queues) or f"{config.default_queue}, then all others"
    out = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    out.print(f"taskflow worker on {config.backend}, {store}")
    out.print(f"  queues  {queues}")
    out.print(f"  lanes   {shown}; {config.concurrency} jobs at one time")
    out.print(f"  lease   {config.lease:g} s; grace {config.grace:g} s")
    out.print(f"  tasks   {', '.join(d.kind for d in tasks) or 'none: is the module imported?'}")
    for definition in tasks:
        if definition.lane is Lane.THREAD and definition.options.timeout:
            out.print(
                f"  note    {definition.kind} has a timeout, but a thread can only be asked to "
                "stop; use a process task to be sure"
            )
