"""Generator functions: values as they come, kept when the last one came, replayed one by one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

import cachekit
from cachekit import MISS, Retry, distributed_cache, stats

CALLS: list[object] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


@distributed_cache
def count(n: int) -> Iterator[list[int]]:
    CALLS.append(n)
    for i in range(n):
        yield [i]


@distributed_cache
async def acount(n: int) -> AsyncIterator[int]:
    CALLS.append(n)
    for i in range(n):
        await asyncio.sleep(0)
        yield i


async def collected(stream: AsyncIterator[int]) -> list[int]:
    return [value async for value in stream]


def test_a_second_call_replays_value_for_value() -> None:
    """The generator runs once; what comes back has the same values, each its own object."""
    first = list(count(3))
    second = list(count(3))
    assert first == second == [[0], [1], [2]]
    second[0].append(9)
    assert list(count(3)) == first
    assert CALLS == [3]
    assert stats(count).as_dict()["stores"] == 1


def test_an_async_generator_likewise() -> None:
    """An async generator function gives async iterators, live and replayed."""

    async def main() -> None:
        assert await collected(acount(3)) == await collected(acount(3)) == [0, 1, 2]
        assert await acount.peek(3) == [0, 1, 2]

    asyncio.run(main())
    assert CALLS == [3]


def test_the_first_value_does_not_wait_for_the_second() -> None:
    """A value reaches the caller while the generator is still at work."""
    gate = threading.Event()

    @distributed_cache
    def two() -> Iterator[int]:
        yield 1
        assert gate.wait(30)
        yield 2

    stream = two()
    assert next(stream) == 1
    gate.set()
    assert list(stream) == [2]


def test_nothing_runs_before_the_first_value_is_asked_for() -> None:
    """Like every generator: making one does nothing."""
    count(1)
    assert CALLS == []


def test_an_abandoned_stream_is_not_stored() -> None:
    """Who stops half-way leaves nothing behind, and the generator is closed."""
    closed = []

    @distributed_cache
    def numbers() -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            closed.append(True)

    stream = numbers()
    next(stream)
    stream.close()
    assert closed == [True]
    assert numbers.peek() is MISS
    assert stats(numbers).as_dict()["skipped"] == {"aborted": 1}


def test_a_failing_stream_is_not_stored_and_raises_its_own() -> None:
    """What the generator raises reaches the caller after the values before it; nothing is stored."""

    @distributed_cache
    def failing() -> Iterator[int]:
        yield 1
        raise LookupError("gone")

    stream = failing()
    assert next(stream) == 1
    with pytest.raises(LookupError, match="gone"):
        next(stream)
    assert failing.peek() is MISS


def test_threads_follow_one_stream_from_its_start() -> None:
    """Many threads, one generator; each gets all values."""
    start = threading.Barrier(8)
    found: list[list[list[int]]] = []

    @distributed_cache
    def slowly(n: int) -> Iterator[list[int]]:
        CALLS.append(n)
        for i in range(n):
            time.sleep(0.01)
            yield [i]

    def read() -> None:
        start.wait()
        found.append(list(slowly(5)))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[[0], [1], [2], [3], [4]]] * 8
    assert CALLS == [5]


def test_a_reader_that_walks_away_leaves_the_stream_to_the_others() -> None:
    """The first reader stops; the second gets everything, and it is stored, from one run of the generator."""
    first, second = count(4), count(4)
    assert next(first) == [0]
    assert next(second) == [0]
    first.close()
    assert list(second) == [[1], [2], [3]]
    assert CALLS == [4]
    assert count.peek(4) == [[0], [1], [2], [3]]


def test_tasks_follow_one_stream_and_a_cancelled_one_takes_nothing_with_it() -> None:
    """Of three tasks the first is cancelled in the middle of a pull; the others get everything, in one run."""

    @distributed_cache
    async def waiting(n: int) -> AsyncIterator[int]:
        CALLS.append(n)
        for i in range(n):
            await asyncio.sleep(0.01)
            yield i

    async def main() -> None:
        tasks = [asyncio.create_task(collected(waiting(5))) for _ in range(3)]
        await asyncio.sleep(0.025)
        tasks[0].cancel()
        assert await asyncio.gather(*tasks[1:]) == [[0, 1, 2, 3, 4]] * 2
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert await waiting.peek(5) == [0, 1, 2, 3, 4]
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(main())
    assert len(CALLS) <= 2


def test_a_cancelled_lone_reader_stores_nothing() -> None:
    """Cancelling the only reader closes the generator and leaves no task."""
    closed = []

    @distributed_cache
    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                await asyncio.sleep(0.001)
                yield 1
        finally:
            closed.append(True)

    async def main() -> None:
        task = asyncio.create_task(collected(endless()))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])
        assert closed == [True]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_stream_that_calls_itself_does_not_wait_for_itself() -> None:
    """A generator that asks for its own key runs again instead of waiting for ever."""

    @distributed_cache
    def nested(n: int) -> Iterator[int]:
        CALLS.append(n)
        if len(CALLS) == 1:
            yield from nested(n)
        yield n

    assert list(nested(1)) == [1, 1]


def test_a_retry_repeats_what_failed_before_the_first_value() -> None:
    """A generator that fails at once is asked again, as `retry=` says."""

    @distributed_cache(retry=Retry(on=ConnectionError, attempts=3, max_wait=0.01))
    def shaky() -> Iterator[int]:
        CALLS.append(1)
        if len(CALLS) < 3:
            raise ConnectionError("not yet")
        yield 7

    assert list(shaky()) == [7]
    assert len(CALLS) == 3


def test_stale_if_error_serves_the_old_stream() -> None:
    """An expired stream is served again when the generator fails before its first value."""
    broken = []

    @distributed_cache(ttl=0.001, stale_if_error="1h", ignore=("broken",))
    def shaky() -> Iterator[int]:
        if broken:
            raise ConnectionError("down")
        yield 7

    assert list(shaky()) == [7]
    time.sleep(0.01)
    broken.append(True)
    assert list(shaky()) == [7]
    assert stats(shaky).as_dict()["stale"] == 1


def test_the_recorded_pace() -> None:
    """With `pace="recorded"` a hit takes its time; by default it does not."""

    def slow() -> Iterator[int]:
        yield 1
        time.sleep(0.2)
        yield 2

    paced, hurried = distributed_cache(pace="recorded", version="a")(slow), distributed_cache(version="b")(slow)
    for function in (paced, hurried):
        list(function())
    took = {}
    for name, function in (("paced", paced), ("hurried", hurried)):
        begin = time.perf_counter()
        assert list(function()) == [1, 2]
        took[name] = time.perf_counter() - begin
    assert took["paced"] > 0.19 > took["hurried"]


def test_refresh_put_and_invalidate_on_generators() -> None:
    """The helpers work on streams: recompute, store given values, forget."""
    assert list(count(2)) == list(count.refresh(2)) == [[0], [1]]
    assert CALLS == [2, 2]
    count.put([[5]], 1)
    assert list(count(1)) == [[5]]
    assert count.invalidate(1) is True
    assert list(count(1)) == [[0]]


def test_values_that_cannot_be_kept_still_stream() -> None:
    """A value no codec keeps is delivered; the stream is not stored, and the reason is counted."""

    @distributed_cache
    def objects() -> Iterator[object]:
        yield 1
        yield object()

    with pytest.warns(UserWarning):
        assert len(list(objects())) == 2
    assert sum(stats(objects).as_dict()["skipped"].values()) == 1
    assert objects.peek() is MISS


def test_methods_and_modes() -> None:
    """A generator method streams; under `bypass()` and `off` it runs as if undecorated."""

    class Reader:
        def __cachekit_key__(self) -> str:
            return "reader"

        @distributed_cache
        def read(self, n: int) -> Iterator[int]:
            CALLS.append(n)
            yield from range(n)

    assert list(Reader().read(2)) == list(Reader().read(2)) == [0, 1]
    with cachekit.bypass():
        assert list(Reader().read(2)) == [0, 1]
    assert CALLS == [2, 2]
    with cachekit.mode("replay"), pytest.raises(cachekit.CacheMiss):
        list(Reader().read(3))
