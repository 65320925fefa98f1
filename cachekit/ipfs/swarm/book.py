"""What the team told this machine, for all of its processes: heads, members, who computes what, and who misbehaved."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cachekit.files.sqlite import Database
from cachekit.ipfs.swarm.claims import SCHEMA, ClaimTable
from cachekit.ipfs.swarm.heads import Head
from cachekit.model import NANOSECONDS

OFFLINE_SECONDS: Final = 60.0
"""Who has not been heard for so long is offline."""
_MOST_MEMBERS: Final = 4096
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS heads (space TEXT, writer TEXT, sequence INTEGER, root TEXT, size INTEGER, name TEXT,
    text BLOB, taken INTEGER, kept INTEGER, seen INTEGER, PRIMARY KEY (space, writer)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members (peer TEXT PRIMARY KEY, id TEXT, name TEXT, role TEXT, addresses TEXT, state TEXT,
    version TEXT, said INTEGER, seen INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS offences (who TEXT, reason TEXT, times INTEGER, last INTEGER,
    PRIMARY KEY (who, reason)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gone (space TEXT, key BLOB, until INTEGER, PRIMARY KEY (space, key)) WITHOUT ROWID;
"""
_HEAD: Final = "space, writer, sequence, root, size, name, text"
_NEWER: Final = """INSERT INTO heads VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, ?) ON CONFLICT (space, writer) DO UPDATE SET
    sequence = excluded.sequence, root = excluded.root, size = excluded.size, name = excluded.name,
    text = excluded.text, taken = 0, kept = 0, seen = excluded.seen WHERE excluded.sequence > heads.sequence"""


class Member(NamedTuple):
    """A daemon of the team as it introduced itself. `id` is its writer's, 32 hex characters; `seen` ns, by our clock.

    `state` stands for all the heads that it knows.
    """

    peer: str
    id: str
    name: str
    role: str
    addresses: tuple[str, ...]
    state: str
    version: str
    said: int
    seen: int

    @property
    def online(self) -> bool:
        """Whether it was heard lately."""
        return time.time_ns() - self.seen < OFFLINE_SECONDS * NANOSECONDS


class Offence(NamedTuple):
    """How often somebody (a writer's or a daemon's id) sent what was refused, and why; `last` in ns."""

    who: str
    reason: str
    times: int
    last: int


class Book:
    """The SQLite file at `path`, opened on first use. Everything may raise TierError."""

    def __init__(self, path: Path, report: Callable[[str], None] = lambda _reason: None) -> None:
        self._database = Database(path, _SCHEMA + SCHEMA, report)
        self.claims = ClaimTable(self._database)

    # -- heads --------------------------------------------------------------------------------------

    def add(self, head: Head) -> bool:
        """Keep a verified head, unless one of the writer is known that is as new; whether it was kept."""
        with self._database.transaction() as connection:
            return connection.execute(_NEWER, (*head, time.time_ns())).rowcount > 0

    def heads(self, space: str = "") -> list[Head]:
        """The newest head of each writer, of one namespace or of all."""
        where, values = ("WHERE space = ?", (space,)) if space else ("", ())
        query = f"SELECT {_HEAD} FROM heads {where} ORDER BY space, writer"  # noqa: S608 - constants
        return [Head._make(row) for row in self._database.rows(query, *values)]

    def lacking(self, what: str = "taken") -> list[Head]:
        """The heads whose segments are not all `taken` in yet, or whose tree the daemon does not keep (`kept`)."""
        assert what in ("taken", "kept")
        query = f"SELECT {_HEAD} FROM heads WHERE {what} = 0 ORDER BY seen"  # noqa: S608 - constants
        return [Head._make(row) for row in self._database.rows(query)]

    def done(self, head: Head, what: str = "taken") -> None:
        """Note that all below the head was `taken` in, or is `kept`."""
        assert what in ("taken", "kept")
        query = f"UPDATE heads SET {what} = 1 WHERE space = ? AND writer = ? AND sequence = ?"  # noqa: S608 - constants
        self._database.rows(query, head.space, head.writer, head.sequence)

    # -- members ------------------------------------------------------------------------------------

    def greet(self, member: Member) -> bool:
        """Keep what a member says of itself, unless something newer is known; whether it is one that was not known."""
        row = (*member[:4], json.dumps(member.addresses), *member[5:])
        with self._database.transaction() as connection:
            known = connection.execute("SELECT said FROM members WHERE peer = ?", (member.peer,)).fetchone()
            if known is not None and known[0] >= member.said:
                return False
            crowd = connection.execute("SELECT count(*) FROM members").fetchone()[0]
            if known is None and crowd >= _MOST_MEMBERS:
                connection.execute("DELETE FROM members WHERE peer = (SELECT peer FROM members ORDER BY seen LIMIT 1)")
            connection.execute("INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        return known is None

    def members(self) -> list[Member]:
        """All that were ever heard, the latest first."""
        rows = self._database.rows("SELECT * FROM members ORDER BY seen DESC")
        return [Member._make((*row[:4], tuple(json.loads(row[4])), *row[5:])) for row in rows]

    def accompanied(self) -> bool:
        """Whether any other member is online."""
        since = time.time_ns() - int(OFFLINE_SECONDS * NANOSECONDS)
        return bool(self._database.rows("SELECT 1 FROM members WHERE seen > ? LIMIT 1", since))

    # -- offences -----------------------------------------------------------------------------------

    def blame(self, who: str, reason: str) -> None:
        """Count what `who` sent and what was refused."""
        query = """INSERT INTO offences VALUES (?, ?, 1, ?)
            ON CONFLICT DO UPDATE SET times = times + 1, last = excluded.last"""
        self._database.rows(query, who, reason, time.time_ns())

    def offences(self) -> list[Offence]:
        """Everybody's, the latest first."""
        return [Offence(*row) for row in self._database.rows("SELECT * FROM offences ORDER BY last DESC")]

    # -- payloads that nobody has -------------------------------------------------------------------

    def missing(self, space: str, key: bytes, seconds: float) -> None:
        """Note that nobody had the payload of a key just now, and that it is not to be looked for again so soon."""
        until = time.time_ns() + int(seconds * NANOSECONDS)
        self._database.rows("INSERT OR REPLACE INTO gone VALUES (?, ?, ?)", space, key, until)

    def is_missing(self, space: str, key: bytes) -> bool:
        """Whether that was so lately."""
        query = "SELECT 1 FROM gone WHERE space = ? AND key = ? AND until > ?"
        return bool(self._database.rows(query, space, key, time.time_ns()))

    def tidy(self) -> None:
        """Drop what time has ended."""
        self._database.rows("DELETE FROM gone WHERE until <= ?", time.time_ns())
        self.claims.tidy()

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        self._database.close()


def state_of(heads: Sequence[Head], roster: int) -> str:
    """One word for what somebody knows: equal for those who know the same heads, and the roster of the same number."""
    known = sorted((head.space, head.writer, head.sequence) for head in heads)
    return hashlib.sha256(json.dumps([roster, known]).encode()).hexdigest()[:16]
