"""The gate: what a `with` block says reaches every call inside it, and nothing outside."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from cachekit.errors import UsageError
from cachekit.plan.gate import Overrides, bypass, current, decide, mode, sample


def test_outside_of_any_block() -> None:
    """With no block there is nothing to consult, and the settings decide."""
    assert current() is None
    assert decide("refresh", None) == "refresh"


def test_context_wins_over_settings() -> None:
    """A mode set in a context wins over the settings' mode, in either direction."""
    with mode("replay"):
        assert decide("on", current()) == "replay"
    with mode("on"):
        assert decide("off", current()) == "on"
    assert current() is None


def test_inner_block_wins_and_outer_returns() -> None:
    """Blocks nest: the innermost mode counts, and leaving it brings the outer one back."""
    with mode("refresh"):
        with mode("read-only"):
            assert decide("on", current()) == "read-only"
        assert decide("on", current()) == "refresh"


def test_blocks_add_up() -> None:
    """mode, sample and bypass say different things and keep each other."""
    with mode("refresh"), sample(2), bypass():
        assert current() == Overrides(mode="refresh", bypass=True, sample=2)


def test_bypass_wins_over_everything() -> None:
    """Inside bypass() the mode is off, whatever mode() stands around it or in it."""
    with bypass(), mode("replay"):
        assert decide("on", current()) == "off"


def test_a_sample_alone_leaves_the_mode() -> None:
    """sample(n) says nothing about the mode."""
    with sample(0):
        overrides = current()
        assert overrides is not None
        assert overrides.sample == 0
        assert decide("read-only", overrides) == "read-only"


def test_restored_when_the_body_raises() -> None:
    """An exception leaves the block, unchanged, and the block's word with it."""
    error = RuntimeError("origin")
    with pytest.raises(RuntimeError) as caught, mode("off"):
        raise error
    assert caught.value is error
    assert current() is None


@pytest.mark.parametrize("name", ["ON", "readonly", "", None, 1, []])
def test_unknown_mode_is_refused_at_once(name: Any) -> None:
    """An unknown mode is a UsageError naming the accepted ones, before any block is entered."""
    with pytest.raises(UsageError, match="on, off, refresh, read-only, replay"):
        mode(name)


@pytest.mark.parametrize("n", [-1, True, 1.0, "1", None])
def test_sample_is_an_index(n: Any) -> None:
    """Only integers from 0 are sample indices."""
    with pytest.raises(UsageError, match="sample"):
        sample(n)


def test_one_block_object_twice() -> None:
    """Entering one object again while it is entered is refused; after it was left it may be used again."""
    block = mode("off")
    with block:
        with pytest.raises(UsageError):
            block.__enter__()
        assert decide("on", current()) == "off"
    with block:
        assert decide("on", current()) == "off"
    assert current() is None


def test_across_await_and_between_tasks() -> None:
    """A mode holds across an await and in tasks started inside; a sibling task never sees it."""

    async def watch(entered: asyncio.Event, done: asyncio.Event) -> str:
        await entered.wait()
        seen = decide("on", current())
        done.set()
        return seen

    async def main() -> tuple[str, str, str]:
        entered, done = asyncio.Event(), asyncio.Event()
        sibling = asyncio.create_task(watch(entered, done))
        with mode("refresh"):
            child = asyncio.create_task(watch(entered, asyncio.Event()))
            entered.set()
            await done.wait()
            mine = decide("on", current())
        return mine, await sibling, await child

    assert asyncio.run(main()) == ("refresh", "on", "refresh")


def test_other_threads_do_not_see_it() -> None:
    """A block belongs to its own thread, unless the context is carried over on purpose."""
    seen: list[str] = []
    with mode("off"):
        carried = contextvars.copy_context()
        for run in (lambda f: f(), carried.run):
            thread = threading.Thread(target=run, args=(lambda: seen.append(decide("on", current())),))
            thread.start()
            thread.join()
    assert seen == ["on", "off"]


def test_left_in_another_context() -> None:
    """A block entered in one context and left in a copy, as async fixtures do, is undone there without an error."""
    block = mode("off")
    first = contextvars.copy_context()
    first.run(block.__enter__)
    second = first.run(contextvars.copy_context)
    assert second.run(lambda: decide("on", current())) == "off"
    second.run(block.__exit__)
    assert second.run(current) is None


def test_left_in_a_context_with_a_word_of_its_own() -> None:
    """A block left where another one holds does not touch that one."""
    block = mode("off")
    contextvars.copy_context().run(block.__enter__)
    with mode("replay"):
        block.__exit__()
        assert decide("on", current()) == "replay"
