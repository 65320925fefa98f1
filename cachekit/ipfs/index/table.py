"""The local copy of the index: which payload answers which key, what is dead, what is pinned, what was read already.

It is merged from what every writer signed, so that a lookup asks nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from cachekit.errors import IntegrityError
from cachekit.files.sqlite import Database
from cachekit.ipfs.index import rows
from cachekit.ipfs.index.members import SCHEMA as MEMBERS_SCHEMA
from cachekit.ipfs.index.members import Members
from cachekit.ipfs.index.rows import KINDS, SCHEMA, Held, Kind, Pin, SegmentFile, Space
from cachekit.ipfs.index.segments import (
    ENTRY,
    FUNCTION_MARK,
    KEY_MARK,
    PIN_END,
    TAG_MARK,
    UNPIN_MARK,
    Line,
    Segment,
    decode,
)
from cachekit.ipfs.trust.credential import TAG_BYTES, Credential, writer_id
from cachekit.model import EVERYWHERE, SKEW, Mark
from cachekit.tiers.ledger import veiled

_NAMES: Final[dict[int, Kind]] = {number: kind for kind, number in KINDS.items()}
_HEEDED: Final = """INSERT INTO heeded VALUES (?, ?)
    ON CONFLICT DO UPDATE SET number = max(number, excluded.number)"""
_NEEDLESS: Final = """SELECT space, key, root, cid FROM held WHERE NOT EXISTS
    (SELECT 1 FROM pins WHERE pins.space = held.space AND pins.key = held.key AND pins.cid = held.root)"""
_PINNED: Final = """SELECT coalesce(until, 1) FROM pins LEFT JOIN pin_ends USING (space, key, created)
    WHERE space = ? AND key = ? AND cid = ?"""
_OVERDUE: Final = """SELECT cid, namespace, key, created FROM pins JOIN pin_ends USING (space, key, created)
    WHERE until <= ?"""
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
        self._database = Database(path, SCHEMA + MEMBERS_SCHEMA, report)
        self.members = Members(self._database, credential, heed)

    # -- what answers a key -------------------------------------------------------------------------

    def find(self, namespace: str, digest: bytes) -> Line | None:
        """What is known here about a key, without asking anybody."""
        return self.entry(namespace, self.credential.index_key(namespace, digest))

    def entry(self, namespace: str, key: bytes) -> Line | None:
        """The same by the key's HMAC."""
        with self._database.use() as connection:
            return rows.find(connection, self._id(namespace), key)

    def living(self, namespace: str, digest: bytes) -> Line | None:
        """The same, unless it is expired. What a mark ended is never found."""
        entry = self.find(namespace, digest)
        return entry if entry is not None and rows.alive(entry, time.time_ns()) else None

    def lines(self, namespace: str) -> Iterator[Line]:
        """Every entry of a namespace that no mark ended."""
        after = b""
        while True:
            with self._database.use() as connection:
                some = rows.some(connection, self._id(namespace), after)
            if not some:
                return
            yield from some
            after = some[-1].key

    def collect(self) -> int:
        """Drop the rows of what expired; how many those were."""
        with self._database.transaction() as connection:
            return rows.drop_expired(connection, time.time_ns())

    def forget(self, namespace: str, digest: bytes) -> None:
        """Drop what is known about a key."""
        key = self.credential.index_key(namespace, digest)
        self._database.rows("DELETE FROM entries WHERE space = ? AND key = ?", self._id(namespace), key)

    # -- marks --------------------------------------------------------------------------------------

    def mark_line(self, mark: Mark) -> Line:
        """What stands for `mark` in a segment."""
        if mark.kind == "tag":
            value = self.credential.tag_code(mark.value)
        elif mark.kind == "key":
            value = self.credential.index_key(mark.namespace, bytes.fromhex(mark.value))
        elif mark.kind == "function":
            value = self.credential.function_code(mark.value)
        else:
            value = b""
        return Line(rows.padded(value), KINDS[mark.kind], created=mark.at)

    def mark(self, mark: Mark) -> int:
        """End, here, what `mark` covers; how many entries that were. Publishing it is another matter."""
        with self._database.transaction() as connection:
            return rows.add_mark(connection, self._space(mark.namespace), self.mark_line(mark))

    def covers(self, namespace: str, entry: Line) -> bool:
        """Whether a mark ended the entry."""
        with self._database.use() as connection:
            return rows.covered(connection, self._space(namespace), entry)

    def heed(self, namespace: str) -> None:
        """Hand on the marks that were not handed on before, by this process or another."""
        heeded = self._database.rows("SELECT number FROM heeded WHERE namespace = ?", namespace)
        query = "SELECT number, kind, value, at FROM marks WHERE space = ? AND number > ? ORDER BY number"
        new = self._database.rows(query, self._id(namespace), heeded[0][0] if heeded else 0)
        # Neither the end of a pin nor what later versions may invent invalidates anything.
        marks = [_veiled(namespace, kind, value, at) for _, kind, value, at in new if kind in _NAMES]
        if marks:
            self._heed(marks)
            # Only now: whoever dies in between leaves them to the next one.
            self._database.rows(_HEEDED, namespace, new[-1][0])

    def remember(self, namespace: str) -> None:
        """Count a namespace among `namespaces`."""
        self._database.rows("INSERT OR IGNORE INTO heeded VALUES (?, 0)", namespace)

    def namespaces(self) -> list[str]:
        """Every namespace that was asked for with this file."""
        return [name for (name,) in self._database.rows("SELECT namespace FROM heeded")]

    # -- pins ---------------------------------------------------------------------------------------

    def pins(self) -> list[Pin]:
        """Every reference, of all namespaces and machines that were seen."""
        return [Pin(*row) for row in self._database.rows("SELECT cid, namespace, key FROM pins ORDER BY cid, key")]

    def references(self, cid: str) -> list[Pin]:
        """The references to one CID."""
        return [Pin(*row) for row in self._database.rows("SELECT cid, namespace, key FROM pins WHERE cid = ?", cid)]

    def referred(self, namespace: str, key: bytes) -> str:
        """The CID that (namespace, key) refers to, or ''."""
        found = self._database.rows("SELECT cid FROM pins WHERE space = ? AND key = ?", self._id(namespace), key)
        return str(found[0][0]) if found else ""

    def pinned(self, namespace: str, entry: Line) -> int:
        """What a record's `pin` is for an entry: 0 where nothing refers to it any more."""
        found = self._database.rows(_PINNED, self._id(namespace), entry.key, rows.cid_of(entry))
        until = int(found[0][0]) if found else 0
        return until if until == 1 or until > time.time_ns() else 0

    def overdue(self) -> list[tuple[Pin, int]]:
        """References whose time is over, and when what they refer to was made."""
        return [(Pin(*row[:3]), row[3]) for row in self._database.rows(_OVERDUE, time.time_ns())]

    def reference(self, namespace: str, key: bytes, cid: str, created: int) -> None:
        """Count (namespace, key) as a reference to `cid`, unless a later one stands or it was taken off since."""
        with self._database.transaction() as connection:
            rows.add_pin(connection, self._space(namespace), key, cid, created)

    def dereference(self, namespace: str, key: bytes, at: int) -> bool:
        """Take (namespace, key) off, and keep off what was pinned for it until `at`."""
        with self._database.transaction() as connection:
            return rows.add_mark(connection, self._space(namespace), Line(key, UNPIN_MARK, created=at)) > 0

    def hold(self, namespace: str, key: bytes, root: str, cids: Iterable[str]) -> list[Held]:
        """Note what the daemon is to keep for (namespace, key) while that refers to `root`."""
        held = [Held(self._id(namespace), key, root, cid) for cid in cids]
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO held VALUES (?, ?, ?, ?)", held)
        return held

    def holds(self, namespace: str, key: bytes, root: str) -> bool:
        """Whether anything is noted for it."""
        query = "SELECT 1 FROM held WHERE space = ? AND key = ? AND root = ? LIMIT 1"
        return bool(self._database.rows(query, self._id(namespace), key, root))

    def needless(self) -> list[Held]:
        """What is held for references that are gone, or never came to be."""
        return [Held(*row) for row in self._database.rows(_NEEDLESS)]

    def let_go(self, held: Held) -> None:
        """Forget what is held no more."""
        self._database.rows("DELETE FROM held WHERE space = ? AND key = ? AND root = ? AND cid = ?", *held)

    # -- what was read of the tree in MFS -----------------------------------------------------------

    def read_segment(self, data: bytes, namespace: str, writer: str, name: str) -> Segment:
        """Verify a segment and its place in the tree; raises IntegrityError as `segments.decode`, or `misplaced`."""
        segment = decode(data, self.credential, namespace)
        if writer_id(segment.writer) != writer or segment.sequence != int(name):
            raise IntegrityError(f"segment {name} is not where its writer put it", reason="misplaced")
        place = f"{self._id(namespace)}/{writer}"
        if not self.members.roster().allows((writer, segment.issuer.id), place, segment.sequence):
            raise IntegrityError(f"segment {name} is of a member that was revoked", reason="revoked")
        self.members.note(writer, segment.issuer)
        return segment

    def accept(self, namespace: str, file: SegmentFile, lines: Sequence[Line]) -> int:
        """Take in a verified segment; how many entries it had that are not dead already."""
        latest = time.time_ns() + SKEW
        credible = self.members.trusted(file.writer, [line for line in lines if line.created <= latest])
        reason = "future" if any(line.created > latest for line in lines) else ""
        if reason:
            self.report(reason)
        space = self._space(namespace)
        with self._database.transaction() as connection:
            for line in credible:
                if line.kind == PIN_END:
                    rows.end_pin(connection, space, line)
                elif line.kind != ENTRY:
                    rows.add_mark(connection, space, line)
            taken = rows.insert(connection, space, file.writer, credible)
            rows.record_file(connection, space, file, reason)
            connection.execute(_HIGHEST, (space.id, file.writer, file.sequence))
        return taken

    def refuse(self, namespace: str, file: SegmentFile, reason: str) -> None:
        """Remember that a file is not to be read again, and report it, once."""
        with self._database.transaction() as connection:
            known = self.files(namespace, file.writer).get(file.name, ("", ""))[0]
            rows.record_file(connection, self._space(namespace), file, reason)
        if known != file.cid:
            self.report(reason)

    def files(self, namespace: str, writer: str) -> dict[str, tuple[str, str]]:
        """name → (CID, why it was refused, or 'future' what is in it, or '') of the files of a directory that were read."""
        query = "SELECT name, cid, reason FROM files WHERE space = ? AND writer = ?"
        return {name: (cid, reason) for name, cid, reason in self._database.rows(query, self._id(namespace), writer)}

    def keep_files(self, namespace: str, writer: str, names: Iterable[str]) -> None:
        """Forget the files of a directory that are not there any more."""
        gone = [(self._id(namespace), writer, name) for name in self.files(namespace, writer).keys() - set(names)]
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM files WHERE space = ? AND writer = ? AND name = ?", gone)

    def writers(self, namespace: str) -> dict[str, tuple[int, str]]:
        """writer → (highest sequence seen, CID of its directory when it was last read completely)."""
        query = "SELECT writer, highest, cid FROM writers WHERE space = ?"
        return {writer: (highest, cid) for writer, highest, cid in self._database.rows(query, self._id(namespace))}

    def set_writer(self, namespace: str, writer: str, cid: str) -> None:
        """Note that everything in this state of the writer's directory has been read."""
        query = "INSERT INTO writers VALUES (?, ?, 0, ?) ON CONFLICT DO UPDATE SET cid = excluded.cid"
        self._database.rows(query, self._id(namespace), writer, cid)

    def root(self, namespace: str) -> str | None:
        """The CID of the namespace's directory when it was last read completely."""
        roots = self._database.rows("SELECT root FROM spaces WHERE space = ?", self._id(namespace))
        return roots[0][0] if roots else None

    def set_root(self, namespace: str, root: str | None) -> None:
        """Note that everything below this root has been read."""
        self._database.rows("INSERT OR REPLACE INTO spaces VALUES (?, ?)", self._id(namespace), root)

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        self._database.close()

    # -- the file -----------------------------------------------------------------------------------

    def _id(self, namespace: str) -> str:
        # The text of a namespace never stands in a segment.
        return self.credential.namespace_id(namespace)

    def _space(self, namespace: str) -> Space:
        return Space(self._id(namespace), namespace, self._id(EVERYWHERE))


def _veiled(namespace: str, kind: int, value: bytes, at: int) -> Mark:
    code = {TAG_MARK: value[:TAG_BYTES], KEY_MARK: value, FUNCTION_MARK: value}.get(kind)
    return Mark(namespace, _NAMES[kind], "" if code is None else veiled(code), at)
