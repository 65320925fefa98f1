"""Decorated coroutines and async generators on trio's loop."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

import cachekit
from cachekit import MISS, Retry, distributed_cache, persist_artifact, stats

RUNNERS = {
    "trio": trio.run,
    "anyio on trio": lambda main: anyio.run(main, backend="trio"),
    "anyio on asyncio": lambda main: anyio.run(main, backend="asyncio"),
}


@pytest.fixture(params=RUNNERS)
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    return RUNNERS[request.param]  # type: ignore[no-any-return]


def test_a_coroutine_function_is_called_once(run: Any) -> None:
    """Stored, found again in memory and on disk, shared by tasks, and with all of its helpers."""
    calls: list[int] = []

    @distributed_cache(version="1")
    async def f(x: int) -> int:
        calls.append(x)
        await anyio.sleep(0.01)
        return 2 * x

    async def main() -> None:
        answers: list[int] = []

        async def ask() -> None:
            answers.append(await f(1))

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(ask)
        assert (answers, calls) == ([2] * 5, [1])
        f.cache.memory.clear()  # type: ignore[union-attr]
        assert (await f(1), await f(1)) == (2, 2)
        assert await f.peek(2) is MISS
        assert await f.put(5, 2)
        assert (await f.peek(2), await f.refresh(1), await f.invalidate(2)) == (5, 2, True)

    run(main)
    assert calls == [1, 1]
    assert stats(f).as_dict()["hits"]["disk"] == 1


def test_an_async_generator_is_replayed(run: Any) -> None:
    """Given on as it comes, kept, and found again."""
    calls: list[int] = []

    @distributed_cache(version="1")
    async def words(n: int) -> Any:
        calls.append(n)
        for number in range(n):
            await anyio.sleep(0)
            yield number

    async def main() -> None:
        for _ in range(2):
            assert [word async for word in words(3)] == [0, 1, 2]
        async with aclosing(words(2)) as begun:
            assert await begun.__anext__() == 0
        assert [word async for word in words(2)] == [0, 1]

    run(main)
    assert calls == [3, 2, 2]


def test_a_stale_value_is_refreshed_in_the_background(run: Any) -> None:
    """As on asyncio: the old value at once, the new one later."""
    calls: list[int] = []

    @distributed_cache(version="1", ttl=0.01, stale_while_revalidate=60, ignore="calls")
    async def f() -> int:
        calls.append(len(calls))
        return calls[-1]

    async def main() -> None:
        assert await f() == 0
        await anyio.sleep(0.02)
        assert await f() == 0
        with anyio.fail_after(10):
            while len(calls) < 2:
                await anyio.sleep(0.001)

    run(main)


def test_an_origin_is_retried(run: Any) -> None:
    """The pauses are the loop's own."""
    calls: list[int] = []

    @distributed_cache(version="1", retry=Retry(on=ValueError, attempts=2, max_wait=0.01))
    async def f() -> int:
        calls.append(1)
        if len(calls) < 2:
            raise ValueError
        return 1

    async def main() -> None:
        assert await f() == 1

    run(main)


def test_an_artifact_is_built_once(run: Any, tmp_path: Path) -> None:
    """What is read and written, is so beside the loop."""
    source = tmp_path / "made"
    source.write_text("1")
    calls: list[int] = []

    @persist_artifact(version="1")
    async def build(x: int) -> Path:
        calls.append(x)
        return source

    async def main() -> None:
        assert (await build(1)).read_text() == (await build(1)).read_text() == "1"

    run(main)
    assert calls == [1]


def test_who_waits_on_trio_is_bounded_too(run: Any) -> None:
    """A leader that never lands holds nobody for ever."""
    first: list[int] = []

    @distributed_cache(version="1")
    async def f(x: int) -> int:
        if not first:
            first.append(x)
            await anyio.sleep(math.inf)
        return x

    async def main() -> None:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(f, 1)
                while not first:
                    await anyio.sleep(0)
                assert await f(1) == 1
                group.cancel_scope.cancel()

    with cachekit.configure(patience=0.002):
        run(main)
