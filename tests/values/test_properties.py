"""Codecs, for values nobody thought of."""

from __future__ import annotations

from datetime import datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cachekit.errors import CannotEncode, IntegrityError
from cachekit.values.codecs import codec_for

ANY_TEXT = st.text(st.characters(), max_size=8) | st.sampled_from(["$", "$$", "tuple", "\ud800"])
OFFSETS = st.integers(-86399, 86399).map(lambda s: timezone(timedelta(seconds=s)))
JSON_LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | ANY_TEXT
    | st.floats(allow_nan=False, allow_infinity=False)
)  # fmt: skip
HASHABLE = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT | st.binary(max_size=5)
    | st.uuids() | st.dates() | st.timedeltas() | st.datetimes(timezones=st.none() | OFFSETS)
    | st.times(timezones=st.none() | OFFSETS)
)  # fmt: skip
LEAVES = HASHABLE | st.floats() | st.complex_numbers() | st.decimals() | st.binary(max_size=5).map(bytearray)


def same(a: Any, b: Any) -> bool:
    """Equal in value and in type, all the way down; NaN is NaN, and -0.0 is not 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, set | frozenset):
        return sorted(map(repr, a)) == sorted(map(repr, b))
    return repr(a) == repr(b) if isinstance(a, float | complex | Decimal | datetime | time) else a == b


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(ANY_TEXT, inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.frozensets(HASHABLE, max_size=3)
        | st.sets(HASHABLE, max_size=3)
    )


VALUES = st.recursive(LEAVES, _nested, max_leaves=12)
JSON = st.recursive(JSON_LEAVES, lambda s: st.lists(s, max_size=20) | st.dictionaries(ANY_TEXT, s, max_size=4))


@settings(deadline=None)
@given(VALUES)
def test_every_value_comes_back_or_is_refused(value: Any) -> None:
    """`load(*dump(v))` has the type and the value of v, nested ones included."""
    codec = codec_for("auto", lambda: None)
    assert same(codec.load(*codec.dump(value)), value)


@settings(deadline=None)
@given(JSON)
def test_the_json_codec_keeps_exactly_or_refuses(value: Any) -> None:
    """The codec called json never changes a value it accepts."""
    codec = codec_for("json", lambda: None)
    try:
        name, payload = codec.dump(value)
    except CannotEncode:
        assert any(0xD800 <= ord(character) <= 0xDFFF for character in _texts(value))
        return
    assert name == "json"
    assert same(codec.load(name, payload), value)


def _texts(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(map(_texts, [*value, *value.values()]))
    return "".join(map(_texts, value)) if isinstance(value, list) else value if isinstance(value, str) else ""


@settings(deadline=None)
@given(VALUES, st.data())
def test_a_damaged_payload_loads_or_is_an_integrity_error(value: Any, data: st.DataObject) -> None:
    """Whatever happens to a payload, nothing but IntegrityError comes out."""
    codec = codec_for("auto", lambda: None)
    name, payload = codec.dump(value)
    damaged = bytearray(payload or b"x")
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        codec.load(name, bytes(damaged))
    except IntegrityError:
        pass
