"""Every error keeps its facts as fields, survives pickling, and says what to do."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
from itertools import takewhile
from typing import Any

import pytest

from taskflow import errors
from taskflow._core.outcomes import ControlFlow, Discard, Retry, Snooze
from taskflow._core.states import Event, JobState
from taskflow.errors import DriverError, JobError, ProcessDiedError, TaskflowError, UsageError

TREE = """
TaskflowError
    UsageError
        UnknownTaskError
        DuplicateTaskError
        TaskDefinitionError
        NoAppError
        ConfigError
        IllegalTransitionError
        UnsupportedError
        JobConflictError
    PayloadError
    PayloadTooLargeError
    DriverError
        DriverUnavailableError
            StoreBusyError
        OutcomeUnknownError
        StoreFullError
        StoreRefusedError
        StaleLeaseError
        SchemaMismatchError
    CodecError
    JobError
        JobFailedError
        JobCancelledError
        JobNotFoundError
        ResultNotKeptError
        WorkerLostError
        ProcessDiedError
"""

STORE = {"driver": "sqlite", "problem": "jobs.db: disk full, make room"}
FIELDS: dict[str, dict[str, Any]] = {
    "TaskflowError": {},
    "UsageError": {},
    "UnknownTaskError": {"kind": "SendEmail"},
    "DuplicateTaskError": {"kind": "SendEmail", "first": "a:SendEmail", "second": "b:SendEmail"},
    "TaskDefinitionError": {"task": "SendEmail", "problem": "rename the field 'queue'"},
    "NoAppError": {"problem": "no app is open: enter one"},
    "ConfigError": {"option": "lease", "value": 1, "problem": "expected at least 2"},
    "IllegalTransitionError": {"state": JobState.RUNNING, "event": Event.CLAIM},
    "UnsupportedError": {"driver": "sqs", "capability": "fetch"},
    "JobConflictError": {"job_id": "j-1", "problem": "taken: choose another"},
    "PayloadError": {"kind": "SendEmail", "path": "to[0]", "problem": "expected str"},
    "PayloadTooLargeError": {"kind": "SendEmail", "size": 2_000_001, "limit": 1_000_001},
    "DriverError": STORE,
    "DriverUnavailableError": STORE,
    "StoreBusyError": STORE,
    "OutcomeUnknownError": STORE,
    "StoreFullError": STORE,
    "StoreRefusedError": STORE,
    "StaleLeaseError": STORE,
    "SchemaMismatchError": {
        "driver": "sqlite", "found": "v3", "expected": "v4", "remedy": "run `taskflow migrate`",
    },
    "CodecError": {"kind": "SendEmail", "path": "to", "problem": "expected str, got int"},
    "JobError": {},
    "JobFailedError": {
        "job_id": "j-1", "reason": "exhausted", "type": "ValueError", "message": "no such user",
        "traceback": "Traceback ...",
    },
    "JobCancelledError": {"job_id": "j-1", "reason": "replaced"},
    "JobNotFoundError": {"job_id": "j-1"},
    "ResultNotKeptError": {"job_id": "j-1"},
    "WorkerLostError": {"job_id": "j-1", "crashes": 4},
    "ProcessDiedError": {"exit_code": 13},
}  # fmt: skip

REMEDIES = {
    "UnknownTaskError": "import the module",
    "DuplicateTaskError": 'set `kind = "..."`',
    "IllegalTransitionError": "the law of jobs",
    "UnsupportedError": "use another driver",
    "PayloadTooLargeError": "raise `max_payload`",
    "SchemaMismatchError": "taskflow migrate",
    "JobNotFoundError": "retention",
    "ResultNotKeptError": "`result_ttl`",
}
"""What the message says to do, where the class and not its caller knows."""

UNSHOWN = {("JobFailedError", "traceback")}
NAMES = sorted(FIELDS)


def make(name: str) -> TaskflowError:
    error = getattr(errors, name)(**FIELDS[name])
    assert isinstance(error, TaskflowError)
    return error


def tree() -> dict[str, str | None]:
    """Each class of the drawing and the one it hangs under."""
    parents: dict[str, str | None] = {}
    above: list[str] = []
    for line in TREE.strip("\n").split("\n"):
        depth = len(list(takewhile(str.isspace, line))) // 4
        above[depth:] = [line.strip()]
        parents[line.strip()] = above[depth - 1] if depth else None
    return parents


def test_the_tree_is_as_drawn() -> None:
    parents = tree()
    assert set(parents) == set(errors.__all__) == set(FIELDS)
    for name, parent in parents.items():
        bases = getattr(errors, name).__bases__
        assert bases == ((getattr(errors, parent),) if parent else (Exception,))
        assert name in (errors.__doc__ or "")


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_kept(name: str) -> None:
    error = make(name)
    for field, value in FIELDS[name].items():
        if (name, field) != ("SchemaMismatchError", "problem"):
            assert getattr(error, field) == value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_errors_pickle(name: str, protocol: int) -> None:
    error = make(name)
    error.add_note("while testing")
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is type(error)
    assert (str(back), back.args, vars(back)) == (str(error), error.args, vars(error))
    assert back.__notes__ == ["while testing"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_errors_copy(name: str, duplicate: Any) -> None:
    error = make(name)
    twin = duplicate(error)
    assert twin is not error
    assert type(twin) is type(error)
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize("name", NAMES)
def test_the_message_names_every_fact_and_the_remedy(name: str) -> None:
    text = str(make(name))
    for field, value in FIELDS[name].items():
        if (name, field) not in UNSHOWN:
            assert str(value) in text, f"{field} is missing in {text!r}"
    assert "<" not in text, "a repr of an object where its text was meant"
    assert REMEDIES.get(name, "") in text


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_keyword_only_and_docstrings_say_what_is_true_after(name: str) -> None:
    cls = getattr(errors, name)
    assert inspect.getdoc(cls)
    if FIELDS[name]:
        with pytest.raises(TypeError):
            cls(*FIELDS[name].values())


def test_only_what_may_succeed_when_sent_again_is_retryable() -> None:
    retryable = {name for name in NAMES if getattr(errors, name).retryable}
    assert retryable == {"DriverUnavailableError", "OutcomeUnknownError", "StoreBusyError"}


def test_a_path_that_is_unknown_leaves_no_trace() -> None:
    assert str(errors.PayloadError(kind="K", path="", problem="bad")) == "K: bad"
    assert str(errors.CodecError(kind="K", path="", problem="bad")) == "K: bad"
    assert str(errors.ConfigError(option="eta", value=None, problem="bad")) == "eta: bad"
    assert "'none'" in str(errors.IllegalTransitionError(state=None, event=Event.CLAIM))


def test_a_job_conflict_says_what_to_do_when_nobody_else_does() -> None:
    assert str(errors.JobConflictError(job_id="j-1")).endswith("choose another")


@pytest.mark.parametrize(("code", "text"), [(-9, "signal 9"), (3, "exit code 3"), (None, "code 0")])
def test_a_dead_process_is_told_by_signal_or_code(code: int | None, text: str) -> None:
    assert text in str(ProcessDiedError.of(code))


@pytest.mark.parametrize("error", [Snooze(60), Retry(after=10), Retry(), Discard("why")])
def test_control_flow_pickles_and_is_no_error_of_ours(error: ControlFlow) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert vars(twin) == vars(error)
    assert not isinstance(error, TaskflowError)


def test_who_has_to_act_is_told_by_the_first_level() -> None:
    groups = {UsageError, DriverError, JobError}
    for name in NAMES:
        cls = getattr(errors, name)
        assert sum(issubclass(cls, group) for group in groups) <= 1


def test_every_raise_of_ours_fills_the_fields_by_name() -> None:
    """No class is raised with a bare message anywhere in its own module."""
    module = ast.parse(inspect.getsource(errors))
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            assert not node.args.args[1:], f"line {node.lineno}: positional arguments"
