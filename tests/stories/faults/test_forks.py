"""A process forks while its threads store, count and read: no child waits for a thread that it does not have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from programs import told

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")

BUSY = """
@distributed_cache
def f(x): return [x, "v" * 3000]

def busy(number):
    while True:
        f(number)
        number += 1

def children(count, work, seconds=20):
    hung = 0
    for _ in range(count):
        child = os.fork()
        if child == 0:
            os._exit(0 if work() else 1)
        end = time.monotonic() + seconds
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
            time.sleep(0.005)
        if ended == (0, 0):
            hung += 1
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        else:
            assert os.waitstatus_to_exitcode(ended[1]) == 0
    return hung

def threads(count):
    for number in range(count):
        threading.Thread(target=busy, args=(number * 10**7,), daemon=True).start()
    while stats().as_dict()["calls"] < 50:
        time.sleep(0.01)
"""


def test_children_of_a_storing_parent_store(own_cache: Path) -> None:
    """Eight threads store while twelve children are forked: each child stores, and finds again what it stored."""
    script = """
def work():
    f(10**9 + os.getpid())
    ROOT.cache().memory.clear()
    return f(10**9 + os.getpid())[0] == 10**9 + os.getpid() and stats().as_dict()["hits"]["disk"] == 1
threads(8)
say(children(12, work))
os._exit(0)
"""
    assert told(BUSY + script, own_cache, seconds=300) == ["0"]


def test_children_without_a_cache_count(own_cache: Path) -> None:
    """`CACHEKIT_MODE=off`: the statistics of a child are its own, their lock included."""
    script = """
def work():
    for number in range(9000): f(number)
    return stats().as_dict()["calls"] == 9000
threads(4)
say(children(8, work))
os._exit(0)
"""
    assert told(BUSY + script, own_cache, seconds=300, mode="off") == ["0"]


def test_a_transaction_open_at_the_fork_bars_the_child_from_the_file_only(own_cache: Path) -> None:
    """A thread holds cache.db for longer than a fork waits: the child calls its function, counted; the parent goes on."""
    script = """
from cachekit.files.sqlite import all_or_nothing
f(1)
entered, leave = threading.Event(), threading.Event()
def hold():
    with ROOT.cache().disk._file.connections.use() as connection:
        connection.execute("BEGIN IMMEDIATE")
        entered.set()
        leave.wait()
        connection.execute("ROLLBACK")
thread = threading.Thread(target=hold, daemon=True)
thread.start()
entered.wait()
def work():
    return f(2)[0] == 2 and f(3)[0] == 3 and errors() == ["forked"]
say(children(1, work))
leave.set()
thread.join()
f(4)
ROOT.cache().memory.clear()
f(4)
say(stats().as_dict()["hits"]["disk"], errors())
"""
    assert told(BUSY + script, own_cache) == ["0", "1 []"]


def test_pools_of_a_threaded_program_work(own_cache: Path) -> None:
    """multiprocessing's fork pools, made one after the other while two threads store."""
    script = """
import multiprocessing
def child(number): return f(5 * 10**8 + number)[0]
threads(2)
for turn in range(4):
    pool = multiprocessing.get_context("fork").Pool(2)
    assert pool.map_async(child, range(8 * turn, 8 * turn + 8)).get(30) == [5 * 10**8 + n for n in range(8 * turn, 8 * turn + 8)]
    pool.terminate()
say("done")
os._exit(0)
"""
    assert told(BUSY + script, own_cache, seconds=200) == ["done"]


def test_a_child_closes_nothing_of_its_parents(own_cache: Path) -> None:
    """After children that stored and ended, the parent's connections still read what everybody stored."""
    script = """
f(1)
def work():
    f(2)
    flush()
    ROOT.cache().close()
    return True
say(children(5, work))
ROOT.cache().memory.clear()
f(1), f(2)
say(stats().as_dict()["hits"]["disk"], errors())
with sqlite3.connect(HERE / "cache.db") as connection:
    say(connection.execute("PRAGMA integrity_check").fetchone()[0])
"""
    assert told(BUSY + script, own_cache) == ["0", "2 []", "ok"]


IMPORTING = """
from importlib.machinery import SourceFileLoader

@distributed_cache
def f(x): return [x]

began, leave = threading.Event(), threading.Event()

def get_code(loader, name, read=SourceFileLoader.get_code):
    if name == "cachekit.config.resolve" and threading.current_thread() is thread:
        began.set()
        leave.wait(float(sys.argv[1]))
    return read(loader, name)

SourceFileLoader.get_code = get_code
thread = threading.Thread(target=f, args=(1,))
thread.start()
assert began.wait(20)
child = os.fork()
if child == 0:
    os._exit(0 if f(2) == [2] else 1)
leave.set()
end = time.monotonic() + 20
while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
    time.sleep(0.005)
if ended == (0, 0):
    os.kill(child, signal.SIGKILL)
thread.join()
say(f(1), "hung" if ended == (0, 0) else os.waitstatus_to_exitcode(ended[1]))
"""


@pytest.mark.parametrize("seconds", [0.2, 60], ids=["soon done", "not done"])
def test_a_child_imports_what_a_thread_was_importing(own_cache: Path, seconds: float) -> None:
    """A fork while a thread makes its first call: the child has our modules, whether that import ends in time or not."""
    assert told(IMPORTING, own_cache, seconds) == ["[1] 0"]
