"""What the daemon keeps for us, beside what it keeps for others: for a CID Kubo has one pin and one name, whoever asks.

So each reference is a link in MFS too, where all users of the daemon see it. It keeps the content by itself: a pin that
is somebody else's may end at any time, and one that was ours loses its name to whoever pins the same without one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cachekit.errors import IntegrityError, TierError, TierUnavailable
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.cids import CHUNK_BYTES
from cachekit.ipfs.content.engine import Engine
from cachekit.ipfs.index.rows import Held
from cachekit.ipfs.kubo.streams import PINNED_PER_SECOND

ROOT: Final = "/cachekit/v1/pins"
_OURS: Final = "cachekit/"
_PIN_SECONDS: Final = 3.0


@dataclass(frozen=True)
class Pins:
    """The pins and links of one daemon. Everything may raise TierError."""

    transport: Engine

    def is_free(self, cid: str, deadline: Deadline) -> bool:
        """Whether nobody has a pin for this CID, so that ours would take no other's name."""
        return self.transport.pinned(cid, timeout=deadline.left()) is None

    def link(self, held: Held, deadline: Deadline) -> None:
        """Keep what the daemon has; TierError `not_found` where it lacks it."""
        self.transport.link(held.cid, f"{_shelf(held.cid)}/{_name(held)}", timeout=deadline.left())

    def pin(self, cid: str, size: int, name: str, deadline: Deadline) -> None:
        """Pin `size` bytes under `name`, unless somebody has; TierError `not_found` where a part is missing."""
        if not self.is_free(cid, deadline):
            return
        seconds = min(deadline.left(), _PIN_SECONDS + size / PINNED_PER_SECOND)
        try:
            self.transport.pin(cid, _OURS + name, timeout=seconds)
        except TierUnavailable as error:
            if error.reason != "timeout" or not deadline.rest:
                raise
            # Kubo looks for the root offline, but waits for what lies below it and was collected meanwhile.
            raise TierError(f"a collection is in the way of a pin: {error}", reason="collecting") from error

    def store(self, data: bytes, cid: str, name: str, deadline: Deadline) -> None:
        """Store the file of `cid`, and pin it under `name` in the same call, unless somebody has: no collection between.

        IntegrityError `wrong_cid` where the daemon stored something else.
        """
        pieces = (data[at : at + CHUNK_BYTES] for at in range(0, max(len(data), 1), CHUNK_BYTES))
        pin_name = _OURS + name if self.is_free(cid, deadline) else None
        idle, until = deadline.left(), deadline.at
        if self.transport.add_stream(pieces, size=len(data), pin_name=pin_name, idle=idle, until=until) != cid:
            raise IntegrityError("the daemon stored other bytes than it was given", reason="wrong_cid")

    def let_go(self, held: Held, deadline: Deadline) -> None:
        """Undo `link`; with the last link of all users goes the pin, if it is one of ours."""
        shelf = _shelf(held.cid)
        self.transport.remove(f"{shelf}/{_name(held)}", timeout=deadline.left())
        others = self.transport.names(shelf, timeout=deadline.left())
        if any(name.startswith(f"{held.cid}.") for name in others):
            return
        # Who links it just now is kept by its link.
        if (self.transport.pinned(held.cid, timeout=deadline.left()) or "").startswith(_OURS):
            self.transport.unpin(held.cid, timeout=deadline.left())


def _shelf(cid: str) -> str:
    # Large directories are slow in MFS; these are 1024.
    return f"{ROOT}/{cid[-2:]}"


def _name(held: Held) -> str:
    # Nobody learns from it which key of which namespace it is; of one reference all machines make the same.
    reference = hashlib.sha256(b"\0".join((held.space.encode(), held.root.encode(), held.key))).hexdigest()
    return f"{held.cid}.{reference[:32]}"
