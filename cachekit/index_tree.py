"""What of the tree in MFS was read already: files and why they were refused, writers, roots."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cachekit.files.sqlite import Database
from cachekit.index_rows import File, record_file


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
