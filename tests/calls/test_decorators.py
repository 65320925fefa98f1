"""How a decorated function behaves: every binding shape, its helpers, modes, windows and refusals."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit import MISS, CacheMiss, Event, Retry, UsageError, distributed_cache, stats

CALLS: list[Any] = []
FACTOR = 3
ERROR = RuntimeError("mine")


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


@distributed_cache
def plain(x: int, *, y: int = 2) -> list[int]:
    """Its docstring."""
    CALLS.append(x)
    return [x, y]


@distributed_cache(ttl="1h")
async def waited(x: int) -> list[int]:
    CALLS.append(x)
    return [x]


@dataclass(frozen=True)
class Scale:
    by: int

    @distributed_cache
    def method(self, x: int) -> int:
        CALLS.append(x)
        return self.by * x

    @distributed_cache
    async def slow(self, x: int) -> int:
        CALLS.append(x)
        return self.by * x

    @classmethod
    @distributed_cache
    def inner(cls, x: int) -> str:
        CALLS.append(x)
        return f"{cls.__name__}{x}"

    @distributed_cache
    @classmethod
    def outer(cls, x: int) -> str:
        CALLS.append(x)
        return f"{cls.__name__}{x}"

    @staticmethod
    @distributed_cache
    def static(x: int) -> int:
        CALLS.append(x)
        return x

    @distributed_cache
    @staticmethod
    def outer_static(x: int) -> int:
        CALLS.append(x)
        return x


class Wider(Scale):
    pass


def twice(call: Any) -> tuple[Any, int]:
    first = call()
    assert call() == first
    return first, len(CALLS)


def test_bare_and_called() -> None:
    """Both forms cache."""
    assert twice(lambda: plain(1)) == ([1, 2], 1)
    assert twice(lambda: distributed_cache(ttl=5)(plain.__wrapped__)(7)) == ([7, 2], 2)


def test_calls_that_python_binds_alike_are_one() -> None:
    """Defaults and keyword order do not matter."""
    plain(1), plain(x=1), plain(1, y=2), plain(y=2, x=1)
    assert CALLS == [1]


def test_types_are_told_apart() -> None:
    """1, 1.0, True and '1' are four calls."""
    for value in (1, 1.0, True, "1"):
        plain(value)  # type: ignore[arg-type]
    assert len(CALLS) == 4


@pytest.mark.parametrize(
    "call",
    [
        lambda: Scale(2).method(4),
        lambda: Scale.method(Scale(2), 4),
        lambda: Scale.inner(4),
        lambda: Scale(1).inner(4),
        lambda: Scale.outer(4),
        lambda: Scale(1).outer(4),
        lambda: Scale.static(4),
        lambda: Scale(1).static(4),
        lambda: Scale.outer_static(4),
        lambda: functools.partial(plain, y=9)(4),
        lambda: distributed_cache(functools.partial(plain.__wrapped__, y=8))(4),
        lambda: asyncio.run(waited(4)),
        lambda: asyncio.run(Scale(2).slow(4)),
    ],
)
def test_every_binding_shape(call: Any) -> None:
    """The second identical call is a hit."""
    assert twice(call)[1] == 1


def test_instances_and_classes_have_their_own_entries() -> None:
    """`self` by its value, `cls` by its name."""
    assert (Scale(2).method(4), Scale(3).method(4)) == (8, 12)
    assert (Scale.inner(4), Wider.inner(4)) == ("Scale4", "Wider4")


def test_helpers_of_a_bound_method_know_their_instance() -> None:
    """obj.method.peek(...) asks for that object's entry."""
    Scale(2).method(4)
    assert Scale(2).method.peek(4) == 8
    assert Scale(3).method.peek(4) is MISS
    assert Scale(2).method.invalidate(4) is True
    assert Scale(2).method.peek(4) is MISS
    assert Scale.inner.put("x", 9) is True
    assert Scale.inner(9) == "x"


def test_what_a_function_shows() -> None:
    """Name, docstring, signature, coroutine-ness and `__wrapped__` are kept, and it pickles by name."""
    assert plain.__name__ == "plain"
    assert plain.__doc__ == "Its docstring."
    assert str(inspect.signature(plain)) == str(inspect.signature(plain.__wrapped__))
    assert inspect.iscoroutinefunction(waited)
    assert not inspect.iscoroutinefunction(plain)
    assert plain.__reduce_ex__(2) == "plain"


def test_pickles_by_name() -> None:
    """What is loaded is the very same decorated function."""
    import json

    json.cachekit_probe = distributed_cache(_probe)  # type: ignore[attr-defined]
    _probe.__module__, _probe.__qualname__ = "json", "cachekit_probe"
    try:
        assert pickle.loads(pickle.dumps(json.cachekit_probe)) is json.cachekit_probe  # type: ignore[attr-defined]
    finally:
        del json.cachekit_probe  # type: ignore[attr-defined]


def _probe() -> int:
    return 1


@pytest.mark.parametrize(
    "wrong", [{"ttl": "soon"}, {"ttl": -1}, {"sample": -1}, {"tags": [1]}, {"retry": 3}, {"key": 1}]
)
def test_bad_arguments_are_refused(wrong: Any) -> None:
    """A UsageError names the parameter."""
    with pytest.raises(UsageError, match=next(iter(wrong))):
        distributed_cache(**wrong)


@pytest.mark.parametrize("wrong", ["tttl", "output", "scratch"])
def test_a_keyword_that_does_not_exist_is_refused(wrong: str) -> None:
    """As Python refuses it, by its name; the two that only artifacts have are none of `distributed_cache`."""
    with pytest.raises(TypeError, match=rf"distributed_cache\(\) got an unexpected keyword argument '{wrong}'"):
        distributed_cache(**{wrong: "x"})  # type: ignore[call-overload]


def test_an_artifacts_keyword_that_does_not_exist_is_refused() -> None:
    """A UsageError names it and those that there are."""
    with pytest.raises(UsageError, match=r"no tttl=; accepted: .*output.*ttl"):
        cachekit.persist_artifact(tttl=3)  # type: ignore[call-overload]


def test_a_caller_cannot_change_what_is_cached() -> None:
    """Neither the value of the miss nor that of a hit is shared with the cache."""
    plain(1).append(99)
    plain(1).append(99)
    assert plain(1) == [1, 2]


def test_closures_are_told_apart() -> None:
    """Two closures over different values are two functions; a log or a lock in a closure is not part of it."""
    log: list[int] = []
    lock = threading.Lock()

    def make(factor: int) -> Any:
        @distributed_cache
        def times(x: int) -> int:
            with lock:
                log.append(x)
            return factor * x

        return times

    assert (make(2)(5), make(3)(5), make(2)(5)) == (10, 15, 10)
    assert log == [5, 5]


def test_constants_are_read_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed module constant is another key, on the fast lane too."""

    @distributed_cache
    def scaled(x: int) -> int:
        return FACTOR * x

    assert [scaled(2), scaled(2), scaled(2)] == [6, 6, 6]
    monkeypatch.setitem(globals(), "FACTOR", 5)
    assert scaled(2) == 10


def test_an_origin_that_changes_its_arguments() -> None:
    """The answer belongs to the arguments as they were when the call began."""

    @distributed_cache
    def last(numbers: list[int]) -> list[int]:
        before = list(numbers)
        numbers.append(99)
        return before

    assert last([1]) == [1]
    assert last([1, 99]) == [1, 99]
    assert last([1]) == [1]


COUNT, MODE = 0, "a"


def test_a_counter_is_not_a_constant() -> None:
    """A global that the function counts with leaves the key alone; one that it reads first does not."""

    @distributed_cache
    def counted(x: int) -> int:
        global COUNT
        COUNT += 1
        return x

    @distributed_cache
    def moded(x: int) -> str:
        global MODE
        seen = MODE
        MODE = seen + "z"
        return seen

    assert (counted(1), counted(1), COUNT) == (1, 1, 1)
    assert (moded(1), moded(1)) == ("a", "az")


def test_hits_alone_do_not_pile_up() -> None:
    """What the fast lane notes is counted in time, however long a process only hits."""
    for _ in range(20_001):
        plain(1)
    assert stats(plain).as_dict()["calls"] == 20_001


def test_ignored_arguments_do_not_count() -> None:
    """`ignore` leaves an argument out of the key, however unkeyable."""

    @distributed_cache(ignore=("client",))
    def ask(text: str, client: object) -> str:
        CALLS.append(text)
        return text

    ask("a", object()), ask("a", object())
    assert CALLS == ["a"]


def test_an_unkeyable_argument_warns_once() -> None:
    """One warning names the argument and the remedy; the call goes through uncached."""

    @distributed_cache
    def ask(client: object) -> int:
        CALLS.append(1)
        return 1

    with pytest.warns(UserWarning, match=r"client.*ignore"):
        ask(object())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ask(object())
    assert len(CALLS) == 2
    assert stats(ask).as_dict()["bypasses"] == {"unkeyable": 2}
    with pytest.raises(UsageError, match="client"):
        ask.key_for(object())


def test_strict_raises_for_an_unkeyable_argument() -> None:
    """CACHEKIT_STRICT turns the warning into an exception."""

    @distributed_cache
    def ask(client: object) -> int:
        return 1

    with cachekit.configure(strict=True), pytest.raises(UsageError):
        ask(object())


def test_a_wrong_call_raises_what_python_raises() -> None:
    """The origin's own TypeError, and nothing is stored."""
    with pytest.raises(TypeError, match="unexpected keyword"):
        plain(1, z=3)  # type: ignore[call-arg]


def test_origin_exceptions_pass_untouched() -> None:
    """The same object, not stored, with the origin's frame last."""

    @distributed_cache
    def fails() -> int:
        CALLS.append(1)
        raise ERROR

    for _ in range(2):
        with pytest.raises(RuntimeError) as caught:
            fails()
        assert caught.value is ERROR
        assert caught.traceback[-1].name == "fails"
    assert len(CALLS) == 2


@pytest.mark.parametrize("value", [None, False, 0, "", b"x", (1, 2), {1: 2}, {1, 2}, float("inf"), [1, (2,)], "\ud800"])
def test_values_come_back_as_they_were(value: Any) -> None:
    """None and other falsy values are cached; types survive."""
    CALLS.append(0)

    @distributed_cache
    def give(name: str) -> Any:
        CALLS.append(name)
        return value

    give("a")
    found = give("a")
    assert (type(found), found) == (type(value), value)
    assert CALLS == [0, "a"]


def test_what_cannot_come_back_is_returned_and_not_stored() -> None:
    """The value reaches the caller; the reason is counted and said once."""

    @distributed_cache
    def give(x: int) -> object:
        return threading.Lock()

    with pytest.warns(UserWarning, match="codec"):
        give(1)
    give(1)
    assert stats(give).as_dict()["skipped"] == {"type": 2}


def test_refresh_peek_put_invalidate() -> None:
    """refresh recomputes, peek never calls, put stores, invalidate removes and says whether."""
    assert plain.peek(1) is MISS
    plain(1)
    assert plain.peek(1) == [1, 2]
    plain.refresh(1)
    assert CALLS == [1, 1]
    assert plain.put([5], 1) is True
    assert plain(1) == [5]
    assert plain.invalidate(1) is True
    assert plain.invalidate(1) is False
    assert plain.peek(1) is MISS


def test_the_helpers_of_a_coroutine_function_are_awaitable() -> None:
    """refresh, peek, put and invalidate."""

    async def run() -> list[Any]:
        return [
            await waited.peek(1),
            await waited(1),
            await waited.peek(1),
            await waited.refresh(1),
            await waited.put([8], 1),
            await waited(1),
            await waited.invalidate(1),
        ]

    assert asyncio.run(run()) == [MISS, [1], [1], [1], True, [8], True]


def test_tags() -> None:
    """invalidate(tag=) ends the hits of the entries with that tag, and of no other."""

    @distributed_cache(tags=["user:{user}"])
    def profile(user: int) -> int:
        CALLS.append(user)
        return user

    profile(1), profile(2)
    assert cachekit.invalidate(tag="user:1") is True
    assert cachekit.invalidate(tag="user:1") is False
    profile(1), profile(2)
    assert CALLS == [1, 2, 1]


def test_clear_ends_every_hit_of_the_namespace() -> None:
    """clear() spares other namespaces."""
    other = distributed_cache(namespace="other")(plain.__wrapped__)
    plain(1), other(1)
    assert cachekit.clear() is True
    plain(1), other(1)
    assert CALLS == [1, 1, 1]


def test_an_expired_entry_is_a_miss() -> None:
    """ttl=0 never hits."""
    never = distributed_cache(ttl=0)(plain.__wrapped__)
    never(1), never(1)
    assert CALLS == [1, 1]


def test_stale_while_revalidate() -> None:
    """The old value at once, and one refresh in the background."""
    done = threading.Event()

    @distributed_cache(ttl=0, stale_while_revalidate="1h", version="1")
    def counted(x: int) -> int:
        CALLS.append(x)
        if len(CALLS) > 1:
            done.set()
        return len(CALLS)

    assert counted(1) == 1
    assert counted(1) == 1
    assert done.wait(10)
    assert stats(counted).as_dict()["stale"] == 1


def test_stale_if_error() -> None:
    """The old value stands in for an origin that raises, and without a window the exception passes."""

    @distributed_cache(ttl=0, stale_if_error="1h", version="1")
    def flaky(x: int) -> int:
        CALLS.append(x)
        if len(CALLS) > 1:
            raise OSError("down")
        return 1

    assert (flaky(1), flaky(1)) == (1, 1)
    assert stats(flaky).as_dict()["errors"] == {"origin": {"OSError": 1}}


def test_modes() -> None:
    """off and bypass go to the origin, replay never does, read-only stores nothing, refresh stores anew."""
    with cachekit.mode("off"):
        plain(1)
    with cachekit.bypass():
        plain(1)
    with cachekit.mode("replay"), pytest.raises(CacheMiss):
        plain(1)
    with cachekit.mode("read-only"):
        plain(1)
    assert (len(CALLS), plain.peek(1)) == (3, MISS)
    plain(1)
    with cachekit.mode("refresh"):
        plain(1)
    with cachekit.mode("replay"):
        assert plain(1) == [1, 2]
    assert len(CALLS) == 5
    with cachekit.mode("read-only"), pytest.raises(UsageError, match="read-only"):
        plain.put([1], 1)


def test_samples_are_told_apart() -> None:
    """sample=1 never gets the answer of sample=0, and a context's sample wins."""
    plain(1)
    with cachekit.sample(1):
        plain(1), plain(1)
    plain(1)
    assert len(CALLS) == 2


def test_retry_only_what_is_named() -> None:
    """The named exception is retried and only the success is stored; another passes at once."""

    @distributed_cache(retry=Retry(on=OSError, attempts=3, max_wait=0), version="1")
    def flaky(x: int) -> int:
        CALLS.append(x)
        if x < 0:
            raise ValueError
        if len(CALLS) < 3:
            raise OSError
        return x

    assert (flaky(1), flaky(1), len(CALLS)) == (1, 1, 3)
    with pytest.raises(ValueError):
        flaky(-1)
    assert len(CALLS) == 4


def test_retry_after_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception's Retry-After is what is waited for, up to max_wait."""
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)

    class Limited(Exception):
        retry_after = 7

    @distributed_cache(retry=Retry(on=Limited, attempts=3, max_wait=5))
    def limited() -> int:
        raise Limited

    with pytest.raises(Limited):
        limited()
    assert waits == [5, 5]


def test_listeners_hear_every_call() -> None:
    """Hits of the fast lane included; a removed listener hears nothing."""
    plain(1)
    heard: list[Event] = []
    remove = cachekit.add_listener(heard.append)
    plain(1), plain(1)
    remove()
    plain(1)
    assert [(e.what, e.tier) for e in heard] == [("hit", "memory")] * 2


def test_stats_of_a_function() -> None:
    """Calls, hits per tier, misses, stores and the hit rate, in the documented shape."""
    for _ in range(4):
        plain(1)
    found = stats(plain).as_dict()
    assert (found["calls"], found["hits"], found["misses"], found["stores"]) == (
        4,
        {"memory": 3, "disk": 0, "ipfs": 0},
        1,
        1,
    )
    assert found["hit_rate"] == 0.75


def test_a_new_cache_serves_from_disk(own_cache: Path) -> None:
    """What memory forgot, disk has."""
    plain(1)
    cachekit.configure(dir=own_cache, ipfs="off")
    assert plain(1) == [1, 2]
    assert stats(plain).as_dict()["hits"]["disk"] == 1
    assert CALLS == [1]


def test_explain_says_where_an_answer_stands() -> None:
    """The parts of the key, and the tier."""
    assert plain.explain(1).found == ""
    plain(1)
    explained = plain.explain(1)
    assert explained.found.startswith("memory")
    assert ("argument x", "1") in explained.parts


def test_warm_fills_the_cache() -> None:
    """warm calls the function for each of the calls and tells how far it is."""
    seen: list[int] = []
    assert cachekit.warm(plain, [(1,), {"x": 2}, 3], progress=seen.append) == 3
    assert (sorted(CALLS), seen) == ([1, 2, 3], [1, 2, 3])


def test_no_cache_directory_leaves_memory(tmp_path: Path) -> None:
    """Where the directory cannot be made the calls work, memory caches, and status says why."""
    (tmp_path / "file").write_text("")
    (tmp_path / "blocked").mkdir()
    with cachekit.configure(dir=Path("/proc/cachekit"), ipfs="off"):
        assert plain(1) == plain(1)
        assert CALLS == [1]
        state = cachekit.status().as_dict()
        assert state["disk"]["on"] is False
        assert state["memory"]["on"] is True


def test_a_foreign_directory_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody else's files: nothing is touched, calls work without a disk tier, and one warning says so."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").write_text("x")
    with cachekit.configure(dir=tmp_path / "theirs", ipfs="off"):
        assert plain(1) == plain(1)
        assert CALLS == [1]
        assert "thesis.tex" in cachekit.status().as_dict()["disk"]["reason"]
    assert ["thesis.tex" in text for text in caplog.messages] == [True]
    assert [p.name for p in (tmp_path / "theirs").iterdir()] == ["thesis.tex"]


def test_strict_raises_for_a_directory_that_is_none(tmp_path: Path) -> None:
    """With `strict` the calls say what is wrong instead."""
    (tmp_path / "file").write_text("")
    with cachekit.configure(dir=tmp_path / "file", ipfs="off", strict=True), pytest.raises(UsageError, match="own"):
        plain(1)


def test_time_does_not_follow_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stepped wall clock neither revives nor ends an entry in memory before its time on the fast lane."""
    plain(1), plain(1)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert plain(1) == [1, 2]
    assert CALLS == [1]


def test_a_type_error_in_key_is_its_authors() -> None:
    """What `key=` raises reaches the caller; it is not taken for a call with wrong arguments."""

    @distributed_cache(key=lambda bound: bound["x"] + 1)
    def twice(x: str) -> str:
        return x * 2

    with pytest.raises(TypeError, match="concatenate"):
        twice("a")
