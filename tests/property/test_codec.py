"""A payload is stored only if the worker will see what was dispatched."""

from __future__ import annotations

import dataclasses
import enum
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskflow._core.codec import MsgpackCodec, difference, encode_checked
from taskflow.errors import PayloadError
from tests.property.draws import zones

CODEC = MsgpackCodec()
NAN = float("nan")
INT64 = st.integers(-(2**63), 2**64 - 1)
clean = st.text(st.characters(codec="utf-8"), max_size=20)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Inner(msgspec.Struct, frozen=True):
    """A Struct in a payload."""

    n: int
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Point:
    """A dataclass in a payload."""

    x: float
    y: Decimal


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """One field of each kind that K34 and K54 speak of."""

    at: datetime | None = None
    day: date | None = None
    clock: time | None = None
    span: timedelta | None = None
    amount: Decimal | None = None
    key: UUID | None = None
    words: set[str] = set()
    numbers: frozenset[int] = frozenset()
    blob: bytes = b""
    pair: tuple[int, str] | None = None
    many: tuple[float, ...] = ()
    colour: Colour = Colour.RED
    size: Size = Size.SMALL
    inner: Inner | None = None
    points: list[Point] = []
    table: dict[str, list[Inner]] = {}
    by_day: dict[date, UUID] = {}
    total: int = 0
    ratio: float = 0.0
    flag: bool = False
    title: str = ""
    items: list[int] = []
    anything: Any = None


plain = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats() | clean | st.binary(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(clean, inner, max_size=3),
    max_leaves=8,
)
decimals = st.decimals().filter(lambda number: not number.is_snan())
points = st.builds(Point, st.floats(), decimals)
inners = st.builds(Inner, INT64, clean)
moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.none() | zones)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "at": moments,
    "day": st.dates(),
    "clock": st.times().map(
        lambda clock: clock.replace(fold=0)
    ),  # fold says nothing without a zone
    "span": st.timedeltas(),
    "amount": decimals,
    "key": st.uuids(),
    "words": st.sets(clean, max_size=5),
    "numbers": st.frozensets(INT64, max_size=5),
    "blob": st.binary(max_size=50),
    "pair": st.tuples(INT64, clean),
    "many": st.lists(st.floats(), max_size=5).map(tuple),
    "colour": st.sampled_from(Colour),
    "size": st.sampled_from(Size),
    "inner": inners,
    "points": st.lists(points, max_size=3),
    "table": st.dictionaries(clean, st.lists(inners, max_size=3), max_size=3),
    "by_day": st.dictionaries(st.dates(), st.uuids(), max_size=3),
    "total": INT64,
    "ratio": st.floats() | st.integers(-(2**53), 2**53),
    "flag": st.booleans(),
    "title": clean,
    "items": st.lists(INT64, max_size=5),
    "anything": plain,
}
payloads = st.fixed_dictionaries({}, optional=FIELDS).map(lambda fields: Payload(**fields))


def sent(payload: Payload) -> Payload:
    """What the worker sees of it."""
    back = CODEC.decode(encode_checked(CODEC, "Payload", payload), Payload)
    assert isinstance(back, Payload)
    return back


def refused(payload: Any) -> PayloadError:
    with pytest.raises(PayloadError) as caught:
        encode_checked(CODEC, "Payload", payload)
    assert caught.value.kind == "Payload"
    assert caught.value.path in str(caught.value)
    return caught.value


def test_every_field_is_drawn() -> None:
    assert set(FIELDS) == set(Payload.__struct_fields__)


@given(payloads)
def test_what_is_accepted_comes_back(payload: Payload) -> None:
    back = sent(payload)
    assert difference(CODEC, payload, back) is None
    for name in Payload.__struct_fields__:
        if name not in {"ratio", "at"}:  # an int may come back as the same float
            assert type(getattr(back, name)) is type(getattr(payload, name))
            # The text of most values is exact and, unlike ==, knows NaN.
            if not isinstance(getattr(payload, name), (set, frozenset)):
                assert repr(getattr(back, name)) == repr(getattr(payload, name))
    assert (back.words, back.numbers) == (payload.words, payload.numbers)


@example(datetime(2026, 10, 25, 2, 30, tzinfo=UTC))
@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=zones))
def test_a_datetime_with_a_zone_is_the_same_instant(at: datetime) -> None:
    back = sent(Payload(at=at)).at
    assert back is not None
    assert back.utcoffset() == timedelta(0)
    assert back == at.astimezone(UTC)


@given(st.datetimes())
def test_a_naive_datetime_stays_naive(at: datetime) -> None:
    assert sent(Payload(at=at)).at == at


def test_a_naive_datetime_is_refused_where_the_field_says_so() -> None:
    class Zoned(msgspec.Struct):
        at: Annotated[datetime, msgspec.Meta(tz=True)]

    assert refused(Zoned(datetime(2026, 1, 1))).path == "at"


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30])
def test_integers_beyond_64_bit_are_refused(number: int) -> None:
    for error in (refused(Payload(total=number)), refused(Payload(anything={"a": [number]}))):
        assert "beyond 64 bit" in error.problem
        assert "str or Decimal" in error.problem
    assert refused(Payload(total=number)).path == "total"
    assert refused(Payload(anything=number)).path == "anything"


@given(clean, st.integers(0xD800, 0xDFFF).map(chr), clean)
def test_lone_surrogates_are_refused(before: str, surrogate: str, after: str) -> None:
    text = before + surrogate + after
    assert refused(Payload(title=text)).path == "title"
    assert "surrogate" in refused(Payload(anything=[text])).problem
    assert refused(Payload(words={text})).path == "words"


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        frozenset("a"),
        (1, 2),
        [(1, 2)],
        date(2026, 1, 1),
        time(12),
        timedelta(1),
        Decimal("1.5"),
        UUID(int=5),
        Colour.RED,
        Inner(1),
        Point(1.0, Decimal(1)),
        {UUID(int=5): 1},
        {date(2026, 1, 1): 1},
        {"a": {"b": {3}}},
    ],
)
def test_any_holds_only_what_survives(value: object) -> None:
    assert refused(Payload(anything=value)).path.startswith("anything")


U = UUID(int=7)


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("title", U, "title"),
        ("title", 5, "title"),
        ("title", date(2026, 1, 1), "title"),
        ("title", Decimal(1), "title"),
        ("key", str(U), "key"),
        ("words", {U}, f"words[{U!r}]"),
        ("words", ["a"], "words"),
        ("words", {"a", U}, f"words[{U!r}]"),
        ("table", {U: []}, f"table[{U!r}]"),
        ("table", {"a": [Inner(1), Inner(2, U)]}, "table['a'][1].label"),  # type: ignore[arg-type]
        ("table", {"a": [Inner(1), Inner("2")]}, "table[...][1].n"),  # type: ignore[arg-type]
        ("table", {"a": (Inner(1),)}, "table['a']"),
        ("table", {1: []}, "table"),
        ("by_day", {"2026-01-01": U}, "by_day['2026-01-01']"),
        ("pair", [1, "a"], "pair"),
        ("pair", (1, U), "pair[1]"),
        ("many", [1.0], "many"),
        ("items", (1, 2), "items"),
        ("items", {1}, "items"),
        ("numbers", [1], "numbers"),
        ("blob", "text", "blob"),
        ("amount", "1.5", "amount"),
        ("colour", "red", "colour"),
        ("inner", {"n": 1}, "inner"),
        ("inner", Inner(1, U), "inner.label"),  # type: ignore[arg-type]
        ("points", [Point("1", Decimal(1))], "points[0].x"),  # type: ignore[arg-type]
        ("points", [Point(1.0, "1")], "points[0].y"),  # type: ignore[arg-type]
        ("ratio", 2**53 + 1, "ratio"),
        ("flag", 1, "flag"),
        ("total", True, "total"),
        ("total", "1", "total"),
        ("at", "2026-01-01T00:00:00Z", "at"),
        ("anything", object(), "anything"),
    ],
)
def test_the_error_names_the_first_field_that_differs(field: str, value: Any, path: str) -> None:
    """Wrong types that a plain round trip would let pass are refused, with their place."""
    error = refused(Payload(**{field: value}))
    assert error.path == path
    assert error.problem


@given(payloads, st.sampled_from([("title", U), ("items", (1, 2)), ("pair", [1, "a"])]))
def test_one_wrong_field_is_enough(payload: Payload, wrong: tuple[str, Any]) -> None:
    assert refused(msgspec.structs.replace(payload, **{wrong[0]: wrong[1]})).path == wrong[0]


def test_of_two_wrong_fields_the_first_is_named() -> None:
    assert refused(Payload(pair=[1, "a"], items=(1,))).path == "pair"  # type: ignore[arg-type]
