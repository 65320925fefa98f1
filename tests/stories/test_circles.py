"""Calls that wait for each other in a circle: one of them goes on alone, and nothing hangs."""

from __future__ import annotations

import asyncio
import multiprocessing.pool
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit import distributed_cache

BOUND = 8.0
"""Seconds: shorter than anybody's patience (10 s), so that what ends within it was seen to be a circle."""


def ends(call: Callable[[], Any], bound: float = BOUND) -> Any:
    """What the call returns within its bound, on a thread of its own."""
    answers: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=lambda: answers.put(call()), daemon=True).start()
    try:
        return answers.get(timeout=bound)
    except queue.Empty:
        pytest.fail("it hangs")


def by_executor(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def by_map(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda _: call(), [0, 1]))[0]


def by_leaving_the_executor(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
    return future.result()


def by_thread(call: Callable[[], Any]) -> Any:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    thread.join()
    return answers[0]


def by_thread_pool(call: Callable[[], Any]) -> Any:
    with multiprocessing.pool.ThreadPool(1) as pool:
        return pool.apply_async(call).get()


def by_two_pools(call: Callable[[], Any]) -> Any:
    return by_executor(lambda: by_thread_pool(call))


@pytest.mark.parametrize(
    "hand", [by_executor, by_map, by_leaving_the_executor, by_thread, by_thread_pool, by_two_pools]
)
def test_a_call_handed_to_a_pool_of_its_own_goes_on_alone(hand: Callable[..., Any]) -> None:
    """The leader waits for its pool, whose thread would wait for the leader."""

    @distributed_cache(version="1", ignore="depth")
    def walk(x: str, depth: int) -> list[str]:
        return hand(lambda: walk(x, depth - 1)) if depth else [x]

    assert ends(lambda: walk("a", 2)) == ["a"]


def test_two_threads_that_want_each_others_key_end() -> None:
    """Each leads one key and asks for the other: who comes last goes on alone."""
    both = threading.Barrier(2)

    @distributed_cache(version="1", ignore="other")
    def f(x: str, other: str) -> str:
        if other:
            both.wait(BOUND)
            return x + f(other, "")
        return x

    def call() -> list[str]:
        with ThreadPoolExecutor(2) as pool:
            return sorted(pool.map(f, "ab", "ba"))

    assert [answer[0] for answer in ends(call)] == ["a", "b"]


def test_two_tasks_that_want_each_others_key_end() -> None:
    """The same on an event loop."""

    @distributed_cache(version="1", ignore="other")
    async def f(x: str, other: str) -> str:
        if other:
            arrived.append(x)
            while len(arrived) < 2:
                await asyncio.sleep(0)
            return x + await f(other, "")
        return x

    arrived: list[str] = []

    async def both() -> list[str]:
        return await asyncio.gather(f("a", "b"), f("b", "a"))

    assert [answer[0] for answer in ends(lambda: asyncio.run(both()))] == ["a", "b"]


def test_a_task_of_the_leaders_goes_on_alone_only_while_it_leads() -> None:
    """A task that outlives the call that started it shares calls again."""
    origins: list[int] = []

    async def main() -> None:
        tasks: list[asyncio.Task[Any]] = []
        released = asyncio.Event()

        @distributed_cache(version="1", ttl=0.001)
        async def f(x: int) -> int:
            origins.append(x)
            if not tasks:
                tasks.append(asyncio.create_task(later()))
            await asyncio.sleep(0.01)
            return x

        async def later() -> None:
            await released.wait()
            await asyncio.gather(*[f(1) for _ in range(5)])

        await f(1)
        released.set()
        await tasks[0]

    ends(lambda: asyncio.run(main()))
    assert len(origins) == 2


def test_a_circle_that_nobody_can_see_ends_within_patience() -> None:
    """The leader waits for a queue: after its budget one of those who wait leads."""
    asked: queue.Queue[Any] = queue.Queue()
    answers: queue.Queue[Any] = queue.Queue()

    def worker() -> None:
        answers.put(f(asked.get(), False))

    @distributed_cache(version="1", ignore="first")
    def f(x: int, first: bool) -> int:
        if first:
            asked.put(x)
            return answers.get()  # type: ignore[no-any-return]
        return x

    with cachekit.configure(patience=0.2):
        threading.Thread(target=worker, daemon=True).start()
        assert ends(lambda: f(1, True)) == 1


CHILD = """
import multiprocessing, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
import cachekit

@cachekit.distributed_cache(version="1", ignore="depth")
def walk(x, depth):
    if not depth:
        return [x]
    if HOW == "subprocess":
        return subprocess.check_output([sys.executable, __file__, HOW, str(depth - 1)], text=True).split()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(HOW)) as pool:
        return pool.submit(walk, x, depth - 1).result()

HOW = sys.argv[1]
if __name__ == "__main__":
    print(*walk("a", int(sys.argv[2])))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="who holds a lock is told on Linux and macOS only")
@pytest.mark.parametrize("how", ["fork", "forkserver", "spawn", "subprocess"])
def test_a_call_handed_to_a_child_process_goes_on_alone(how: str, tmp_path: Path, monkeypatch: Any) -> None:
    """The parent holds the lease and waits for its child."""
    monkeypatch.setenv("CACHEKIT_DIR", str(tmp_path / "shared"))
    monkeypatch.setenv("CACHEKIT_IPFS", "off")
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    (tmp_path / "child.py").write_text(CHILD)
    command = [sys.executable, str(tmp_path / "child.py"), how, "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)
    assert (done.stdout, done.stderr) == ("a\n", "")


ACROSS = """
import sys, time
from pathlib import Path
import cachekit

@cachekit.distributed_cache(version="1", ignore="other")
def f(x, other):
    if not other:
        return x
    Path(sys.argv[3], x).touch()
    while not Path(sys.argv[3], other).exists():
        time.sleep(0.001)
    return x + f(other, "")

print(f(sys.argv[1], sys.argv[2]))
"""


def test_two_processes_that_want_each_others_key_end(tmp_path: Path, monkeypatch: Any) -> None:
    """Nobody sees what another process waits for: the budget ends it."""
    monkeypatch.setenv("CACHEKIT_DIR", str(tmp_path / "shared"))
    monkeypatch.setenv("CACHEKIT_IPFS", "off")
    monkeypatch.setenv("CACHEKIT_PATIENCE", "0.3")
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    (tmp_path / "across.py").write_text(ACROSS)
    started = [
        subprocess.Popen([sys.executable, tmp_path / "across.py", *names, tmp_path], stdout=subprocess.PIPE, text=True)
        for names in ("ab", "ba")
    ]
    try:
        answers = [process.communicate(timeout=2 * BOUND)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert answers[0][0] == "a"
    assert answers[1][0] == "b"


def test_followers_of_a_late_leader_take_turns() -> None:
    """When patience ends one of those who wait leads, and the others wait for that one."""
    origins: list[int] = []
    gate, begun = threading.Event(), threading.Semaphore(0)

    @distributed_cache(version="1")
    def f(x: int) -> int:
        origins.append(x)
        begun.release()
        if len(origins) == 1:
            gate.wait(BOUND)
        return x

    def call() -> list[int]:
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(f, 1) for _ in range(8)]
            assert begun.acquire(timeout=BOUND)
            assert begun.acquire(timeout=BOUND)  # somebody went on beside the first
            gate.set()
            return [one.result(BOUND) for one in calls]

    with cachekit.configure(patience=0.2):
        assert ends(call) == [1] * 8
    assert len(origins) == 2


@pytest.mark.parametrize("hand", [by_executor, by_thread, by_thread_pool])
def test_a_stream_that_hands_itself_to_a_pool_goes_on_alone(hand: Callable[..., Any]) -> None:
    """The reader inside waits for the first piece of the stream that waits for it."""

    @distributed_cache(version="1", ignore="depth")
    def numbers(x: int, depth: int) -> Any:
        yield sum(hand(lambda: list(numbers(x, depth - 1)))) if depth else x

    assert ends(lambda: list(numbers(3, 2))) == [3]


def test_two_streams_that_read_each_other_end() -> None:
    """On an event loop, and a function that is called by the one and reads the other."""

    @distributed_cache(version="1", ignore="other")
    async def pieces(x: str, other: str) -> Any:
        arrived.append(x)
        while len(arrived) < 2:
            await asyncio.sleep(0)
        yield x
        if other:
            yield (await whole(other))[0]

    @distributed_cache(version="1")
    async def whole(x: str) -> list[str]:
        return [piece async for piece in pieces(x, "")]

    async def read(x: str, other: str) -> list[str]:
        return [piece async for piece in pieces(x, other)]

    arrived: list[str] = []

    async def both() -> list[list[str]]:
        return await asyncio.gather(read("a", "b"), read("b", "a"))

    assert ends(lambda: asyncio.run(both())) == [["a", "b"], ["b", "a"]]


def test_who_joins_a_lone_reader_that_is_cancelled_begins_again() -> None:
    """The first reader has had a piece and pulls the next one; its end is none of the other's."""
    pulled = asyncio.Event()

    @distributed_cache(version="1")
    async def words(n: int) -> Any:
        yield 0
        pulled.set()
        await asyncio.sleep(0.05)
        yield 1

    async def main() -> list[int]:
        first = words(1)
        await first.__anext__()
        lone = asyncio.ensure_future(first.__anext__())
        await pulled.wait()
        joined = asyncio.ensure_future(read())
        await asyncio.sleep(0)
        lone.cancel()
        return await joined

    async def read() -> list[int]:
        return [word async for word in words(1)]

    assert ends(lambda: asyncio.run(main())) == [0, 1]
