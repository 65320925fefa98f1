"""What is still to be sent to IPFS, kept so that a killed process loses none of it: whoever flushes next sends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from math import isfinite
from pathlib import Path
from typing import Final, Literal, NamedTuple

from cachekit.errors import UNREADABLE, TierFull
from cachekit.files.sqlite import Database, locked
from cachekit.ipfs.breaker import Deadline
from cachekit.model import Key, Mark, Record

MAX_PAYLOAD_BYTES: Final = 512 << 20
_BATCH_BYTES: Final = 32 << 20
_ANY: Final = (1 << 63) - 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS queue (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, namespace TEXT, key BLOB, text TEXT,
    payload BLOB, created INTEGER, expires INTEGER, grace REAL, seconds REAL, tags TEXT, pin INTEGER, encrypt INTEGER);
"""


class Item(NamedTuple):
    """One line of the queue, by its columns.

    kind `entry`: `key` is the digest, `text` the codec. A mark's kinds are model.Mark's, `text` is its value and
    `created` its instant. kind `unpin`: `key` is the HMAC in the index, `text` the CID.
    """

    id: int
    kind: Literal["entry", "unpin", "namespace", "tag", "key", "function"]
    namespace: str
    key: bytes = b""
    text: str = ""
    payload: bytes = b""
    created: int = 0
    expires: int = 0
    grace: float = 0.0
    seconds: float = 0.0
    tags: str = ""
    pin: int = 0
    encrypt: int = 1

    @property
    def tag_list(self) -> list[str]:
        """The tags as text."""
        tags: list[str] = json.loads(self.tags) if self.tags else []
        return tags

    @property
    def record(self) -> Record:
        """What is to be stored."""
        times = self.created, self.expires, self.grace, self.seconds
        return Record(self.text, self.payload, *times, tuple(self.tag_list), self.pin)

    def whole(self) -> bool:
        """Whether it is what `add` wrote: SQLite does not see a bit that changed in its file."""
        try:
            tags = self.tag_list
        except UNREADABLE:
            return False
        texts = isinstance(tags, list) and all(type(tag) is str for tag in tags)
        if not texts or tuple(map(type, self)) != _KINDS or not isfinite(self.seconds):
            return False
        # A codec goes along in ASCII; a mark's tag may be any text.
        return self.kind != "entry" or self.text.isascii()


_KINDS: Final = (int, str, str, bytes, str, bytes, int, int, float, float, str, int, int)
_COLUMNS: Final = ", ".join(Item._fields[1:])
_INSERT: Final = f"INSERT INTO queue ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
_SELECT: Final = f"SELECT id, {_COLUMNS} FROM queue WHERE id <= ? ORDER BY id LIMIT ?"  # noqa: S608 - constants


class Outbox:
    """The queue in the SQLite file at `path`, opened on first use. Everything may raise TierError.

    What was added survives the process from the moment `add` returned. `report` hears `corrupt_outbox` and `altered_item`.
    """

    def __init__(self, path: Path, report: Callable[[str], None] = lambda _reason: None) -> None:
        self._database = Database(path, _SCHEMA, report)
        self._report = report
        self._lock_path = path.with_suffix(".lock")

    def add(self, key: Key, record: Record, *, encrypt: bool = True) -> None:
        """Queue one record. TierFull above MAX_PAYLOAD_BYTES."""
        if len(record.payload) > MAX_PAYLOAD_BYTES:
            raise TierFull(f"{len(record.payload)} bytes are too many for one shared entry", reason="too_large")
        tags = json.dumps(record.tags) if record.tags else ""
        times = record.created, record.expires, record.grace, record.seconds
        where = key.namespace, key.digest, record.codec, record.payload
        self._insert(Item(0, "entry", *where, *times, tags, int(record.pin), int(encrypt)))

    def add_mark(self, mark: Mark) -> None:
        """Queue an invalidation for the other machines."""
        self._insert(Item(0, mark.kind, mark.namespace, text=mark.value, created=mark.at))

    def add_unpin(self, namespace: str, key: bytes, cid: str, at: int) -> None:
        """Queue the end of a pin's reference."""
        self._insert(Item(0, "unpin", namespace, key, cid, created=at))

    def drop_pin(self, key: Key) -> bool:
        """What waits for this key will not be pinned; whether anything would have been."""
        query = "UPDATE queue SET pin = 0 WHERE kind = 'entry' AND pin <> 0 AND namespace = ? AND key = ?"
        with self._database.use() as connection:
            return connection.execute(query, (key.namespace, key.digest)).rowcount > 0

    def last(self) -> int:
        """The number of the newest item; 0 where none waits."""
        return int(self._database.rows("SELECT coalesce(max(id), 0) FROM queue")[0][0])

    def batch(self, limit: int = 1024, *, last: int = _ANY) -> list[Item]:
        """The oldest items: at most `limit`, up to the number `last`, and about 32 MiB. What is altered is taken off."""
        items, altered, size = list[Item](), list[int](), 0
        with self._database.use() as connection:
            for item in map(Item._make, connection.execute(_SELECT, (last, limit))):
                if not item.whole():
                    altered.append(item.id)
                    continue
                items.append(item)
                size += len(item.payload)
                if size >= _BATCH_BYTES:
                    break
        if altered:
            self._report("altered_item")
            self.done(altered)
        return items if items or not altered else self.batch(limit, last=last)

    def done(self, ids: Sequence[int]) -> None:
        """Take items off."""
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM queue WHERE id = ?", [(number,) for number in ids])

    def pending(self) -> int:
        """How many items wait."""
        return int(self._database.rows("SELECT count(*) FROM queue")[0][0])

    def oldest(self) -> int:
        """When what waits longest was made (ns since the epoch); 0 where none waits."""
        return int(self._database.rows("SELECT coalesce(min(created), 0) FROM queue")[0][0])

    def exclusive(self, deadline: Deadline) -> AbstractContextManager[None]:
        """Be the only one, of all processes, who sends; TierUnavailable `locked` where it waited too long."""
        return locked(self._lock_path, deadline.at)

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        self._database.close()

    def _insert(self, item: Item) -> None:
        self._database.rows(_INSERT, *item[1:])
