"""What is done every few seconds, behind the calls: totals saved, the disk culled."""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Final

from cachekit.errors import TierError
from cachekit.model import Event
from cachekit.stats import INBOX_LIMIT, Stats

if TYPE_CHECKING:
    from cachekit.tiers.disk import DiskTier
    from cachekit.tiers.ledger import Ledger

SAVE_EVERY: Final = 10.0
"""Seconds between two additions to the machine's totals; a write per call would cost more than the call saves."""


class Housekeeper:
    """Keeps one cache tidy. `disk` is its disk tier while it has one."""

    def __init__(self, stats: Stats, ledger: Ledger) -> None:
        self.disk: DiskTier | None = None
        self._stats = stats
        self._ledger = ledger
        self._next_save = 0.0
        self._thread: threading.Thread | None = None

    def begin(self, disk: DiskTier | None) -> None:
        """The cache is open; the first totals are due in a while."""
        self.disk = disk
        self._next_save = time.monotonic() + SAVE_EVERY

    def tidy(self, *, crowded: bool = False) -> None:
        """Starts what is due in the background, or what a crowd of uncounted hits asks for; else a comparison."""
        disk = self.disk
        due = crowded or time.monotonic() >= self._next_save or len(self._stats.inbox) > INBOX_LIMIT
        if not due and not (disk is not None and disk.wants_culling()):
            return
        if self._thread is None or not self._thread.is_alive():
            self._next_save = time.monotonic() + SAVE_EVERY
            self._thread = threading.Thread(target=self._keep_house, name="cachekit-keeper", daemon=True)
            self._thread.start()

    def _keep_house(self) -> None:
        try:
            self.save_totals()
            disk = self.disk
            if disk is not None and disk.wants_culling():
                disk.cull()
        except (TierError, sqlite3.Error, OSError) as error:
            self._stats(Event("error", "", "disk", "housekeeping", error=error))

    def save_totals(self) -> None:
        """Adds what was counted since the last time to the machine's totals."""
        unsaved = self._stats.take_unsaved()
        if unsaved and self.disk is not None:
            self._ledger.add_totals(unsaved)

    def renew_after_fork(self) -> None:
        """The thread exists in the parent only."""
        self._thread = None
