"""A thread in the background."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence

import pytest

from cachekit.ipfs.worker import BATCHING_SECONDS, RETRY_SECONDS, Worker


class Owner:
    """Counts how often its worker worked; `good` is what it says of it."""

    def __init__(self, delays: Sequence[float] = (BATCHING_SECONDS, RETRY_SECONDS), *, lasting: bool = False) -> None:
        self.times = 0
        self.good = True
        self.done = threading.Event()
        self.worker = Worker("test-worker", self.work, delays, lasting=lasting)

    def work(self) -> bool:
        self.times += 1
        self.done.set()
        return self.good


def _await(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def test_what_comes_together_is_done_at_once() -> None:
    """A burst is one piece of work, and what comes after it another."""
    owner = Owner()
    for expected in (1, 2):
        owner.done.clear()
        for _ in range(50):
            owner.worker.wake()
        assert owner.done.wait(20)
        assert owner.times == expected
    owner.worker.end()


def test_a_steady_stream_is_not_put_off_for_ever() -> None:
    """Work is done although there is never a quiet moment."""
    owner = Owner()
    end = time.monotonic() + 20
    while not owner.times and time.monotonic() < end:
        owner.worker.wake()
        time.sleep(0.001)
    assert owner.times == 1
    owner.worker.end()


def test_a_failure_is_tried_again() -> None:
    """Without being woken, and not in a hurry."""
    owner = Owner()
    owner.good = False
    began = time.monotonic()
    owner.worker.wake()
    _await(lambda: owner.times == 2)
    assert time.monotonic() - began >= RETRY_SECONDS
    owner.worker.end()


def test_what_is_never_done_is_done_by_the_clock() -> None:
    """Again and again after the first wake, and not before."""
    owner = Owner((0.0, 0.01))
    owner.good = False
    assert not owner.done.wait(0.1)
    owner.worker.wake()
    _await(lambda: owner.times >= 3)
    owner.worker.end()


def test_no_thread_waits_where_there_is_nothing_to_do() -> None:
    """It ends with its work, and the next wake starts another."""
    owner = Owner((0.0,))
    for expected in (1, 2):
        owner.worker.wake()
        _await(lambda: owner.worker._run.thread is None)
        assert owner.times == expected


def test_a_lasting_thread_waits_for_the_next_wake() -> None:
    """It is the same one each time, and ends when it is told to."""
    owner = Owner((0.0,), lasting=True)
    threads = set()
    for expected in (1, 2):
        owner.done.clear()
        owner.worker.wake()
        assert owner.done.wait(20)
        assert owner.times == expected
        threads.add(owner.worker._run.thread)
    (thread,) = threads
    owner.worker.end()
    owner.worker.join(20)
    assert not thread.is_alive()


def test_who_begins_what_works_already_changes_nothing() -> None:
    """`begin` is for those who ask often: a second thread, or a second time, is not for them."""
    owner = Owner((0.0, 0.05))
    owner.good = False
    owner.worker.begin()
    assert owner.done.wait(20)
    thread = owner.worker._run.thread
    owner.worker.begin()
    assert owner.worker._run.thread is thread
    owner.good = True
    _await(lambda: owner.worker._run.thread is None)


def test_what_was_stopped_can_be_woken_and_what_ended_cannot() -> None:
    """The first makes room for another ladder of delays, the second is the end."""
    owner = Owner((0.0, 60.0))
    owner.good = False
    for expected in (1, 2):
        owner.done.clear()
        owner.worker.wake()
        assert owner.done.wait(20)
        assert owner.times == expected
        owner.worker.stop()
    owner.worker.end()
    owner.worker.wake()
    assert owner.worker._run.thread is None


def test_work_that_raises_is_begun_again_when_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread dies with the error, as any other, but not the worker."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    calls: list[int] = []

    class Failing(Owner):
        def work(self) -> bool:
            calls.append(1)
            raise ValueError

    owner = Failing((0.0,))
    for expected in (1, 2):
        owner.worker.wake()
        _await(lambda: owner.worker._run.thread is None)
        assert len(calls) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_a_thread_of_its_own() -> None:
    """Also where the parent's was at work, and held its lock."""
    owner = Owner((0.0, 60.0))
    owner.good = False
    owner.worker.wake()
    assert owner.done.wait(20)
    with owner.worker._run.lock:
        child = os.fork()
        if child == 0:
            owner.done.clear()
            owner.worker.wake()
            os._exit(0 if owner.done.wait(20) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    owner.worker.end()


def test_it_ends_with_its_owner() -> None:
    """Its thread does not keep alive what nobody uses any more."""
    owner = Owner((0.0, 60.0))
    owner.good = False
    owner.worker.wake()
    assert owner.done.wait(20)
    thread, gone = owner.worker._run.thread, weakref.ref(owner)
    assert thread is not None
    del owner
    thread.join(20)
    assert not thread.is_alive()
    assert gone() is None
