"""The fast lane: which calls are remembered, that a remembered one is never another's, and what ends it.

A remembered call builds no key: that tells the one from the other.
"""

from __future__ import annotations

import asyncio
import enum
import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from calls.both_ways import Asked, Way

import cachekit
from cachekit import Event, distributed_cache, stats
from cachekit.keys.keyer import Keyer
from cachekit.model import Key, Mark
from cachekit.tiers.ledger import Ledger

CALLS: list[Any] = []
BUILT: list[Any] = []
FAILURES: list[Exception] = []
"""What an origin raises, one a call, before it answers."""
FACTOR = 3


@pytest.fixture(autouse=True)
def nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts the keys that are built from now on."""
    CALLS.clear(), FAILURES.clear()
    BUILT.clear()
    build = Keyer.said

    def built(keyer: Keyer, *args: Any, **kwargs: Any) -> tuple[Key, bytes | None]:
        BUILT.append(1)
        return build(keyer, *args, **kwargs)

    monkeypatch.setattr(Keyer, "said", built)


@distributed_cache
def watched(x: Any, y: Any = 0) -> list[str]:
    CALLS.append(x)
    return [repr(x), repr(y)]


@distributed_cache
async def awatched(x: Any, y: Any = 0) -> list[str]:
    CALLS.append(x)
    return [repr(x), repr(y)]


@distributed_cache
def exact(x: Any, y: Any = 0) -> list[str]:
    CALLS.append(x)
    return [type(x).__name__, repr(x), repr(y)]


@distributed_cache
async def aexact(x: Any, y: Any = 0) -> list[str]:
    CALLS.append(x)
    return [type(x).__name__, repr(x), repr(y)]


WATCHED, EXACT = (watched, awatched), (exact, aexact)


@pytest.fixture
def ask(way: Way) -> Asked:
    return way(WATCHED)


def hits(asked: Asked, tier: str) -> int:
    return int(stats(asked.function).as_dict()["hits"][tier])


# -- which calls are remembered -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("a",), {}),
        (("",), {}),
        ((1,), {}),
        ((1 << 80,), {}),
        ((1.5,), {}),
        ((True,), {}),
        ((None,), {}),
        (([],), {}),
        (([1, [2, {"k": (3, None)}]],), {}),
        (({"a": 1, 2: "b"},), {}),
        ((), {"x": "a"}),
        ((1,), {"y": [2]}),
        (("x" * (1 << 15),), {}),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_plain_arguments_are_remembered(ask: Asked, args: Any, kwargs: Any) -> None:
    """The first call builds the key, and no later one of these arguments does."""
    values = [ask(*args, **kwargs) for _ in range(4)]
    assert values == [values[0]] * 4
    assert (len(CALLS), len(BUILT)) == (1, 1)
    assert hits(ask, "memory") == 3


class Color(enum.IntEnum):
    RED = 1


Point = namedtuple("Point", "x")


@pytest.mark.parametrize(
    "argument",
    [
        b"a",
        bytearray(b"a"),
        memoryview(b"a"),
        [b"a"],
        {"k": bytearray(b"a")},
        {1, 2},
        frozenset({1}),
        1j,
        Color.RED,
        {None: 1},
        {True: 1},
        {(1,): 1},
        OrderedDict(a=1),
        Point(1),
        Fraction(1, 2),
        Path(__file__),
        "x" * (1 << 17),
    ],
    ids=lambda value: f"{type(value).__name__} {value!r}"[:24],
)
def test_other_arguments_are_not(ask: Asked, argument: Any) -> None:
    """Buffers, sets, subclasses, unusual keys, objects, very long texts: each call builds its key; the values hit."""
    ask("something remembered")
    BUILT.clear(), CALLS.clear()
    values = [ask(argument) for _ in range(3)]
    assert values == [values[0]] * 3
    assert (len(CALLS), len(BUILT)) == (1, 3)


def test_what_cannot_be_written_down_is_no_error(ask: Asked) -> None:
    """Beside remembered calls too: a list that holds itself, a class of str: asked as ever, and counted as unkeyable."""

    class Text(str):
        """Nobody knows what it means."""

    endless: list[Any] = [1]
    endless.append(endless)
    ask(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for argument in (endless, [Text("a")], {Text("a"): 1}):
            assert [ask(argument), ask(argument)] == [[repr(argument), "0"]] * 2
    assert len(CALLS) == 7
    assert stats(ask.function).as_dict()["bypasses"]["unkeyable"] == 6


def test_each_way_of_writing_a_call_is_remembered(ask: Asked) -> None:
    """By position, by name, with a default written out: one origin's answer, and after one key for each no more."""
    ways: list[Callable[[], Any]] = [
        lambda: ask(1),
        lambda: ask(x=1),
        lambda: ask(1, 0),
        lambda: ask(1, y=0),
        lambda: ask(y=0, x=1),
    ]
    for _ in range(3):
        assert [call() for call in ways] == [["1", "0"]] * len(ways)
    assert (len(CALLS), len(BUILT)) == (1, len(ways))


@distributed_cache(version="1")
def shaky(x: int) -> list[int]:
    CALLS.append(x)
    if FAILURES:
        raise FAILURES.pop()
    return [x]


@distributed_cache(version="1")
async def ashaky(x: int) -> list[int]:
    CALLS.append(x)
    if FAILURES:
        raise FAILURES.pop()
    return [x]


def test_a_call_that_failed_is_not_remembered(way: Way) -> None:
    """Its exception is the origin's, each time anew; once it succeeds the call is like any other."""
    ask = way((shaky, ashaky))
    FAILURES.extend([OSError("down"), OSError("down")])
    for _ in range(2):
        with pytest.raises(OSError):
            ask(1)
    assert [ask(1), ask(1)] == [[1]] * 2
    assert (len(CALLS), len(BUILT)) == (3, 3)


@distributed_cache(key=lambda bound: bound["x"] % 10)
def by_digit(x: int) -> int:
    CALLS.append(x)
    return x


@distributed_cache(key=lambda bound: bound["x"] % 10)
async def aby_digit(x: int) -> int:
    CALLS.append(x)
    return x


def test_what_says_itself_what_it_is_is_asked_each_time(way: Way) -> None:
    """`key=` may look at anything: its calls hit, and none is remembered by its arguments."""
    ask = way((by_digit, aby_digit))
    assert [ask(1), ask(1), ask(11), ask(11)] == [1] * 4
    assert (len(CALLS), len(BUILT)) == (1, 4)


@distributed_cache(cacheable=lambda _value: False, version="1")
def unkept(x: int) -> int:
    CALLS.append(x)
    return len(CALLS)


@distributed_cache(cacheable=lambda _value: False, version="1")
async def aunkept(x: int) -> int:
    CALLS.append(x)
    return len(CALLS)


def test_what_is_not_stored_is_not_served(way: Way) -> None:
    """A remembered call of which nothing is kept asks the origin each time."""
    ask = way((unkept, aunkept))
    assert [ask(1), ask(1), ask(1)] == [1, 2, 3]


def test_what_is_remembered_is_bounded(ask: Asked) -> None:
    """Arguments of more than 16 MiB in all: the first ones are forgotten, at the price of a key, not of an answer."""
    size, number = 60_000, 300
    for n in range(number):
        ask(f"{n:0{size}}")
    assert len(BUILT) == number
    for _ in range(2):
        assert ask(f"{0:0{size}}") == [repr(f"{0:0{size}}"), "0"]
    assert (len(CALLS), len(BUILT)) == (number, number + 1)


# -- a remembered call is never another's ---------------------------------------------------------------------


def test_remembered_values_of_different_types_are_told_apart(way: Way) -> None:
    """Equal for Python, other answers for us: each keeps its own, however often it is asked."""
    ask = way(EXACT)
    values = [1, 1.0, True, "1", 0, 0.0, -0.0, False, None, "None", "", [], (), [1], (1,), [[1]], {}, {"1": 1}, {1: 1}]
    for _ in range(3):
        assert [ask(value) for value in values] == [[type(value).__name__, repr(value), "0"] for value in values]
    assert len(CALLS) == len(values)


def test_a_buffer_is_never_taken_for_another(way: Way) -> None:
    """bytes, bytearray and text of the same letters look alike when they are written down, and are three calls."""
    ask = way(EXACT)
    values = ["ab", b"ab", bytearray(b"ab")]
    for _ in range(3):
        assert [ask(value)[0] for value in values] == ["str", "bytes", "bytearray"]
        assert [ask([value])[1] for value in values] == [repr([value]) for value in values]
    assert len(CALLS) == 6


def test_arguments_do_not_run_into_each_other(way: Way) -> None:
    """Where one argument ends and the next begins, and by which name it came, makes another call."""
    ask = way(EXACT)
    calls: list[tuple[Any, ...]] = [("a", "b"), ("ab", ""), ("", "ab"), (["a"], "b"), (["a", "b"], 0), (("a", "b"), 0)]
    for _ in range(3):
        assert [ask(*args) for args in calls] == [[type(x).__name__, repr(x), repr(y)] for x, y in calls]
    assert len(CALLS) == len(calls)


def test_the_order_of_a_dict_makes_no_other_call(way: Way) -> None:
    """Both orders are remembered, for one key."""
    ask = way(EXACT)
    for _ in range(3):
        assert ask({"a": 1, "b": 2}) == ask({"b": 2, "a": 1})
    assert len(CALLS) == 1


def test_an_argument_that_was_changed_is_another(way: Way) -> None:
    """What counts is what it holds at the call; changed back it is the first one again."""
    ask, numbers = way(EXACT), [1]
    assert [ask(numbers)[1], ask(numbers)[1]] == ["[1]"] * 2
    numbers.append(2)
    assert [ask(numbers)[1], ask(numbers)[1]] == ["[1, 2]"] * 2
    numbers.pop()
    assert ask(numbers)[1] == "[1]"
    assert len(CALLS) == 2


def test_each_caller_has_its_own_value(ask: Asked) -> None:
    """What one does with a remembered answer changes nobody else's."""
    for _ in range(3):
        value = ask(1)
        assert value == ["1", "0"]
        value.append("mine")


# -- the function's state -------------------------------------------------------------------------------------


@distributed_cache
def scaled(x: int) -> int:
    CALLS.append(x)
    return FACTOR * x


@distributed_cache
async def ascaled(x: int) -> int:
    CALLS.append(x)
    return FACTOR * x


def test_a_constant_that_changes_ends_what_is_remembered(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another value of a constant that the function reads is another call; back again it is the first one."""
    ask = way((scaled, ascaled))
    assert [ask(2), ask(2)] == [6, 6]
    monkeypatch.setitem(globals(), "FACTOR", 5)
    assert [ask(2), ask(2)] == [10, 10]
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert [type(ask(2)), type(ask(2))] == [float, float]
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert [type(ask(2)), ask(2)] == [int, 6]
    assert len(CALLS) == 3


def _over(factor: Any) -> tuple[tuple[Any, Any], Callable[[Any], None]]:
    """A pair of functions over a variable, and what changes that."""

    @distributed_cache
    def times(x: int, y: int = 0) -> Any:
        CALLS.append(x)
        return [str(factor), x]

    @distributed_cache
    async def atimes(x: int, y: int = 0) -> Any:
        CALLS.append(x)
        return [str(factor), x]

    def change(value: Any) -> None:
        nonlocal factor
        factor = value

    return (times, atimes), change


def test_a_closed_over_value_that_changes_ends_it_too(way: Way) -> None:
    """A plain one stands in what is remembered: changed it is another call, and back again the first one."""
    pair, change = _over(2)
    ask = way(pair)
    assert [ask(1), ask(1)] == [["2", 1]] * 2
    change("two")
    assert [ask(1), ask(1)] == [["two", 1]] * 2
    assert (len(CALLS), len(BUILT)) == (2, 2)
    change(2)
    assert [ask(1), ask(1)] == [["2", 1]] * 2
    assert len(CALLS) == 2


def test_over_an_object_nothing_is_remembered(way: Way) -> None:
    """What a closure holds besides plain values can change unseen: each call looks at it, so each builds a key."""
    pair, change = _over(Fraction(1, 2))
    ask = way(pair)
    assert [ask(1), ask(1)] == [["1/2", 1]] * 2
    assert (len(CALLS), len(BUILT)) == (1, 2)
    change(Fraction(1, 3))
    assert ask(1) == ["1/3", 1]
    change(2)
    assert [ask(1), ask(1), ask(1)] == [["2", 1]] * 3
    assert (len(CALLS), len(BUILT)) == (3, 4)


# -- what ends a remembered answer ----------------------------------------------------------------------------


def test_a_moved_generation_sends_the_call_to_disk(ask: Asked, own_cache: Path) -> None:
    """Somebody on the machine announced something: memory is not believed, the key still is, and memory is again after."""
    ask(1), ask(1)
    other = Ledger(own_cache)
    other.open()
    other.bump()
    assert [ask(1), ask(1)] == [["1", "0"]] * 2
    assert (hits(ask, "disk"), hits(ask, "memory")) == (1, 2)
    assert (len(CALLS), len(BUILT)) == (1, 1)
    other.close()


def test_an_invalidation_elsewhere_ends_the_answer(ask: Asked, own_cache: Path) -> None:
    """A mark that another process makes is heeded by the next remembered call: the origin is asked."""
    ask(1), ask(1)
    namespace = ask.key_for(1).namespace
    other = Ledger(own_cache)
    other.open()
    other.mark([Mark(namespace, "namespace", "", 1 << 62)])
    BUILT.clear()
    ask(1)
    assert (len(CALLS), len(BUILT)) == (2, 0)
    other.close()


@pytest.mark.parametrize("end", ["invalidate", "clear"])
def test_an_invalidation_here_ends_the_answer(ask: Asked, end: str) -> None:
    """Of the call itself or of everything: the origin is asked once, and its new answer is remembered."""
    ask(1), ask(1)
    ask.invalidate(1) if end == "invalidate" else cachekit.clear()
    for _ in range(3):
        assert ask(1) == ["1", "0"]
    assert len(CALLS) == 2


@distributed_cache(ttl=0.05, version="1")
def brief(x: int) -> int:
    CALLS.append(x)
    return len(CALLS)


@distributed_cache(ttl=0.05, version="1")
async def abrief(x: int) -> int:
    CALLS.append(x)
    return len(CALLS)


def test_a_remembered_answer_ends_with_its_ttl(way: Way) -> None:
    """However often it is asked for meanwhile: hits do not lengthen a life."""
    ask = way((brief, abrief))
    while (answer := ask(1)) == 1:
        pass
    assert answer == 2


def test_a_refreshed_answer_is_served(ask: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """`put` and `refresh` change what a remembered call gives, at once."""
    ask(1), ask(1)
    ask.put(["put"], 1)
    assert [ask(1), ask(1)] == [["put"]] * 2
    ask.refresh(1)
    assert [ask(1), ask(1)] == [["1", "0"]] * 2
    assert len(CALLS) == 2


def test_what_memory_gave_up_comes_from_disk(ask: Asked) -> None:
    """Under a limit that evicts all the time every answer is its call's own, and comes from disk."""
    with cachekit.configure(memory_limit="5KB"):
        for _ in range(3):
            assert [ask(n, "y" * 1000) for n in range(20)] == [[repr(n), repr("y" * 1000)] for n in range(20)]
        assert len(CALLS) == 20
        assert hits(ask, "disk") > 20


def test_without_memory_the_disk_answers(ask: Asked) -> None:
    """With the memory tier off a call is remembered all the same: no key, no origin, a read of the disk."""
    with cachekit.configure(memory_limit=0):
        assert [ask(1) for _ in range(4)] == [["1", "0"]] * 4
        assert (len(CALLS), len(BUILT)) == (1, 1)
        assert (hits(ask, "memory"), hits(ask, "disk")) == (0, 3)


# -- when it is passed by -------------------------------------------------------------------------------------


def test_listeners_hear_of_remembered_calls(ask: Asked) -> None:
    """While somebody listens every hit is an event; afterwards calls are remembered anew."""
    ask(1), ask(1)
    heard: list[Event] = []
    remove = cachekit.add_listener(heard.append)
    for _ in range(3):
        ask(1)
    remove()
    assert [(event.what, event.tier) for event in heard] == [("hit", "memory")] * 3
    BUILT.clear()
    for _ in range(3):
        ask(1)
    assert (len(CALLS), len(BUILT), len(heard)) == (1, 1, 3)


@distributed_cache(version="1")
def numbered(x: int) -> int:
    CALLS.append(x)
    return len(CALLS)


@distributed_cache(version="1")
async def anumbered(x: int) -> int:
    CALLS.append(x)
    return len(CALLS)


@pytest.mark.parametrize(("block", "after"), [("off", 1), ("bypass", 1), ("sample", 1), ("refresh", 2)])
def test_a_block_is_heeded_by_remembered_calls(way: Way, block: str, after: int) -> None:
    """What a `with` block says holds for calls that were made before it; behind it the answer of no block is back."""
    ask = way((numbered, anumbered))
    blocks = {"bypass": cachekit.bypass(), "sample": cachekit.sample(1)}
    assert [ask(1), ask(1)] == [1, 1]
    with blocks.get(block) or cachekit.mode(block):  # type: ignore[arg-type]
        assert ask(1) == 2
    BUILT.clear()
    assert [ask(1), ask(1)] == [after, after]
    assert (len(CALLS), len(BUILT)) == (2, 0)


def test_what_a_block_asked_for_is_not_remembered(way: Way) -> None:
    """A call that was first made inside `sample` is another one outside, however alike its arguments."""
    ask = way((numbered, anumbered))
    with cachekit.sample(1):
        assert [ask(1), ask(1)] == [1, 1]
    assert [ask(1), ask(1)] == [2, 2]
    with cachekit.sample(1):
        assert ask(1) == 1


def test_replay_serves_what_is_remembered(ask: Asked) -> None:
    """The mode that never calls the origin answers what was answered before, and refuses what was not."""
    ask(1), ask(1)
    with cachekit.mode("replay"):
        assert ask(1) == ["1", "0"]
        with pytest.raises(cachekit.CacheMiss):
            ask(2)
    assert len(CALLS) == 1


def test_another_cache_has_its_own_answers(ask: Asked, tmp_path: Path) -> None:
    """A remembered call leads into the cache that it was made in, and into no other that is configured later."""
    ask(1), ask(1)
    with cachekit.configure(dir=tmp_path / "other"):
        ask(1), ask(1)
        assert len(CALLS) == 2
    ask(1), ask(1)
    assert len(CALLS) == 2


# -- what is counted ------------------------------------------------------------------------------------------


def test_remembered_hits_are_counted(ask: Asked) -> None:
    """Each is a call and a hit, with its bytes and what it saved, and their latencies are told."""
    for _ in range(101):
        ask(1)
    counters = stats(ask.function).as_dict()
    assert (counters["calls"], counters["hits"]["memory"], counters["misses"]) == (101, 100, 1)
    assert counters["bytes"]["memory"]["read"] == 100 * len(b'["1","0"]')
    assert counters["seconds"]["saved"] > 0
    assert 0 < counters["latency"]["memory"]["p50"] <= counters["latency"]["memory"]["p99"]


def test_tasks_share_what_is_remembered() -> None:
    """Many tasks of one loop ask for one remembered answer: each has its own copy of it, and no key is built."""

    async def main() -> list[list[str]]:
        await awatched(1)
        BUILT.clear()
        return list(await asyncio.gather(*(awatched(1) for _ in range(50))))

    values = asyncio.run(main())
    assert values == [["1", "0"]] * 50
    assert len({id(value) for value in values}) == 50
    assert (len(CALLS), len(BUILT)) == (1, 0)


@distributed_cache(ignore=("tree",))
def ignoring(x: int, tree: Any) -> int:
    return x


def test_a_very_deep_argument_is_no_error() -> None:
    """What the lane cannot write down is not remembered; the call is answered, and hits."""
    tree: list[Any] = []
    for _ in range(2500):
        tree = [tree]
    assert [ignoring(1, tree), ignoring(1, tree)] == [1, 1]
