"""The local copy of the index: which payload answers which key, what is dead, what is pinned, what was read already.

Everything may raise TierError. `space` is a namespace id; text of a namespace never stands in a segment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachekit.cids import DAG_PB, RAW, cid_from
from cachekit.database import Database
from cachekit.model import FOREVER, NANOSECONDS, Mark
from cachekit.sealing import KEY_BYTES, TAG_BYTES, Credential
from cachekit.segments import ENTRY, KEY_MARK, NAMESPACE_MARK, PINNED, TAG_MARK, UNIXFS, UNPIN_MARK, Entry

if TYPE_CHECKING:
    import sqlite3

SKEW: Final = 300 * NANOSECONDS
"""How far another machine's clock may run ahead of ours."""

_KINDS: Final = {"namespace": NAMESPACE_MARK, "tag": TAG_MARK, "key": KEY_MARK}
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (space TEXT, key BLOB, writer TEXT, flags INTEGER, digest BLOB, size INTEGER,
    created INTEGER, expires INTEGER, grace REAL, seconds REAL, tags BLOB, PRIMARY KEY (space, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (number INTEGER PRIMARY KEY AUTOINCREMENT, space TEXT, kind INTEGER, value BLOB,
    at INTEGER, UNIQUE (space, kind, value));
CREATE TABLE IF NOT EXISTS pins (space TEXT, key BLOB, cid TEXT, namespace TEXT, created INTEGER,
    PRIMARY KEY (space, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pins_by_cid ON pins (cid);
CREATE TABLE IF NOT EXISTS spaces (space TEXT PRIMARY KEY, root TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS writers (space TEXT, writer TEXT, highest INTEGER, cid TEXT,
    PRIMARY KEY (space, writer)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (space TEXT, writer TEXT, name TEXT, cid TEXT, reason TEXT,
    PRIMARY KEY (space, writer, name)) WITHOUT ROWID;
"""
_FIND: Final = """SELECT key, 0, flags, digest, size, created, expires, grace, seconds, tags
    FROM entries WHERE space = ? AND key = ?"""
_UPSERT: Final = """INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (space, key) DO UPDATE SET
    writer = excluded.writer, flags = excluded.flags, digest = excluded.digest, size = excluded.size,
    created = excluded.created, expires = excluded.expires, grace = excluded.grace, seconds = excluded.seconds,
    tags = excluded.tags
    WHERE (excluded.created, excluded.writer) > (entries.created, entries.writer)"""


class IndexMark(NamedTuple):
    """An invalidation, as other machines see it. `number` grows with every change; `kind` and `value` are segments'."""

    number: int
    kind: int
    value: bytes
    at: int


class Pin(NamedTuple):
    """A reference that keeps `cid` pinned: `key` is the HMAC in the index, 16 bytes."""

    cid: str
    namespace: str
    key: bytes


class File(NamedTuple):
    """A verified segment, as it stands in a writer's directory."""

    writer: str
    name: str
    cid: str
    sequence: int


def cid_of(entry: Entry) -> str:
    """The CID of the payload that the entry names."""
    return cid_from(DAG_PB if entry.flags & UNIXFS else RAW, entry.digest)


def alive(entry: Entry, now: int) -> bool:
    """Whether the entry is within its TTL and its grace."""
    return entry.expires == FOREVER or now < entry.expires + int(entry.grace * NANOSECONDS)


class IndexTable:
    """The SQLite file at `path`, opened on first use. `report` is told a short word for everything that was refused."""

    def __init__(self, path: Path, credential: Credential, report: Callable[[str], None]) -> None:
        self._database = Database(path, _SCHEMA, report)
        self._credential = credential
        self._report = report

    def find(self, namespace: str, digest: bytes) -> Entry | None:
        """What is known here about a key, without asking anybody."""
        space, key = self._credential.namespace_id(namespace), self._credential.index_key(namespace, digest)
        with self._database.use() as connection:
            row = connection.execute(_FIND, (space, key)).fetchone()
        return None if row is None else Entry._make((*row[:-1], _split(row[-1])))

    def forget(self, namespace: str, digest: bytes) -> bool:
        """Drop what is known about a key; whether there was something."""
        space, key = self._credential.namespace_id(namespace), self._credential.index_key(namespace, digest)
        with self._database.use() as connection:
            return connection.execute("DELETE FROM entries WHERE space = ? AND key = ?", (space, key)).rowcount > 0

    def mark_entry(self, mark: Mark) -> Entry:
        """What stands for `mark` in a segment."""
        if mark.kind == "tag":
            value = self._credential.tag(mark.namespace, mark.value)
        elif mark.kind == "key":
            value = self._credential.index_key(mark.namespace, bytes.fromhex(mark.value))
        else:
            value = b""
        return Entry(value.ljust(KEY_BYTES, b"\0"), _KINDS[mark.kind], created=mark.at)

    def add_mark(self, mark: Mark) -> int:
        """End, here, what `mark` covers; how many entries that were. Publishing it is another matter."""
        space = self._credential.namespace_id(mark.namespace)
        with self._database.transaction() as connection:
            return _add_mark(connection, space, self.mark_entry(mark))

    def marks(self, namespace: str, after: int = 0) -> list[IndexMark]:
        """Every known invalidation whose number is above `after`, in the order of their numbers."""
        query = "SELECT number, kind, value, at FROM marks WHERE space = ? AND number > ? AND kind <> ? ORDER BY number"
        with self._database.use() as connection:
            rows = connection.execute(query, (self._credential.namespace_id(namespace), after, UNPIN_MARK))
            return [IndexMark(*row) for row in rows]

    def covers(self, namespace: str, entry: Entry) -> bool:
        """Whether a mark ended the entry."""
        values = (_padded(b""), entry.key, *map(_padded, entry.tags))
        kinds = (NAMESPACE_MARK, KEY_MARK, *[TAG_MARK] * len(entry.tags))
        clause = " OR ".join(["(kind = ? AND value = ?)"] * len(kinds))
        query = f"SELECT 1 FROM marks WHERE space = ? AND at >= ? AND ({clause})"  # noqa: S608 - only placeholders
        pairs = [part for pair in zip(kinds, values, strict=True) for part in pair]
        with self._database.use() as connection:
            space = self._credential.namespace_id(namespace)
            return connection.execute(query, (space, entry.created, *pairs)).fetchone() is not None

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
        space = self._credential.namespace_id(namespace)
        with self._database.transaction() as connection:
            before = connection.execute("SELECT cid FROM pins WHERE space = ? AND key = ?", (space, key)).fetchone()
            _add_pin(connection, space, namespace, key, cid, created)
        return "" if before is None else str(before[0])

    def dereference(self, namespace: str, key: bytes, at: int) -> bool:
        """Take (namespace, key) off, and keep off what was pinned for it until `at`."""
        space = self._credential.namespace_id(namespace)
        with self._database.transaction() as connection:
            return _add_mark(connection, space, Entry(key, UNPIN_MARK, created=at)) > 0

    # -- what the tree held -------------------------------------------------------------------------

    def accept(self, namespace: str, file: File, entries: Sequence[Entry]) -> int:
        """Take in a verified segment; how many entries it had that are not dead already."""
        space, latest = self._credential.namespace_id(namespace), time.time_ns() + SKEW
        credible = [entry for entry in entries if entry.created <= latest]
        if len(credible) < len(entries):
            self._report("future")
        with self._database.transaction() as connection:
            for mark in credible:
                if mark.kind != ENTRY:
                    _add_mark(connection, space, mark)
            taken = _insert(connection, namespace, space, file.writer, credible)
            _record_file(connection, space, file, "")
            connection.execute(
                "INSERT INTO writers VALUES (?, ?, ?, '') "
                "ON CONFLICT DO UPDATE SET highest = max(highest, excluded.highest)",
                (space, file.writer, file.sequence),
            )
        return taken

    def refuse(self, space: str, file: File, reason: str) -> None:
        """Remember that a file is not to be read again, and count it, once."""
        with self._database.transaction() as connection:
            before = connection.execute(
                "SELECT cid FROM files WHERE space = ? AND writer = ? AND name = ?", (space, file.writer, file.name)
            ).fetchone()
            _record_file(connection, space, file, reason)
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

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        self._database.close()


def _insert(connection: sqlite3.Connection, namespace: str, space: str, writer: str, entries: Sequence[Entry]) -> int:
    marks = connection.execute("SELECT kind, value, at FROM marks WHERE space = ?", (space,))
    dead: dict[tuple[int, bytes], int] = {(kind, value): at for kind, value, at in marks}
    living = [entry for entry in entries if entry.kind == ENTRY and not (dead and _covered(dead, entry))]
    rows: list[tuple[Any, ...]] = [
        (space, e.key, writer, e.flags, e.digest, e.size, e.created, e.expires, e.grace, e.seconds, b"".join(e.tags))
        for e in living
    ]
    connection.executemany(_UPSERT, rows)
    for entry in entries:
        if entry.kind == ENTRY and entry.flags & PINNED:
            _add_pin(connection, space, namespace, entry.key, cid_of(entry), entry.created)
    return len(living)


def _covered(marks: dict[tuple[int, bytes], int], entry: Entry) -> bool:
    values = [(NAMESPACE_MARK, _padded(b"")), (KEY_MARK, entry.key), *((TAG_MARK, _padded(tag)) for tag in entry.tags)]
    return any(marks.get(value, -1) >= entry.created for value in values)


def _add_mark(connection: sqlite3.Connection, space: str, mark: Entry) -> int:
    where = (space, mark.kind, mark.key)
    known = connection.execute("SELECT at FROM marks WHERE space = ? AND kind = ? AND value = ?", where).fetchone()
    if known is None or known[0] < mark.created:
        row = (*where, mark.created)
        connection.execute("INSERT OR REPLACE INTO marks (space, kind, value, at) VALUES (?, ?, ?, ?)", row)
    if mark.kind == UNPIN_MARK:
        return _ended(connection, "pins", "AND key = ?", space, mark, mark.key)
    if mark.kind == KEY_MARK:
        return _ended(connection, "entries", "AND key = ?", space, mark, mark.key)
    if mark.kind == TAG_MARK:
        return _ended(connection, "entries", "AND instr(tags, ?) > 0", space, mark, mark.key[:TAG_BYTES])
    return _ended(connection, "entries", "", space, mark) if mark.kind == NAMESPACE_MARK else 0


def _ended(connection: sqlite3.Connection, table: str, clause: str, space: str, mark: Entry, *values: bytes) -> int:
    query = f"DELETE FROM {table} WHERE space = ? AND created <= ? {clause}"  # noqa: S608 - constants of this module
    return connection.execute(query, (space, mark.created, *values)).rowcount


def _add_pin(connection: sqlite3.Connection, space: str, namespace: str, key: bytes, cid: str, created: int) -> None:
    connection.execute(
        """INSERT INTO pins SELECT ?, ?, ?, ?, ?
        WHERE NOT EXISTS (SELECT 1 FROM marks WHERE space = ? AND kind = ? AND value = ? AND at >= ?)
        ON CONFLICT DO UPDATE SET cid = excluded.cid, created = excluded.created
        WHERE excluded.created >= pins.created""",
        (space, key, cid, namespace, created, space, UNPIN_MARK, key, created),
    )


def _record_file(connection: sqlite3.Connection, space: str, file: File, reason: str) -> None:
    row = (space, file.writer, file.name, file.cid, reason)
    connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", row)


def _padded(value: bytes) -> bytes:
    return value.ljust(KEY_BYTES, b"\0")


def _split(tags: bytes) -> tuple[bytes, ...]:
    return tuple(tags[at : at + TAG_BYTES] for at in range(0, len(tags), TAG_BYTES))
