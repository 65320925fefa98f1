"""IPFS as a tier: the index says which payload answers a key, the daemon gives it, and neither is taken at its word.

Writes are behind the call: `put` queues durably, a thread and `flush` send.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from cachekit.breaker import Breaker
from cachekit.cids import binary_cid, file_cid, raw_cid
from cachekit.errors import IntegrityError, TierError, TierUnavailable
from cachekit.index import OWN_REASONS, Index, Pin, alive, cid_of
from cachekit.model import Key, Mark, Record
from cachekit.outbox import Outbox
from cachekit.protocols import Transport
from cachekit.sealing import Credential, WriterKey
from cachekit.segments import ENCRYPTED, MAX_TAGS, PINNED, UNIXFS, Entry
from cachekit.tiers.ipfs_files import read_file
from cachekit.tiers.ipfs_sending import Sender

_T = TypeVar("_T")
_BATCHING_SECONDS: Final = 0.05
_RETRY_SECONDS: Final = 1.0
_BACKGROUND_SECONDS: Final = 60.0
_FAIR_SECONDS: Final = 1.0
_BELIEVED_SECONDS: Final = 1.0
_INDEX_SHARE: Final = 0.6
"""Of the time of a `get`: an index that takes longer must leave some for the payload."""
_BY_HAND: Final = ""
"""The namespace under which `store` counts its pins; no decorated call can have it."""


def _silent(_reason: str) -> None:
    """Tell nobody."""


class IpfsTier:
    """`protocols.Tier` over a Kubo daemon. Owns its sending thread; closing the rest is its maker's business.

    `timeout`, in seconds, bounds a whole `get`. `writer` is asked for the writer key at the first sending.
    `report` hears a short word for everything that was refused without failing the call. `barred` counts the `get`s
    that an open breaker answered.
    """

    name = "ipfs"
    blocking = True

    def __init__(
        self,
        transport: Transport,
        index: Index,
        outbox: Outbox,
        credential: Credential,
        breaker: Breaker,
        *,
        writable: bool,
        timeout: float = 0.25,
        writer: Callable[[], WriterKey],
        report: Callable[[str], None] = _silent,
    ) -> None:
        self.barred = 0
        self._transport = transport
        self._index = index
        self._outbox = outbox
        self._credential = credential
        self._breaker = breaker
        self._writable = writable
        self._timeout = timeout
        self._report = report
        self._sender = Sender(transport, index, outbox, credential, writer, report)
        self._refreshed: dict[str, float] = {}
        self._renew()

    # -- protocols.Tier -------------------------------------------------------------------------------

    def get(self, key: Key) -> Record | None:
        """The verified record, or None: unknown, dead, collected, or barred. Raises TierError within the timeout."""
        if not key.shareable:
            return None
        if not self._breaker.allows():
            self.barred += 1
            return None
        end = time.monotonic() + self._timeout
        entry = self._locate(key, end)
        if entry is None:
            return None
        stored = self._guarded(lambda: self._stored(entry, _left(end)))
        if stored is None:
            # Collected. A segment once read is not read again, so nobody asks for it twice.
            self._index.forget(key.namespace, key.digest)
            return None
        return self._record(key.namespace, entry, stored)

    def put(self, key: Key, record: Record, *, encrypt: bool = True) -> None:
        """Queue durably, also while the daemon is away; nothing for a key that stays here or where we may not write."""
        if not (self._writable and key.shareable):
            return
        if len(set(record.tags)) > MAX_TAGS:
            self._report("too_many_tags")
            return
        self._outbox.add(key, record, encrypt=encrypt)
        self._wake()

    def drop(self, key: Key) -> bool:
        """End the entry here and, once sent, on the other machines; whether it was known here."""
        return key.shareable and self.mark(Mark(key.namespace, "key", key.digest.hex(), time.time_ns())) > 0

    def close(self, timeout: float = 5.0) -> None:
        """Send what waits, for at most `timeout` seconds; what remains is sent by the next process."""
        end = time.monotonic() + timeout
        self._ended.set()
        self._awake.set()
        with contextlib.suppress(TierError):
            if self._writable and self._breaker.allows() and self._outbox.pending():
                self.flush(timeout)
        thread = self._thread
        if thread is not None and self._pid == os.getpid():
            thread.join(max(0.0, end - time.monotonic()))

    # -- beyond the protocol ----------------------------------------------------------------------------

    def mark(self, mark: Mark) -> int:
        """End what `mark` covers; how many entries that were here. Queued for the other machines where we may write."""
        ended = self._index.add_mark(mark)
        if self._writable:
            self._outbox.add_mark(mark)
            self._wake()
        return ended

    def flush(self, timeout: float = 30.0) -> int:
        """Send everything that waits; how many items that were. TierError where it fails, and the rest stays queued."""
        end = time.monotonic() + timeout
        if not self._writable:
            return 0
        try:
            sent = self._sender.send(end)
        except TierError as error:
            # Where hardly any time was given, a timeout says nothing about the daemon.
            if timeout >= _FAIR_SECONDS or time.monotonic() < end:
                self._judge(error)
            raise
        if sent:
            self._breaker.succeeded()
        return sent

    def pending(self) -> int:
        """How many items wait to be sent."""
        return self._outbox.pending()

    def pins(self) -> list[Pin]:
        """Every reference that keeps something pinned, of all machines whose segments were read."""
        return self._index.pins()

    def unpin(self, what: str | Key) -> int:
        """Take a key's reference off, or all of a CID; how many. Kubo's pin ends at the next flush, with the last."""
        at, taken = time.time_ns(), 0
        for pin in self._referring(what):
            if self._index.dereference(pin.namespace, pin.key, at):
                self._outbox.add_unpin(pin.namespace, pin.key, pin.cid, at)
                taken += 1
        self._wake()
        return taken

    def store(self, data: bytes, *, pin: bool = False, timeout: float = 60.0) -> str:
        """Publish bytes as they are, unencrypted; gives the CID. Waits for the daemon."""
        end = time.monotonic() + timeout
        cid = self._guarded(lambda: self._sender.upload(data, end))
        if pin:
            # The count first: a pin that nobody counts would never be undone.
            self._index.reference(_BY_HAND, binary_cid(cid)[4:20], cid, time.time_ns())
            self._guarded(lambda: self._transport.pin(cid, "cachekit/store", timeout=_left(end)))
        return cid

    def fetch(self, cid: str, *, timeout: float = 60.0) -> bytes:
        """The verified bytes of a CID. TierError `not_found` where the daemon lacks any part of it."""
        end = time.monotonic() + timeout
        return read_file(cid, lambda block: self._guarded(lambda: self._transport.block_get(block, timeout=_left(end))))

    def refresh(self, namespace: str, timeout: float) -> int:
        """Take in what other machines published, invalidations too; how many entries that were. May raise TierError."""
        taken = self._guarded(lambda: self._index.refresh(self._transport, namespace, timeout))
        self._refreshed[namespace] = time.monotonic()
        return taken

    # -- reading ------------------------------------------------------------------------------------------

    def _locate(self, key: Key, end: float) -> Entry | None:
        entry = self._index.find(key.namespace, key.digest)
        # A known entry may have been replaced or invalidated elsewhere: it is believed for a second without asking.
        if entry is None or time.monotonic() > self._refreshed.get(key.namespace, 0.0) + _BELIEVED_SECONDS:
            self.refresh(key.namespace, _left(end) * _INDEX_SHARE)
            entry = self._index.find(key.namespace, key.digest)
        if entry is None or not alive(entry, time.time_ns()) or self._index.covers(key.namespace, entry):
            return None
        return entry

    def _stored(self, entry: Entry, timeout: float) -> bytes | None:
        cid = cid_of(entry)
        if entry.flags & UNIXFS:
            return self._transport.cat(cid, size=entry.size, timeout=timeout)
        return self._transport.block_get(cid, timeout=timeout)

    def _record(self, namespace: str, entry: Entry, stored: bytes) -> Record:
        found = file_cid(stored) if entry.flags & UNIXFS else raw_cid(stored)
        if found != cid_of(entry):
            raise IntegrityError("the daemon gave other bytes than the index names", reason="wrong_bytes")
        plain = self._credential.unseal(namespace, stored) if entry.flags & ENCRYPTED else stored
        if not plain or len(plain) <= plain[0]:
            raise IntegrityError("a payload without its codec", reason="malformed")
        try:
            codec = plain[1 : 1 + plain[0]].decode("ascii")
        except UnicodeDecodeError as error:
            raise IntegrityError("a payload without its codec", reason="malformed") from error
        return Record(
            codec,
            plain[1 + plain[0] :],
            entry.created,
            entry.expires,
            entry.grace,
            entry.seconds,
            pin=bool(entry.flags & PINNED),
        )

    def _referring(self, what: str | Key) -> list[Pin]:
        if isinstance(what, str):
            return self._index.references(what)
        key = self._credential.index_key(what.namespace, what.digest)
        return [pin for pin in self._index.pins() if (pin.namespace, pin.key) == (what.namespace, key)]

    def _guarded(self, call: Callable[[], _T]) -> _T:
        try:
            result = call()
        except TierError as error:
            self._judge(error)
            raise
        self._breaker.succeeded()
        return result

    def _judge(self, error: TierError) -> None:
        # One bad payload, a lock or a file of ours, or our own impatience say nothing about the daemon.
        absent = isinstance(error, TierUnavailable) and error.reason not in OWN_REASONS
        if absent or error.reason == "not_kubo":
            self._breaker.failed(error)

    # -- the sending thread ---------------------------------------------------------------------------

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._awake = threading.Event()
        self._ended = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def _wake(self) -> None:
        if self._pid != os.getpid():
            self._renew()
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._start()
        self._awake.set()

    def _start(self) -> None:
        thread = threading.Thread(
            target=self._run, args=(self._awake, self._ended), name="cachekit-outbox", daemon=True
        )
        # No thread to be had (too many, or the interpreter ends): the queue is durable, the next put tries again.
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def _run(self, awake: threading.Event, ended: threading.Event) -> None:
        while not ended.is_set():
            awake.wait()
            # A moment, so that what comes together travels together.
            if ended.wait(_BATCHING_SECONDS):
                return
            awake.clear()
            if not self._flushed_quietly():
                ended.wait(_RETRY_SECONDS)
                awake.set()

    def _flushed_quietly(self) -> bool:
        if not self._breaker.allows():
            return False
        try:
            self.flush(_BACKGROUND_SECONDS)
        except TierError as error:
            if error.reason != "locked":
                self._report(error.reason)
            return False
        except Exception:  # a thread that dies of the unforeseen would leave the queue unsent, unnoticed
            self._report("sending_failed")
            return False
        return True


def _left(end: float) -> float:
    # Never 0: some calls would take it for "for ever". What is over fails by itself.
    return max(0.001, end - time.monotonic())
