"""What cannot work is refused with its class, field and remedy, before anything is stored."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextvars import Context
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import anyio
import anyio.to_thread
import pytest

from taskflow import App, AsyncTask, Backoff, JobState, SyncTask, Unique, task
from taskflow.errors import (
    ConfigError,
    DuplicateTaskError,
    NoAppError,
    PayloadError,
    PayloadTooLargeError,
    TaskDefinitionError,
)

pytestmark = pytest.mark.anyio


class Paid(AsyncTask[None]):
    n: int = 0
    who: uuid.UUID | None = None
    anything: Any = None
    items: tuple[int, ...] = ()

    async def execute(self) -> None: ...


@task
def counted(n: int, text: str = "") -> None: ...


def paid(**fields: Any) -> Any:
    return Paid(**fields)


def options(**given: Any) -> Any:
    return Paid().options(**given)


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def endless() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


NOW = datetime.now(UTC)
SURVIVE = "does not survive encoding as its declared type"
Refusal = tuple[Callable[[], Any], type[Exception], tuple[str, ...]]

PAYLOADS: dict[str, Refusal] = {
    "text for int": (lambda: paid(n="x"), PayloadError, ("Paid.n", "`int`", "`str`")),
    "none for int": (lambda: paid(n=None), PayloadError, ("Paid.n", "`int`")),
    "bool for int": (lambda: paid(n=True), PayloadError, ("Paid.n", "`int`", "`bool`")),
    "float for int": (lambda: paid(n=1.0), PayloadError, ("Paid.n", "`int`", "`float`")),
    "inside a tuple": (lambda: paid(items=(1, "x")), PayloadError, ("Paid.items[1]", "`int`")),
    "list for tuple": (lambda: paid(items=[1]), PayloadError, ("Paid.items", SURVIVE)),
    "text for uuid": (lambda: paid(who=str(uuid.uuid4())), PayloadError, ("Paid.who", SURVIVE)),
    "no uuid": (lambda: paid(who="me"), PayloadError, ("Paid.who", "UUID")),
    "beyond 64 bit": (lambda: paid(n=2**64), PayloadError, ("Paid.n", "64 bit", "use str")),
    "below 64 bit": (lambda: paid(n=-(2**63) - 1), PayloadError, ("Paid.n", "64 bit")),
    "big under Any": (lambda: paid(anything=[2**70]), PayloadError, ("Paid.anything", "64 bit")),
    "set under Any": (lambda: paid(anything={1}), PayloadError, ("Paid.anything", SURVIVE)),
    "tuple under Any": (lambda: paid(anything=(1,)), PayloadError, ("Paid.anything", SURVIVE)),
    "Decimal under Any": (
        lambda: paid(anything=Decimal(1)), PayloadError, ("Paid.anything", SURVIVE)
    ),
    "no encoding": (lambda: paid(anything=object()), PayloadError, ("Paid.anything", "object")),
    "surrogate": (lambda: paid(anything="\ud800"), PayloadError, ("Paid.anything", "surrogate")),
    "surrogate in a key": (
        lambda: paid(anything={"\udfff": 1}), PayloadError, ("Paid.anything", "surrogate")
    ),
    "deep": (lambda: paid(anything=nested(5000)), PayloadError, ("Paid.anything", "deep")),
    "endless": (lambda: paid(anything=endless()), PayloadError, ("Paid.anything", "deep")),
    "large": (
        lambda: paid(anything="x" * (1 << 20)), PayloadTooLargeError, ("Paid", "max_payload")
    ),
    "function, text for int": (
        lambda: counted(n="x"), PayloadError, ("counted.n", "`int`")  # type: ignore[arg-type]
    ),
    "function, surrogate": (
        lambda: counted(1, "\ud800"), PayloadError, ("counted.text", "surrogate")
    ),
    "function, too few": (lambda: counted(), TypeError, ("'n'",)),  # type: ignore[call-arg]
    "unknown field": (lambda: paid(m=1), TypeError, ("'m'",)),
}  # fmt: skip

OPTIONS: dict[str, Refusal] = {
    "naive eta": (lambda: options(eta=NOW.replace(tzinfo=None)), ConfigError, ("eta", "time zone")),
    "eta as text": (lambda: options(eta="tomorrow"), ConfigError, ("eta", "datetime.now(UTC)")),
    "eta and delay": (
        lambda: Paid().delay(1).options(eta=NOW), ConfigError, ("eta", "delay", "not both")
    ),
    "delay below 0": (lambda: Paid().delay(-1), ConfigError, ("delay = -1", "seconds")),
    "delay below 0, timedelta": (
        lambda: Paid().delay(timedelta(seconds=-1)), ConfigError, ("delay", "not negative")
    ),
    "delay, nan": (lambda: Paid().delay(float("nan")), ConfigError, ("delay = nan", "seconds")),
    "priority, high": (lambda: options(priority=101), ConfigError, ("priority = 101", "-100 to")),
    "priority, low": (lambda: options(priority=-101), ConfigError, ("priority", "-100 to 100")),
    "priority, bool": (lambda: options(priority=True), ConfigError, ("priority", "-100 to 100")),
    "priority, float": (lambda: options(priority=0.5), ConfigError, ("priority", "-100 to 100")),
    "no attempts": (lambda: options(max_attempts=0), ConfigError, ("max_attempts = 0", "first")),
    "attempts, float": (lambda: options(max_attempts=2.0), ConfigError, ("max_attempts", "whole")),
    "attempts, many": (
        lambda: options(max_attempts=2**31), ConfigError, ("max_attempts", "at most 2147483647")
    ),
    "timeout 0": (lambda: options(timeout=0), ConfigError, ("timeout", "None for no limit")),
    "timeout below 0": (lambda: options(timeout=-1), ConfigError, ("timeout = -1", "seconds")),
    "timeout, text": (lambda: options(timeout="1"), ConfigError, ("timeout = '1'", "seconds")),
    "expires_in below 0": (lambda: options(expires_in=-1), ConfigError, ("expires_in", "seconds")),
    "result_ttl below 0": (lambda: options(result_ttl=-1), ConfigError, ("result_ttl", "seconds")),
    "retry_after below 0": (
        lambda: Paid().retry_after(-1), ConfigError, ("retry_delay = -1", "seconds")
    ),
    "tags, numbers": (lambda: options(tags={"a": 1}), ConfigError, ("tags", "text to text")),
    "tags, list": (lambda: options(tags=["a"]), ConfigError, ("tags", "mapping")),
    "tags, surrogate": (lambda: options(tags={"a": "\ud800"}), ConfigError, ("tags", "surrogates")),
    "tags, NUL": (lambda: options(tags={"\0": ""}), ConfigError, ("tags", "NUL")),
    "unique, empty": (lambda: options(unique=""), ConfigError, ("unique = ''", "a key")),
    "unique, number": (lambda: options(unique=3), ConfigError, ("unique = 3", "a key")),
    "unique, surrogate": (
        lambda: options(unique="\ud800"), ConfigError, ("unique", "surrogates")
    ),
    "unique, final state": (
        lambda: options(unique=Unique("a", (JobState.COMPLETED,))), ConfigError,
        ("unique", "not final"),
    ),
    "id, empty": (lambda: options(id=""), ConfigError, ("id = ''", "1 to 128")),
    "id, long": (lambda: options(id="x" * 129), ConfigError, ("id", "1 to 128")),
    "queue, empty": (lambda: Paid().on_queue(""), ConfigError, ("queue = ''", "1 to 128")),
    "queue, two lines": (lambda: Paid().on_queue("a\nb"), ConfigError, ("queue", "printable")),
    "Backoff.base": (lambda: Backoff(base=-1), ValueError, ("Backoff.base", "-1")),
    "Backoff.factor": (lambda: Backoff(factor=0.5), ValueError, ("Backoff.factor", "0.5")),
    "Backoff.cap": (lambda: Backoff(cap=float("inf")), ValueError, ("Backoff.cap", "inf")),
    "Backoff.jitter": (
        lambda: Backoff(jitter="yes"), ValueError, ("Backoff.jitter", "True or False")  # type: ignore[arg-type]
    ),
}  # fmt: skip

DISPATCHES = {**PAYLOADS, **OPTIONS}


async def is_empty(app: App[Any]) -> bool:
    return all(not stats.counts for stats in await app.stats()) and not (await app.jobs()).jobs


@pytest.mark.parametrize("name", DISPATCHES)
async def test_nothing_is_stored(name: str) -> None:
    make, error, says = DISPATCHES[name]
    async with App("memory://") as app:
        with pytest.raises(error) as caught:
            await make().dispatch()
        with pytest.raises(error):
            await app.dispatch_many([Paid(), make()])
        assert await is_empty(app)
        await Paid(n=2**63).dispatch()
        assert not await is_empty(app)
    for words in says:
        assert words in str(caught.value)


async def test_what_is_no_task_is_not_dispatched() -> None:
    async with App("memory://") as app:
        for wrong in (3, Paid, lambda: Paid()):
            with pytest.raises(TypeError, match="expected a task, as"):
                await app.dispatch_many([Paid(), wrong])  # type: ignore[list-item]
        assert await is_empty(app)


@pytest.mark.parametrize("given", [{"default_queue": "q" * 129}, {"max_attempts": 2**31}])
async def test_settings_are_held_to_the_same(given: dict[str, Any]) -> None:
    async with App("memory://", **given) as app:
        with pytest.raises(ConfigError, match=next(iter(given))):
            await Paid().dispatch()
        assert await is_empty(app)


# ---- definitions


def defined(base: Any = AsyncTask[None], **body: Any) -> Any:
    """A task class as a class statement makes it."""

    async def execute(self: Any) -> None: ...

    annotations = body.pop("annotations", {})
    names = {"execute": execute, "__module__": __name__, "__qualname__": "Made", **body}
    return type(base.__origin__)(
        "Made", (base.__origin__,), names | {"__annotations__": annotations}
    )


def plain(self: Any, *_: Any) -> None: ...


async def coloured(self: Any, *_: Any) -> bool:
    return False


def with_argument(self: Any, x: int) -> None: ...


def empty() -> None: ...


def many(*numbers: int) -> None: ...


def named(**numbers: int) -> None: ...


def complex_number(z: complex) -> None: ...


def returns_complex() -> complex:
    return 1j


DEFINITIONS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "reserved field": (lambda: defined(annotations={"queue": str}), ("Made", "'queue'", "rename")),
    "reserved field, later use": (
        lambda: defined(annotations={"version": int}), ("Made", "'version'", "rename")
    ),
    "execute is plain": (lambda: defined(execute=plain), ("Made", "AsyncTask", "async def execute")),
    "execute is async": (
        lambda: defined(SyncTask[None]), ("Made", "SyncTask", "`def execute`")
    ),
    "failed is plain": (lambda: defined(failed=plain), ("Made", "async def failed")),
    "should_retry is async": (
        lambda: defined(should_retry=coloured), ("Made", "`def should_retry`")
    ),
    "execute with arguments": (
        lambda: defined(SyncTask[None], execute=with_argument), ("Made", "`x`", "a field")
    ),
    "no encoding": (lambda: defined(annotations={"z": complex}), ("Made", "'z'", "complex")),
    "no encoding inside": (
        lambda: defined(annotations={"z": list[dict[str, complex]]}), ("Made", "'z'", "complex")
    ),
    "result without encoding": (lambda: task(returns_complex), ("returns_complex", "complex")),
    "parameter without encoding": (lambda: task(complex_number), ("complex_number", "'z'")),
    "*args": (lambda: task(many), ("many", "*numbers", "name every parameter")),
    "**kwargs": (lambda: task(named), ("named", "**numbers", "name every parameter")),
    "a class": (lambda: task(dict), ("dict", "takes a function")),
    "max_retries": (lambda: defined(max_retries=3), ("Made", "max_attempts", "max_retries + 1")),
    "max_attempts": (lambda: defined(max_attempts=0), ("Made", "max_attempts = 0")),
    "priority": (lambda: defined(priority=200), ("Made", "priority = 200", "-100 to 100")),
    "timeout": (lambda: defined(timeout=0), ("Made", "timeout = 0", "None for no limit")),
    "retry_delay": (lambda: defined(retry_delay="soon"), ("Made", "retry_delay", "seconds")),
    "tags": (lambda: defined(tags={"a": 1}), ("Made", "tags", "text to text")),
    "queue": (lambda: defined(queue=""), ("Made", "queue = ''", "1 to 128")),
    "kind": (lambda: defined(kind="a\nb"), ("Made", "kind", "printable")),
    "kind of a function": (lambda: task(kind="")(empty), ("empty", "kind = ''")),
    "aliases": (lambda: defined(aliases="old"), ("Made", "aliases = 'old'", '("old",)')),
    "option of a function": (lambda: task(priority=200)(empty), ("empty", "priority = 200")),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFINITIONS)
def test_definitions_that_cannot_work(name: str) -> None:
    make, says = DEFINITIONS[name]
    with pytest.raises(TaskDefinitionError) as caught:
        make()
    for words in says:
        assert words in str(caught.value)


def test_what_is_defined_here_is_what_a_class_statement_defines() -> None:
    assert defined(kind="test_refusals.fine", annotations={"n": int})(n=3).n == 3


def test_an_unknown_option_of_a_function_is_named() -> None:
    with pytest.raises(TypeError, match="no option 'priorty'; it has queue"):
        task(priorty=3)  # type: ignore[call-overload]


@pytest.mark.parametrize("names", [{"kind": "Paid"}, {"kind": "new", "aliases": ("Paid",)}])
def test_a_kind_belongs_to_one_task(names: dict[str, Any]) -> None:
    with pytest.raises(DuplicateTaskError) as caught:
        defined(**names)
    for words in ("'Paid'", f"{__name__}:Paid", f"{__name__}:Made", 'kind = "..."'):
        assert words in str(caught.value)


# ---- which app


async def test_without_an_app() -> None:
    with pytest.raises(NoAppError, match="no app is open here: enter one with `async with app:`"):
        await Paid().dispatch()
    with pytest.raises(NoAppError, match="is not open: enter it"):
        await App("memory://").dispatch_many([Paid()])


async def test_with_a_closed_app() -> None:
    async with App("memory://") as app:
        pass
    for dispatch in (Paid().dispatch, Paid().options(priority=1).dispatch):
        with pytest.raises(NoAppError, match="<App closed> is not open: enter it"):
            await dispatch(app=app)
    with pytest.raises(NoAppError, match="no app is open here"):
        await Paid().dispatch()


async def test_with_two_apps() -> None:
    async with App("memory://") as one, App("memory://") as other:
        async with anyio.create_task_group() as task_group:
            # A context of its own, as of a task that was started before either was entered.
            Context().run(task_group.start_soon, refused_among_several)
        await Paid().dispatch()  # the last one entered here
        assert await is_empty(one)
        assert not await is_empty(other)


async def refused_among_several() -> None:
    with pytest.raises(NoAppError, match=r"several apps .*: name one with `dispatch\(app=...\)`"):
        await Paid().dispatch()


async def test_with_an_app_on_another_loop(anyio_backend: str) -> None:
    async def there(app: App[Any]) -> None:
        with pytest.raises(NoAppError, match="is open on another event loop"):
            async with app:
                pass

    async with App("memory://") as app:
        await anyio.to_thread.run_sync(lambda: anyio.run(there, app, backend=anyio_backend))
        assert await is_empty(app)


async def test_blocking_dispatch_on_the_event_loop() -> None:
    async with App("memory://") as app:
        with pytest.raises(NoAppError, match="await task.dispatch"):
            Paid().dispatch_blocking()
        assert await is_empty(app)


def test_without_an_event_loop() -> None:
    with pytest.raises(NoAppError, match="app.sync"):
        Paid().dispatch_blocking()
    with pytest.raises(NoAppError, match="no event loop runs here"):
        Paid().dispatch().send(None)
