"""Codecs: a value comes back with its type, or is refused."""

from __future__ import annotations

import enum
import functools
import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Annotated, Any, Generic, NamedTuple, Optional, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import orjson
import pydantic
import pydantic.v1
import pytest

from cachekit.errors import CannotEncode, IntegrityError, UsageError
from cachekit.values.codecs import codec_for

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "r"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Shade(str, enum.Enum):
    DARK = "d"


class Point(NamedTuple):
    x: int
    y: Any = 0


@dataclass
class Part:
    name: str
    tags: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Whole:
    parts: list[Part]
    colour: Colour | None = None

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("must not run on a hit")


@dataclass(frozen=True, slots=True)
class Slotted:
    value: int
    hidden: int = field(default=0, init=False)


@dataclass
class Computing:
    value: int

    @functools.cached_property
    def double(self) -> int:
        return self.value * 2


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Trouble(Exception):
    code: int


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    at: datetime
    part: Part | None = None
    note: str = "none"


class Secretive(pydantic.BaseModel):
    value: int
    _hidden: int = 3


class Root(pydantic.RootModel[list[int]]):
    pass


class Old(pydantic.v1.BaseModel):
    value: int
    note: str = "none"


class Reply(TypedDict):
    model: Model


class Odd(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(hours=1)

    def dst(self, _: datetime | None) -> None:
        return None


Text = type("Text", (str,), {})
Loose = namedtuple("Loose", "a")  # noqa: PYI024


def through(value: Any, annotation: Any = None, codec: str = "auto") -> Any:
    """`value` stored by one codec object and loaded by another, as another process would."""
    name, payload = codec_for(codec, lambda: annotation).dump(value)
    assert type(payload) is bytes
    return codec_for(codec, lambda: annotation).load(name, payload)


def same(a: Any, b: Any) -> bool:
    """Equal in value and in type, all the way down; NaN is NaN, and -0.0 is not 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, set | frozenset):
        return sorted(map(repr, a)) == sorted(map(repr, b))
    return repr(a) == repr(b) if isinstance(a, float | complex | Decimal | datetime | time) else a == b


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"\0x", "bytes"),
        ("ü\ud800", "text"),
        (np.arange(6).reshape(2, 3), "ndarray"),
        (None, "json"),
        (True, "json"),
        (-0.0, "json"),
        (2**64 - 1, "json"),
        ({"b": [1, 2.5, None], "a": {"$x": "ü"}}, "json"),
        ([0.5] * 20, "json"),
        ([0.5] * 20 + [float("nan")], "tagged"),
        ({"$": 1}, "json"),
        ({"$": ["tuple", [1]], "t": ()}, "tagged"),
        ([{"$": ["bytes", "AA=="]}, b"x"], "tagged"),
        (2**64, "tagged"),
        (-(2**70), "tagged"),
        ((1, [2, (3,)]), "tagged"),
        ({1: "a", "1": "b", None: "c", (1, 2): "d", 2.5: "e"}, "tagged"),
        ([{1, 2}, frozenset({"a"}), bytearray(b"z"), b"y"], "tagged"),
        ([float("nan"), float("inf"), -float("inf")], "tagged"),
        (["\udcff", {"\ud800": 1}], "tagged"),
        ([1j, complex(-0.0, float("inf")), Decimal("-0.00"), Decimal("sNaN12")], "tagged"),
        (UUID(int=7), "tagged"),
        ([date(2020, 1, 2), time(1, 2, 3, 4), timedelta(-1, 5, 6)], "tagged"),
        (datetime(2020, 1, 2, 3, 4, 5, 6), "tagged"),
        (datetime(2020, 1, 2, tzinfo=timezone.utc), "tagged"),
        (datetime(2020, 1, 2, tzinfo=timezone(timedelta(hours=-3.5), "Nfld\ud800")), "tagged"),
        (datetime(2020, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1), "tagged"),
        ([np.float32(1.5), np.int64(3), np.bool_(1), np.datetime64("2020-01-01", "ns")], "tagged"),
        (np.zeros(2, [(f"field_{i:0100}", "i4") for i in range(200)]), "ndarray"),
        ({"e": np.ones((2, 2), dtype=">f4"), "s": np.array(3), "n": np.zeros((0, 3))}, "tagged"),
    ],
)
def test_auto_keeps_value_and_type(value: Any, name: str) -> None:
    """What `auto` stores comes back the same, nested types and key order included, under the cheapest codec."""
    assert codec_for("auto", lambda: None).dump(value)[0] == name
    assert same(through(value), value)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (Colour.RED, Colour),
        (Access.READ | Access.WRITE, Access),
        ([Shade.DARK], list[Shade]),
        (Point(1, (2,)), Optional[Point]),
        ({"k": [Whole([Part("a", {"t"})], Colour.RED)]}, dict[str, list[Whole]]),
        (Slotted(3), Annotated[Slotted, "meta"]),
        (Box(Part("x")), Box[Part]),
        (Model(at="2020-01-01T00:00:00+02:00", part=Part("p"), more=(1, 2)), Model | None),
        ({"model": Model(at=datetime(2020, 1, 1))}, Reply),
        (Root([1, 2]), Root),
        (Old(value=1), list[Old]),
    ],
)
def test_named_classes_come_back(value: Any, annotation: Any) -> None:
    """Instances of the classes that the return annotation names, in whatever depth, come back."""
    assert same(through(value, annotation), value)


def test_a_deep_tuple_is_refused_and_not_fatal() -> None:
    """20 000 tuples inside each other, and a tuple that holds itself, are CannotEncode."""
    deep: object = ()
    for _ in range(20_000):
        deep = (deep,)
    cycle: list[object] = []
    cycle.append((cycle,))
    for value in (deep, cycle):
        with pytest.raises(CannotEncode):
            codec_for("auto", lambda: None).dump(value)


@pytest.mark.parametrize("wrap", [lambda last: [last], lambda last: [[[]]] * 20_000 + [{"a": [[], last]}]])
def test_a_large_tree_is_judged_like_a_small_one(wrap: Any) -> None:
    """Beyond the walk's limit, too, JSON takes what it keeps, and what it would change goes under a tag."""
    many = [[i] for i in range(20_000)]
    codec = codec_for("auto", lambda: None)
    for last, name in ((1.5, "json"), (float("nan"), "tagged"), ((), "tagged"), (b"", "tagged"), (2**64, "tagged")):
        value = [*many, wrap(last)]
        dumped = codec.dump(value)
        assert dumped[0] == name
        assert same(codec.load(*dumped), value)
    ring: list[Any] = [*many]
    ring.append([ring])
    with pytest.raises(CannotEncode):
        codec.dump(ring)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_a_long_list_of_floats_hides_no_odd_one(odd: float) -> None:
    """Finite floats whose sum overflows are JSON; one that is not finite is not, even where another cancels it."""
    codec = codec_for("auto", lambda: None)
    assert codec.dump([1e308] * 20)[0] == "json"
    for value in ([odd, *[0.5] * 20], [1e308] * 20 + [odd], [odd, *[0.5] * 20, -odd]):
        dumped = codec.dump(value)
        assert dumped[0] == "tagged"
        assert same(codec.load(*dumped), value)


def test_no_constructor_runs_on_a_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataclass's and a model's own code is not called when a value is loaded."""
    value = [Whole([Part("a")]), Model(at=datetime(2020, 1, 1))]
    codec = codec_for("auto", lambda: list[Whole | Model])
    dumped = codec.dump(value)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a constructor ran")

    monkeypatch.setattr(Whole, "__init__", refuse)
    monkeypatch.setattr(Whole, "__post_init__", refuse)
    monkeypatch.setattr(Model, "__init__", refuse)
    assert codec.load(*dumped) == value


def test_a_model_keeps_which_fields_were_set() -> None:
    """`model_fields_set`, extras and pydantic's own timezone survive."""
    value = Model(at="2020-01-01T00:00:00Z", more=1)
    loaded = through(value, Model)
    assert loaded.model_fields_set == value.model_fields_set
    assert loaded.model_extra == {"more": 1}
    assert type(loaded.at.tzinfo) is type(value.at.tzinfo)
    assert loaded.model_dump_json() == value.model_dump_json()


def test_an_old_model_keeps_which_fields_were_set() -> None:
    """The same for pydantic v1."""
    loaded = through(Old(value=1), Old)
    assert loaded.__fields_set__ == {"value"}
    assert loaded.copy(update={"value": 2}).dict() == {"value": 2, "note": "none"}


def cyclic() -> list[Any]:
    ring: list[Any] = []
    ring += [ring, ring]
    return ring


def deep(levels: int) -> Any:
    value: Any = ()
    for _ in range(levels):
        value = [value]
    return value


def with_attribute() -> Part:
    part = Part("x")
    part.extra = 1  # type: ignore[attr-defined]
    return part


def computed() -> Computing:
    value = Computing(2)
    assert value.double == 4
    return value


def local_class() -> Any:
    @dataclass
    class Twin:
        a: int = 1

    return Twin


def two_of_one_name() -> tuple[Any, Any]:
    one, other = local_class(), local_class()
    return one(), one | other


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (object(), None),
        (Part("x"), None),
        (Part("x"), Box[int]),
        (Colour.RED, None),
        (Point(1), None),
        (Loose(1), None),
        (Text("x"), None),
        ({Text("x"): 1}, None),
        ({"a": [Text("x")]}, Text),
        (OrderedDict(a=1), None),
        ([Shade.DARK], None),
        (with_attribute(), Part),
        (computed(), Computing),
        (Trouble(1), Trouble),
        (Secretive(value=1), Secretive),
        (datetime(2020, 1, 1, tzinfo=Odd()), None),
        ([ZoneInfo("UTC")], None),
        (np.array([object()]), None),
        ([np.array([{}])], None),
        (np.ma.array([1]), None),
        (np.array([1], dtype=np.dtype("i4", metadata={"a": 1})), None),
        ([np.str_("a")], None),
        ([np.longlong(1)], None),
        (cyclic(), None),
        (deep(100), None),
        ((i for i in ()), None),
        (Part, Part),
        two_of_one_name(),
    ],
)
def test_what_would_change_is_refused(value: Any, annotation: Any) -> None:
    """What could not come back the same raises CannotEncode."""
    with pytest.raises(CannotEncode):
        codec_for("auto", lambda: annotation).dump(value)


def test_a_refusal_names_the_type_and_the_remedy() -> None:
    """The message names the type, not the value, and what to do; the reason is a short word."""
    with pytest.raises(CannotEncode, match=r"Part.*annotation.*codec=.*cacheable=") as caught:
        codec_for("auto", lambda: None).dump([Part("private")])
    assert caught.value.reason == "type"
    assert "private" not in str(caught.value)


def test_the_annotation_is_evaluated_only_for_a_class() -> None:
    """Plain values never evaluate the annotation; one that fails to evaluate counts as none."""
    asked = []

    def annotation() -> object:
        asked.append(1)
        raise NameError("forward reference")

    codec = codec_for("auto", annotation)
    codec.dump([{"a": 1}, (1,)])
    assert asked == []
    with pytest.raises(CannotEncode):
        codec.dump(Part("x"))
    assert asked == [1]


def test_a_class_that_changed_since_is_a_miss() -> None:
    """A payload whose class has other fields now, or is no longer annotated, raises IntegrityError."""
    name, payload = codec_for("auto", lambda: Part).dump(Part("x"))
    for other in (payload.replace(b'"tags"', b'"tagz"'), payload.replace(b":Part", b":Whole")):
        assert other != payload
        with pytest.raises(IntegrityError):
            codec_for("auto", lambda: Whole).load(name, other)
    with pytest.raises(IntegrityError):
        codec_for("auto", lambda: None).load(name, payload)


@pytest.mark.parametrize("value", [[{"a": []}, (1, [2])], {"a": [1]}, np.arange(3), [np.arange(3)], [bytearray(b"x")]])
def test_loaded_values_share_nothing(value: Any) -> None:
    """Two loads of one payload, and the original, are different objects down to the mutable leaves."""
    codec = codec_for("auto", lambda: None)
    dumped = codec.dump(value)
    one, other = codec.load(*dumped), codec.load(*dumped)
    if isinstance(value, np.ndarray):
        assert one.flags.writeable
        assert not np.shares_memory(one, other)
    else:
        assert one is not other
        assert all(a is not b for a, b in zip(_mutables(one), _mutables(other), strict=True))


def _mutables(value: Any) -> list[Any]:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    found = [value] if isinstance(value, list | dict | bytearray | np.ndarray) else []
    return found + [m for item in inner for m in _mutables(item)]


@pytest.mark.parametrize(
    ("codec", "good", "bad"),
    [
        ("json", [{"a": [1.5, None]}, "x"], [(1, 2), float("nan"), {1: 2}, 2**64, b"", np.arange(2)]),
        ("json", "text is json too", ["\ud800"]),
        ("bytes", b"x", ["x", bytearray(b"x"), None]),
        ("text", "x\ud800", [b"x", Text("x"), 1]),
        ("ndarray", np.asfortranarray(np.ones((2, 3))), [[1.0], np.float64(1), np.array([None])]),
        (
            "safetensors",
            {"z": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "a": np.array(3), "e": np.zeros((0, 2), "u1")},
            [np.arange(2), {"a": 1}, {1: np.arange(2)}, {"a": np.ones(2, ">f4")}, {"a": np.ones(2, "M8[s]")}],
        ),
        ("safetensors", {}, [{"__metadata__": np.arange(2)}]),
    ],
)
def test_a_named_codec_keeps_exactly_or_refuses(codec: str, good: Any, bad: list[Any]) -> None:
    """A codec asked for by name stores what it can keep, and raises CannotEncode for the rest."""
    assert same(through(good, codec=codec), good)
    for value in bad:
        with pytest.raises(CannotEncode):
            codec_for(codec, lambda: None).dump(value)


def test_safetensors_arrays_are_writable() -> None:
    """A loaded tensor may be changed by the caller without reaching the payload."""
    codec = codec_for("safetensors", lambda: None)
    dumped = codec.dump({"a": np.zeros(3)})
    codec.load(*dumped)["a"][0] = 5
    assert codec.load(*dumped)["a"][0] == 0


@pytest.mark.parametrize("choice", ["pickle", "path", "", None, 3, object()])
def test_an_unknown_codec_is_a_usage_error(choice: Any) -> None:
    """The error names the accepted names."""
    with pytest.raises(UsageError, match="auto, json, bytes, text, ndarray, safetensors"):
        codec_for(choice, lambda: None)


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("json", b"{"),
        ("text", b"\xff"),
        ("ndarray", b"\x93NUMPY"),
        ("ndarray", codec_for("auto", lambda: None).dump(np.arange(3))[1] + b"x"),
        ("safetensors", b"\0" * 20),
        ("tagged", b"[{"),
        ("tagged", b'{"$":["no such tag",1]}'),
        ("tagged", b'{"$":["datetime",[1]]}'),
        ("tagged", b'{"$":["object",["os:system","enum","x"]]}'),
        ("pickle", b"."),
    ],
)
def test_a_corrupt_payload_is_an_integrity_error(name: str, payload: bytes) -> None:
    """Nothing but IntegrityError comes out of a payload that no dump wrote."""
    with pytest.raises(IntegrityError):
        codec_for("auto", lambda: None).load(name, payload)


def test_the_hot_path_holds_the_bare_functions() -> None:
    """`loader` gives orjson.loads itself for JSON, and the identity for bytes."""
    codec = codec_for("auto", lambda: None)
    payload = b"x" * 10
    assert codec.loader("json") is orjson.loads
    assert codec.loader("bytes")(payload) is payload
    with pytest.raises(IntegrityError):
        codec.loader("pickle")


class Reversing:
    def dump(self, value: Any) -> tuple[str, bytes]:
        return "reversed", value[::-1]

    def load(self, name: str, payload: bytes) -> Any:
        if name != "reversed":
            raise KeyError(name)
        return payload[::-1]


def test_a_foreign_codec_is_used_and_contained() -> None:
    """A Codec object stores and loads; what it raises becomes CannotEncode or IntegrityError."""
    codec = codec_for(Reversing(), lambda: None)
    assert codec.dump(b"abc") == ("reversed", b"cba")
    assert codec.loader("reversed")(b"cba") == b"abc"
    for unfit in (3, "text"):
        with pytest.raises(CannotEncode):
            codec.dump(unfit)
    with pytest.raises(IntegrityError):
        codec.load("other", b"")


def test_importing_codecs_brings_no_vendor() -> None:
    """numpy, pydantic and safetensors are not imported by dumping a plain value."""
    import subprocess

    script = (
        "import sys; from cachekit.values.codecs import codec_for; codec_for('auto', lambda: None).dump([(1,)]);"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'pydantic', 'safetensors')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0  # noqa: S603
