"""From a call to what is done with it: why it goes straight to the origin, and what its policy and the settings make of it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from calls.both_ways import Asked, Way

import cachekit
from cachekit import MISS, CacheMiss, Event, Retry, UsageError, distributed_cache, stats
from cachekit.cache.default import default
from cachekit.tiers.disk import DiskTier
from cachekit.tiers.ledger import Ledger

CALLS: list[Any] = []
FAILURES: list[Exception] = []
"""What the origin raises, one a call, before it answers."""


@pytest.fixture(autouse=True)
def nothing_yet() -> None:
    CALLS.clear()
    FAILURES.clear()


def origin(x: Any, y: int = 0) -> list[Any]:
    CALLS.append(x)
    if FAILURES:
        raise FAILURES.pop(0)
    return [repr(x), y]


async def aorigin(x: Any, y: int = 0) -> list[Any]:
    CALLS.append(x)
    if FAILURES:
        raise FAILURES.pop(0)
    return [repr(x), y]


@pytest.fixture
def decorated(way: Way) -> Callable[..., Asked]:
    """The function, or the coroutine function, with a policy."""

    def decorate(**policy: Any) -> Asked:
        # A version stands for what the origins read: their script of failures is not part of the question.
        named = distributed_cache(**{"version": "1", **policy})
        return way((named(origin), named(aorigin)))

    return decorate


@pytest.fixture
def ask(decorated: Callable[..., Asked]) -> Asked:
    return decorated()


@pytest.fixture
def heard() -> Iterator[list[Event]]:
    events: list[Event] = []
    remove = cachekit.add_listener(events.append)
    yield events
    remove()


def counted(asked: Asked) -> dict[str, Any]:
    return stats(asked.function).as_dict()


# -- straight to the origin -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["mode_off", "mode_off_in_context", "bypass", "unkeyable"])
def test_a_call_that_passes_the_cache_by_says_why(ask: Asked, reason: str, heard: list[Event]) -> None:
    """The origin answers each time, nothing is looked up or stored, and the reason is counted and told for each call."""
    blocks = {
        "mode_off": lambda: cachekit.configure(mode="off"),
        "mode_off_in_context": lambda: cachekit.mode("off"),
        "bypass": cachekit.bypass,
        "unkeyable": warnings.catch_warnings,
    }
    argument = object() if reason == "unkeyable" else 1
    ask(2)
    heard.clear()
    with blocks[reason]():
        warnings.simplefilter("ignore")
        assert ask(argument) == ask(argument)
        bypasses = counted(ask)["bypasses"]
    assert CALLS == [2, argument, argument]
    assert {(event.what, event.reason) for event in heard} == {("bypass", reason)}
    assert len(heard) == 2
    assert bypasses[reason] == 2


def test_a_bypass_wins_over_a_mode(ask: Asked) -> None:
    """Inside both it is the bypass that is named; off in the settings and another mode in a block is no bypass at all."""
    with cachekit.mode("off"), cachekit.bypass():
        ask(1)
    assert {name: n for name, n in counted(ask)["bypasses"].items() if not name.startswith("ipfs")} == {"bypass": 1}
    with cachekit.configure(mode="off"), cachekit.mode("on"):
        assert ask(1) == ask(1)
    assert len(CALLS) == 2


def test_a_call_that_python_refuses_is_refused_by_python(ask: Asked) -> None:
    """The function's own TypeError, as if it were not decorated; the origin does not run, and the call is counted."""
    with pytest.raises(TypeError, match="origin.*unexpected keyword argument 'z'"):
        ask(1, z=3)
    with pytest.raises(TypeError, match="origin.*missing 1 required positional argument"):
        ask()
    assert CALLS == []
    assert counted(ask)["bypasses"] == {"unbound": 2}


def test_what_passes_by_is_retried_too(decorated: Callable[..., Asked]) -> None:
    """Retries are the function's, with the cache or without it."""
    ask = decorated(retry=Retry(on=OSError, attempts=3, max_wait=0))
    FAILURES.extend([OSError("no"), OSError("no")])
    with cachekit.mode("off"):
        assert ask(1) == ["1", 0]
    assert len(CALLS) == 3


@pytest.mark.parametrize("argument", [object(), 1], ids=["unkeyable", "off"])
def test_a_failing_origin_is_the_same_without_the_cache(ask: Asked, argument: Any) -> None:
    """The very exception, once."""
    FAILURES.append(error := LookupError("mine"))
    with warnings.catch_warnings(), cachekit.mode("on" if argument != 1 else "off"):
        warnings.simplefilter("ignore")
        with pytest.raises(LookupError) as caught:
            ask(argument)
    assert caught.value is error
    assert len(CALLS) == 1


def test_nothing_is_opened_for_a_call_that_passes_by(decorated: Callable[..., Asked], own_cache: Path) -> None:
    """Neither decorating nor a call in mode off makes a file; the first call that may be kept does."""
    ask = decorated()
    with cachekit.mode("off"):
        ask(1)
    assert not own_cache.exists()
    ask(1)
    assert own_cache.is_dir()


def test_strict_refuses_what_cannot_be_keyed(ask: Asked) -> None:
    """With `strict` it is an error that names the argument, before the origin is asked, each time."""
    with cachekit.configure(strict=True):
        for _ in range(2):
            with pytest.raises(UsageError, match="x"):
                ask(object())
    assert CALLS == []


def test_a_warning_for_each_argument_and_no_more(decorated: Callable[..., Asked]) -> None:
    """What keeps a call from being cached is said once for each argument of each function, with the remedy."""
    ask, other = decorated(), decorated(version="other")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            ask(object())
            ask(1, object())
        other(object())
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 3
    assert all("ignore" in text for text in texts)
    assert ["x" in texts[0], "y" in texts[1], "x" in texts[2]] == [True] * 3


def test_a_warning_points_at_the_call() -> None:
    """At the caller's line, not into cachekit: whoever reads it must find what to change."""
    function = distributed_cache(version="1")(origin)
    with pytest.warns(UserWarning) as caught:
        function(object())
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]


# -- what the policy and the settings say ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "setting", "kept"),
    [
        ({}, "1h", True),
        ({}, 0, False),
        ({"ttl": "1h"}, 0, True),
        ({"ttl": None}, 0, True),
        ({"ttl": 0}, "1h", False),
        ({"ttl": "default"}, 0, False),
    ],
    ids=repr,
)
def test_how_long_an_answer_is_kept(
    decorated: Callable[..., Asked], policy: dict[str, Any], setting: Any, kept: bool
) -> None:
    """As the function says; where it says nothing, as the settings do at the call."""
    ask = decorated(**policy)
    with cachekit.configure(ttl=setting):
        ask(1), ask(1)
    assert len(CALLS) == (1 if kept else 2)


def test_a_namespace_is_the_functions_or_the_settings(decorated: Callable[..., Asked]) -> None:
    """Entries of two namespaces in one directory know nothing of each other; a function's own wins over the settings'."""
    ask, own = decorated(), decorated(namespace="own")
    for _ in range(2):
        for namespace in ("red", "blue"):
            with cachekit.configure(namespace=namespace):
                ask(1), own(1)
                assert (ask.key_for(1).namespace, own.key_for(1).namespace) == (namespace, "own")
    assert len(CALLS) == 3


def test_a_sample_is_the_blocks_or_the_functions(decorated: Callable[..., Asked]) -> None:
    """Each index has an answer of its own; a block's index wins over the function's, 0 included."""
    ask, sampled = decorated(), decorated(sample=2)
    ask(1), sampled(1)
    assert len(CALLS) == 2
    first, third = ask.key_for(1), sampled.key_for(1)
    assert first != third
    with cachekit.sample(2):
        ask(1)
        assert ask.key_for(1) == third
    with cachekit.sample(0):
        sampled(1)
        assert sampled.key_for(1) == first
    assert len(CALLS) == 2
    with cachekit.sample(1):
        ask(1), sampled(1)
    assert len(CALLS) == 3


def test_an_unworthy_value_is_returned_and_not_kept(decorated: Callable[..., Asked], heard: list[Event]) -> None:
    """`cacheable` decides on the value, each time, and the reason is told."""
    ask = decorated(cacheable=lambda value: value[1] != 0)
    ask(1), ask(1), ask(1, 5), ask(1, 5)
    assert len(CALLS) == 3
    assert [event.reason for event in heard if event.what == "skipped"] == ["not_cacheable"] * 2


def test_a_failing_judge_is_its_authors(decorated: Callable[..., Asked]) -> None:
    """What `cacheable` raises reaches the caller: a mistake in it is not taken for a value that is not kept."""

    def wrong(_value: Any) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decorated(cacheable=wrong)(1)


def test_tags_are_filled_in_by_the_call(decorated: Callable[..., Asked]) -> None:
    """With the arguments as Python binds them, defaults too; ending one tag ends those calls."""
    ask = decorated(tags=["y:{y}"])
    ask(1), ask(2, y=7), ask(3, 7)
    assert cachekit.invalidate(tag="y:7") is True
    ask(1), ask(2, y=7), ask(3, 7)
    assert CALLS == [1, 2, 3, 2, 3]


# -- inputs that change while the origin reads them -----------------------------------------------------------


def measured(path: Path) -> int:
    CALLS.append(path.name)
    if WRITES:
        WRITES.pop(0)(path)
    return len(CALLS)


async def ameasured(path: Path) -> int:
    CALLS.append(path.name)
    if WRITES:
        WRITES.pop(0)(path)
    return len(CALLS)


WRITES: list[Callable[[Path], Any]] = []
"""What happens to the file during a call, one a call."""


@pytest.mark.parametrize(
    ("write", "kept"),
    [
        (lambda path: path.write_text("other"), False),
        (lambda path: path.write_text("text"), True),
        (lambda path: path.unlink(), True),
    ],
    ids=["another content", "the same content", "taken away"],
)
def test_an_input_that_changes_meanwhile(
    way: Way, tmp_path: Path, heard: list[Event], write: Callable[[Path], Any], kept: bool
) -> None:
    """Of which content the value is nobody knows: returned, not kept. What was written anew alike or taken away was read."""
    WRITES[:] = [write]
    ask = way((distributed_cache(version="1")(measured), distributed_cache(version="1")(ameasured)))
    (tmp_path / "file").write_text("text")
    assert ask(tmp_path / "file") == 1
    (tmp_path / "file").write_text("text")
    assert ask(tmp_path / "file") == (1 if kept else 2)
    assert [event.reason for event in heard if event.what == "skipped"] == ([] if kept else ["input_changed"])


# -- modes and windows ----------------------------------------------------------------------------------------


def test_read_only_reads(ask: Asked, heard: list[Event]) -> None:
    """What is there is served; what is not is asked for and not kept, which is told."""
    ask(1)
    with cachekit.mode("read-only"):
        ask(1)
        ask(2), ask(2)
    assert CALLS == [1, 2, 2]
    assert [event.reason for event in heard if event.what == "skipped"] == ["read-only"] * 2


def test_replay_says_which_call_was_not_there(ask: Asked) -> None:
    """The refusal names the function and its arguments; the origin is not asked."""
    with cachekit.mode("replay"), pytest.raises(CacheMiss) as caught:
        ask("seven")
    assert "origin" in str(caught.value)
    assert "seven" in str(caught.value)
    assert CALLS == []


@pytest.mark.parametrize("mode", ["off", "read-only", "replay"])
def test_put_is_refused_where_nothing_may_be_stored(ask: Asked, mode: Any) -> None:
    """With a sentence that names the mode, and nothing is stored."""
    with cachekit.mode(mode), pytest.raises(UsageError, match=mode):
        ask.put(["put"], 1)
    assert ask.peek(1) is MISS


def test_looking_is_no_call(ask: Asked) -> None:
    """`peek` neither counts nor calls, whether there is something or not; in mode off it sees nothing."""
    assert ask.peek(1) is MISS
    ask(1)
    assert ask.peek(1) == ["1", 0]
    with cachekit.mode("off"):
        assert ask.peek(1) is MISS
    assert (counted(ask)["calls"], len(CALLS)) == (1, 1)


def test_refresh_in_mode_off_stores_nothing(ask: Asked) -> None:
    """It asks the origin, as it would without the cache, and leaves what was stored alone."""
    ask.put(["put"], 1)
    with cachekit.mode("off"):
        assert ask.refresh(1) == ["1", 0]
    assert ask(1) == ["put"]


def test_an_old_answer_stands_in_for_a_failing_origin(decorated: Callable[..., Asked]) -> None:
    """Within `stale_if_error`; the failure is counted, and without an old answer it passes."""
    ask = decorated(ttl=0, stale_if_error="1h")
    FAILURES.append(OSError("down"))
    with pytest.raises(OSError):
        ask(1)
    ask(1)
    FAILURES.append(OSError("down"))
    assert ask(1) == ["1", 0]
    assert counted(ask)["errors"] == {"origin": {"OSError": 1}}
    assert len(CALLS) == 3


def refreshed(way: Way, function: Asked) -> Any:
    """Calls once, and waits for what that started behind the call: a thread, or a task of the same loop."""

    async def main() -> Any:
        answer = await function.function(1)
        while asyncio.all_tasks() != {asyncio.current_task()}:
            await asyncio.sleep(0.001)
        return answer

    if way.number:
        return asyncio.run(main())
    before = set(threading.enumerate())
    answer = function(1)
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    return answer


def test_a_stale_answer_is_renewed_behind_the_call(way: Way, decorated: Callable[..., Asked]) -> None:
    """The old one at once, one refresh with the function's own retries, and the new one from then on."""
    ask = decorated(ttl=0, stale_while_revalidate="1h", retry=Retry(on=OSError, attempts=2, max_wait=0))
    ask.put(["old"], 1)
    FAILURES.append(OSError("once"))
    assert refreshed(way, ask) == ["old"]
    assert len(CALLS) == 2
    assert refreshed(way, ask) == ["1", 0]
    assert (counted(ask)["stale"], counted(ask)["misses"]) == (2, 0)


def test_a_refresh_that_fails_is_counted_and_nothing_else(way: Way, decorated: Callable[..., Asked]) -> None:
    """The caller has the old answer and keeps it; the exception is the origin's, in the books; the next call tries again."""
    ask = decorated(ttl=0, stale_while_revalidate="1h")
    ask.put(["old"], 1)
    FAILURES.append(OSError("down"))
    assert refreshed(way, ask) == ["old"]
    assert stats().as_dict()["errors"] == {"origin": {"OSError": 1}}
    assert refreshed(way, ask) == ["old"]
    assert len(CALLS) == 2


# -- where the origin runs ------------------------------------------------------------------------------------

PLACE: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="nowhere")


@distributed_cache(version="1")
def here() -> list[Any]:
    CALLS.append((threading.get_ident(), PLACE.get()))
    PLACE.set("set by the origin")
    return []


@distributed_cache(version="1")
async def ahere() -> list[Any]:
    CALLS.append((threading.get_ident(), PLACE.get()))
    PLACE.set("set by the origin")
    return []


def test_the_origin_runs_where_it_was_called(way: Way) -> None:
    """On the caller's thread, in the caller's context: what it sets there is seen behind the call."""

    async def awaited() -> str:
        await ahere()
        return PLACE.get()

    def work() -> str:
        PLACE.set("here")
        if way.number:
            return asyncio.run(awaited())
        here()
        return PLACE.get()

    assert contextvars.copy_context().run(work) == "set by the origin"
    assert CALLS == [(threading.get_ident(), "here")]


def test_what_another_process_stored_before_the_lease_is_served(ask: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended between our look and our lease: its answer is found, and the origin is not called again."""
    ask(1)
    cache, key = default(), ask.function.key_for(1)
    assert cache.disk is not None
    record = cache.disk.get(key)
    assert record is not None
    ledger = Ledger(cache.settings.dir)
    ledger.open()
    other = DiskTier(cache.settings.dir, 1 << 20, stored=ledger.stored)
    acquire = cache.leases.acquire

    def acquired(digest: bytes) -> bool:
        other.put(key, record)
        return acquire(digest)

    cache.forget(key)
    cache.lanes.close()
    monkeypatch.setattr(cache.leases, "acquire", acquired)
    assert ask(1) == ["1", 0]
    assert CALLS == [1]
    other.close()
    ledger.close()
