"""Odd values: NaN, no equality, broken equality, sub-types, deep nesting, other codecs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow._core.codec import MsgpackCodec, difference, encode_checked
from taskflow.errors import PayloadError

if TYPE_CHECKING:
    from decimal import Decimal  # not there at run time, on purpose

CODEC = MsgpackCodec()
NAN = float("nan")
floats = st.one_of(st.just(NAN), st.floats())


def check(payload: Any, codec: Any = CODEC) -> Any:
    data = encode_checked(codec, "Odd", payload)
    return codec.decode(data, type(payload))


class Floats(msgspec.Struct, frozen=True):
    one: float = 0.0
    many: list[float] = []
    distinct: set[float] = set()
    named: dict[str, float] = {}
    keyed: dict[float, int] = {}


@given(
    st.builds(
        Floats,
        floats,
        st.lists(floats, max_size=5),
        st.sets(floats, max_size=5),
        st.dictionaries(st.text(st.characters(codec="utf-8")), floats, max_size=3),
        st.dictionaries(floats, st.integers(0, 9), max_size=3),
    )
)
def test_nan_equals_nan_wherever_it_stands(payload: Floats) -> None:
    check(payload)


class Mute(msgspec.Struct, frozen=True, eq=False):
    """A type without equality."""

    label: str
    parts: list[Any] = []


class HoldsMute(msgspec.Struct, frozen=True):
    mutes: list[Mute] = []
    distinct: frozenset[Mute] = frozenset()


def test_values_without_equality_are_compared_by_what_they_hold() -> None:
    back = check(HoldsMute([Mute("a", [1, NAN])], frozenset({Mute("a"), Mute("b"), Mute("c")})))
    assert sorted(mute.label for mute in back.distinct) == ["a", "b", "c"]
    uuid: Any = UUID(int=7)
    for wrong, path in (
        (HoldsMute([Mute(uuid)]), "mutes[0].label"),
        (HoldsMute([Mute("a", [(1,)])]), "mutes[0].parts[0]"),
    ):
        with pytest.raises(PayloadError) as caught:
            check(wrong)
        assert caught.value.path == path


class Grumpy(msgspec.Struct, frozen=True):
    """Its equality does not work."""

    n: int

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparing")

    def __hash__(self) -> int:
        return self.n


def test_a_broken_equality_does_not_decide() -> None:
    assert check(Grumpy(5)).n == 5


class Base(msgspec.Struct):
    n: int


class Derived(Base):
    more: int = 1


class HoldsBase(msgspec.Struct):
    base: Base


def test_a_subclass_would_lose_its_fields() -> None:
    with pytest.raises(PayloadError) as caught:
        check(HoldsBase(Derived(1, 2)))
    assert caught.value.path == "base"


class Deep(msgspec.Struct):
    first: int
    value: Any


@pytest.mark.parametrize("leaf", [1, NAN])
def test_what_is_nested_too_deeply_is_a_payload_error(leaf: float) -> None:
    """From a depth that is fine to one that no stack holds: stored, or said; never a crash."""
    said = set()
    for depth in (10, 100, 200, 400, 600, 800, 1000, 10_000, 100_000):
        value: Any = leaf
        for _ in range(depth):
            value = [value]
        try:
            check(Deep(1, value))
        except PayloadError as error:
            said.add(depth)
            assert "deep" in error.problem  # noqa: PT017
    assert 100_000 in said
    assert not said & {10, 100}


class Unresolved(msgspec.Struct):
    price: Decimal


def test_an_annotation_that_cannot_be_resolved_is_a_payload_error() -> None:
    with pytest.raises(PayloadError, match="Decimal"):
        check(Unresolved(5))  # type: ignore[arg-type]


class Later(msgspec.Struct):
    at: Any


class JsonCodec:
    """A codec of somebody else's."""

    def encode(self, value: object) -> bytes:
        return json.dumps(msgspec.to_builtins(value), sort_keys=True).encode()

    def decode(self, data: bytes, type: Any) -> Any:
        return msgspec.convert(json.loads(data), type)


class Words(msgspec.Struct):
    words: set[str]
    numbers: dict[str, Any] = {}


@given(st.sets(st.text(st.characters(codec="utf-8"))), st.floats())
def test_another_codec_is_held_to_the_same(words: set[str], number: float) -> None:
    codec = JsonCodec()
    assert check(Words(words, {"n": [number]}), codec).words == words
    for wrong in (Words({UUID(int=7)}), Words(words, {"n": (number,)})):  # type: ignore[arg-type]
        with pytest.raises(PayloadError):
            check(wrong, codec)


@given(st.lists(st.lists(st.integers() | st.floats() | st.tuples(st.text()))))
def test_no_difference_to_oneself(value: Any) -> None:
    assert difference(CODEC, value, value) is None


@given(st.lists(st.integers(), min_size=1), st.data())
def test_the_difference_is_where_it_was_made(values: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(values) - 1))
    other = [*values]
    other[place] += 1
    assert difference(CODEC, {"a": values}, {"a": other}) == f"['a'][{place}]"
    assert difference(CODEC, values, values[:-1], "here") == "here"
