"""Specs, instants and ids: one encoding for equal content, exact instants, growing ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskflow import Backoff
from taskflow._core.ids import uuid7
from taskflow._core.records import (
    JobSpec,
    decode_spec,
    digest,
    encode_spec,
    instant,
    later,
    micros,
)
from tests.property.draws import durations, instants, specs, zones

REPLACED: dict[str, Any] = {
    "payload": b"other",
    "queue": "another queue",
    "priority": 101,
    "delay": 0.125,
    "eta": 7,
    "max_attempts": 2**31,
    "retry": Backoff(base=0.125),
    "timeout": 0.125,
    "tags": {"a tag of": "the test"},
}


def twin(value: Any) -> Any:
    """An equal value that shares no object with it, with whole floats as ints."""
    if isinstance(value, msgspec.Struct):
        fields = {name: twin(getattr(value, name)) for name in value.__struct_fields__}
        return type(value)(**fields)
    if isinstance(value, dict):
        return {twin(key): twin(value[key]) for key in reversed(value)}
    if isinstance(value, tuple):
        return tuple(twin(each) for each in value)
    if isinstance(value, float):
        return int(value) if value.is_integer() and value < 2**53 else float(repr(value))
    if type(value) is str:
        return "".join(list(value))
    return value


@example(JobSpec(id="a", kind="k", payload=b"", delay=-0.0))
@example(JobSpec(id="a", kind="k", payload=b""))
@given(specs)
def test_equal_content_has_equal_bytes(spec: JobSpec) -> None:
    """However it was written: defaults given or left out, 30 or 30.0, tags in any order."""
    other = twin(spec)
    assert other == spec
    encoded = encode_spec(spec)
    assert encode_spec(other) == encoded
    assert digest(encode_spec(other)) == digest(encoded)
    assert len(digest(encoded)) == 16


@given(specs)
def test_a_stored_spec_reads_back_and_encodes_alike(spec: JobSpec) -> None:
    encoded = encode_spec(spec)
    back = decode_spec(encoded)
    assert back == spec
    assert encode_spec(back) == encoded


def test_defaults_cost_nothing() -> None:
    spec = JobSpec(
        id="a", kind="k", payload=b"", queue="".join(["def", "ault"]), delay=float("0"),
        retry=Backoff(base=5), result_ttl=86_400, failed_ttl=float("2592000"),
    )  # fmt: skip
    assert msgspec.msgpack.decode(encode_spec(spec)) == {"id": "a", "kind": "k", "payload": b""}


@given(specs, st.sampled_from(sorted(REPLACED)))
def test_other_content_has_other_bytes(spec: JobSpec, field: str) -> None:
    other = msgspec.structs.replace(spec, **{field: REPLACED[field]})
    assert (encode_spec(other) == encode_spec(spec)) == (other == spec)
    assert (digest(encode_spec(other)) == digest(encode_spec(spec))) == (other == spec)


def test_every_field_of_a_spec_is_content() -> None:
    plain = JobSpec(id="a", kind="k", payload=b"")
    for field, value in REPLACED.items():
        changed = msgspec.structs.replace(plain, **{field: value})
        assert digest(encode_spec(changed)) != digest(encode_spec(plain)), field


@given(instants)
def test_instants_are_exact(us: int) -> None:
    at = instant(us)
    assert at is not None
    assert at.utcoffset() == timedelta(0)
    assert micros(at) == us


def test_no_instant_is_none() -> None:
    assert instant(None) is None


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=zones))
def test_a_zone_changes_nothing_of_an_instant(at: datetime) -> None:
    assert micros(at) == micros(at.astimezone(UTC))
    assert instant(micros(at)) == at.astimezone(UTC)


def test_the_hour_that_comes_twice_is_two_instants() -> None:
    first = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    assert micros(first.replace(fold=1)) - micros(first) == 3_600_000_000
    assert micros(datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == 0


@example(2**41, 1e300)
@given(st.integers(0, 3_000_000_000_000_000), durations)
def test_no_duration_leads_to_an_instant_that_cannot_be_shown(now: int, delay: float) -> None:
    then = later(now, delay)
    assert then >= now
    assert instant(then) is not None
    if delay < 10**9:
        assert abs(then - now - delay * 1_000_000) <= 0.5


@example(0, bytes(10))
@example(2**48 - 1, b"\xff" * 10)
@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_ids_are_uuids_of_version_7(at: int, random: bytes) -> None:
    made = UUID(uuid7(at, random))
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == at
    given_bits = int.from_bytes(random, "big")
    assert made.int & (2**62 - 1) == given_bits & (2**62 - 1)
    assert made.int >> 64 & 0xFFF == given_bits >> 64 & 0xFFF


@given(
    st.lists(st.integers(0, 2**48 - 1), min_size=2, max_size=20, unique=True),
    st.data(),
)
def test_later_ids_sort_later(times: list[int], data: st.DataObject) -> None:
    """As text, byte by byte: stores compare them so."""
    random = st.binary(min_size=10, max_size=10)
    ids = [uuid7(at, data.draw(random)) for at in sorted(times)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


@given(st.integers(0, 2**48 - 1), st.sets(st.binary(min_size=10, max_size=10), min_size=2))
def test_ids_of_one_millisecond_differ_by_their_random_bits(at: int, random: set[bytes]) -> None:
    """74 of the 80 bits count; the other six are the version and the variant."""
    kept = {(int.from_bytes(r, "big") & ~(0xF << 76) & ~(0x3 << 62)) for r in random}
    assert len({uuid7(at, r) for r in random}) == len(kept)


@pytest.mark.parametrize("us", [-1, 0, 1])
def test_the_epoch(us: int) -> None:
    assert instant(us) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
