"""A thread in the background that may never keep its owner alive, survives a fork, and is easily told to end."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final, NamedTuple

BATCHING_SECONDS: Final = 0.05
"""What comes together travels together: the quiet that a woken worker waits for."""
LONGEST_BATCHING_SECONDS: Final = 0.5
"""While there is no quiet, this is how long it waits."""
RETRY_SECONDS: Final = 1.0


class _Signals(NamedTuple):
    awake: threading.Event
    ended: threading.Event


class Worker:
    """Does `work`, a bound method, whenever it was woken, or else every `interval` seconds; its first `wake` starts it.

    `work` says whether it succeeded; where not, it is asked again after a second. `name` is the thread's.
    """

    def __init__(self, name: str, work: Callable[[], bool], *, interval: float | None = None) -> None:
        self._name = name
        # A weak reference: a tier that nobody uses any more must not be worked for.
        self._work = weakref.WeakMethod(work)
        self._interval = interval
        self._renew()

    def __del__(self) -> None:
        self.end()

    def wake(self) -> None:
        """Have it work soon."""
        if self._pid != os.getpid():
            self._renew()
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._start()
        self._signals.awake.set()

    def renew_after_fork(self) -> None:
        """Threads do not survive a fork: one that works by the clock starts again in the child."""
        runs = self._thread is not None and not self._signals.ended.is_set()
        self._renew()
        if runs and self._interval is not None:
            self.wake()

    def end(self) -> None:
        """Have it end, without waiting for it."""
        self._signals.ended.set()
        self._signals.awake.set()

    def join(self, timeout: float) -> None:
        """Wait until it has ended, for at most `timeout` seconds."""
        thread = self._thread
        if thread is not None and self._pid == os.getpid() and thread is not threading.current_thread():
            thread.join(timeout)

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._signals = _Signals(threading.Event(), threading.Event())
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def _start(self) -> None:
        thread = threading.Thread(
            target=_run, args=(self._work, self._signals, self._interval), name=self._name, daemon=True
        )
        # No thread to be had (too many, or the interpreter ends): the next `wake` tries again.
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread


def _run(work: weakref.WeakMethod[Callable[[], bool]], signals: _Signals, interval: float | None) -> None:
    while not signals.ended.is_set():
        signals.awake.wait(interval)
        if interval is None:
            _gathered(signals)
        signals.awake.clear()
        if signals.ended.is_set():
            return
        done = _worked(work)
        if not done and interval is None:
            signals.ended.wait(RETRY_SECONDS)
            signals.awake.set()


def _worked(work: weakref.WeakMethod[Callable[[], bool]]) -> bool:
    # In a function of its own, so that the strong reference is gone while the thread waits.
    call = work()
    return call is None or call()


def _gathered(signals: _Signals) -> None:
    end = time.monotonic() + LONGEST_BATCHING_SECONDS
    while time.monotonic() < end and not signals.ended.is_set():
        signals.awake.clear()
        signals.ended.wait(BATCHING_SECONDS)
        if not signals.awake.is_set():
            return
