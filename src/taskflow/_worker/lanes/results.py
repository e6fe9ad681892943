"""From what a body returned to a stored result, checked against the declared type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskflow._core.codec import difference
from taskflow._core.outcomes import Completed, Failed, Outcome
from taskflow._core.records import ErrorInfo

if TYPE_CHECKING:
    from taskflow._core.registry import TaskDefinition
    from taskflow.abc import Codec

__all__ = ("encode_result",)


def encode_result(codec: Codec, definition: TaskDefinition, value: Any, max_result: int) -> Outcome:
    """``Completed`` with the encoded value, or a final failure that says what is wrong.

    Another attempt would return the same kind of thing, so a wrong result is not retried.
    """
    try:
        data = codec.encode(value)
        if value is not None or definition.result not in (None, type(None), Any):
            decoded = codec.decode(data, definition.result)
            if decoded is not value and difference(codec, value, decoded) is not None:
                return _wrong(definition, value, "it would come back as something else")
    except Exception as exc:
        return _wrong(definition, value, str(exc))
    if len(data) > max_result:
        return Failed(
            ErrorInfo("ResultTooLarge", f"the result has {len(data)} bytes, the limit is "
                      f"{max_result}: store it elsewhere, or raise `max_result`"), final=True,
        )  # fmt: skip
    return Completed(data)


def _wrong(definition: TaskDefinition, value: Any, problem: str) -> Failed:
    wanted = getattr(definition.result, "__name__", None) or str(definition.result)
    message = f"{definition.kind} returned {type(value).__name__}, declared is {wanted}: {problem}"
    return Failed(ErrorInfo("ResultTypeError", message), final=True)
