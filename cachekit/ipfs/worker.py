"""A thread in the background that may never keep its owner alive, and that a fork does not end."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from typing import Final

BATCHING_SECONDS: Final = 0.05
"""What comes together travels together: a first delay that is quiet enough for a burst."""
RETRY_SECONDS: Final = 1.0
_LONGEST_GATHERING: Final = 10


class Worker:
    """Does `work`, a bound method, on a thread called `name`: when woken, and again until it says that it is done.

    `delays` are the seconds before each time; the last one repeats. The first has to be quiet: who is woken again in it
    waits again, ten times at most. Each delay is up to its `jitter`, a share of it, longer or shorter. A thread that is
    done ends, unless it is to be `lasting`: with it would end its connections to SQLite, which are dear to open.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], bool],
        delays: Sequence[float] = (0.0,),
        *,
        jitter: float = 0.0,
        lasting: bool = False,
    ) -> None:
        self._name = name
        # A weak reference: a tier that nobody uses any more must not be worked for.
        self._work = weakref.WeakMethod(work)
        self._delays = tuple(delays)
        self._jitter = jitter
        self._lasting = lasting
        self._ended = False
        self._run = _Run()

    def __del__(self) -> None:
        self._run.stop()

    def begin(self) -> None:
        """Have it work soon, unless it does already."""
        if self._run.thread is None:
            self.wake()

    def wake(self) -> None:
        """Have it work soon; where it works already, once more after that."""
        if self._ended:
            return
        if self._run.pid != os.getpid():
            self.renew_after_fork()
        run = self._run
        with run.lock:
            run.woken.set()
            if run.thread is None:
                arguments = (self._work, run, self._delays, self._jitter, self._lasting)
                thread = threading.Thread(target=_work_on, args=arguments, name=self._name, daemon=True)
                # No thread to be had (too many, or the interpreter ends): the next call tries again.
                with contextlib.suppress(RuntimeError):
                    thread.start()
                    run.thread = thread

    def stop(self) -> None:
        """Have it stop, without waiting for it, until it is woken again."""
        self._run.stop()
        self._run = _Run()

    def end(self) -> None:
        """Have it stop for good, without waiting for it."""
        self._ended = True
        self._run.stop()

    def renew_after_fork(self) -> None:
        """The thread exists in the parent only. `wake` sees that by itself; `begin` is to cost next to nothing."""
        self._run = _Run()

    def join(self, timeout: float) -> None:
        """Wait until it has ended, for at most `timeout` seconds."""
        thread = self._run.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)


class _Run:
    """What a thread and the worker that started it share, so that neither holds the other."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.woken = threading.Event()
        self.thread: threading.Thread | None = None

    def stop(self) -> None:
        self.stopped.set()
        self.woken.set()

    def goes_on(self, *, lasting: bool) -> bool:
        """Whether somebody woke it since the last time; else the thread is over, and the next `wake` starts another."""
        if lasting:
            return self.woken.wait()
        with self.lock:
            if not self.woken.is_set():
                self.thread = None
            return self.woken.is_set()

    def is_quiet(self, delay: float) -> bool:
        """Waits for a `delay` in which nobody woke it; False where it is to stop."""
        for _ in range(_LONGEST_GATHERING):
            self.woken.clear()
            if self.stopped.wait(delay):
                return False
            if not self.woken.is_set():
                break
        self.woken.clear()
        return True


def _work_on(
    work: weakref.WeakMethod[Callable[[], bool]], run: _Run, delays: Sequence[float], jitter: float, lasting: bool
) -> None:
    try:
        while run.goes_on(lasting=lasting):
            waits = _waits(delays, jitter)
            if not run.is_quiet(next(waits)):
                return
            while not _is_done(work):
                if run.stopped.wait(next(waits)):
                    return
    except BaseException:  # whatever it is: the next call starts another thread
        run.thread = None
        raise


def _waits(delays: Sequence[float], jitter: float) -> Iterator[float]:
    for delay in chain(delays, repeat(delays[-1])):
        yield delay * random.uniform(1 - jitter, 1 + jitter)  # noqa: S311 - spreads load, guards nothing


def _is_done(work: weakref.WeakMethod[Callable[[], bool]]) -> bool:
    # In a function of its own, so that the strong reference is gone while the thread waits.
    call = work()
    return call is None or call()
