"""The background thread of the IPFS tier."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

from cachekit.ipfs.worker import RETRY_SECONDS, Worker


class Owner:
    """Counts how often its worker worked; `good` is what it says of it."""

    def __init__(self, interval: float | None = None) -> None:
        self.times = 0
        self.good = True
        self.done = threading.Event()
        self.worker = Worker("test-worker", self.work, interval=interval)

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


def test_the_clock_wakes_it() -> None:
    """One with an interval works again and again after its first wake."""
    owner = Owner(interval=0.01)
    assert not owner.done.wait(0.1)
    owner.worker.wake()
    _await(lambda: owner.times >= 3)
    owner.worker.end()


def test_it_ends_with_its_owner() -> None:
    """Its thread does not keep alive what nobody uses any more."""
    owner = Owner(interval=60.0)
    owner.worker.wake()
    assert owner.done.wait(20)
    thread, gone = owner.worker._thread, weakref.ref(owner)
    assert thread is not None
    del owner
    thread.join(20)
    assert not thread.is_alive()
    assert gone() is None
