"""What the team has: taken in when a lookup asks and every few seconds in the background, and read to the record.

Nothing that does not verify becomes one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from cachekit.errors import IntegrityError, TierError, TierUnavailable
from cachekit.ipfs.breaker import Breaker, Deadline
from cachekit.ipfs.content.cids import file_cid, raw_cid
from cachekit.ipfs.content.engine import Engine
from cachekit.ipfs.content.sealed import unpacked
from cachekit.ipfs.content.unixfs import read_file
from cachekit.ipfs.index.index import Index
from cachekit.ipfs.index.rows import cid_of
from cachekit.ipfs.index.segments import ENCRYPTED, PINNED, UNIXFS, Line
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.worker import Worker
from cachekit.model import EVERYWHERE, Record
from cachekit.tiers.ledger import veiled

LISTENING_SECONDS: Final = 5.0
"""How long an invalidation of another machine may stay unknown to one that only has local hits."""
_ALL_SECONDS: Final = 10.0


def payload_of(transport: Engine, entry: Line, timeout: float, *, peers: bool = False) -> bytes | None:
    """The payload of an entry as the daemon has it, unverified; None where any of it was collected. Raises TierError.

    With `peers` the daemon asks those that it knows, all the time that there is.
    """
    cid, deadline = cid_of(entry), Deadline(timeout)
    if not entry.flags & UNIXFS:
        return transport.block_get(cid, timeout=timeout, peers=peers)
    try:
        return transport.cat(cid, size=entry.size, timeout=timeout, peers=peers)
    except IntegrityError as error:
        if error.reason != "truncated":
            raise
    # Cut on the way, or a part is gone: Kubo ends both answers alike, and only asked for the parts does it say which.
    try:
        return read_file(
            cid, lambda part: transport.block_get(part, timeout=deadline.left(), peers=peers), limit=entry.size
        )
    except TierError as error:
        if error.reason == "not_found":
            return None
        raise


def record_of(table: Table, namespace: str, entry: Line, payload: bytes) -> Record:
    """The record that `entry` promises; IntegrityError where the bytes are others, or no record."""
    table.members.roster()  # with the later generations of the secret
    cid = file_cid(payload) if entry.flags & UNIXFS else raw_cid(payload)
    if cid != cid_of(entry):
        raise IntegrityError("the daemon gave other bytes than the index names", reason="wrong_bytes")
    codec, plain = unpacked(table.credential, namespace, payload, encrypted=bool(entry.flags & ENCRYPTED))
    return Record(
        codec,
        plain,
        entry.created,
        entry.expires,
        entry.grace,
        entry.seconds,
        tags=(*map(veiled, entry.tags), *_written_tags(table, namespace, entry)),
        # A reference may have been taken off since.
        pin=table.pinned(namespace, entry) if entry.flags & PINNED else False,
    )


def _written_tags(table: Table, namespace: str, entry: Line) -> tuple[str, ...]:
    """The tags by which copies of an entry end when its writer is distrusted."""
    writer = table.members.wrote(table.credential.namespace_id(namespace), entry.key)
    return table.members.tags(writer, entry.created) if writer else ()


class Puller:
    """Keeps the table of every namespace that this machine asked for up to date.

    `timeout`, in seconds, is for one namespace in the background. `report` hears what failed there and is not the
    daemon's absence. Every other method may raise TierError.
    """

    def __init__(
        self, index: Index, table: Table, breaker: Breaker, timeout: float, report: Callable[[str], None]
    ) -> None:
        self._index = index
        self._table = table
        self._breaker = breaker
        self._timeout = timeout
        self._report = report
        self._times: dict[str, float] = {}
        self._taken = 0
        self.worker = Worker("cachekit-listen", self._listened, (0.0, LISTENING_SECONDS))

    def start(self, namespace: str) -> None:
        """From now on, listen for what is invalidated in `namespace` and all others."""
        self._times.setdefault(namespace, 0.0)
        self.worker.wake()

    def age(self, namespace: str) -> float:
        """Seconds since the namespace was last taken in."""
        return time.monotonic() - (self._times.get(namespace) or float("-inf"))

    def refresh(self, namespace: str, timeout: float, unfinished: Callable[[], None] = lambda: None) -> None:
        """Take in what is new, invalidations too; calls `unfinished` where the time was too short for all of it."""
        if not self._times.get(namespace):
            self._table.remember(namespace)
        taken = self._index.refresh(namespace, timeout, unfinished)
        # Not in one line: what another thread adds during the call would be lost.
        self._taken += taken
        self._times[namespace] = time.monotonic()

    def taken(self) -> int:
        """How many entries were taken in since this was last asked, in the background and for lookups included."""
        taken, self._taken = self._taken, 0
        return taken

    def refresh_all(self, timeout: float, *first: str) -> None:
        """`refresh` for `first` and all that was ever asked for on this machine, each within `timeout` seconds."""
        deadline = Deadline(_ALL_SECONDS)
        self._index.refresh_roster(timeout)
        for name in dict.fromkeys([*first, *self._times, EVERYWHERE, *self._table.namespaces()]):
            self.refresh(name, timeout)
            if not deadline.rest:
                break

    def _listened(self) -> bool:
        try:
            if self._breaker.allows():
                self.refresh_all(self._timeout)
        except TierUnavailable:
            pass  # not judged: a caller counts what it meets, and under CACHEKIT_STRICT raises it
        except TierError as error:
            self._report(error.reason)
        except Exception:  # a thread that dies of the unforeseen would leave invalidations unknown, unnoticed
            self._report("listening_failed")
        # Never done: somebody may always invalidate something.
        return False
