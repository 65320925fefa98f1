"""`import_car`: what another machine exported, taken in like anything from a stranger."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachekit.artifacts.manifest import Manifest
from cachekit.artifacts.progress import counter
from cachekit.cache.default import default
from cachekit.errors import IntegrityError, TierError, UsageError
from cachekit.files.temporary import temporary
from cachekit.ipfs.content.car import CarFile
from cachekit.ipfs.content.sealed import unpacked
from cachekit.ipfs.content.unixfs import blocks, read_file
from cachekit.ipfs.index.rows import alive, cid_of, pin_end
from cachekit.ipfs.index.segments import ENCRYPTED, PINNED, Line
from cachekit.ipfs.outbox.bundles import Entry, bundles
from cachekit.ipfs.outbox.queue import MAX_PAYLOAD_BYTES
from cachekit.ipfs.outbox.sending import Adopted
from cachekit.ipfs.sharing import credential_of, files_alone
from cachekit.model import ARTIFACT, SKEW, Key, Record

if TYPE_CHECKING:
    from cachekit.cache.cache import Cache
    from cachekit.ipfs.sharing import Team

_FOREIGN: Final = ("foreign_writer", "wrong_namespace", "unsealable")
_BATCH_BYTES: Final = 32 << 20
_SECONDS: Final = 60.0
"""How long the daemon may take for one batch."""


def import_car(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Takes in what `export_car` wrote to `path`: into the daemon, where others see it too; without one, into this disk.

    Every block is held against its CID, every line against its writer's signature and certificate, before anything is
    stored. Left out is what expired or was invalidated, and what is known here and not older.

    Returns {"path", "to": "ipfs" or "disk", "entries", "artifacts", "bytes": of the file, "skipped": {reason: how many}}.
    Raises UsageError where the file cannot be read, IntegrityError for a file that is not whole or none of ours
    (`foreign_writer`: another credential wrote it), TierUnavailable where there is no disk tier.
    """
    source = Path(path)
    try:
        with source.open("rb", buffering=1 << 20) as file:
            size = os.fstat(file.fileno()).st_size
            with CarFile(file, counter("reading", source.name, size)) as car:
                told = counter("sending", source.name, size)
                return {"path": str(source), "bytes": size, **_Import(default(), car, told).run()}
    except _Undelivered as failed:
        raise failed.error from failed
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror or error}") from error


class _Taken(NamedTuple):
    """An entry that verifies; `manifest` is its artifact's."""

    entry: Entry
    record: Record
    manifest: Manifest | None


class _Import:
    def __init__(self, cache: Cache, car: CarFile, told: Callable[[int], None]) -> None:
        from cachekit.cache.default import disk

        self._cache, self._car, self._told, self._disk = cache, car, told, disk()
        self._credential = credential_of(cache.resolved) if cache.team is None else cache.team.credential
        self._skipped = Counter[str]()
        self._refused = list[IntegrityError]()
        self._entries = self._artifacts = 0

    def run(self) -> dict[str, Any]:
        team = self._cache.team
        far = team if team is not None and team.tier.writable and team.state().on else None
        for namespace, entries in bundles(self._car, self._credential, self._refused.append):
            if far is not None:
                self._to_daemon(far, namespace, entries)
            else:
                self._each(self._verified(namespace, entries), lambda taken, ns=namespace: self._keep(ns, taken))  # type: ignore[misc]
        for error in self._refused:
            self._skipped[error.reason] += 1
        if self._refused and not self._entries:
            raise self._refusal(self._refused[0])
        about = {"to": "disk" if far is None else "ipfs", "entries": self._entries, "artifacts": self._artifacts}
        return {**about, "skipped": dict(self._skipped)}

    def _refusal(self, error: IntegrityError) -> IntegrityError:
        if error.reason not in _FOREIGN:
            return error
        message = "another credential wrote this file: import it where CACHEKIT_SECRET is the exporter's"
        return IntegrityError(message, reason=error.reason)

    def _each(self, taken: Iterator[_Taken], keep: Callable[[_Taken], str]) -> None:
        for one in taken:
            try:
                reason = keep(one)
            except TierError as error:
                reason = error.reason
            self._count(reason, one)

    def _count(self, reason: str, taken: _Taken) -> None:
        if reason:
            self._skipped[reason] += 1
        else:
            self._entries += 1
            self._artifacts += taken.manifest is not None

    # -- whether it is right --------------------------------------------------------------------------------

    def _verified(self, namespace: str, entries: list[Entry]) -> Iterator[_Taken]:
        """Those whose payload is here and opens, and that time has not ended."""
        now = time.time_ns()
        for entry in entries:
            line = entry.line
            if not alive(line, now) or line.created > now + SKEW:
                self._skipped["future" if line.created > now + SKEW else "expired"] += 1
                continue
            try:
                yield self._opened(namespace, entry)
            except TierError as error:
                self._skipped["incomplete" if error.reason == "not_found" else error.reason] += 1

    def _opened(self, namespace: str, entry: Entry) -> _Taken:
        line = entry.line
        stored = read_file(cid_of(line), self._car.block, limit=min(line.size, MAX_PAYLOAD_BYTES))
        if len(stored) != line.size:
            raise IntegrityError("a payload has another size than its line says", reason="malformed")
        codec, payload = unpacked(self._credential, namespace, stored, encrypted=bool(line.flags & ENCRYPTED))
        times = line.created, line.expires, line.grace, line.seconds
        pin = (entry.until or True) if line.flags & PINNED else False
        record = Record(codec, payload, *times, entry.tags, pin)
        if pin and not record.kept(time.time_ns()):
            record = replace(record, pin=False)
            entry = entry._replace(line=line._replace(flags=line.flags & ~PINNED), until=0)
        return _Taken(entry, record, Manifest.decode(payload) if codec == ARTIFACT else None)

    # -- onto this disk -------------------------------------------------------------------------------------

    def _keep(self, namespace: str, taken: _Taken) -> str:
        """Stores an entry here; why not, or ""."""
        entry, record = taken.entry, taken.record
        # The index knows keys by codes alone, and so does who exported what another machine stored.
        if not entry.digest:
            return "needs_daemon"
        key = Key(namespace, entry.digest, entry.function)
        known = self._disk.get(key)
        if self._cache.ledger.covers(key, record):
            return "invalidated"
        if known is not None and known.created >= record.created:
            return "known"
        if taken.manifest is not None and taken.manifest.size > self._cache.settings.size_limit:
            return "oversized"
        if taken.manifest is not None:
            self._fill(namespace, taken.manifest)
        self._disk.put(key, record)
        if self._cache.memory is not None:
            self._cache.memory.drop(key)
        # Queued for the daemon that is away.
        if self._cache.team is not None:
            self._cache.team.tier.put(key, record)
        return ""

    def _fill(self, namespace: str, manifest: Manifest) -> None:
        store = self._cache.artifacts
        assert store is not None  # it lies beside the disk tier
        files = files_alone(self._credential, store)
        with temporary(self._cache.settings.dir / "artifacts" / "tmp") as work:
            files.bring(namespace, manifest, store.missing(manifest), self._car.block, work)
        store.assemble(manifest)

    # -- into the daemon ------------------------------------------------------------------------------------

    def _to_daemon(self, team: Team, namespace: str, entries: list[Entry]) -> None:
        # Not what was read of them: that is as large as they are.
        parcel, sent = _Parcel(team, self._told), dict[Line, tuple[Entry, tuple[str, ...]]]()

        def send(taken: _Taken) -> str:
            line, manifest = taken.entry.line, taken.manifest
            reason = _unwanted(team, namespace, line)
            if not reason:
                files = () if manifest is None else tuple(file.cid for file in manifest.regular)
                parcel.put_all(blocks_of(line, files, self._car))
                sent[line] = taken.entry, files
            return reason

        def again(line: Line) -> None:
            parcel.put_all(blocks_of(line, sent[line][1], self._car))
            parcel.send()

        self._each(self._verified(namespace, entries), send)
        parcel.send()
        adopted = [Adopted((line, *pin_end(line, entry.until)), files) for line, (entry, files) in sent.items()]
        if adopted:
            team.breaker.call(lambda: team.tier.adopt(namespace, adopted, again, _SECONDS))


class _Parcel:
    """Blocks on their way to the daemon, many at a time. Raises _Undelivered."""

    def __init__(self, team: Team, told: Callable[[int], None]) -> None:
        self._team = team
        self._told = told
        self._blocks: list[tuple[bytes, bytes]] = []
        self._size = 0

    def put_all(self, blocks: Iterator[tuple[bytes, bytes]]) -> None:
        for cid, block in blocks:
            self._blocks.append((cid, block))
            self._size += len(block)
            if self._size >= _BATCH_BYTES:
                self.send()

    def send(self) -> None:
        # Each once: Kubo counts what it is sent, and a file may repeat a block.
        batch, self._blocks, self._size = list(dict(self._blocks).items()), [], 0
        try:
            self._team.breaker.call(lambda: self._team.transport.import_blocks(batch, timeout=_SECONDS))
        except TierError as error:
            raise _Undelivered(error) from error
        self._told(sum(len(block) for _, block in batch))


class _Undelivered(Exception):
    """The daemon failed, which is no entry's fault."""

    def __init__(self, error: TierError) -> None:
        super().__init__(error)
        self.error = error


def blocks_of(line: Line, files: tuple[str, ...], car: CarFile) -> Iterator[tuple[bytes, bytes]]:
    """Every block that an entry needs, verified; TierError `not_found` where the file lacks one."""
    for cid in (*files, cid_of(line)):
        yield from blocks(cid, car.block)


def _unwanted(team: Team, namespace: str, line: Line) -> str:
    if team.table.covers(namespace, line):
        return "invalidated"
    known = team.table.entry(namespace, line.key)
    return "known" if known is not None and known.created >= line.created else ""
