"""IPFS as a tier: the index says which payload answers a key, the daemon gives it, and neither is taken at its word.

Writes are behind the call: `put` queues durably, a thread and `flush` send.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from cachekit.errors import TierError
from cachekit.ipfs.breaker import Breaker, Deadline
from cachekit.ipfs.content.engine import Engine
from cachekit.ipfs.content.gateways import Gateways
from cachekit.ipfs.content.sources import Sources
from cachekit.ipfs.index.index import Index
from cachekit.ipfs.index.reading import LISTENING_SECONDS, Puller, payload_of, record_of
from cachekit.ipfs.index.rows import Pin, codes_of
from cachekit.ipfs.index.segments import MAX_TAGS, Line
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.outbox.by_hand import BY_HAND, ByHand
from cachekit.ipfs.outbox.queue import Item, Outbox
from cachekit.ipfs.outbox.sending import Adopted, Sender
from cachekit.ipfs.swarm.claiming import Claims
from cachekit.ipfs.swarm.swarm import Swarm
from cachekit.ipfs.trust.credential import WriterKey
from cachekit.ipfs.trust.roster import Roster
from cachekit.ipfs.worker import BATCHING_SECONDS, RETRY_SECONDS, Worker
from cachekit.model import EVERYWHERE, Key, Mark, Record

_BACKGROUND_SECONDS: Final = 60.0
_FAIR_SECONDS: Final = 1.0
_BELIEVED_SECONDS: Final = 1.0
_PARTING_SECONDS: Final = 0.2
_INDEX_SHARE: Final = 0.6
"""Of the time of a `get`: an index that takes longer must leave some for the payload."""


class IpfsTier:
    """`model.Tier` over a Kubo daemon. Owns its threads; closing the rest is its maker's business.

    `timeout`, in seconds, bounds a whole `get`. `writer` is asked for the writer key at the first sending.
    `files` sends an artifact's files, until a deadline; whether it could.
    `report` hears a short word for everything that was refused without failing the call. `barred` counts the `get`s
    that an open breaker answered; `writable` is whether this machine may write there. `swarm` makes what connects this
    daemon's index with those of others; with it come `claims`, who of the team computes what.
    """

    name = "ipfs"
    blocking = True

    def __init__(
        self,
        transport: Engine,
        table: Table,
        outbox: Outbox,
        breaker: Breaker,
        *,
        writable: bool,
        timeout: float = 0.25,
        writer: Callable[[], WriterKey],
        report: Callable[[str], None] = lambda _reason: None,
        files: Callable[[Item, Deadline], bool] = lambda _item, _deadline: False,
        swarm: Callable[[Index], Swarm] | None = None,
    ) -> None:
        self.barred = 0
        self._transport = transport
        self._table = table
        self._outbox = outbox
        self._breaker = breaker
        self.writable = writable
        self._timeout = timeout
        self._report = report
        self._index = Index(transport, table)
        self.swarm = None if swarm is None else swarm(self._index)
        announce = {} if self.swarm is None else {"announce": self.swarm.announce}
        self._sender = Sender(transport, self._index, table, outbox, writer, report, files, **announce)
        self.claims = None
        if self.swarm is not None:
            self.claims = Claims(self.swarm, table.credential, self._flushed_quietly, report, writes=writable)
        self.by_hand = ByHand(transport, table, breaker, self._sender)
        self._puller = Puller(self._index, table, breaker, timeout, report)
        delays = BATCHING_SECONDS, RETRY_SECONDS
        self._sending = Worker("cachekit-outbox", self._flushed_quietly, delays, lasting=True)

    # -- model.Tier ----------------------------------------------------------------------------------

    def get(self, key: Key, *, patience: float = 0.0) -> Record | None:
        """The verified record, or None: unknown, dead, collected, or barred. Raises TierError within the timeout.

        A payload may take `patience` seconds, if the origin took as long: who waits for it would call that.
        """
        if not key.shareable:
            return None
        if not self._breaker.allows():
            self.barred += 1
            return None
        deadline = Deadline(self._timeout)
        entry = self._locate(key, deadline)
        if entry is None:
            return None
        deadline.at = max(deadline.at, time.monotonic() + min(patience, entry.seconds))
        payload = self._breaker.call(lambda: payload_of(self._transport, entry, deadline.left()))
        if payload is None and self.swarm is not None:
            payload = self.swarm.payload(key.namespace, entry, deadline)
        elif payload is None:
            # Collected. A segment once read is not read again, so nobody asks for it twice.
            self._table.forget(key.namespace, key.digest)
        if payload is None:
            return None
        return record_of(self._table, key.namespace, entry, payload)

    def put(self, key: Key, record: Record, *, encrypt: bool = True) -> None:
        """Queue durably, also while the daemon is away; nothing for a key that stays here or where we may not write."""
        if not (self.writable and key.shareable):
            return
        if len(codes_of(self._table.credential, record.tags)) > MAX_TAGS:
            self._report("too_many_tags")
            return
        self._outbox.add(key, record, encrypt=encrypt)
        self._sending.wake()

    def drop(self, key: Key) -> bool:
        """End the entry here and, once sent, on the other machines; whether it was known here."""
        return key.shareable and self.mark(Mark(key.namespace, "key", key.digest.hex(), time.time_ns())) > 0

    def close(self, timeout: float = 5.0) -> None:
        """Send what waits, for at most `timeout` seconds; what remains is sent by the next process."""
        deadline = Deadline(timeout)
        self._puller.worker.end()
        self._sending.end()
        if self.swarm is not None:
            self.swarm.close()
        with contextlib.suppress(TierError):
            if self._breaker.allows() and (self._outbox.pending() or self._idle_pins()):
                self.flush(timeout)
        if self.claims is not None:
            self.claims.close(max(deadline.rest, _PARTING_SECONDS))
        self._sending.join(deadline.rest)
        self._puller.worker.join(deadline.rest)
        if self.swarm is not None:
            self.swarm.join(deadline.rest)

    def renew_after_fork(self) -> None:
        """Threads do not survive a fork: the child listens for itself; it sends when it has something to send."""
        self._index.renew_after_fork()
        self._breaker.renew_after_fork()
        self._puller.worker.wake()
        if self.claims is not None:
            self.claims.renew_after_fork()
        if self.swarm is not None:
            self.swarm.renew_after_fork()

    # -- beyond the protocol ----------------------------------------------------------------------------

    def mark(self, mark: Mark) -> int:
        """End what `mark` covers; how many entries that were here. Queued for the other machines where we may write."""
        ended = self._table.mark(mark)
        self._table.heed(mark.namespace)
        if self.writable:
            self._outbox.add_mark(mark)
            self._sending.wake()
        return ended

    def flush(self, timeout: float = 30.0, *, patient: bool = False) -> int:
        """Send everything that waits; how many items that were. TierError where it fails, and the rest stays queued.

        With `patient` the time that the files of artifacts take does not count.
        """
        deadline = Deadline(timeout)
        try:
            sent = self._sender.send(deadline, patient=patient) if self.writable else 0
            # Who may not write has bytes of his own to unpin all the same.
            if not self.writable and self._idle_pins():
                self._sender.release(deadline)
        except TierError as error:
            # Where hardly any time was given, a timeout says nothing about the daemon.
            if timeout >= _FAIR_SECONDS or deadline.rest:
                self._breaker.judge(error)
            raise
        if sent:
            self._breaker.succeeded()
        return sent

    def adopt(self, space: str, adopted: Sequence[Adopted], restore: Callable[[Line], None], timeout: float) -> None:
        """As `Sender.adopt`."""
        self._sender.adopt(space, adopted, restore, Deadline(timeout))

    def collect(self, timeout: float) -> dict[str, int]:
        """As `Sender.collect`."""
        return self._breaker.call(lambda: self._sender.collect(Deadline(timeout), writes=self.writable))

    def pending(self) -> int:
        """How many items wait to be sent."""
        return self._outbox.pending()

    def pins(self) -> list[Pin]:
        """Every reference that keeps something pinned, of all machines whose segments were read."""
        return self._table.pins()

    def unpin(self, what: str | Key) -> int:
        """Take a key's reference off, or all of a CID; how many. Kubo's pin ends at the next flush, with the last."""
        at, taken = time.time_ns(), 0
        if isinstance(what, Key) and self._outbox.drop_pin(what):
            # It may be on its way already.
            key = self._table.credential.index_key(what.namespace, what.digest)
            self._outbox.add_unpin(what.namespace, key, "", at)
            taken = 1
        for pin in self._referring(what):
            # Queued first: who dies in between has unpinned it. What is stored by hand is nobody else's business.
            if pin.namespace != BY_HAND:
                self._outbox.add_unpin(pin.namespace, pin.key, pin.cid, at)
            taken += self._table.dereference(pin.namespace, pin.key, at)
        self._sending.wake()
        return taken

    def sources(self, timeout: float, *, peers: bool, gateways: Gateways | None) -> Sources:
        """Who has blocks, asked within `timeout` seconds."""
        return Sources(self._transport, self._breaker, gateways, Deadline(timeout), peers=peers)

    def pull(self, namespace: str, timeout: float = 10.0) -> int:
        """Take in what was published since, in `namespace` and all that this machine asked for, invalidations too.

        How many entries are new since the last time, those that a lookup or the background took in included. Each
        namespace may take `timeout` seconds. Raises TierError.
        """
        self._breaker.call(lambda: self._puller.refresh_all(timeout, namespace))
        others = 0 if self.swarm is None else self.swarm.look_again(Deadline(timeout))
        return self._puller.taken() + others

    def publish_roster(self, roster: Roster, timeout: float = 10.0) -> None:
        """Heed the owner's new roster here, and have the daemon and all members hear of it. Raises TierError."""
        self._table.members.take(roster.text)
        self._index.publish_roster(roster.text, timeout)
        if self.swarm is not None:
            self.swarm.say_roster(roster)

    def listen(self, namespace: str) -> None:
        """From now on, look every few seconds for what other machines invalidated in `namespace` and all others."""
        self._puller.start(namespace)
        if self.swarm is not None:
            self.swarm.start()

    def _idle_pins(self) -> bool:
        return bool(self._table.needless() or self._table.overdue())

    def _referring(self, what: str | Key) -> list[Pin]:
        if isinstance(what, str):
            return self._table.references(what)
        key = self._table.credential.index_key(what.namespace, what.digest)
        return [pin for pin in self._table.pins() if (pin.namespace, pin.key) == (what.namespace, key)]

    def _locate(self, key: Key, deadline: Deadline) -> Line | None:
        entry = self._table.living(key.namespace, key.digest)
        # A known entry may have been replaced or invalidated elsewhere: it is believed for a second without asking.
        if entry is not None and self._puller.age(key.namespace) <= _BELIEVED_SECONDS:
            return entry
        self._refresh(key.namespace, deadline)
        entry = self._table.living(key.namespace, key.digest)
        if entry is None and self.swarm is not None and not self.swarm.is_settled():
            self.swarm.settle(deadline.rest * _INDEX_SHARE)
            entry = self._table.living(key.namespace, key.digest)
        if entry is not None and self._puller.age(EVERYWHERE) > LISTENING_SECONDS:
            # Nobody listens, or not yet: a mark for all namespaces may stand where we did not look.
            self._refresh(EVERYWHERE, deadline)
            entry = self._table.living(key.namespace, key.digest)
        return entry

    def _refresh(self, namespace: str, deadline: Deadline) -> None:
        def unfinished() -> None:
            self._report("unfinished")

        self._breaker.call(lambda: self._puller.refresh(namespace, deadline.left() * _INDEX_SHARE, unfinished))

    def _flushed_quietly(self) -> bool:
        if not self._breaker.allows():
            return False
        try:
            self.flush(_BACKGROUND_SECONDS, patient=True)
        except TierError as error:
            if error.reason != "locked":
                self._report(error.reason)
            return False
        except Exception:  # a thread that dies of the unforeseen would leave the queue unsent, unnoticed
            self._report("sending_failed")
            return False
        return True
