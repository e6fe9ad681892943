"""One clear line for every error that has a remedy; exit code 1 for failures, 2 for wrong usage."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from taskflow.errors import TaskflowError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("CommandError", "plain", "reporting")

FAILURE: Final = 1
USAGE: Final = 2


class CommandError(Exception):
    """What the command line itself has to say; ``code`` is its exit code."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        self.code = code
        super().__init__(message)


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
        print(f"taskflow: {plain(str(cause))}", file=sys.stderr)
        code = cause.code if isinstance(cause, CommandError) else None
        sys.exit(code or (USAGE if isinstance(cause, UsageError) else FAILURE))


def _single(exc: BaseException) -> BaseException:
    """The one error inside nested groups of one."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def plain(text: str) -> str:
    """Text on one line, without control characters."""
    return "".join(char if char.isprintable() else " " for char in text)
