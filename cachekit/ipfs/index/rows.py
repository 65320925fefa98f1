"""The rows of the local index, as SQL over one connection: what answers a key, what ended it, what is pinned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from cachekit.errors import IntegrityError
from cachekit.ipfs.content.cids import DAG_PB, RAW, binary_cid, cid_from, digest_of
from cachekit.ipfs.index.segments import (
    ENCRYPTED,
    ENTRY,
    FUNCTION_MARK,
    KEY_MARK,
    NAMESPACE_MARK,
    PIN_END,
    PINNED,
    TAG_MARK,
    UNIXFS,
    UNPIN_MARK,
    Line,
    checked,
    split_tags,
)
from cachekit.ipfs.trust.credential import KEY_BYTES, TAG_BYTES, Credential
from cachekit.model import FOREVER, NANOSECONDS, Key, Record
from cachekit.tiers.ledger import unveiled

if TYPE_CHECKING:
    import sqlite3

Kind = Literal["namespace", "tag", "key", "function"]
KINDS: Final[Mapping[Kind, int]] = {
    "namespace": NAMESPACE_MARK,
    "tag": TAG_MARK,
    "key": KEY_MARK,
    "function": FUNCTION_MARK,
}
"""A mark's kind as `model.Mark` says it, and as a segment does."""
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (space TEXT, key BLOB, writer TEXT, flags INTEGER, digest BLOB, size INTEGER,
    created INTEGER, expires INTEGER, grace REAL, seconds REAL, tags BLOB, PRIMARY KEY (space, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (number INTEGER PRIMARY KEY AUTOINCREMENT, space TEXT, kind INTEGER, value BLOB,
    at INTEGER, UNIQUE (space, kind, value));
CREATE TABLE IF NOT EXISTS pins (space TEXT, key BLOB, cid TEXT, namespace TEXT, created INTEGER,
    PRIMARY KEY (space, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pins_by_cid ON pins (cid);
CREATE TABLE IF NOT EXISTS pin_ends (space TEXT, key BLOB, created INTEGER, until INTEGER,
    PRIMARY KEY (space, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS held (space TEXT, key BLOB, root TEXT, cid TEXT,
    PRIMARY KEY (space, key, root, cid)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spaces (space TEXT PRIMARY KEY, root TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS writers (space TEXT, writer TEXT, highest INTEGER, cid TEXT,
    PRIMARY KEY (space, writer)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (space TEXT, writer TEXT, name TEXT, cid TEXT, reason TEXT,
    PRIMARY KEY (space, writer, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heeded (namespace TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID;
"""
_FIND: Final = """SELECT key, 0, flags, digest, size, created, expires, grace, seconds, tags
    FROM entries WHERE space = ? AND key = ?"""
_KINDS: Final = (bytes, int, int, bytes, int, int, int, float, float, bytes)
_UPSERT: Final = """INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (space, key) DO UPDATE SET
    writer = excluded.writer, flags = excluded.flags, digest = excluded.digest, size = excluded.size,
    created = excluded.created, expires = excluded.expires, grace = excluded.grace, seconds = excluded.seconds,
    tags = excluded.tags
    WHERE (excluded.created, excluded.writer) > (entries.created, entries.writer)"""


class Pin(NamedTuple):
    """A reference that keeps `cid` pinned: `key` is the HMAC in the index, 16 bytes."""

    cid: str
    namespace: str
    key: bytes


class Held(NamedTuple):
    """What this machine has the daemon keep: `cid`, for the reference of (space, key) to `root`, an entry's payload."""

    space: str
    key: bytes
    root: str
    cid: str


class Space(NamedTuple):
    """A namespace's part of the index. `everywhere` is the id of the space whose marks cover tags in all namespaces."""

    id: str
    namespace: str
    everywhere: str


class SegmentFile(NamedTuple):
    """A segment as it stands in a writer's directory; `size` in bytes."""

    writer: str
    name: str
    cid: str
    sequence: int
    size: int


def cid_of(entry: Line) -> str:
    """The CID of the payload that the entry names."""
    return cid_from(DAG_PB if entry.flags & UNIXFS else RAW, entry.digest)


def line_of(credential: Credential, key: Key, record: Record, cid: str, size: int, *, encrypt: bool) -> Line:
    """The entry of a record whose payload is stored under `cid`, in `size` bytes."""
    large = UNIXFS if binary_cid(cid)[1] == DAG_PB else 0
    return Line(
        credential.index_key(key.namespace, key.digest),
        flags=large | (ENCRYPTED if encrypt else 0) | (PINNED if record.pin else 0),
        digest=digest_of(cid),
        size=size,
        created=record.created,
        expires=record.expires,
        grace=record.grace,
        seconds=record.seconds,
        tags=codes_of(credential, record.tags),
    )


WRITTEN: Final = "written:"
"""How the tags of a record begin that say who wrote it: they stay on the machine that has the copy."""


def codes_of(credential: Credential, tags: Iterable[str]) -> tuple[bytes, ...]:
    """What stands for tags in segments; a record that came out of the index names them by that as well."""
    known = ((tag, unveiled(tag)) for tag in tags if not tag.startswith(WRITTEN))
    codes = (code if code and len(code) == TAG_BYTES else credential.tag_code(tag) for tag, code in known)
    return tuple(dict.fromkeys(codes))


def pin_end(entry: Line, until: int) -> list[Line]:
    """What says in a segment that the entry's pin ends; nothing for one that does not."""
    return [Line(entry.key, PIN_END, created=entry.created, expires=until)] if until > 1 else []


def alive(entry: Line, now: int) -> bool:
    """Whether the entry is within its TTL and its grace."""
    return entry.expires == FOREVER or now - entry.expires < entry.grace * NANOSECONDS


def find(connection: sqlite3.Connection, space: str, key: bytes) -> Line | None:
    """The entry of a key; IntegrityError where its row is none that was ever written."""
    row = connection.execute(_FIND, (space, key)).fetchone()
    if row is None:
        return None
    if tuple(map(type, row)) != _KINDS:
        raise IntegrityError("a row of the index is altered", reason="malformed")
    return checked(Line._make((*row[:-1], split_tags(row[-1]))))


def some(connection: sqlite3.Connection, space: str, after: bytes) -> list[Line]:
    """Up to 256 entries in the order of their keys, from behind `after` on; altered ones are left out."""
    query = f"{_FIND.partition(' AND key')[0]} AND key > ? AND typeof(key) = 'blob' ORDER BY key LIMIT 256"
    rows = connection.execute(query, (space, after)).fetchall()
    return [checked(Line._make((*row[:-1], split_tags(row[-1])))) for row in rows if tuple(map(type, row)) == _KINDS]


def insert(connection: sqlite3.Connection, space: Space, writer: str, lines: Sequence[Line]) -> int:
    """Take in the entries among `lines` that no mark has ended; how many those are."""
    dead = _marked(connection, space)
    entries = [line for line in lines if line.kind == ENTRY]
    living = [entry for entry in entries if not any(dead.get(mark, -1) >= entry.created for mark in _marks_of(entry))]
    connection.executemany(_UPSERT, [(space.id, e.key, writer, *e[2:9], b"".join(e.tags)) for e in living])
    for entry in entries:
        if entry.flags & PINNED:
            add_pin(connection, space, entry.key, cid_of(entry), entry.created)
    return len(living)


def drop_expired(connection: sqlite3.Connection, now: int) -> int:
    """Of all namespaces; how many rows that were."""
    query = "DELETE FROM entries WHERE expires != ? AND ? - expires >= grace * ?"
    return connection.execute(query, (FOREVER, now, NANOSECONDS)).rowcount


def covered(connection: sqlite3.Connection, space: Space, entry: Line) -> bool:
    """Whether a mark ended the entry."""
    pairs = _marks_of(entry)
    tags = [value for kind, value in pairs if kind == TAG_MARK]
    here = " OR ".join(["(kind = ? AND value = ?)"] * len(pairs))
    everywhere = f"(space = ? AND kind = ? AND value IN ({', '.join('?' * len(tags))}))"
    query = f"SELECT 1 FROM marks WHERE at >= ? AND ((space = ? AND ({here})) OR {everywhere})"  # noqa: S608 - placeholders
    values = (entry.created, space.id, *(part for pair in pairs for part in pair), space.everywhere, TAG_MARK, *tags)
    return connection.execute(query, values).fetchone() is not None


def add_mark(connection: sqlite3.Connection, space: Space, mark: Line) -> int:
    """Keep a mark and end what it covers; how many rows that were."""
    where = (space.id, mark.kind, mark.key)
    known = connection.execute("SELECT at FROM marks WHERE space = ? AND kind = ? AND value = ?", where).fetchone()
    if known is None or known[0] < mark.created:
        row = (*where, mark.created)
        connection.execute("INSERT OR REPLACE INTO marks (space, kind, value, at) VALUES (?, ?, ?, ?)", row)
    if mark.kind == UNPIN_MARK:
        return _ended(connection, "pins", "space = ? AND key = ?", mark, space.id, mark.key)
    if mark.kind == KEY_MARK:
        return _ended(connection, "entries", "space = ? AND key = ?", mark, space.id, mark.key)
    if mark.kind == TAG_MARK and space.id == space.everywhere:
        return _ended(connection, "entries", "instr(tags, ?) > 0", mark, mark.key[:TAG_BYTES])
    if mark.kind == TAG_MARK:
        return _ended(connection, "entries", "space = ? AND instr(tags, ?) > 0", mark, space.id, mark.key[:TAG_BYTES])
    return _ended(connection, "entries", "space = ?", mark, space.id) if mark.kind == NAMESPACE_MARK else 0


def add_pin(connection: sqlite3.Connection, space: Space, key: bytes, cid: str, created: int) -> None:
    """Count a reference, unless it was taken off later than it was made."""
    connection.execute(
        """INSERT INTO pins SELECT ?, ?, ?, ?, ?
        WHERE NOT EXISTS (SELECT 1 FROM marks WHERE space = ? AND kind = ? AND value = ? AND at >= ?)
        ON CONFLICT DO UPDATE SET cid = excluded.cid, created = excluded.created
        WHERE excluded.created >= pins.created""",
        (space.id, key, cid, space.namespace, created, space.id, UNPIN_MARK, key, created),
    )


def end_pin(connection: sqlite3.Connection, space: Space, line: Line) -> None:
    """Note when the pin of one entry ends; a later entry of the key has another pin."""
    connection.execute(
        """INSERT INTO pin_ends VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET
        created = excluded.created, until = excluded.until WHERE excluded.created >= pin_ends.created""",
        (space.id, line.key, line.created, line.expires),
    )


def record_file(connection: sqlite3.Connection, space: Space, file: SegmentFile, reason: str) -> None:
    """Note that a file was read, and why it was refused or ''."""
    row = (space.id, file.writer, file.name, file.cid, reason)
    connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", row)


def padded(value: bytes) -> bytes:
    """As a key of a segment's entry."""
    return value.ljust(KEY_BYTES, b"\0")


def _marked(connection: sqlite3.Connection, space: Space) -> dict[tuple[int, bytes], int]:
    query = "SELECT kind, value, max(at) FROM marks WHERE space = ? OR (space = ? AND kind = ?) GROUP BY kind, value"
    rows = connection.execute(query, (space.id, space.everywhere, TAG_MARK))
    return {(kind, value): at for kind, value, at in rows}


def _marks_of(entry: Line) -> list[tuple[int, bytes]]:
    """Kind and value of each mark that would cover the entry."""
    return [(NAMESPACE_MARK, padded(b"")), (KEY_MARK, entry.key), *((TAG_MARK, padded(tag)) for tag in entry.tags)]


def _ended(connection: sqlite3.Connection, table: str, clause: str, mark: Line, *values: str | bytes) -> int:
    query = f"DELETE FROM {table} WHERE {clause} AND created <= ?"  # noqa: S608 - constants of this module
    return connection.execute(query, (*values, mark.created)).rowcount
