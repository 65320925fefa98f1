"""A process forks while its threads read a stream together: a child waits for no thread that it does not have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from programs import told

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")

SHARED = """
made, go = threading.Event(), threading.Event()

@distributed_cache
def f(x):
    yield 1
    if threading.current_thread() is not threading.main_thread():
        made.set()
        go.wait()
    yield 2

def child(work):
    number = os.fork()
    if number == 0:
        say(work())
        os._exit(0)
    end = time.monotonic() + 20
    while (ended := os.waitpid(number, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.005)
    if ended == (0, 0):
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
        say("hung")

def rest(pieces):
    try:
        return list(pieces)
    except Exception as error:
        return type(error).__name__
"""


def test_a_child_asks_the_origin_itself(own_cache: Path) -> None:
    """A thread of the parent pulls the stream that the child asks for: the child has its own; the parent's goes on."""
    script = """
reader = threading.Thread(target=lambda: say(list(f(1))))
reader.start()
made.wait()
child(lambda: list(f(1)))
go.set()
reader.join()
"""
    assert told(SHARED + script, own_cache) == ["[1, 2]", "[1, 2]"]


def test_a_child_in_the_middle_of_a_stream_is_told(own_cache: Path) -> None:
    """It had a piece, and the next one is being pulled by a thread that it does not have; asking again helps."""
    script = """
mine = f(1)
reader = threading.Thread(target=lambda: say(list(f(1))))
next(mine)
reader.start()
made.wait()
child(lambda: [rest(mine), list(f(1))])
go.set()
reader.join()
say(list(mine))
"""
    assert told(SHARED + script, own_cache) == ["['TierUnavailable', [1, 2]]", "[1, 2]", "[2]"]


def test_a_lock_held_at_the_fork_holds_no_child(own_cache: Path) -> None:
    """Another thread is inside of the stream's lock: the child reads on from the source, as without a cache."""
    script = """
mine = f(1)
next(mine)
(stream,) = ROOT.cache().streams._running.values()
entered = threading.Event()
def hold():
    with stream._condition:
        entered.set()
        go.wait()
thread = threading.Thread(target=hold)
thread.start()
entered.wait()
child(lambda: list(mine))
go.set()
thread.join()
say(list(mine))
"""
    assert told(SHARED + script, own_cache) == ["[2]", "[2]"]


def test_a_source_that_forks_is_pulled_on(own_cache: Path) -> None:
    """The thread that pulls is the one that forks: the stream is the child's as much as the parent's."""
    script = """
@distributed_cache
def g(x):
    yield 1
    number = os.fork()
    if number:
        os.waitpid(number, 0)
    yield 2
parent = os.getpid()
say(list(g(1)))
if os.getpid() != parent:
    os._exit(0)
"""
    assert told(SHARED + script, own_cache) == ["[1, 2]", "[1, 2]"]
