"""The local copy of the index: which payload answers which key, what is dead, what is pinned, what was read already.

Everything may raise TierError. `space` is a namespace id; text of a namespace never stands in a segment.

What of the tree in MFS was read already: files and why they were refused, writers, roots.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from cachekit.errors import IntegrityError
from cachekit.files.sqlite import Database
from cachekit.ipfs.credential import Credential, writer_id
from cachekit.ipfs.index.rows import (
    FIND,
    KINDS,
    SCHEMA,
    SKEW,
    File,
    IndexMark,
    Pin,
    Space,
    add_mark,
    add_pin,
    covered,
    insert,
    padded,
    record_file,
    split_tags,
)
from cachekit.ipfs.index.segments import ENTRY, UNPIN_MARK, Line, Segment, decode
from cachekit.model import EVERYWHERE, Mark


class TreeTable:
    """The part of the index's file that follows the tree. Everything may raise TierError; `space` is a namespace id."""

    def __init__(self, database: Database, report: Callable[[str], None]) -> None:
        self._database = database
        self._report = report

    def refused(self, reason: str) -> None:
        """Count something that was refused but is no file."""
        self._report(reason)

    def refuse(self, space: str, file: File, reason: str) -> None:
        """Remember that a file is not to be read again, and count it, once."""
        with self._database.transaction() as connection:
            before = connection.execute(
                "SELECT cid FROM files WHERE space = ? AND writer = ? AND name = ?", (space, file.writer, file.name)
            ).fetchone()
            record_file(connection, space, file, reason)
        if before is None or before[0] != file.cid:
            self._report(reason)

    def files(self, space: str, writer: str) -> dict[str, tuple[str, str]]:
        """name → (CID, why it was refused or '') of the files of a directory that were read."""
        query = "SELECT name, cid, reason FROM files WHERE space = ? AND writer = ?"
        with self._database.use() as connection:
            return {name: (cid, reason) for name, cid, reason in connection.execute(query, (space, writer))}

    def keep_files(self, space: str, writer: str, names: Iterable[str]) -> None:
        """Forget the files of a directory that are not there any more."""
        gone = set(self.files(space, writer)) - set(names)
        with self._database.transaction() as connection:
            rows = [(space, writer, name) for name in gone]
            connection.executemany("DELETE FROM files WHERE space = ? AND writer = ? AND name = ?", rows)

    def root(self, space: str) -> str | None:
        """The CID of the namespace's directory when it was last read completely."""
        with self._database.use() as connection:
            row = connection.execute("SELECT root FROM spaces WHERE space = ?", (space,)).fetchone()
        return None if row is None else row[0]

    def set_root(self, space: str, root: str | None) -> None:
        """Note that everything below this root has been read."""
        with self._database.use() as connection:
            connection.execute("INSERT OR REPLACE INTO spaces VALUES (?, ?)", (space, root))

    def writers(self, space: str) -> dict[str, tuple[int, str]]:
        """writer → (highest sequence seen, CID of its directory when it was last read completely)."""
        query = "SELECT writer, highest, cid FROM writers WHERE space = ?"
        with self._database.use() as connection:
            return {writer: (highest, cid) for writer, highest, cid in connection.execute(query, (space,))}

    def set_writer(self, space: str, writer: str, cid: str) -> None:
        """Note that everything in this state of the writer's directory has been read."""
        query = "INSERT INTO writers VALUES (?, ?, 0, ?) ON CONFLICT DO UPDATE SET cid = excluded.cid"
        with self._database.use() as connection:
            connection.execute(query, (space, writer, cid))


_HEEDED: Final = """INSERT INTO heeded VALUES (?, ?)
    ON CONFLICT DO UPDATE SET number = max(number, excluded.number)"""


def tag_of(credential: Credential, tag: str) -> bytes:
    """What stands for a tag in segments: the same in all namespaces, so that one mark can cover it in all of them."""
    return credential.tag(EVERYWHERE, tag)


class IndexTable(TreeTable):
    """The SQLite file at `path`, opened on first use. `report` is told a short word for everything that was refused.

    `heed` is told the marks of a namespace that are new to this file, each at least once; it may raise TierError.
    """

    def __init__(
        self,
        path: Path,
        credential: Credential,
        report: Callable[[str], None],
        heed: Callable[[str, Sequence[IndexMark]], None],
    ) -> None:
        super().__init__(Database(path, SCHEMA, report), report)
        self._credential = credential
        self._heed = heed

    def space(self, namespace: str) -> Space:
        """Where a namespace's rows are."""
        identify = self._credential.namespace_id
        return Space(identify(namespace), namespace, identify(EVERYWHERE))

    def find(self, namespace: str, digest: bytes) -> Line | None:
        """What is known here about a key, without asking anybody."""
        space, key = self._credential.namespace_id(namespace), self._credential.index_key(namespace, digest)
        with self._database.use() as connection:
            row = connection.execute(FIND, (space, key)).fetchone()
        return None if row is None else Line._make((*row[:-1], split_tags(row[-1])))

    def forget(self, namespace: str, digest: bytes) -> bool:
        """Drop what is known about a key; whether there was something."""
        space, key = self._credential.namespace_id(namespace), self._credential.index_key(namespace, digest)
        with self._database.use() as connection:
            return connection.execute("DELETE FROM entries WHERE space = ? AND key = ?", (space, key)).rowcount > 0

    def mark_entry(self, mark: Mark) -> Line:
        """What stands for `mark` in a segment."""
        if mark.kind == "tag":
            value = tag_of(self._credential, mark.value)
        elif mark.kind == "key":
            value = self._credential.index_key(mark.namespace, bytes.fromhex(mark.value))
        else:
            value = b""
        return Line(padded(value), KINDS[mark.kind], created=mark.at)

    def add_mark(self, mark: Mark) -> int:
        """End, here, what `mark` covers; how many entries that were. Publishing it is another matter."""
        with self._database.transaction() as connection:
            return add_mark(connection, self.space(mark.namespace), self.mark_entry(mark))

    def marks(self, namespace: str, after: int = 0) -> list[IndexMark]:
        """Every known invalidation whose number is above `after`, in the order of their numbers."""
        query = "SELECT number, kind, value, at FROM marks WHERE space = ? AND number > ? AND kind <> ? ORDER BY number"
        with self._database.use() as connection:
            rows = connection.execute(query, (self._credential.namespace_id(namespace), after, UNPIN_MARK))
            return [IndexMark(*row) for row in rows]

    def covers(self, namespace: str, entry: Line) -> bool:
        """Whether a mark ended the entry."""
        with self._database.use() as connection:
            return covered(connection, self.space(namespace), entry)

    def heed(self, namespace: str) -> None:
        """Hand on the marks that were not handed on before, by this process or another."""
        with self._database.use() as connection:
            row = connection.execute("SELECT number FROM heeded WHERE namespace = ?", (namespace,)).fetchone()
            marks = self.marks(namespace, 0 if row is None else int(row[0]))
            if marks:
                self._heed(namespace, marks)
                # Only now: whoever dies in between leaves them to the next one.
                connection.execute(_HEEDED, (namespace, marks[-1].number))

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
            rows = connection.execute("SELECT cid, namespace, key FROM pins WHERE cid = ?", (cid,))
            return [Pin(*row) for row in rows]

    def reference(self, namespace: str, key: bytes, cid: str, created: int) -> str:
        """Count (namespace, key) as a reference to `cid`; gives the CID that it referred to until now, or ''."""
        space = self.space(namespace)
        with self._database.transaction() as connection:
            before = connection.execute("SELECT cid FROM pins WHERE space = ? AND key = ?", (space.id, key)).fetchone()
            add_pin(connection, space, key, cid, created)
        return "" if before is None else str(before[0])

    def dereference(self, namespace: str, key: bytes, at: int) -> bool:
        """Take (namespace, key) off, and keep off what was pinned for it until `at`."""
        with self._database.transaction() as connection:
            return add_mark(connection, self.space(namespace), Line(key, UNPIN_MARK, created=at)) > 0

    # -- what the tree held -------------------------------------------------------------------------

    def read_segment(self, data: bytes, namespace: str, writer: str, name: str) -> Segment:
        """Verify a segment and its place in the tree; raises IntegrityError as `segments.decode`, or `misplaced`."""
        segment = decode(data, self._credential, namespace)
        if writer_id(segment.writer) != writer or segment.sequence != int(name):
            raise IntegrityError(f"segment {name} is not where its writer put it", reason="misplaced")
        return segment

    def accept(self, namespace: str, file: File, entries: Sequence[Line]) -> int:
        """Take in a verified segment; how many entries it had that are not dead already."""
        space, latest = self.space(namespace), time.time_ns() + SKEW
        credible = [entry for entry in entries if entry.created <= latest]
        if len(credible) < len(entries):
            self._report("future")
        with self._database.transaction() as connection:
            for mark in credible:
                if mark.kind != ENTRY:
                    add_mark(connection, space, mark)
            taken = insert(connection, space, file.writer, credible)
            record_file(connection, space.id, file, "")
            connection.execute(
                "INSERT INTO writers VALUES (?, ?, ?, '') "
                "ON CONFLICT DO UPDATE SET highest = max(highest, excluded.highest)",
                (space.id, file.writer, file.sequence),
            )
        return taken

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        self._database.close()
