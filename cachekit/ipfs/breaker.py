"""What is the daemon's doing and what is not: a dead or hung one costs one call, and none after it.

The way is barred until a thread of ours saw it answer. Our own impatience bars nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from cachekit.errors import TierError, TierUnavailable
from cachekit.ipfs.worker import Worker

DELAYS: Final = (1.0, 2.0)
"""Seconds before each probe; the last one repeats. With what a probe takes itself a return is noticed within 5."""
_JITTER: Final = 0.2
"""A thousand processes that lost one daemon must not come back to it in step."""
_OWN_REASONS: Final = ("locked", "unfinished", "io")
"""Reasons of a TierUnavailable that is not the daemon's doing."""

_T = TypeVar("_T")


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

    `probe` raises while there is no answer; `reason` says why it is open. Safe from any thread.
    """

    def __init__(self, probe: Callable[[], object], *, delays: Sequence[float] = DELAYS) -> None:
        self.reason = ""
        self._probe = probe
        self._closed = True
        self._prober = Worker("cachekit-probe", self._answers, delays, jitter=_JITTER)

    def allows(self) -> bool:
        """Whether a call may try; never probes, never blocks."""
        if self._closed:
            return True
        self._prober.begin()
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
        absent = isinstance(error, TierUnavailable) and error.reason not in _OWN_REASONS
        if absent or error.reason == "not_kubo":
            self.failed(error)

    def failed(self, error: TierError) -> None:
        """Open at once: a call paid for the discovery, the next ones shall not. `reason` becomes the error's."""
        self.reason = error.reason
        if self._closed:
            self._closed = False
            self._prober.wake()

    def succeeded(self) -> None:
        """Close; nothing where it is closed already."""
        if not self._closed:
            self._closed, self.reason = True, ""
            self._prober.stop()

    def renew_after_fork(self) -> None:
        """The child keeps the verdict, and probes for itself from its first `allows()` on."""
        self._prober.renew_after_fork()

    def close(self) -> None:
        """End the probing for good. The verdict stays."""
        self._prober.end()

    def _answers(self) -> bool:
        try:
            self._probe()
        except Exception as error:  # a probe that raises anything has not found the daemon well
            self.reason = error.reason if isinstance(error, TierError) else type(error).__name__
            return False
        self.succeeded()
        return True
