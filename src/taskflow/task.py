"""What users subclass and decorate: four bases and ``@task``."""

from __future__ import annotations

import inspect
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Generic,
    ParamSpec,
    TypeVar,
    cast,
    dataclass_transform,
    final,
    get_args,
    get_type_hints,
    overload,
)

import msgspec

from taskflow._core.records import Lane, Unique
from taskflow._core.registry import TaskDefinition, registry
from taskflow._port.open_apps import find_app
from taskflow.errors import ConfigError, TaskDefinitionError
from taskflow.job import UNSET, Job, Prepared, read_options

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from datetime import datetime, timedelta

    from taskflow._core.retry import Backoff

__all__ = (
    "AsyncProcessTask",
    "AsyncTask",
    "SyncProcessTask",
    "SyncTask",
    "TaskFunction",
    "task",
)

R = TypeVar("R")
P = ParamSpec("P")

OPTIONS: Final = (
    "queue", "max_attempts", "retry_delay", "timeout", "priority", "expires_in", "result_ttl",
    "tags",
)  # fmt: skip
"""Class attributes and keywords of ``@task`` that set an option."""

RESERVED: Final = frozenset(OPTIONS) | {
    "dispatch", "dispatch_blocking", "on_queue", "delay", "retry_after", "options", "execute",
    "should_retry", "failed", "started", "succeeded", "retrying", "rate", "concurrency", "version",
    "upcast", "driver", "aliases", "kind", "context",
}  # fmt: skip
"""Names that no field of a task class may have, now and for good."""


class TaskMeta(msgspec.StructMeta):
    """Makes task classes frozen and keyword-only, checks them, and registers those that run."""

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any
    ) -> Any:
        """Create the class; see ``TaskDefinitionError`` for what is refused."""
        settings = {"frozen": True, "kw_only": True, **config}
        cls = cast("Any", super().__new__(mcs, name, bases, namespace, **settings))
        if namespace.get("__module__") != __name__:
            _check_fields(cls)
            if _runs(cls):
                definition = _define_class(cls)
                cls.__taskflow__ = definition
                registry.add(definition)
        return cls


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class _Task(msgspec.Struct, Generic[R], metaclass=TaskMeta, frozen=True, kw_only=True):
    """What the four bases share: options as class attributes, and the dispatch chain."""

    if TYPE_CHECKING:
        __taskflow__: ClassVar[TaskDefinition]
        kind: ClassVar[str]
        """The stable name on the wire; default: the class name."""
        aliases: ClassVar[tuple[str, ...]]
        """Older kinds whose stored jobs this class reads, too."""
        queue: ClassVar[str]
        """The queue; default: the app's ``default_queue``."""
        max_attempts: ClassVar[int]
        """Runs at most, the first included; default: the app's, 3."""
        retry_delay: ClassVar[float | timedelta | Backoff]
        """Seconds between attempts, or a ``Backoff``."""
        timeout: ClassVar[float | timedelta | None]
        """Seconds that one attempt may run; ``None`` for no limit."""
        priority: ClassVar[int]
        """-100 to 100, higher first; default 0."""
        expires_in: ClassVar[float | timedelta]
        """Seconds after dispatch from which it must not start any more."""
        result_ttl: ClassVar[float | timedelta | None]
        """Seconds that results are kept; ``None`` for ever, 0 not at all."""
        tags: ClassVar[Mapping[str, str]]
        """Text by which jobs are found again."""

    def _prepared(self) -> Prepared[R]:
        definition = getattr(type(self), "__taskflow__", None)
        if definition is None:
            raise TaskDefinitionError(
                task=type(self).__qualname__, problem="it has no `execute`, so it cannot be run"
            )
        return Prepared(definition, self, find_app)

    async def dispatch(self, *, app: Any = None, connection: object | None = None) -> Job[R]:
        """Store the job; see ``Prepared.dispatch`` for arguments and errors."""
        return await self._prepared().dispatch(app=app, connection=connection)

    def dispatch_blocking(self, *, app: Any = None) -> Job[R]:
        """The same from a body in the thread or process lane."""
        return self._prepared().dispatch_blocking(app=app)

    def on_queue(self, name: str) -> Prepared[R]:
        """Use this queue instead of the task's own."""
        return self._prepared().on_queue(name)

    def delay(self, delay: float | timedelta) -> Prepared[R]:
        """Make it due only ``delay`` (seconds or a timedelta) after the store accepted it."""
        return self._prepared().delay(delay)

    def retry_after(self, delay: float | timedelta | Backoff) -> Prepared[R]:
        """Use this delay between attempts instead of the task's own."""
        return self._prepared().retry_after(delay)

    def options(
        self, *, id: str | None = None, eta: datetime | None = None, priority: int | None = None,
        tags: Mapping[str, str] | None = None, unique: str | Unique | None = None,
        timeout: float | timedelta | None = UNSET, max_attempts: int | None = None,
        expires_in: float | timedelta | None = None,
        result_ttl: float | timedelta | None = UNSET,
    ) -> Prepared[R]:  # fmt: skip
        """Set any other option of this one job; see ``Prepared.options``."""
        return self._prepared().options(
            id=id, eta=eta, priority=priority, tags=tags, unique=unique, timeout=timeout,
            max_attempts=max_attempts, expires_in=expires_in, result_ttl=result_ttl,
        )  # fmt: skip

    def should_retry(self, error: Exception) -> bool:  # noqa: ARG002
        """Whether ``error`` deserves another attempt; override to refuse. Default: yes."""
        return True


class _AsyncBody(_Task[R], Generic[R]):
    """Bodies that are coroutines."""

    async def execute(self) -> R:
        """The body. Override it."""
        raise NotImplementedError

    async def failed(self, error: Exception) -> None:
        """Called once after the last failure was stored, best effort. Override it."""


class _SyncBody(_Task[R], Generic[R]):
    """Bodies that are plain functions."""

    def execute(self) -> R:
        """The body. Override it."""
        raise NotImplementedError

    def failed(self, error: Exception) -> None:
        """Called once after the last failure was stored, best effort. Override it."""


class AsyncTask(_AsyncBody[R], Generic[R]):
    """A task whose ``async def execute`` runs on the worker's event loop."""


class SyncTask(_SyncBody[R], Generic[R]):
    """A task whose ``def execute`` runs in a thread. A thread can be asked to stop, not made to."""


class AsyncProcessTask(_AsyncBody[R], Generic[R]):
    """A task whose ``async def execute`` runs on an event loop in a child process."""


class SyncProcessTask(_SyncBody[R], Generic[R]):
    """A task whose ``def execute`` runs in a child process, outside this one's GIL."""


LANES: Final = {
    AsyncTask: Lane.ASYNC,
    SyncTask: Lane.THREAD,
    AsyncProcessTask: Lane.PROCESS,
    SyncProcessTask: Lane.PROCESS,
}


def _runs(cls: type) -> bool:
    """The class has a body of its own or from a class of the user's."""
    return any("execute" in vars(base) for base in cls.__mro__ if base.__module__ != __name__)


def _check_fields(cls: Any) -> None:
    taken = sorted(RESERVED & set(cls.__struct_fields__))
    if taken:
        raise TaskDefinitionError(
            task=cls.__qualname__,
            problem=f"the field {taken[0]!r} has a name that taskflow uses: rename the field",
        )


def _define_class(cls: Any) -> TaskDefinition:
    base, lane = next((base, lane) for base, lane in LANES.items() if issubclass(cls, base))
    is_async = issubclass(cls, _AsyncBody)
    _check_colour(cls, "execute", base, is_async)
    _check_colour(cls, "failed", base, is_async)
    _check_colour(cls, "should_retry", base, False)
    _check_arguments(cls)
    given = {name: getattr(cls, name) for name in OPTIONS if hasattr(cls, name)}
    if hasattr(cls, "max_retries"):
        given["max_retries"] = cls.max_retries
    result = _result_of_class(cls)
    for name, annotation in _field_types(cls):
        _check_type(cls.__qualname__, f"the field {name!r}", annotation)
    _check_type(cls.__qualname__, "the result", result)
    hook = cls.failed if cls.failed not in {_AsyncBody.failed, _SyncBody.failed} else None
    own = vars(cls)
    return TaskDefinition(
        kind=_kind(cls.__qualname__, own.get("kind", cls.__name__)),
        aliases=_aliases(cls.__qualname__, own.get("aliases", ())), lane=lane, is_async=is_async, payload=cls,
        result=result, options=_options(cls.__qualname__, given), run=cls.execute,
        should_retry=cls.should_retry, failed=hook, module=cls.__module__,
        qualname=cls.__qualname__,
    )  # fmt: skip


def _check_colour(cls: Any, method: str, base: type, is_async: bool) -> None:
    found = inspect.iscoroutinefunction(inspect.unwrap(getattr(cls, method)))
    if found is not is_async:
        wanted = "async def" if is_async else "def"
        raise TaskDefinitionError(
            task=cls.__qualname__,
            problem=f"{base.__name__} needs `{wanted} {method}`: change it, or change the base",
        )


def _check_arguments(cls: Any) -> None:
    _, *others = inspect.signature(cls.execute).parameters.values()
    for parameter in others:
        if parameter.default is parameter.empty and parameter.name not in {"args", "kwargs"}:
            raise TaskDefinitionError(
                task=cls.__qualname__,
                problem=f"`execute` is called without arguments: make `{parameter.name}` a field",
            )


def _aliases(task_name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (tuple, list)):
        raise TaskDefinitionError(
            task=task_name, problem=f'aliases = {value!r}: expected a tuple of kinds, as ("old",)'
        )
    return tuple(_kind(task_name, alias) for alias in value)


def _kind(task_name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > 128 or not value.isprintable():
        raise TaskDefinitionError(
            task=task_name,
            problem=f"kind = {value!r}: expected printable text, 1 to 128 characters",
        )
    return value


def _options(task_name: str, given: Mapping[str, Any]) -> Any:
    try:
        return read_options(given)
    except ConfigError as exc:
        raise TaskDefinitionError(task=task_name, problem=str(exc)) from exc


def _result_of_class(cls: Any) -> Any:
    """The type that the base is subscripted with, else what ``execute`` says it returns."""
    for klass in cls.__mro__:
        for base in vars(klass).get("__orig_bases__", ()):
            origin = getattr(base, "__origin__", None)
            args = get_args(base)
            if origin in LANES and args and not isinstance(args[0], TypeVar):
                return args[0]
    return _returns(cls.execute)


def _returns(function: Any) -> Any:
    try:
        hints = get_type_hints(inspect.unwrap(function), include_extras=True)
    except Exception:
        return Any  # a name that does not exist yet; the value is then stored as it is
    result = hints.get("return", Any)
    return Any if isinstance(result, TypeVar) else result


def _field_types(cls: Any) -> list[tuple[str, Any]]:
    try:
        return [(field.name, field.type) for field in msgspec.structs.fields(cls)]
    except NameError:
        return []  # checked at the first dispatch, by encoding


def _check_type(task_name: str, what: str, annotation: Any) -> None:
    try:
        found = _unencodable(msgspec.inspect.type_info(annotation), set())
    except NameError:
        return
    except (TypeError, ValueError) as exc:
        raise TaskDefinitionError(task=task_name, problem=f"{what}: {exc}") from exc
    if found is not None:
        raise TaskDefinitionError(
            task=task_name,
            problem=f"{what}: {found} cannot be encoded; use plain types, Structs or dataclasses",
        )


def _unencodable(info: Any, seen: set[int]) -> str | None:
    """The first type inside an annotation that msgspec has no encoding for."""
    if isinstance(info, msgspec.inspect.CustomType):
        return str(getattr(info.cls, "__qualname__", info.cls))
    if not isinstance(info, (msgspec.inspect.Type, msgspec.inspect.Field)) or id(info) in seen:
        return None
    seen.add(id(info))
    for name in info.__struct_fields__:
        value = getattr(info, name)
        for part in value if isinstance(value, tuple) else (value,):
            found = _unencodable(part, seen)
            if found is not None:
                return found
    return None


@final
class TaskFunction(Generic[P, R]):
    """A decorated function. Call it to build a task; ``fn`` is the plain function."""

    def __init__(self, fn: Callable[P, Any], *, process: bool, given: Mapping[str, Any]) -> None:
        _check_function(fn)
        self.fn = fn
        self.__doc__ = fn.__doc__
        self.__name__ = getattr(fn, "__name__", "task")
        self.__wrapped__ = fn
        self.__module__ = fn.__module__
        self.__qualname__ = getattr(fn, "__qualname__", self.__name__)
        self._signature = _signature(fn)
        self.__taskflow__ = _define_function(self, process=process, given=given)
        registry.add(self.__taskflow__)

    def __repr__(self) -> str:
        return f"<task {self.__taskflow__.kind}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Prepared[R]:
        """Build the task from the function's own arguments; nothing runs or is stored yet.

        Raises:
            TypeError: The arguments do not fit the signature.
        """
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        payload = self.__taskflow__.payload(**bound.arguments)
        return Prepared(self.__taskflow__, payload, find_app)

    async def dispatch(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Short for ``fn(...).dispatch()``: every argument is payload, ``connection`` too."""
        return await self(*args, **kwargs).dispatch()


def _check_function(fn: object) -> None:
    if not callable(fn) or isinstance(fn, type):
        raise TaskDefinitionError(
            task=repr(fn), problem="@task takes a function; a class derives from a task class"
        )


def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(fn)
    for parameter in signature.parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise TaskDefinitionError(
                task=fn.__qualname__,
                problem=f"`{parameter}` has no type on the wire: name every parameter",
            )
    return signature


def _define_function(
    function: TaskFunction[Any, Any], *, process: bool, given: Mapping[str, Any]
) -> TaskDefinition:
    fn, name = function.fn, function.__qualname__
    is_async = inspect.iscoroutinefunction(inspect.unwrap(fn))
    lane = Lane.PROCESS if process else Lane.ASYNC if is_async else Lane.THREAD
    options = dict(given)
    kind = options.pop("kind", None)
    kind = _kind(name, function.__name__ if kind is None else kind)
    aliases = _aliases(name, options.pop("aliases", ()))
    payload = _payload_struct(function)
    for field_name, annotation in _field_types(payload):
        _check_type(name, f"the parameter {field_name!r}", annotation)
    result = _returns(fn)
    _check_type(name, "the result", result)
    return TaskDefinition(
        kind=kind, aliases=aliases, lane=lane, is_async=is_async, payload=payload, result=result,
        options=_options(name, options), run=_caller(function), should_retry=_always,
        failed=None, module=fn.__module__, qualname=name,
    )  # fmt: skip


def _payload_struct(function: TaskFunction[Any, Any]) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for parameter in function._signature.parameters.values():  # noqa: SLF001
        blank = parameter.annotation is parameter.empty
        annotation = Any if blank else parameter.annotation
        if parameter.default is parameter.empty:
            fields.append((parameter.name, annotation))
        else:
            factory = _constant(parameter.default)
            fields.append((parameter.name, annotation, msgspec.field(default_factory=factory)))
    return msgspec.defstruct(
        function.__name__, fields, module=function.__module__, kw_only=True, frozen=True
    )


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _always(payload: Any, error: Exception) -> bool:  # noqa: ARG001
    return True


def _caller(function: TaskFunction[Any, Any]) -> Callable[[Any], Any]:
    parameters = function._signature.parameters.values()  # noqa: SLF001
    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]

    def run(payload: Any) -> Any:
        args = [getattr(payload, name) for name in positional]
        return function.fn(*args, **{name: getattr(payload, name) for name in keywords})

    return run


class _Decorator:
    """What ``task(...)`` with options returns."""

    def __init__(self, process: bool, given: Mapping[str, Any]) -> None:
        self._process, self._given = process, given

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]]) -> TaskFunction[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R]) -> TaskFunction[P, R]: ...
    def __call__(self, fn: Callable[..., Any]) -> TaskFunction[..., Any]:
        return TaskFunction(fn, process=self._process, given=self._given)


@overload
def task(fn: Callable[P, Coroutine[Any, Any, R]], /) -> TaskFunction[P, R]: ...
@overload
def task(fn: Callable[P, R], /) -> TaskFunction[P, R]: ...
@overload
def task(
    *, process: bool = False, kind: str | None = None, aliases: tuple[str, ...] = (),
    queue: str = ..., max_attempts: int = ...,
    retry_delay: float | timedelta | Backoff = ..., timeout: float | timedelta | None = ...,
    priority: int = ..., expires_in: float | timedelta = ...,
    result_ttl: float | timedelta | None = ..., tags: Mapping[str, str] = ...,
) -> _Decorator: ...  # fmt: skip
def task(
    fn: Callable[..., Any] | None = None, /, *, process: bool = False, **given: Any
) -> TaskFunction[..., Any] | _Decorator:
    """Make a task of a function: ``async def`` runs on the event loop, ``def`` in a thread.

    Args:
        fn: The function, when used without parentheses.
        process: Run it in a child process.
        given: ``kind``, ``aliases`` and the options of a task class, as keywords.

    Raises:
        TaskDefinitionError: The function or an option cannot work; nothing was registered.
        DuplicateTaskError: Another task has this kind.
    """
    unknown = [name for name in given if name not in {*OPTIONS, "kind", "aliases", "max_retries"}]
    if unknown:
        raise TypeError(f"@task has no option {unknown[0]!r}; it has {', '.join(OPTIONS)}")
    decorator = _Decorator(process, given)
    return decorator if fn is None else decorator(fn)
