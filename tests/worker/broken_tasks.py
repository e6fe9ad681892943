"""Tasks of a module that cannot be imported in a process child."""

from __future__ import annotations

import os
import sys

from taskflow import SyncProcessTask

if os.environ.get("BROKEN_TASKS") == str(os.getppid()):
    sys.exit("not in a child")


class Unloadable(SyncProcessTask[None]):
    kind = "child.Unloadable"
    max_attempts = 1

    def execute(self) -> None:
        raise AssertionError("the child cannot have imported this")
