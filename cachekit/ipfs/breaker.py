"""A dead or hung daemon costs one call, and none after it: the way is barred until a thread of ours saw it answer.

What the daemon's failures mean for the breaker, and what is not the daemon's doing.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Final, TypeVar

from cachekit.errors import TierError, TierUnavailable

OWN_REASONS: Final = ("locked", "unfinished")
"""Reasons of a TierUnavailable that is not the daemon's doing."""
DELAYS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0)
"""Seconds before each probe; the last one repeats."""

_JITTER = (0.8, 1.2)
_T = TypeVar("_T")
_living: weakref.WeakSet[Breaker] = weakref.WeakSet()
_hooked: list[bool] = []


class Deadline:
    """The instant, `seconds` from now, at which something is to be over; `at` is that of `time.monotonic`."""

    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds

    @property
    def rest(self) -> float:
        """Seconds until then, 0 where it is over."""
        return max(0.0, self.at - time.monotonic())

    def left(self) -> float:
        """The same for what would take 0 for "for ever": TierUnavailable `unfinished` where it is over."""
        rest = self.rest
        if not rest:
            raise TierUnavailable("the time for this is over; what waits to be sent stays queued", reason="unfinished")
        return rest


class Breaker:
    """Closed, calls go through; open, they do not, and only the thread `cachekit-probe` calls `probe`.

    `probe` raises while there is no answer. `clock` dates `since`. Safe from any thread; after a fork the child keeps
    the verdict and probes for itself from its first `allows()` on.
    """

    def __init__(
        self,
        probe: Callable[[], object],
        *,
        delays: Sequence[float] = DELAYS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reason = ""
        self.since = 0.0
        self._probe = probe
        self._delays = tuple(delays)
        self._clock = clock
        self._closed = True
        self._ended = False
        self._reset_threading()
        _living.add(self)
        _hook_fork()

    def _reset_threading(self) -> None:
        self._lock = threading.Lock()
        self._stop: threading.Event | None = None

    def allows(self) -> bool:
        """Whether a call may try; never probes, never blocks."""
        if self._closed:
            return True
        if self._stop is None:
            self._watch()
        return False

    def call(self, call: Callable[[], _T]) -> _T:
        """What `call` gives, which asks the daemon; a TierError is judged, and raised."""
        try:
            result = call()
        except TierError as error:
            self.judge(error)
            raise
        self.succeeded()
        return result

    def judge(self, error: TierError) -> None:
        """Open if the daemon is to blame."""
        # One bad payload, a lock or a file of ours, or our own impatience say nothing about the daemon.
        absent = isinstance(error, TierUnavailable) and error.reason not in OWN_REASONS
        if absent or error.reason == "not_kubo":
            self.failed(error)

    def failed(self, error: TierError) -> None:
        """Open at once: a call paid for the discovery, the next ones shall not. `reason` becomes the error's."""
        with self._lock:
            self.reason = error.reason
            if self._closed:
                self._closed = False
                self.since = self._clock()
        self._watch()

    def succeeded(self) -> None:
        """Close; nothing where it is closed already."""
        if not self._closed:
            with self._lock:
                self._close()

    def close(self) -> None:
        """End the probing for good. The verdict stays."""
        with self._lock:
            self._ended = True
            self._end_watch()

    def _close(self) -> None:
        self._closed = True
        self.reason = ""
        self._end_watch()

    def _end_watch(self) -> None:
        if self._stop is not None:
            self._stop.set()
        self._stop = None

    def _watch(self) -> None:
        with self._lock:
            if self._closed or self._ended or self._stop is not None:
                return
            stop = threading.Event()
            # A weak reference: a breaker that nobody uses any more must not be probed for ever.
            thread = threading.Thread(
                target=_probe_until, args=(weakref.ref(self), stop, self._delays), name="cachekit-probe", daemon=True
            )
            # No thread to be had (too many, or the interpreter ends): the next call tries again.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._stop = stop

    def _probe_once(self, stop: threading.Event) -> None:
        error: Exception | None = None
        try:
            self._probe()
        except Exception as caught:  # a probe that raises anything has not found the daemon well
            error = caught
        with self._lock:
            # By now somebody else may have closed it, and another failure opened it again with a new thread.
            if self._stop is not stop:
                return
            if error is None:
                self._close()
            else:
                self.reason = error.reason if isinstance(error, TierError) else type(error).__name__


def _probe_until(owner: weakref.ref[Breaker], stop: threading.Event, delays: Sequence[float]) -> None:
    for delay in chain(delays, repeat(delays[-1])):
        # Jitter: a thousand processes that lost one daemon must not come back to it in step.
        if stop.wait(delay * random.uniform(*_JITTER)):  # noqa: S311 - spreads load, guards nothing
            return
        breaker = owner()
        if breaker is None:
            return
        breaker._probe_once(stop)
        del breaker


def _hook_fork() -> None:
    # Once for the process and not per breaker: such a hook cannot be taken back.
    if not _hooked and hasattr(os, "register_at_fork"):
        _hooked.append(True)
        os.register_at_fork(after_in_child=_forget_threads)


def _forget_threads() -> None:
    for breaker in list(_living):
        breaker._reset_threading()
