"""Properties of keys over generated calls: no two different calls share a key, equal calls always do."""

from __future__ import annotations

import marshal
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cachekit.calls.lanes import lane_safe
from cachekit.files.digests import frame
from cachekit.keys.canonical import canonical
from cachekit.keys.keyer import Keyer
from cachekit.keys.readable import readable
from cachekit.model import Policy

SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.integers() | st.floats() | st.text(max_size=3)
    | st.text(st.characters(), max_size=3) | st.binary(max_size=3) | st.binary(max_size=3).map(bytearray)
    | st.sampled_from(["1", "1.0", "true", "null", "\0", "NaN"]) | st.complex_numbers() | st.decimals() | st.fractions()
    | st.datetimes() | st.dates() | st.times() | st.timedeltas() | st.uuids()
)  # fmt: skip
HASHABLE = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text(max_size=2) | st.binary(max_size=2)
)


def nest(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3) | st.sets(HASHABLE, max_size=3)
        | st.frozensets(HASHABLE, max_size=3)
    )  # fmt: skip


VALUES = st.recursive(SCALARS, nest, max_leaves=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=2).map(tuple)
    | st.dictionaries(st.text(max_size=2) | st.integers(-2, 2), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def same(one: Any, two: Any) -> bool:
    """Equality that sees types, signs of zero and NaN: what the key must decide, written the slow way."""
    if type(one) is not type(two):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(two)) or (one == two and math.copysign(1, one) == math.copysign(1, two))
    if isinstance(one, complex):
        return same((one.real, one.imag), (two.real, two.imag))
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, (set, frozenset)):
        return len(one) == len(two) and all(any(same(a, b) for b in two) for a in one)
    if isinstance(one, dict):
        pairs = [(b, two[b]) for b in two]
        return len(one) == len(two) and all(any(same(a, b) and same(one[a], v) for b, v in pairs) for a in one)
    return bool(one == two) if type(one).__name__ != "Decimal" else str(one) == str(two)


def shuffled(value: Any) -> Any:
    """An equal value built afresh, with every dict and set filled in the opposite order."""
    if isinstance(value, dict):
        return {shuffled(name): shuffled(value[name]) for name in reversed(value)}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [shuffled(item) for item in value]
        return type(value)(items[::-1] if isinstance(value, (set, frozenset)) else items)
    return value


def plain(x: Any, y: Any = None, *rest: Any, z: Any = 0, **more: Any) -> Any:
    return x, y, rest, z, more


KEYER = Keyer(plain, policy=Policy())


def digest(*args: Any, **kwargs: Any) -> bytes:
    return KEYER.key(args, kwargs, namespace="n", sample=0).digest


@settings(max_examples=400, deadline=None)
@given(VALUES, VALUES)
def test_keys_agree_exactly_when_values_do(one: Any, two: Any) -> None:
    """Two calls share a key if and only if their arguments have one type and value."""
    assert (digest(one) == digest(two)) == same(one, two)
    assert (canonical(one, where="x") == canonical(two, where="x")) == same(one, two)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_order_and_identity_are_irrelevant(value: Any) -> None:
    """A value rebuilt with every dict and set in another order has the same key."""
    assert digest(value) == digest(shuffled(value))


@settings(max_examples=300, deadline=None)
@given(
    VALUES, VALUES, st.lists(VALUES, max_size=2), VALUES, st.dictionaries(st.sampled_from("abx_"), VALUES, max_size=2)
)
def test_calls_python_binds_alike_share_a_key(x: Any, y: Any, rest: list[Any], z: Any, more: dict[str, Any]) -> None:
    """Any spelling that Python binds to the same parameters has the same key."""
    more.pop("x", None)
    assert digest(x, y, *rest, z=z, **more) == digest(x, y, *rest, **dict(reversed(more.items())), z=z)
    assert digest(x, y, z=z, **more) == digest(z=z, y=y, x=x, **more)
    assert digest(x) == digest(x=x) == digest(x, None, z=0)


@settings(max_examples=300, deadline=None)
@given(VALUES, VALUES)
def test_arguments_do_not_slide(one: Any, two: Any) -> None:
    """A value in one parameter is not the same value in another."""
    spellings = [
        digest(one, two),
        digest(one, None, two),
        digest(one, z=two),
        digest(one, more=two),
        digest((one, two)),
    ]
    assert len(set(spellings)) == len(spellings)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_frames_are_injective(one: list[bytes], two: list[bytes]) -> None:
    """Frames are equal only for equal parts."""
    assert (frame(*one) == frame(*two)) == (one == two)


@settings(max_examples=400, deadline=None)
@given(JSON, JSON)
def test_lane_bytes_imply_equal_keys(one: Any, two: Any) -> None:
    """Trees that the lane takes and marshal writes alike are the same value, so they have one key."""
    assert lane_safe(one)
    assert lane_safe(two)
    if marshal.dumps(one, 2) == marshal.dumps(two, 2):
        assert same(one, two)
        assert digest(one) == digest(two)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_readable_never_fails(value: Any) -> None:
    """Every value has a short text."""
    assert len(readable(value)) <= 400
