"""Single flight among threads, tasks and processes; fork, spawn, and many threads on one cache."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit import distributed_cache, stats
from cachekit.cache.default import ROOT

SCRIPT = """
import os, sys, time
from pathlib import Path
from cachekit import distributed_cache
log, gate = Path(sys.argv[1]), Path(sys.argv[2])

@distributed_cache(version="1")  # what it writes at log is no input
def slow(x):
    with log.open("a") as file:
        file.write(f"{os.getpid()}\\n")
    while not gate.exists():
        time.sleep(0.01)
    return [x]

print("ready", flush=True)
print(slow(1))
"""


def test_threads_share_one_call() -> None:
    """64 threads on a cold key: one call of the origin, and each thread has its own copy."""
    release = threading.Event()
    calls: list[int] = []

    @distributed_cache
    def slow(x: int) -> list[int]:
        calls.append(x)
        release.wait(30)
        return [x]

    with ThreadPoolExecutor(64) as pool:
        futures = [pool.submit(slow, 1) for _ in range(64)]
        while not calls:
            pass
        release.set()
        values = [future.result(30) for future in futures]
    assert values == [[1]] * 64
    assert len({id(value) for value in values}) == 64
    assert calls == [1]


def test_waiting_threads_get_the_leaders_exception() -> None:
    """The leader raises: everybody who waited gets that exception, and the next call tries again."""
    release, waiting = threading.Event(), threading.Barrier(4)
    calls: list[int] = []

    @distributed_cache
    def fails(x: int) -> int:
        calls.append(x)
        release.wait(30)
        raise LookupError(x)

    def call() -> BaseException | None:
        waiting.wait(30)
        try:
            fails(1)
        except LookupError as error:
            return error
        return None

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(call) for _ in range(4)]
        while not calls or len(ROOT.cache().flights._flights) == 0:
            pass
        release.set()
        errors = [future.result(30) for future in futures]
    assert all(isinstance(error, LookupError) for error in errors)


def test_tasks_share_one_call_and_survive_a_cancelled_leader() -> None:
    """The leader is cancelled: one of those who wait takes over, and nobody sees the cancellation."""
    calls: list[int] = []

    async def run() -> list[Any]:
        started, release = asyncio.Event(), asyncio.Event()

        @distributed_cache
        async def slow(x: int) -> int:
            calls.append(x)
            started.set()
            await release.wait()
            return x

        leader = asyncio.create_task(slow(1))
        await started.wait()
        followers = [asyncio.create_task(slow(1)) for _ in range(3)]
        await asyncio.sleep(0)
        leader.cancel()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await leader
        return list(await asyncio.gather(*followers))

    assert asyncio.run(run()) == [1, 1, 1]
    assert len(calls) == 2


def test_a_cancelled_follower_cancels_nobody() -> None:
    """One follower is cancelled; the leader and the others finish."""
    calls: list[int] = []

    async def run() -> list[Any]:
        started, release = asyncio.Event(), asyncio.Event()

        @distributed_cache
        async def slow(x: int) -> int:
            calls.append(x)
            started.set()
            await release.wait()
            return x

        leader = asyncio.create_task(slow(1))
        await started.wait()
        followers = [asyncio.create_task(slow(1)) for _ in range(2)]
        for _ in range(20):
            await asyncio.sleep(0)
        followers[0].cancel()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await followers[0]
        return [await leader, await followers[1]]

    assert asyncio.run(run()) == [1, 1]
    assert calls == [1]


DEPTH: list[int] = []


@distributed_cache(version="1")
def countdown(x: int) -> int:
    """Calls itself with the same argument once."""
    DEPTH.append(x)
    return countdown(x) if len(DEPTH) == 1 else x


def test_re_entrant_calls_do_not_deadlock() -> None:
    """A call of the same key from within goes to the origin."""
    DEPTH.clear()
    assert countdown(1) == 1
    assert DEPTH == [1, 1]


def _spawn(script: Path, log: Path, gate: Path, cache: Path) -> subprocess.Popen[str]:
    environ = {
        **os.environ,
        "CACHEKIT_DIR": str(cache),
        "CACHEKIT_IPFS": "off",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return subprocess.Popen([sys.executable, script, log, gate], env=environ, stdout=subprocess.PIPE, text=True)


def _await_line(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


@pytest.fixture
def processes(tmp_path: Path) -> Any:
    (tmp_path / "slow.py").write_text(SCRIPT)
    return lambda: _spawn(tmp_path / "slow.py", tmp_path / "log", tmp_path / "gate", tmp_path / "shared")


def test_processes_share_one_call(tmp_path: Path, processes: Any) -> None:
    """Three processes on a cold key: one call of the origin."""
    started = [processes() for _ in range(3)]
    for process in started:
        _await_line(process)
    while not (tmp_path / "log").exists():
        pass
    (tmp_path / "gate").touch()
    assert [process.communicate(timeout=60)[0] for process in started] == ["[1]\n"] * 3
    assert len((tmp_path / "log").read_text().split()) == 1


def test_a_killed_leader_is_replaced(tmp_path: Path, processes: Any) -> None:
    """kill -9 of the process that computes ends its lease, and another one computes."""
    leader = processes()
    _await_line(leader)
    while not (tmp_path / "log").exists() or not (tmp_path / "log").read_text():
        pass
    follower = processes()
    _await_line(follower)
    os.kill(leader.pid, signal.SIGKILL)
    leader.communicate(timeout=30)
    (tmp_path / "gate").touch()
    assert follower.communicate(timeout=60)[0] == "[1]\n"
    assert len((tmp_path / "log").read_text().split()) == 2


@distributed_cache
def square(x: int) -> list[int]:
    """Used by forked and spawned children."""
    return [x * x]


def _child(numbers: list[int]) -> list[list[int]]:
    return [square(x) for x in numbers]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_share_a_parents_cache(method: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 forked (4 spawned) children of a parent with an open cache read and write it without a wrong answer."""
    monkeypatch.setenv("CACHEKIT_DIR", str(own_cache))
    monkeypatch.setenv("CACHEKIT_IPFS", "off")
    for x in range(20):
        square(x)
    with multiprocessing.get_context(method).Pool(32 if method == "fork" else 4) as pool:
        answers = pool.map(_child, [list(range(n, n + 30)) for n in range(32)])
    assert answers == [[[x * x] for x in range(n, n + 30)] for n in range(32)]


def test_64_threads_on_one_cache() -> None:
    """Every answer belongs to its question, under a memory limit that evicts all the time."""
    with cachekit.configure(memory_limit="20KB"), ThreadPoolExecutor(64) as pool:
        numbers = [n % 97 for n in range(3000)]
        assert list(pool.map(square, numbers)) == [[x * x] for x in numbers]


def test_an_invalidation_is_seen_by_other_processes_at_once(own_cache: Path) -> None:
    """Another process invalidates; this one's copy in memory is not served again."""
    square(3), square(3)
    key = str(square.key_for(3))
    code = "import sys, cachekit; sys.exit(0 if cachekit.invalidate(key=sys.argv[1]) else 1)"
    environ = {
        **os.environ,
        "CACHEKIT_DIR": str(own_cache),
        "CACHEKIT_IPFS": "off",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    subprocess.run([sys.executable, "-c", code, key], env=environ, check=True, timeout=60)
    before = stats(square).as_dict()["misses"]
    square(3)
    assert stats(square).as_dict()["misses"] == before + 1
