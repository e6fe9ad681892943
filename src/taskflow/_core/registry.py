"""The registry: from the kind on the wire to the code that runs it, and nothing else.

A payload never names code. A definition is made when the class or function is defined; the same
module and qualified name replaces (reload, notebooks), any other second one is an error. Classes
that live in a function are held weakly.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taskflow.errors import DuplicateTaskError, UnknownTaskError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from taskflow._core.options import TaskOptions
    from taskflow._core.records import Lane

__all__ = ("Registry", "TaskDefinition", "registry")


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True, eq=False)
class TaskDefinition:
    """One kind of task, whichever way it was written.

    Attributes:
        payload: The Struct that a payload decodes to.
        result: The type of a result; ``Any`` when the definition does not say.
        run: Called with the decoded payload; returns the result or an awaitable of it.
        is_async: ``run`` returns an awaitable.
        should_retry: Whether an error deserves another attempt.
        failed: The last-failure hook, of the same colour as ``run``; ``None`` when not defined.
        module, qualname: Where a process child finds the task (class or decorated function).
    """

    kind: str
    aliases: tuple[str, ...]
    lane: Lane
    is_async: bool
    payload: type[Any]
    result: Any
    options: TaskOptions
    run: Callable[[Any], Any]
    should_retry: Callable[[Any, Exception], bool]
    failed: Callable[[Any, Exception], Awaitable[None] | None] | None
    module: str
    qualname: str

    @property
    def location(self) -> str:
        """``module:qualname``, for messages and for process children."""
        return f"{self.module}:{self.qualname}"

    @property
    def is_importable(self) -> bool:
        """Another process can import it by its location."""
        return self.module != "__main__" and "<locals>" not in self.qualname


class Registry:
    """Definitions by kind and alias."""

    def __init__(self) -> None:
        self._strong: dict[str, TaskDefinition] = {}
        # Definitions of local classes live as long as their owner does.
        self._weak: weakref.WeakValueDictionary[str, TaskDefinition] = weakref.WeakValueDictionary()

    def add(self, definition: TaskDefinition) -> None:
        """Register under its kind and aliases.

        Raises:
            DuplicateTaskError: A name is taken by another task. Nothing was registered.
        """
        names = (definition.kind, *definition.aliases)
        for name in names:
            taken = self.find(name)
            if taken is not None and taken.location != definition.location:
                raise DuplicateTaskError(
                    kind=name, first=taken.location, second=definition.location
                )
        for name in names:
            self._strong.pop(name, None)
            self._weak.pop(name, None)
            if "<locals>" in definition.qualname:
                self._weak[name] = definition
            else:
                self._strong[name] = definition

    def find(self, kind: str) -> TaskDefinition | None:
        """The definition of a kind, or ``None``."""
        return self._strong.get(kind) or self._weak.get(kind)

    def get(self, kind: str) -> TaskDefinition:
        """The definition of a kind.

        Raises:
            UnknownTaskError: There is none here.
        """
        definition = self.find(kind)
        if definition is None:
            raise UnknownTaskError(kind=kind)
        return definition

    def __iter__(self) -> Iterator[TaskDefinition]:
        seen: dict[int, TaskDefinition] = {}
        for definition in (*self._strong.values(), *self._weak.values()):
            seen.setdefault(id(definition), definition)
        return iter(seen.values())


registry = Registry()
"""The one registry of the process."""
