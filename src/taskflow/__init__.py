"""Typed background jobs under structured concurrency, on asyncio and trio.

Declare a task as a Struct with an ``execute`` method, dispatch it from any AnyIO program, and run
``taskflow run worker``. The front door: everything here is re-exported, nothing is defined.
"""

from taskflow._core.outcomes import Discard, Retry, Snooze
from taskflow._core.records import Conflict, ErrorInfo, JobRecord, Lane, Progress, Unique
from taskflow._core.retry import Backoff
from taskflow._core.states import JobState
from taskflow.app import App
from taskflow.config import Config, configure
from taskflow.context import Context, current
from taskflow.job import Job, Prepared
from taskflow.managing import Page, QueueStats
from taskflow.task import (
    AsyncProcessTask,
    AsyncTask,
    SyncProcessTask,
    SyncTask,
    TaskFunction,
    task,
)
from taskflow.worker import Worker

__all__ = (
    "App",
    "AsyncProcessTask",
    "AsyncTask",
    "Backoff",
    "Config",
    "Conflict",
    "Context",
    "Discard",
    "ErrorInfo",
    "Job",
    "JobRecord",
    "JobState",
    "Lane",
    "Page",
    "Prepared",
    "Progress",
    "QueueStats",
    "Retry",
    "Snooze",
    "SyncProcessTask",
    "SyncTask",
    "TaskFunction",
    "Unique",
    "Worker",
    "configure",
    "current",
    "task",
)
