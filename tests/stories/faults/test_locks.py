"""Whoever holds a file of the cache, for however long: a store waits a quarter of a second, a hit for nobody."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import HEAD, environment, told
from stopping import stop

SQUARE = """
@distributed_cache
def square(x): return [x * x]
def timed(x):
    began = time.monotonic()
    assert square(x) == [x * x]
    return time.monotonic() - began
"""
HOLD = """
square(1)
held = sqlite3.connect(HERE / sys.argv[1], isolation_level=None)
held.execute("BEGIN IMMEDIATE")
say("held")
sys.stdin.read()
"""


@pytest.fixture(params=["cache.db", "ledger.db"])
def stopped(request: pytest.FixtureRequest, own_cache: Path) -> Iterator[None]:
    """Another process, stopped in the midst of a write to that file."""
    command = [sys.executable, "-c", HEAD + SQUARE + HOLD, request.param]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(own_cache), text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "held\n"
        stop(process.pid)
        yield
        process.kill()


@pytest.mark.usefixtures("stopped")
def test_a_stopped_writer_holds_up_nobody(own_cache: Path) -> None:
    """A new process hits at once and stores within its bound; that it could not is counted."""
    script = """
hit, stores = timed(1), [timed(x) for x in range(2, 10)]
hits = stats().as_dict()["hits"]["disk"]
say(hits, hit < 2, max(stores) < 2, sum(stores) < 4)
"""
    assert told(SQUARE + script, own_cache) == ["1 True True True"]


def test_a_held_cache_file_is_counted_as_busy(own_cache: Path) -> None:
    """The value comes, the reason is `busy`, and once the file is free it is stored."""
    script = """
square(1)
held = sqlite3.connect(HERE / "cache.db", isolation_level=None)
held.execute("BEGIN IMMEDIATE")
square(2)
say(errors())
held.execute("ROLLBACK")
ROOT.cache().memory.clear()
square(2), ROOT.cache().memory.clear(), square(2)
say(stats().as_dict()["hits"]["disk"])
"""
    assert told(SQUARE + script, own_cache) == ["['busy']", "1"]


def test_without_descriptors_the_function_is_called(own_cache: Path) -> None:
    """No file can be opened any more: hits in memory, else the function, and no store that tries for ever."""
    script = """
import resource
square(1)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
kept = []
try:
    while True: kept.append(os.dup(0))
except OSError: pass
def elsewhere():
    answers.extend(square(x)[0] for x in (1, 2, 3))
answers = []
thread = threading.Thread(target=elsewhere)
thread.start()
thread.join(20)
values = [square(x)[0] for x in (1, 4)]
for file in kept: os.close(file)
say(answers, values)
"""
    assert told(SQUARE + script, own_cache) == ["[1, 4, 9] [1, 16]"]


def test_a_lock_that_cannot_be_had_ends_no_write_halfway(own_cache: Path) -> None:
    """A large value whose row could not be written leaves no file behind."""
    script = """
@distributed_cache
def big(x): return b"x" * 300_000
square(1)
held = sqlite3.connect(HERE / "cache.db", isolation_level=None)
held.execute("BEGIN IMMEDIATE")
assert len(big(1)) == 300_000
say(errors(), list(HERE.glob("??/*/*.val")))
"""
    assert told(SQUARE + script, own_cache) == ["['busy'] []"]


def test_the_lock_is_a_real_one(own_cache: Path) -> None:
    """What the tests above hold does exclude writers; else they would show nothing."""
    told(SQUARE + "square(1)", own_cache)
    held = sqlite3.connect(own_cache / "cache.db", isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
    other = sqlite3.connect(own_cache / "cache.db", isolation_level=None, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    held.close()
    other.close()
