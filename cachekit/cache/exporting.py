"""`export_car`: entries into a file, for a machine that no network reaches, or as a backup."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cachekit.artifacts.manifest import File, Manifest
from cachekit.cache.default import default
from cachekit.config.durations import seconds
from cachekit.errors import IntegrityError, TierError, TierUnavailable, UsageError
from cachekit.files.temporary import replacing
from cachekit.ipfs.content.car import CarWriter, Link
from cachekit.ipfs.content.sealed import packed, unpacked
from cachekit.ipfs.content.unixfs import blocks, read_file
from cachekit.ipfs.index.rows import alive, cid_of, codes_of, line_of
from cachekit.ipfs.index.segments import ENCRYPTED, MAX_TAGS, PINNED
from cachekit.ipfs.outbox.bundles import Bundler, Entry, cut
from cachekit.ipfs.outbox.queue import MAX_PAYLOAD_BYTES
from cachekit.ipfs.sharing import credential_of, files_alone, writer_of
from cachekit.model import ARTIFACT, NANOSECONDS, Key, Record
from cachekit.tiers.ledger import veiled

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import BinaryIO

    from cachekit.cache.cache import Cache
    from cachekit.ipfs.index.segments import Line
    from cachekit.ipfs.sharing import Team

_BLOCK_SECONDS: Final = 10.0
"""How long the daemon may take for one block."""


def export_car(
    path: str | os.PathLike[str],
    *,
    tag: str | None = None,
    function: str | None = None,
    since: float | str | timedelta | None = None,
    namespace: str | None = None,
) -> dict[str, Any]:
    """Writes entries with all that belongs to them into the CARv1 file `path`, which replaces what stands there.

    They are sealed as in IPFS and signed by this machine: `import_car` takes them where the same credential is, and
    `ipfs dag import` takes the file as well. Entries of this disk come first, then what the team's daemon has; artifacts
    come with their files. What is said narrows it down:

    Args:
        tag: entries with this tag.
        function: entries of the function with this name, as `cachekit ls` prints it; the daemon does not know names.
        since: entries that were made at most so long ago: seconds, a timedelta, "2d".
        namespace: entries of this namespace.

    Returns {"path", "root": the root's CID, "entries", "artifacts", "blocks", "bytes": of the file, "skipped": {reason:
    how many}}; where nothing fits, no file is written and "root" is "". Raises UsageError where the file cannot be written
    or the credential only reads, TierUnavailable where there is no disk tier.
    """
    target = Path(path)
    if not target.parent.is_dir() or target.is_dir():
        raise UsageError(f"{target} cannot be written: name a file in a directory that exists")
    age = None if since is None else seconds(since, "since=")
    after = 0 if age is None else time.time_ns() - int(age * NANOSECONDS)
    try:
        with replacing(target) as new, new.open("xb", buffering=1 << 20) as file:
            export = _Export(default(), file, tag=tag, function=function, after=after, namespace=namespace)
            return {"path": str(target), **export.run()}
    except _Empty as empty:
        return {"path": str(target), "root": "", "blocks": 0, "bytes": 0, **empty.summary}
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from error


class _Empty(Exception):
    """Nothing fits: the file that was begun goes."""

    def __init__(self, summary: dict[str, Any]) -> None:
        super().__init__(summary)
        self.summary = summary


class _Export:
    """One export of `cache` into `file`: those made since the instant `after`, with this `tag`, …; None is any."""

    def __init__(
        self,
        cache: Cache,
        file: BinaryIO,
        *,
        tag: str | None,
        function: str | None,
        after: int,
        namespace: str | None,
    ) -> None:
        from cachekit.cache.default import disk

        self._cache, self._disk, self._file = cache, disk(), file
        self._function, self._after, self._namespace = function, after, namespace
        self._team = cache.team
        self._credential = credential_of(cache.resolved) if self._team is None else self._team.credential
        self._code = None if tag is None else self._credential.tag_code(tag)
        self._tags = set() if tag is None or self._code is None else {tag, veiled(self._code)}
        assert cache.artifacts is not None  # the store lies beside the disk tier
        self._store = cache.artifacts
        self._files = files_alone(self._credential, self._store) if self._team is None else self._team.files
        self._car = CarWriter(file)
        self._bundler = Bundler(self._car, self._credential, writer_of(self._credential))
        self._skipped = Counter[str]()
        self._entries = self._artifacts = 0

    def run(self) -> dict[str, Any]:
        """What `export_car` returns. Raises _Empty."""
        done = set(self._of_disk())
        if self._team is not None:
            self._of_team(self._team, done)
        if not self._entries:
            raise _Empty(self.summary())
        root = self._bundler.end()
        self._file.flush()
        os.fsync(self._file.fileno())
        size = os.fstat(self._file.fileno()).st_size
        return {"root": root, "blocks": self._car.blocks, "bytes": size, **self.summary()}

    def summary(self) -> dict[str, Any]:
        return {"entries": self._entries, "artifacts": self._artifacts, "skipped": dict(self._skipped)}

    # -- from this disk -------------------------------------------------------------------------------------

    def _of_disk(self) -> Iterator[tuple[str, bytes]]:
        """Namespace and index key of all that fits, whether it could be written or not."""
        now = time.time_ns()
        for digest, header in self._disk.entries():
            key = Key(header.namespace, digest, header.function, header.shared)
            if (
                header.created < self._after
                or self._namespace not in (None, header.namespace)
                or self._function not in (None, header.function)
                or (self._tags and not self._tags & set(header.tags))
            ):
                continue
            if header.over(now):
                self._skipped["expired"] += 1
                continue
            yield header.namespace, self._credential.index_key(header.namespace, digest)
            try:
                reason = self._take(key)
            except TierError as error:
                reason = "files_missing" if error.reason == "not_found" else error.reason
            if reason:
                self._skipped[reason] += 1

    def _take(self, key: Key) -> str:
        """Writes an entry of this disk; why not, or ""."""
        if not key.shareable:
            return "stays_here"
        record = self._disk.get(key)
        if record is not None and not record.kept(time.time_ns()):
            record = replace(record, pin=False)
        if record is None or self._cache.ledger.covers(key, record):
            return "invalidated"
        if len(codes_of(self._credential, record.tags)) > MAX_TAGS or not record.codec.isascii():
            return "too_many_tags"
        if len(record.payload) > MAX_PAYLOAD_BYTES:
            return "too_large"
        files = list[Link]()
        if record.codec == ARTIFACT:
            record, files = self._with_files(key.namespace, record)
        stored = packed(self._credential, key.namespace, record.codec, record.payload, encrypt=True)
        link = self._car.file(cut(stored))
        line = line_of(self._credential, key, record, link[0], len(stored), encrypt=True)
        self._add(key.namespace, Entry(line, key.digest, key.function, record.tags, record.pin), link, files)
        self._artifacts += record.codec == ARTIFACT
        return ""

    def _with_files(self, namespace: str, record: Record) -> tuple[Record, list[Link]]:
        """An artifact's record, which names its files' CIDs, and its files, written."""
        manifest = Manifest.decode(record.payload)
        if not all(file.cid for file in manifest.regular):
            if self._store.missing(manifest):
                raise TierError("files of the artifact are not here", reason="files_missing")
            manifest = self._files.named(namespace, manifest, sealed=True)
            record = replace(record, payload=manifest.encode())
        return record, [self._file_of(namespace, manifest, file) for file in manifest.regular]

    def _file_of(self, namespace: str, manifest: Manifest, file: File) -> Link:
        if not self._store.has(file.sha256):
            return self._copied(file.cid)
        link = self._car.file(self._files.pieces(namespace, file, sealed=manifest.sealed, name=manifest.name))
        if link[0] != file.cid:
            raise IntegrityError("a file of the artifact is not what its manifest says", reason="wrong_cid")
        return link

    # -- from the daemon ------------------------------------------------------------------------------------

    def _of_team(self, team: Team, done: set[tuple[str, bytes]]) -> None:
        # Without the daemon there is nothing to be had of what others stored.
        with contextlib.suppress(TierError):
            team.tier.pull(self._namespace or self._cache.settings.namespace)
        for namespace in team.table.namespaces() if self._namespace is None else [self._namespace]:
            for line in team.table.lines(namespace):
                if (namespace, line.key) in done or line.created < self._after or not alive(line, time.time_ns()):
                    continue
                if self._code is not None and self._code not in line.tags:
                    continue
                try:
                    reason = "unnamed" if self._function is not None else self._relay(team, namespace, line)
                except TierError as error:
                    reason = "collected" if error.reason == "not_found" else error.reason
                if reason:
                    self._skipped[reason] += 1

    def _relay(self, team: Team, namespace: str, line: Line) -> str:
        """Writes an entry of the index as it is, whose key nobody here knows."""
        link, files = self._copied(cid_of(line)), list[Link]()
        stored = read_file(link[0], self._block, limit=line.size)
        codec, payload = unpacked(self._credential, namespace, stored, encrypted=bool(line.flags & ENCRYPTED))
        if codec == ARTIFACT:
            files = [self._copied(file.cid) for file in Manifest.decode(payload).regular]
        until = team.table.pinned(namespace, line) if line.flags & PINNED else 0
        line = line if until else line._replace(flags=line.flags & ~PINNED)
        self._add(namespace, Entry(line, until=until), link, files)
        self._artifacts += codec == ARTIFACT
        return ""

    def _copied(self, cid: str) -> Link:
        size = 0
        for binary, block in blocks(cid, self._block):
            self._car.put(binary, block)
            size += len(block)
        return cid, size

    def _block(self, cid: str) -> bytes | None:
        team = self._team
        if team is None:
            return None
        # A daemon that hangs is waited for once, not once an entry.
        if not team.breaker.allows():
            raise TierUnavailable("the daemon does not answer", reason="unreachable")
        return team.breaker.call(lambda: team.transport.block_get(cid, timeout=_BLOCK_SECONDS))

    def _add(self, namespace: str, entry: Entry, link: Link, files: list[Link]) -> None:
        self._bundler.add(namespace, entry, link, files)
        self._entries += 1
