"""Canonical bytes: what must differ differs, what is equal agrees, what cannot be keyed is refused."""

from __future__ import annotations

import enum
import functools
import hashlib
import io
import os
import re
import types
import uuid
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pydantic
import pydantic.v1
import pytest

from cachekit.errors import CannotKey
from cachekit.files import digests
from cachekit.files.temporary import remove
from cachekit.keys.canonical import canonical
from cachekit.keys.readable import readable
from cachekit.keys.secrets import is_secret_name


class Colour(enum.Enum):
    RED = "red"


class Shade(enum.Enum):
    RED = "red"


class Text(str, enum.Enum):
    A = "a"


class Bits(enum.IntFlag):
    A = 1
    B = 2


@dataclass
class Point:
    x: Any
    y: Any = 0


@dataclass(frozen=True)
class Other:
    x: Any
    y: Any = 0


class Model(pydantic.BaseModel):
    x: Any = None


class Old(pydantic.v1.BaseModel):
    x: Any = None


Pair = namedtuple("Pair", "a b")  # noqa: PYI024


class Client:
    def __init__(self, name: str) -> None:
        self.name = name

    def __cachekit_key__(self) -> str:
        return self.name


class Opaque:
    def __repr__(self) -> str:
        return "REPR-LEAK"


class MyStr(str):
    __slots__ = ()


NOW = datetime(2024, 5, 1, 12, 30, 15, 123456)  # noqa: DTZ001

DIFFERENT: list[Any] = [
    *(
        1,
        "1",
        True,
        1.0,
        b"1",
        0,
        0.0,
        -0.0,
        False,
        None,
        "",
        "None",
        "null",
        2**63,
        2**64,
        2**70,
        -(2**70),
        str(2**70),
    ),
    *(float("nan"), float("inf"), float("-inf"), "NaN", "nan", [float("nan")], [None]),
    *(
        [],
        (),
        {},
        set(),
        frozenset(),
        [1],
        (1,),
        {1},
        frozenset({1}),
        [[1]],
        ([1],),
        [(1,)],
        {"a": 1},
        {1: "a"},
        {"1": "a"},
    ),
    *(
        {"a": [1, 2]},
        {"a": (1, 2)},
        {"a": {1, 2}},
        [("a", 1)],
        OrderedDict(a=1),
        ["a", "b"],
        ["ab"],
        ["a,b"],
        ["a", ["b"]],
    ),
    *(b"", b"a", bytearray(b"a"), memoryview(b"a"), "a", "\ud800", "\\ud800", b"a" * 5000, bytearray(b"a" * 5000)),
    *(1j, complex(-0.0, 1), Decimal(1), Decimal("1.0"), Decimal("NaN"), Fraction(1), Fraction(1, 2)),
    *(NOW, NOW.isoformat(), NOW.replace(fold=1), NOW.replace(tzinfo=timezone.utc), NOW.date(), NOW.time()),
    *(
        NOW.replace(tzinfo=ZoneInfo("Europe/Paris")),
        NOW.replace(tzinfo=ZoneInfo("Europe/Berlin")),
        timedelta(1),
        date(2024, 1, 1),
    ),
    *(time(1), timedelta(seconds=1), uuid.UUID(int=1), str(uuid.UUID(int=1))),
    *(Colour.RED, Shade.RED, Text.A, Bits.A, Bits.B, Bits.A | Bits.B, 3, Colour, Shade),
    *(Point(1), Other(1), Point(1.0), Point(x=1, y=None), Model(x=1), Old(x=1), Model(x=1.0), Pair(1, 2), (1, 2)),
    *(
        np.array([1, 2]),
        np.array([1.0, 2.0]),
        np.array([[1, 2]]),
        np.array([1, 2], dtype=">i8"),
        np.int64(1),
        np.int32(1),
    ),
    *(np.float64(1), np.float64("nan"), np.array(1), np.array([], dtype="f4"), np.array([], dtype="f8"), np.str_("a")),
    *(np.zeros(2, dtype=[("a", "i4")]), np.zeros(2, dtype=[("b", "i4")]), np.datetime64("2024-01-01"), np.array(["a"])),
    *(range(3), range(4), slice(3), slice(0, 3), re.compile("a"), re.compile("a", re.I), re.compile(b"a"), ..., "..."),
    *(int, str, list[int], list[str], os, len, max, functools.partial(max, 1), functools.partial(max, 2), str.upper),
    *(Client("a"), Client("b"), PurePosixPath("/a"), functools.partial(max, key=len), "a".upper, "b".upper),
    *({"api_key": "a"}, {"api_key": "b"}, {"token": "a"}, pydantic.SecretStr("a"), pydantic.SecretStr("b")),
    pydantic.SecretBytes(b"a"),
]


def key(value: Any) -> bytes:
    return canonical(value, where="x")


def test_values_that_differ_in_type_or_value_differ() -> None:
    """Every pair of this zoo has different bytes, at the top, inside a list and as a dict's value."""
    for wrap in (lambda v: v, lambda v: [v], lambda v: {"k": v, "t": ()}, lambda v: Point(v)):
        seen = [(key(wrap(value)), value) for value in DIFFERENT]
        same = [(type(a), type(b)) for (left, a), (right, b) in combinations(seen, 2) if left == right]
        assert same == []


def test_bytes_repeat() -> None:
    """The same value gives the same bytes twice."""
    assert [key(value) for value in DIFFERENT] == [key(value) for value in DIFFERENT]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": (), "b": 2}, {"b": 2, "a": ()}),
        ({1: 1, "b": 2}, {"b": 2, 1: 1}),
        ({"b", "a", "c"}, {"c", "a", "b"}),
        (np.arange(6).reshape(2, 3).T, np.ascontiguousarray(np.arange(6).reshape(2, 3).T)),
        (float("nan"), float("nan")),
        (["x" * 3] * 2, ["xxx", "x" * 3]),
    ],
)
def test_equal_values_agree(one: Any, two: Any) -> None:
    """Insertion order, memory layout and object identity do not count."""
    assert key(one) == key(two)


def test_ordered_dict_keeps_order() -> None:
    """The order of an OrderedDict is part of its value."""
    assert key(OrderedDict(a=1, b=2)) != key(OrderedDict(b=2, a=1))


@pytest.mark.parametrize(
    "value",
    [
        Opaque(), object(), MyStr("a"), {MyStr("a"): 1}, [MyStr("a")], (i for i in range(3)), np.array([object()]),
        np.ma.masked_array([1, 2], mask=[0, 1]), Path("/nowhere/at/all"), lambda: 1, [Opaque()], {"a": Opaque()},
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_refusal_names_argument_and_type(value: Any) -> None:
    """What cannot be keyed raises CannotKey that names the argument and a remedy and never shows a repr."""
    with pytest.raises(CannotKey) as caught:
        canonical(value, where="client")
    assert caught.value.argument == "client"
    assert "'client'" in str(caught.value)
    assert "ignore=('client',)" in str(caught.value)
    assert "REPR-LEAK" not in str(caught.value)
    assert "0x" not in str(caught.value)


def test_cycles_and_depth_are_refused() -> None:
    """A value that contains itself, or is nested very deeply, is refused instead of recursed into."""
    cycle: list[Any] = []
    cycle.append(cycle)
    tagged: dict[Any, Any] = {1: ()}
    tagged[2] = tagged
    deep: Any = ()
    for _ in range(5000):
        deep = (deep,)
    for value in (cycle, tagged, deep, [cycle, cycle]):
        with pytest.raises(CannotKey):
            key(value)


def test_shared_objects_are_not_cycles() -> None:
    """The same object twice, side by side, is fine."""
    shared = (1,)
    assert key([shared, shared]) == key([(1,), (1,)])


def test_secrets_leave_no_text() -> None:
    """Secrets, by name at any depth and by type, stand in neither the canonical bytes nor the readable text."""
    secret = "sk-very-secret"  # noqa: S105
    values = [
        {"API-Key": secret}, {"headers": [{"Authorization": secret}]}, {b"x-api-key": secret.encode()},
        {"openai_api_key": {"deep": secret}}, pydantic.SecretStr(secret), Model(x=pydantic.SecretStr(secret)),
        {"accessToken": (secret,)}, OrderedDict(password=secret),
    ]  # fmt: skip
    for value in values:
        assert secret.encode() not in key(value)
        assert secret not in readable(value)
        assert "<secret>" in readable(value)
    assert secret not in readable([("authorization", secret)])


@pytest.mark.parametrize("name", ["api_key", "apikey", "API-KEY", "token", "access_token", "Authorization", "x-api-key",
                                  "password", "client_secret", "apiKey", "AWS_SECRET_ACCESS_KEY", "hf_token"])  # fmt: skip
def test_secret_names(name: str) -> None:
    """Deny-listed names are recognised in any case and spelling."""
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["max_tokens", "key", "model", "tokenizer", "author", "keys", "passage", ""])
def test_harmless_names(name: str) -> None:
    """Names that only look alike are not secrets."""
    assert not is_secret_name(name)


def test_path_means_content(tmp_path: Path) -> None:
    """A file counts by its bytes, whatever it is called; a directory by relative names and bytes."""
    one, two = tmp_path / "one.txt", tmp_path / "other.bin"
    one.write_text("same")
    two.write_text("same")
    assert key(one) == key(two)
    two.write_text("diff")
    assert key(one) != key(two)
    trees = [tmp_path / "t1", tmp_path / "t2"]
    for tree in trees:
        (tree / "sub").mkdir(parents=True)
        (tree / "sub" / "f").write_text("x")
    assert key(trees[0]) == key(trees[1])
    (trees[1] / "sub" / "f").rename(trees[1] / "sub" / "g")
    assert key(trees[0]) != key(trees[1])
    (trees[1] / "sub" / "g").rename(trees[1] / "sub" / "f")
    (trees[1] / "empty").mkdir()
    assert key(trees[0]) != key(trees[1])
    assert key(trees[0]) != key(one)


def test_path_rewritten_with_its_mtime_restored_is_seen(tmp_path: Path) -> None:
    """Same size and same mtime do not hide a change: ctime is part of the signature."""
    file = tmp_path / "f"
    file.write_text("aaaa")
    os.utime(file, ns=(10**18, 10**18))
    before = key(file)
    file.write_text("bbbb")
    os.utime(file, ns=(10**18, 10**18))
    assert key(file) != before


def test_fresh_signature_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file hashed within 10 ms of its last change is hashed again; an older one is remembered."""
    file = tmp_path / "f"
    file.write_text("aaaa")
    changed = max(file.stat().st_mtime_ns, file.stat().st_ctime_ns)
    monkeypatch.setattr(digests.time, "time_ns", lambda: changed + 9_000_000)
    key(file)
    assert str(file) not in digests._files  # noqa: SLF001
    monkeypatch.setattr(digests.time, "time_ns", lambda: changed + 11_000_000)
    key(file)
    assert str(file) in digests._files  # noqa: SLF001


def test_a_settled_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose signature stays is digested from memory, by whatever spelling of its path; a changed one is read."""
    file = tmp_path / "f"
    file.write_bytes(b"a" * (digests.PIECE + 1))
    status = file.stat()
    monkeypatch.setattr(digests.time, "time_ns", lambda: max(status.st_mtime_ns, status.st_ctime_ns) + 11_000_000)
    digest = digests.file_digest(file)
    assert digest == hashlib.sha256(file.read_bytes()).digest()
    monkeypatch.setattr(digests, "stream_digest", lambda stream: b"read again")
    assert digests.file_digest(f"{tmp_path}/./f") == digest
    file.write_bytes(b"b")
    assert digests.file_digest(file) == b"read again"


def test_a_stream_is_copied_while_it_is_digested() -> None:
    """One pass gives the digest and the copy, also of what is longer than a piece."""
    data = os.urandom(digests.PIECE + 3)
    copy = io.BytesIO()
    assert digests.stream_digest(io.BytesIO(data), copy) == hashlib.sha256(data).digest()
    assert copy.getvalue() == data


def test_links_in_a_tree_count_by_content_and_loops_are_refused(tmp_path: Path) -> None:
    """A model snapshot of links equals one of files; a link to a parent is refused."""
    (tmp_path / "blob").write_text("w")
    linked, real = tmp_path / "linked", tmp_path / "real"
    linked.mkdir()
    real.mkdir()
    (linked / "w").symlink_to(tmp_path / "blob")
    (real / "w").write_text("w")
    assert key(linked) == key(real)
    (linked / "up").symlink_to(linked)
    with pytest.raises(CannotKey):
        key(linked)


def test_what_cannot_be_read_in_a_tree_is_named(tmp_path: Path) -> None:
    """A link to nothing deep in an input is named by its path inside the input; the input itself by the argument only."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "gone").symlink_to("nowhere")
    with pytest.raises(CannotKey, match=r"\('sub/gone' in it: No such file"):
        key(tmp_path)
    with pytest.raises(CannotKey, match=r"\(No such file"):
        key(tmp_path / "absent")


def test_an_input_too_deep_is_refused(tmp_path: Path) -> None:
    """Directories below one another without end cannot be keyed; no RecursionError."""
    at = tmp_path
    for _ in range(1200):
        at = at / "d"
        os.mkdir(at)
    try:
        with pytest.raises(CannotKey):
            key(tmp_path)
    finally:
        remove(tmp_path / "d")


def test_pydantic_extras_count() -> None:
    """Extra fields of a pydantic model are part of its value."""

    class Loose(pydantic.BaseModel, extra="allow"):
        x: int = 0

    assert key(Loose(x=1)) != key(Loose(x=1, y=2))  # type: ignore[call-arg]
    assert key(Loose(x=1, y=2)) == key(Loose(y=2, x=1))  # type: ignore[call-arg]


def test_functions_go_through_the_hook() -> None:
    """A function is what the hook says; a wrapper that is no function is what it wraps."""
    hook: Any = lambda code: code.__name__.encode()  # noqa: E731
    one, other = functools.lru_cache(test_bytes_repeat), functools.lru_cache(key)
    assert canonical(one, where="f", describe=hook) == canonical(one, where="f", describe=hook)
    assert canonical(one, where="f", describe=hook) != canonical(other, where="f", describe=hook)
    assert canonical(key, where="f", describe=hook) != canonical(test_bytes_repeat, where="f", describe=hook)


def test_readable_is_short_and_never_reprs() -> None:
    """Explanations are at most 400 characters, some 120 of a text, and show unknown objects by type only."""
    assert len(readable("x" * 1000)) <= 122
    assert len(readable({str(i): list(range(100)) for i in range(1000)})) <= 400
    assert readable(Opaque()) == "<Opaque>"
    assert "REPR-LEAK" not in readable([Opaque(), Point(Opaque()), types.SimpleNamespace(a=Opaque())])
    assert readable({"a": [1, "b", None]}) == "{'a': [1, 'b', None]}"
    for value in DIFFERENT:
        assert len(readable(value)) <= 120


def test_large_trees_are_treated_like_small_ones() -> None:
    """Beyond the walk's limit NaN, tuples, secrets and cycles are still told apart."""
    many: list[Any] = [[[], "x"] for _ in range(70_000)]
    base = key(many)
    assert base == key([[[], "x"] for _ in range(70_000)])
    assert base[:1] == b"["
    for last in (float("nan"), (), {"token": "a"}):
        assert key([*many, last]) != key([*many, None])
        assert key([*many, last])[:1] == b"\0"
    many.append(many)
    with pytest.raises(CannotKey):
        key(many)
