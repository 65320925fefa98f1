"""The local copy of the index: which payload answers which key, what is dead, what is pinned, what was read already.

It is merged from what every writer signed, so that a lookup asks nobody.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachekit.errors import IntegrityError
from cachekit.files.sqlite import Database
from cachekit.ipfs.credential import TAG_BYTES, Credential, writer_id
from cachekit.ipfs.index import rows
from cachekit.ipfs.index.rows import KINDS, SCHEMA, SKEW, Pin, SegmentFile, Space
from cachekit.ipfs.index.segments import ENTRY, KEY_MARK, TAG_MARK, UNPIN_MARK, Line, Segment, decode
from cachekit.model import EVERYWHERE, Mark
from cachekit.tiers.ledger import veiled

if TYPE_CHECKING:
    import sqlite3

_NAMES: Final = {number: kind for kind, number in KINDS.items()}
_HEEDED: Final = """INSERT INTO heeded VALUES (?, ?)
    ON CONFLICT DO UPDATE SET number = max(number, excluded.number)"""
_HIGHEST: Final = """INSERT INTO writers VALUES (?, ?, ?, '')
    ON CONFLICT DO UPDATE SET highest = max(highest, excluded.highest)"""


class Table:
    """The SQLite file at `path`, opened on first use. Everything may raise TierError.

    `report` hears a short word for everything that was refused: the reasons of `segments.decode`, `misplaced`,
    `rollback`, `unexpected_file`, `future`, `corrupt_index`. `heed` is told the marks that are new to this file, each
    at least once, with keys and tags as `ledger.veiled` names them; it may raise TierError.
    """

    def __init__(
        self,
        path: Path,
        credential: Credential,
        report: Callable[[str], None] = lambda _reason: None,
        heed: Callable[[Sequence[Mark]], None] = lambda _marks: None,
    ) -> None:
        self.credential = credential
        self.report = report
        self._heed = heed
        self._database = Database(path, SCHEMA, report)

    # -- what answers a key -------------------------------------------------------------------------

    def find(self, namespace: str, digest: bytes) -> Line | None:
        """What is known here about a key, without asking anybody."""
        with self._use(namespace) as (connection, space):
            return rows.find(connection, space, self.credential.index_key(namespace, digest))

    def living(self, namespace: str, digest: bytes) -> Line | None:
        """The same, unless it is expired. What a mark ended is never found."""
        entry = self.find(namespace, digest)
        return entry if entry is not None and rows.alive(entry, time.time_ns()) else None

    def forget(self, namespace: str, digest: bytes) -> None:
        """Drop what is known about a key."""
        key = self.credential.index_key(namespace, digest)
        with self._use(namespace) as (connection, space):
            connection.execute("DELETE FROM entries WHERE space = ? AND key = ?", (space.id, key))

    # -- marks --------------------------------------------------------------------------------------

    def mark_line(self, mark: Mark) -> Line:
        """What stands for `mark` in a segment."""
        if mark.kind == "tag":
            value = self.credential.tag_code(mark.value)
        elif mark.kind == "key":
            value = self.credential.index_key(mark.namespace, bytes.fromhex(mark.value))
        else:
            value = b""
        return Line(rows.padded(value), KINDS[mark.kind], created=mark.at)

    def mark(self, mark: Mark) -> int:
        """End, here, what `mark` covers; how many entries that were. Publishing it is another matter."""
        with self._changing(mark.namespace) as (connection, space):
            return rows.add_mark(connection, space, self.mark_line(mark))

    def covers(self, namespace: str, entry: Line) -> bool:
        """Whether a mark ended the entry."""
        with self._use(namespace) as (connection, space):
            return rows.covered(connection, space, entry)

    def heed(self, namespace: str) -> None:
        """Hand on the marks that were not handed on before, by this process or another."""
        with self._use(namespace) as (connection, space):
            row = connection.execute("SELECT number FROM heeded WHERE namespace = ?", (namespace,)).fetchone()
            query = "SELECT number, kind, value, at FROM marks WHERE space = ? AND number > ? ORDER BY number"
            new = connection.execute(query, (space.id, row[0] if row else 0)).fetchall()
            # Neither the end of a pin nor what later versions may invent invalidates anything.
            marks = [_veiled(namespace, kind, value, at) for _, kind, value, at in new if kind in _NAMES]
            if marks:
                self._heed(marks)
                # Only now: whoever dies in between leaves them to the next one.
                connection.execute(_HEEDED, (namespace, new[-1][0]))

    def remember(self, namespace: str) -> None:
        """Count a namespace among `namespaces`."""
        with self._database.use() as connection:
            connection.execute("INSERT OR IGNORE INTO heeded VALUES (?, 0)", (namespace,))

    def namespaces(self) -> list[str]:
        """Every namespace that was asked for with this file."""
        with self._database.use() as connection:
            return [name for (name,) in connection.execute("SELECT namespace FROM heeded")]

    # -- pins ---------------------------------------------------------------------------------------

    def pins(self) -> list[Pin]:
        """Every reference, of all namespaces and machines that were seen."""
        with self._database.use() as connection:
            return [Pin(*row) for row in connection.execute("SELECT cid, namespace, key FROM pins ORDER BY cid, key")]

    def references(self, cid: str) -> list[Pin]:
        """The references to one CID."""
        with self._database.use() as connection:
            found = connection.execute("SELECT cid, namespace, key FROM pins WHERE cid = ?", (cid,))
            return [Pin(*row) for row in found]

    def reference(self, namespace: str, key: bytes, cid: str, created: int) -> str:
        """Count (namespace, key) as a reference to `cid`; gives the CID that it referred to until now, or ''."""
        with self._changing(namespace) as (connection, space):
            before = connection.execute("SELECT cid FROM pins WHERE space = ? AND key = ?", (space.id, key)).fetchone()
            rows.add_pin(connection, space, key, cid, created)
        return "" if before is None else str(before[0])

    def dereference(self, namespace: str, key: bytes, at: int) -> bool:
        """Take (namespace, key) off, and keep off what was pinned for it until `at`."""
        with self._changing(namespace) as (connection, space):
            return rows.add_mark(connection, space, Line(key, UNPIN_MARK, created=at)) > 0

    # -- what was read of the tree in MFS -----------------------------------------------------------

    def read_segment(self, data: bytes, namespace: str, writer: str, name: str) -> Segment:
        """Verify a segment and its place in the tree; raises IntegrityError as `segments.decode`, or `misplaced`."""
        segment = decode(data, self.credential, namespace)
        if writer_id(segment.writer) != writer or segment.sequence != int(name):
            raise IntegrityError(f"segment {name} is not where its writer put it", reason="misplaced")
        return segment

    def accept(self, namespace: str, file: SegmentFile, lines: Sequence[Line]) -> int:
        """Take in a verified segment; how many entries it had that are not dead already."""
        latest = time.time_ns() + SKEW
        credible = [line for line in lines if line.created <= latest]
        if len(credible) < len(lines):
            self.report("future")
        with self._changing(namespace) as (connection, space):
            for line in credible:
                if line.kind != ENTRY:
                    rows.add_mark(connection, space, line)
            taken = rows.insert(connection, space, file.writer, credible)
            rows.record_file(connection, space, file, "")
            connection.execute(_HIGHEST, (space.id, file.writer, file.sequence))
        return taken

    def refuse(self, namespace: str, file: SegmentFile, reason: str) -> None:
        """Remember that a file is not to be read again, and report it, once."""
        with self._changing(namespace) as (connection, space):
            known = self.files(namespace, file.writer).get(file.name, ("", ""))[0]
            rows.record_file(connection, space, file, reason)
        if known != file.cid:
            self.report(reason)

    def files(self, namespace: str, writer: str) -> dict[str, tuple[str, str]]:
        """name → (CID, why it was refused or '') of the files of a directory that were read."""
        query = "SELECT name, cid, reason FROM files WHERE space = ? AND writer = ?"
        with self._use(namespace) as (connection, space):
            return {name: (cid, reason) for name, cid, reason in connection.execute(query, (space.id, writer))}

    def keep_files(self, namespace: str, writer: str, names: Iterable[str]) -> None:
        """Forget the files of a directory that are not there any more."""
        gone = set(self.files(namespace, writer)) - set(names)
        with self._changing(namespace) as (connection, space):
            values = [(space.id, writer, name) for name in gone]
            connection.executemany("DELETE FROM files WHERE space = ? AND writer = ? AND name = ?", values)

    def writers(self, namespace: str) -> dict[str, tuple[int, str]]:
        """writer → (highest sequence seen, CID of its directory when it was last read completely)."""
        query = "SELECT writer, highest, cid FROM writers WHERE space = ?"
        with self._use(namespace) as (connection, space):
            return {writer: (highest, cid) for writer, highest, cid in connection.execute(query, (space.id,))}

    def set_writer(self, namespace: str, writer: str, cid: str) -> None:
        """Note that everything in this state of the writer's directory has been read."""
        query = "INSERT INTO writers VALUES (?, ?, 0, ?) ON CONFLICT DO UPDATE SET cid = excluded.cid"
        with self._use(namespace) as (connection, space):
            connection.execute(query, (space.id, writer, cid))

    def root(self, namespace: str) -> str | None:
        """The CID of the namespace's directory when it was last read completely."""
        with self._use(namespace) as (connection, space):
            row = connection.execute("SELECT root FROM spaces WHERE space = ?", (space.id,)).fetchone()
        return None if row is None else row[0]

    def set_root(self, namespace: str, root: str | None) -> None:
        """Note that everything below this root has been read."""
        with self._use(namespace) as (connection, space):
            connection.execute("INSERT OR REPLACE INTO spaces VALUES (?, ?)", (space.id, root))

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        self._database.close()

    # -- the file -----------------------------------------------------------------------------------

    def _space(self, namespace: str) -> Space:
        # Text of a namespace never stands in a segment: rows are found by its id.
        identify = self.credential.namespace_id
        return Space(identify(namespace), namespace, identify(EVERYWHERE))

    @contextlib.contextmanager
    def _use(self, namespace: str) -> Iterator[tuple[sqlite3.Connection, Space]]:
        with self._database.use() as connection:
            yield connection, self._space(namespace)

    @contextlib.contextmanager
    def _changing(self, namespace: str) -> Iterator[tuple[sqlite3.Connection, Space]]:
        """As `_use`, all or nothing."""
        with self._database.transaction() as connection:
            yield connection, self._space(namespace)


def _veiled(namespace: str, kind: int, value: bytes, at: int) -> Mark:
    code = {TAG_MARK: value[:TAG_BYTES], KEY_MARK: value}.get(kind)
    return Mark(namespace, _NAMES[kind], "" if code is None else veiled(code), at)
