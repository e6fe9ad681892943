"""One clear line for every error that has a remedy.

Exit codes: 0 done, 1 a failure (the store cannot be used, a module cannot be imported, a body was
left behind at shutdown), 2 wrong usage (flags, settings, an app that is not there), 70 a stalled
event loop, 130 interrupted before there was anything to finish.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from taskflow.errors import TaskflowError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("USAGE", "CommandError", "parsing", "plain", "reporting")

FAILURE: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


class CommandError(Exception):
    """What the command line itself has to say; ``code`` is its exit code."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        self.code = code
        super().__init__(message)


@contextmanager
def parsing() -> Iterator[None]:
    """Say what is wrong with a command line in one line, too."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except click.UsageError as exc:
        command = exc.ctx.command_path if exc.ctx else "taskflow"
        _say(f"{exc.format_message()} See `{command} --help`.")
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)


@contextmanager
def reporting(verbose: bool) -> Iterator[None]:
    """Turn errors into a line on stderr and an exit code; anything unknown keeps its traceback."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILURE)
    except Exception as exc:
        cause = _single(exc)
        if not isinstance(cause, TaskflowError | CommandError):
            raise
        if verbose:
            traceback.print_exception(exc)
        _say(str(cause))
        code = cause.code if isinstance(cause, CommandError) else None
        sys.exit(code or (USAGE if isinstance(cause, UsageError) else FAILURE))


def _say(message: str) -> None:
    print(f"taskflow: {plain(message)}", file=sys.stderr)


def _single(exc: BaseException) -> BaseException:
    """The one error inside nested groups of one."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def plain(text: str) -> str:
    """Text on one line, without control characters."""
    return "".join(char if char.isprintable() else " " for char in text)
