"""What other machines publish and invalidate: taken in when a lookup asks, and every few seconds in the background."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from cachekit.breaker import Breaker
from cachekit.errors import TierError, TierUnavailable
from cachekit.index import Index
from cachekit.kubo import Transport
from cachekit.model import EVERYWHERE
from cachekit.tiers.ipfs_worker import Worker

LISTENING_SECONDS: Final = 5.0
"""How long an invalidation of another machine may stay unknown to one that only has local hits."""
_ALL_SECONDS: Final = 10.0


class Listener:
    """Keeps the index of every namespace that this machine asked for up to date.

    `timeout`, in seconds, is for one namespace in the background. `report` hears what failed there and is not the
    daemon's absence. Every other method may raise TierError.
    """

    def __init__(
        self, transport: Transport, index: Index, breaker: Breaker, timeout: float, report: Callable[[str], None]
    ) -> None:
        self._transport = transport
        self._index = index
        self._breaker = breaker
        self._timeout = timeout
        self._report = report
        self._times: dict[str, float] = {}
        self._taken = 0
        self.worker = Worker("cachekit-listen", self._listened, interval=LISTENING_SECONDS)

    def start(self, namespace: str) -> None:
        """From now on, listen for what is invalidated in `namespace` and all others."""
        self._times.setdefault(namespace, 0.0)
        self.worker.wake()

    def age(self, namespace: str) -> float:
        """Seconds since the namespace was last taken in."""
        return time.monotonic() - (self._times.get(namespace) or float("-inf"))

    def refresh(self, namespace: str, timeout: float) -> int:
        """Take in what is new, invalidations too; how many entries that were."""
        if not self._times.get(namespace):
            self._index.remember(namespace)
        taken = self._index.refresh(self._transport, namespace, timeout)
        self._taken += taken
        self._times[namespace] = time.monotonic()
        return taken

    def taken(self) -> int:
        """How many entries were taken in since this was last asked, in the background and for lookups included."""
        taken, self._taken = self._taken, 0
        return taken

    def refresh_all(self, timeout: float) -> None:
        """`refresh` for every namespace that was ever asked for on this machine, each within `timeout` seconds."""
        end = time.monotonic() + _ALL_SECONDS
        for name in dict.fromkeys([*self._times, EVERYWHERE, *self._index.namespaces()]):
            self.refresh(name, timeout)
            if time.monotonic() > end:
                break

    def _listened(self) -> bool:
        if not self._breaker.allows():
            return False
        try:
            self.refresh_all(self._timeout)
        except TierUnavailable:
            # Not judged: a caller counts what it meets, and under CACHEKIT_STRICT raises it.
            return False
        except TierError as error:
            self._report(error.reason)
            return False
        except Exception:  # a thread that dies of the unforeseen would leave invalidations unknown, unnoticed
            self._report("listening_failed")
            return False
        return True
