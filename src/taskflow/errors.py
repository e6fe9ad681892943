"""Every exception that taskflow raises, drawn as one tree.

The first level says who has to act; each class keeps its facts as fields and makes its message
from them. All of them pickle and copy, keyword-only fields included::

    TaskflowError
    ├── UsageError                    your code or settings are wrong; never retried by us
    │   ├── UnknownTaskError          kind
    │   ├── DuplicateTaskError        kind, first, second
    │   ├── TaskDefinitionError       task, problem
    │   ├── NoAppError                problem
    │   ├── ConfigError               option, value, problem
    │   ├── IllegalTransitionError    state, event
    │   ├── UnsupportedError          driver, capability
    │   └── JobConflictError          job_id
    ├── PayloadError                  kind, path, problem
    ├── PayloadTooLargeError          kind, size, limit
    ├── DriverError                   the store said no
    │   ├── DriverUnavailableError    surely not applied; may work later
    │   │   └── StoreBusyError        an open transaction holds what this needs
    │   ├── OutcomeUnknownError       perhaps applied; send the very same call again
    │   ├── StoreFullError            the store has no room
    │   ├── StoreRefusedError         the store will not serve us: rights, file, version
    │   ├── StaleLeaseError           somebody else owns the job now
    │   └── SchemaMismatchError       found, expected
    ├── CodecError                    kind, path, problem: stored bytes and type disagree
    └── JobError                      raised by ``Job.result()``
        ├── JobFailedError            the last attempt's error is attached
        ├── JobCancelledError         reason
        ├── JobNotFoundError          job_id
        ├── ResultNotKeptError        job_id
        ├── WorkerLostError           the worker or the child process died under the job
        └── ProcessDiedError          exit code or signal of a process child

``TimeoutError`` is Python's own.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

__all__ = (
    "CodecError",
    "ConfigError",
    "DriverError",
    "DriverUnavailableError",
    "DuplicateTaskError",
    "IllegalTransitionError",
    "JobCancelledError",
    "JobConflictError",
    "JobError",
    "JobFailedError",
    "JobNotFoundError",
    "NoAppError",
    "OutcomeUnknownError",
    "PayloadError",
    "PayloadTooLargeError",
    "ProcessDiedError",
    "ResultNotKeptError",
    "SchemaMismatchError",
    "StaleLeaseError",
    "StoreBusyError",
    "StoreFullError",
    "StoreRefusedError",
    "TaskDefinitionError",
    "TaskflowError",
    "UnknownTaskError",
    "UnsupportedError",
    "UsageError",
    "WorkerLostError",
)


def _rebuild(
    cls: type[TaskflowError], args: tuple[object, ...], fields: dict[str, object]
) -> TaskflowError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(fields)
    return error


class TaskflowError(Exception):
    """The root of all errors of taskflow. Catch it to catch every one of them."""

    retryable: ClassVar[bool] = False
    """Whether the very same call may succeed when it is sent again."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class UsageError(TaskflowError):
    """Code or settings are wrong. Nothing was stored or changed; mend the line that is named."""


class UnknownTaskError(UsageError):
    """No task of this kind is registered here. Import the module that defines it."""

    def __init__(self, *, kind: str) -> None:
        self.kind = kind
        super().__init__(
            f"no task of kind {kind!r} is registered: import the module that defines it, "
            "or list the old name in the task's `aliases`"
        )


class DuplicateTaskError(UsageError):
    """Two tasks claim one kind. Give one of them a ``kind`` of its own."""

    def __init__(self, *, kind: str, first: str, second: str) -> None:
        self.kind, self.first, self.second = kind, first, second
        super().__init__(
            f'kind {kind!r} is taken by {first}; {second} needs another: set `kind = "..."`'
        )


class TaskDefinitionError(UsageError):
    """A task's definition cannot work. Raised when the class or function is defined."""

    def __init__(self, *, task: str, problem: str) -> None:
        self.task, self.problem = task, problem
        super().__init__(f"{task}: {problem}")


class NoAppError(UsageError):
    """``dispatch()`` found no open app, or several. Enter one with ``async with app``."""

    def __init__(self, *, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


class ConfigError(UsageError):
    """A setting is wrong: the message names option, value and remedy."""

    def __init__(self, *, option: str, value: object, problem: str) -> None:
        self.option, self.value, self.problem = option, value, problem
        shown = "" if value is None else f" = {value!r}"
        super().__init__(f"{option}{shown}: {problem}")


class IllegalTransitionError(UsageError):
    """The law of jobs has no such arrow. Nothing changed."""

    def __init__(self, *, state: str | None, event: str) -> None:
        self.state, self.event = state, event
        super().__init__(
            f"a job in state {str(state or 'none')!r} cannot {str(event)!r}: "
            "the law of jobs has no such step"
        )


class UnsupportedError(UsageError):
    """This driver does not declare the capability. Use another driver or do without."""

    def __init__(
        self, *, driver: str, capability: str, remedy: str = "use another driver, or do without"
    ) -> None:
        self.driver, self.capability = driver, capability
        super().__init__(f"the {driver} driver does not support {capability}: {remedy}")


class JobConflictError(UsageError):
    """The id is taken by a job of other content. Nothing was stored; choose another id."""

    def __init__(
        self, *, job_id: str, problem: str = "a job of other content has this id: choose another"
    ) -> None:
        self.job_id, self.problem = job_id, problem
        super().__init__(f"job {job_id!r}: {problem}")


class PayloadError(TaskflowError):
    """A payload is not what the task declares. Nothing was stored; ``path`` names the field."""

    def __init__(self, *, kind: str, path: str, problem: str) -> None:
        self.kind, self.path, self.problem = kind, path, problem
        where = f"{kind}.{path}" if path else kind
        super().__init__(f"{where}: {problem}")


class PayloadTooLargeError(TaskflowError):
    """The encoded payload is over the limit. Nothing was stored; pass a reference instead."""

    def __init__(self, *, kind: str, size: int, limit: int) -> None:
        self.kind, self.size, self.limit = kind, size, limit
        super().__init__(
            f"{kind}: the payload has {size} bytes, the limit is {limit}: store the data "
            "elsewhere and dispatch a reference, or raise `max_payload`"
        )


class DriverError(TaskflowError):
    """The store did not do what was asked. Subclasses say whether it was applied."""

    def __init__(self, *, driver: str, problem: str) -> None:
        self.driver, self.problem = driver, problem
        super().__init__(f"{driver}: {problem}")


class DriverUnavailableError(DriverError):
    """The store could not be reached. The call was surely not applied; try again later."""

    retryable: ClassVar[bool] = True


class StoreBusyError(DriverUnavailableError):
    """Somebody's open transaction holds what this needs: an id, a unique key, a job. Surely not
    applied; try again when that has ended.
    """


class OutcomeUnknownError(DriverError):
    """The reply was lost: the call may have been applied. Send the very same call again."""

    retryable: ClassVar[bool] = True


class StoreFullError(DriverError):
    """The store has no room left. Nothing was stored; make room, draining goes on."""


class StoreRefusedError(DriverError):
    """The store will not serve us (rights, a wrong file, an old server). Mend the store."""


class StaleLeaseError(DriverError):
    """Somebody else owns the job now. The result was dropped."""


class SchemaMismatchError(DriverError):
    """The store's schema is not the one this version needs."""

    def __init__(self, *, driver: str, found: object, expected: object, remedy: str) -> None:
        self.found, self.expected, self.remedy = found, expected, remedy
        super().__init__(
            driver=driver, problem=f"the schema is {found}, this version needs {expected}: {remedy}"
        )


class CodecError(TaskflowError):
    """Stored bytes and the declared type do not agree. The bytes are kept."""

    def __init__(self, *, kind: str, path: str, problem: str) -> None:
        self.kind, self.path, self.problem = kind, path, problem
        where = f"{kind}.{path}" if path else kind
        super().__init__(f"{where}: {problem}")


class JobError(TaskflowError):
    """A job has no result to give. Subclasses say why."""


class JobFailedError(JobError):
    """The job failed for good: its attempts are used up, or the error was final."""

    def __init__(
        self, *, job_id: str, reason: str, type: str, message: str, traceback: str = ""
    ) -> None:
        self.job_id, self.reason = job_id, reason
        self.type, self.message, self.traceback = type, message, traceback
        detail = f": {type}: {message}" if type else ""
        super().__init__(f"job {job_id} failed ({reason}){detail}")


class JobCancelledError(JobError):
    """The job was cancelled before it completed."""

    def __init__(self, *, job_id: str, reason: str) -> None:
        self.job_id, self.reason = job_id, reason
        super().__init__(f"job {job_id} was cancelled ({reason})")


class JobNotFoundError(JobError):
    """The store knows no such job: it never existed, or its retention has run out."""

    def __init__(self, *, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"no job {job_id!r}: it never existed or its retention has run out")


class ResultNotKeptError(JobError):
    """The job completed, but its result was not kept. Raise ``result_ttl``."""

    def __init__(self, *, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"job {job_id} completed; its result is not kept (see `result_ttl`)")


class WorkerLostError(JobError):
    """Workers died under this job as often as they may. Look at its memory and native code."""

    def __init__(self, *, job_id: str, crashes: int) -> None:
        self.job_id, self.crashes = job_id, crashes
        super().__init__(f"job {job_id}: its worker died {crashes} time(s) while it ran")


class ProcessDiedError(JobError):
    """A process child ended in the middle of an attempt. Only that attempt is affected."""

    def __init__(self, *, exit_code: int) -> None:
        self.exit_code = exit_code
        how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        super().__init__(f"the child process died under the job ({how})")

    @classmethod
    def of(cls, exit_code: int | None) -> Self:
        """Make the error from what ``Popen.returncode`` says."""
        return cls(exit_code=0 if exit_code is None else exit_code)
