"""Where a program's choices come from: Hypothesis, or a seed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

__all__ = ("Draws", "HypothesisDraws", "SeededDraws")


class Draws(Protocol):
    """Makes choices."""

    def integer(self, low: int, high: int) -> int:
        """A whole number between both, included."""
        ...

    def choice(self, options: Sequence[T]) -> T:
        """One of them."""
        ...

    def chance(self, percent: int) -> bool:
        """True so often of a hundred times."""
        ...


class SeededDraws:
    """Choices from a seed: the same seed makes the same program."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - tests

    def integer(self, low: int, high: int) -> int:
        """A whole number between both, included."""
        return self._random.randint(low, high)

    def choice(self, options: Sequence[T]) -> T:
        """One of them."""
        return self._random.choice(options)

    def chance(self, percent: int) -> bool:
        """True so often of a hundred times."""
        return self._random.random() * 100 < percent


class HypothesisDraws:
    """Choices that Hypothesis makes and can shrink; made from ``st.data()``."""

    def __init__(self, data: Any) -> None:
        from hypothesis import strategies

        self._data = data
        self._strategies = strategies

    def integer(self, low: int, high: int) -> int:
        """A whole number between both, included."""
        number: int = self._data.draw(self._strategies.integers(low, high))
        return number

    def choice(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[self.integer(0, len(options) - 1)]

    def chance(self, percent: int) -> bool:
        """True so often of a hundred times."""
        return self.integer(1, 100) > 100 - percent
