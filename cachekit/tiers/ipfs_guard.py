"""What the daemon's failures mean for the breaker, and what is not the daemon's doing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cachekit.breaker import Breaker
from cachekit.errors import TierError, TierUnavailable
from cachekit.index import OWN_REASONS

_T = TypeVar("_T")


class Guard:
    """Calls the daemon on behalf of a caller, and keeps the breaker informed."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker

    def call(self, call: Callable[[], _T]) -> _T:
        """What `call` gives; a TierError is judged, and raised."""
        try:
            result = call()
        except TierError as error:
            self.judge(error)
            raise
        self._breaker.succeeded()
        return result

    def judge(self, error: TierError) -> None:
        """Open the breaker if the daemon is to blame."""
        # One bad payload, a lock or a file of ours, or our own impatience say nothing about the daemon.
        absent = isinstance(error, TierUnavailable) and error.reason not in OWN_REASONS
        if absent or error.reason == "not_kubo":
            self._breaker.failed(error)
