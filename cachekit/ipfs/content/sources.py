"""Who is asked for a block, in order: the daemon, the daemons that it knows, the gateways."""

from __future__ import annotations

from typing import Final

from cachekit.errors import TierError
from cachekit.ipfs.breaker import Breaker, Deadline
from cachekit.ipfs.content.engine import Engine
from cachekit.ipfs.content.gateways import Gateways

_PEERS_SHARE: Final = 0.5
"""Of the time that is left: nobody says that no peer has a block, so the gateways must have time as well."""


class Sources:
    """The blocks of one file, within `deadline`. What peers did not have once is not asked of them again."""

    def __init__(
        self, transport: Engine, breaker: Breaker, gateways: Gateways | None, deadline: Deadline, *, peers: bool
    ) -> None:
        self._transport = transport
        self._breaker = breaker
        self._gateways = gateways if gateways is not None and gateways.urls else None
        self._deadline = deadline
        self._peers = peers

    def block(self, cid: str) -> bytes | None:
        """The block of `cid`, or None; it is NOT verified here. Raises TierError where only the daemon could have it."""
        for source in (self._of_daemon, self._of_peers, self._of_gateways):
            block = source(cid)
            if block is not None:
                return block
        return None

    def _of_daemon(self, cid: str) -> bytes | None:
        try:
            return self._breaker.call(lambda: self._transport.block_get(cid, timeout=self._deadline.left()))
        except TierError:
            if self._gateways is None:
                raise
            return None

    def _of_peers(self, cid: str) -> bytes | None:
        if not self._peers or not self._breaker.allows():
            return None
        left = self._deadline.left()
        try:
            timeout = left * _PEERS_SHARE if self._gateways else left
            return self._transport.block_get(cid, timeout=timeout, peers=True)
        except TierError:  # looking for it took too long: that says nothing about the daemon
            self._peers = False
            return None

    def _of_gateways(self, cid: str) -> bytes | None:
        return None if self._gateways is None else self._gateways.block(cid, self._deadline)
