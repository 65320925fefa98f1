"""What the local index knows of those who write it: under which invitation, who is revoked, and whom to distrust."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from cachekit.errors import IntegrityError
from cachekit.files.sqlite import Database
from cachekit.ipfs.index.rows import WRITTEN
from cachekit.ipfs.index.segments import Line
from cachekit.ipfs.trust.certificates import OWNER, Issued
from cachekit.ipfs.trust.credential import Credential
from cachekit.ipfs.trust.roster import Distrust, Roster
from cachekit.model import EVERYWHERE, NANOSECONDS, Mark

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS rosters (owner TEXT PRIMARY KEY, number INTEGER, text BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS issued (writer TEXT PRIMARY KEY, id TEXT, name TEXT) WITHOUT ROWID;
"""
DAY: Final = 86_400 * NANOSECONDS
_MOST_DAYS: Final = 400


class Writer(NamedTuple):
    """Who wrote an entry: its id, and the name of the invitation that it writes under, '' for the owner's machines."""

    id: str
    invitation: str
    name: str


class Members:
    """In the index's file. Everything may raise TierError."""

    def __init__(self, database: Database, credential: Credential, heed: Callable[[Sequence[Mark]], None]) -> None:
        self._database = database
        self._credential = credential
        self._heed = heed
        self._roster = Roster()
        self._read = -1

    def roster(self) -> Roster:
        """The newest that was taken in, by whatever process; an empty one where there is none."""
        query = "SELECT number, text FROM rosters WHERE owner = ? AND number > ?"
        for number, text in self._database.rows(query, self._credential.owner_id, self._read):
            try:
                self._roster = Roster.read(text, self._credential.owner)
            except IntegrityError:  # the row is altered: the next one that comes is kept in its place
                continue
            self._credential.later[:] = self._roster.secrets(self._credential)
            # Last: another thread that finds nothing newer takes what stands here by then.
            self._read = number
        return self._roster

    def take(self, text: bytes) -> bool:
        """Keep a roster, unless one as new is known, and end what it distrusts; whether it was kept.

        Raises IntegrityError `bad_roster` for what the owner did not sign.
        """
        new, known = Roster.read(text, self._credential.owner), self.roster()
        if new.number <= known.number:
            return False
        # First: should it fail, the roster comes again.
        for one in new.distrusted:
            if one not in known.distrusted:
                self._end(one)
        query = "INSERT OR REPLACE INTO rosters (owner, number, text) VALUES (?, ?, ?)"
        self._database.rows(query, self._credential.owner_id, new.number, text)
        self.roster()
        return True

    def note(self, writer: str, issuer: Issued) -> None:
        """Note under which invitation a writer writes."""
        if issuer != OWNER:
            self._database.rows("INSERT OR REPLACE INTO issued VALUES (?, ?, ?)", writer, issuer.id, issuer.name)

    def writer(self, writer: str) -> Writer:
        """What is known of a writer."""
        found = self._database.rows("SELECT id, name FROM issued WHERE writer = ?", writer)
        return Writer(writer, *(found[0] if found else OWNER))

    def named(self, name: str) -> list[str]:
        """The ids, of invitations or writers, that a name or an id stands for."""
        ids = {
            *self.roster().named(name),
            *(w for (w,) in self._database.rows("SELECT writer FROM issued WHERE name = ?", name)),
        }
        known = self._database.rows("SELECT DISTINCT writer FROM entries WHERE writer = ?", name)
        return sorted({*ids, *(writer for (writer,) in known)})

    def seen(self, who: str) -> dict[str, int]:
        """ "namespace id/writer" → the highest sequence seen, for a writer or all of an invitation."""
        query = """SELECT space, writer, highest FROM writers
            WHERE writer = ? OR writer IN (SELECT writer FROM issued WHERE id = ?)"""
        return {f"{space}/{writer}": highest for space, writer, highest in self._database.rows(query, who, who)}

    def trusted(self, writer: str, lines: Sequence[Line]) -> list[Line]:
        """Those of a writer's lines that nobody distrusts."""
        who = (writer, self.writer(writer).invitation)
        spans = [one for one in self.roster().distrusted if one.who in who]
        return [line for line in lines if not any(one.since <= line.created <= one.until for one in spans)]

    def wrote(self, space: str, key: bytes) -> str:
        """The id of who wrote the entry of a key, '' where it is not known."""
        found = self._database.rows("SELECT writer FROM entries WHERE space = ? AND key = ?", space, key)
        return str(found[0][0]) if found else ""

    def counts(self) -> dict[str, int]:
        """writer → how many entries of all namespaces are known that it wrote last."""
        return dict(self._database.rows("SELECT writer, count(*) FROM entries GROUP BY writer"))

    def tags(self, writer: str, created: int) -> tuple[str, ...]:
        """Under which names an entry of a writer can be ended on machines that hold a copy."""
        return self._code(_word(writer)), self._code(_word(writer, created // DAY))

    def _code(self, word: str) -> str:
        return WRITTEN + self._credential.tag_code(word).hex()

    def _end(self, one: Distrust) -> None:
        writers = [one.who, *(w for (w,) in self._database.rows("SELECT writer FROM issued WHERE id = ?", one.who))]
        first, last = one.since // DAY, one.until // DAY
        days = range(first, last + 1) if one.since and last - first < _MOST_DAYS else (None,)
        words = [_word(writer, day) for writer in writers for day in days]
        codes = [self._code(word) for word in words]
        self._heed([Mark(EVERYWHERE, "tag", code, one.until) for code in codes])
        query = "DELETE FROM entries WHERE writer = ? AND created BETWEEN ? AND ?"
        with self._database.transaction() as connection:
            connection.executemany(query, [(writer, one.since, one.until) for writer in writers])


def _word(writer: str, day: int | None = None) -> str:
    return f"\0writer {writer}" if day is None else f"\0writer {writer} {day}"
