"""Bytes, files and directories that somebody stores and pins by hand, whatever call they may answer."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cachekit.errors import TierError
from cachekit.ipfs.breaker import Breaker, Deadline
from cachekit.ipfs.content import trees
from cachekit.ipfs.content.cids import file_cid
from cachekit.ipfs.content.engine import Engine
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.outbox.sending import Sender, again
from cachekit.ipfs.trust.credential import KEY_BYTES

_ANY_BYTES: Final = 1 << 60
"""The size of what nobody measured: it may take all the time that there is."""
BY_HAND: Final = ""
"""The namespace under which the pins are counted; no decorated call can have it."""


@dataclass(frozen=True)
class ByHand:
    """Every method waits for the daemon, `timeout` seconds at most, and may raise TierError."""

    transport: Engine
    table: Table
    breaker: Breaker
    sender: Sender

    def store(self, data: bytes, *, pin: bool = False, timeout: float = 60.0) -> str:
        """Publish bytes as they are, unencrypted; gives the CID."""
        deadline = Deadline(timeout)
        if not pin:
            return self.breaker.call(lambda: self.sender.upload(data, deadline))
        cid = file_cid(data)
        self._referred(cid, lambda key: self.sender.store(data, BY_HAND, key, "store", deadline))
        return cid

    def add(self, path: Path, *, pin: bool = False, timeout: float = 60.0) -> str:
        """The same for a file of any size, or a directory."""
        deadline = Deadline(timeout)
        cid, size = self.breaker.call(lambda: trees.add(path, self.transport, deadline))

        def kept(key: bytes) -> None:
            hold = functools.partial(self.sender.hold, BY_HAND, key, cid, size, "store", deadline)
            again(hold, deadline, restore=lambda: trees.add(path, self.transport, deadline))

        if pin:
            self._referred(cid, kept)
        return cid

    def pin(self, cid: str, *, timeout: float = 60.0) -> None:
        """Have the daemon keep what it has under `cid`; TierError `not_found` where it lacks some of it."""
        deadline = Deadline(timeout)
        self._referred(cid, lambda key: self.sender.hold(BY_HAND, key, cid, _ANY_BYTES, "store", deadline))

    def _referred(self, cid: str, keep: Callable[[bytes], None]) -> None:
        known = [one.key for one in self.table.references(cid) if one.namespace == BY_HAND]
        # No other directory's, and none that was taken off: at random.
        key = known[0] if known else os.urandom(KEY_BYTES)
        self.table.reference(BY_HAND, key, cid, time.time_ns())
        try:
            self.breaker.call(lambda: keep(key))
        except TierError:
            if not known:
                self.table.dereference(BY_HAND, key, time.time_ns())
            raise
