"""Writes today's formats as JSON: `python -m stories.golden.write > tests/stories/golden/vN.json`, from `tests/`.

Run it for a new number only. Bytes stand there in base64; files of SQLite compressed before.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import tempfile
import zlib
from pathlib import Path

from cachekit.ipfs.content.cids import digest_of, raw_cid
from cachekit.ipfs.index import segments
from cachekit.ipfs.index.rows import SegmentFile
from cachekit.ipfs.index.segments import ENCRYPTED, PINNED, TAG_MARK, Line
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.outbox.queue import Outbox
from cachekit.ipfs.trust.credential import Credential, WriterKey, public_of
from cachekit.model import Key, Mark, Record
from cachekit.tiers import records
from cachekit.tiers.disk import DiskTier
from cachekit.tiers.ledger import Ledger

CREATED = 1_700_000_000_000_000_000
"""Nanoseconds: an instant that is past wherever this is read."""
TEAM = "team"
OWNER = Credential(b"s" * 32, public_of(b"o" * 32), b"o" * 32)
WRITER = WriterKey(b"w" * 32, public_of(b"w" * 32), OWNER.certify(public_of(b"w" * 32)), Path("writer.key"))
KEY = Key(TEAM, bytes(range(32)), "module.function")
MARK = Mark(TEAM, "tag", "gone", CREATED - 1)
RECORD = Record("json", b'{"answer":42}', CREATED, grace=60.0, seconds=1.5, tags=("eu", "nightly"), pin=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(written(Path(place)), indent=1))


def written(place: Path) -> dict[str, str]:
    """Name of a format → what it looks like."""
    payload = OWNER.seal(TEAM, bytes([len(RECORD.codec)]) + RECORD.codec.encode() + RECORD.payload)
    lines = lines_for(payload)
    segment = segments.encode(lines, credential=OWNER, namespace=TEAM, writer=WRITER, sequence=7)
    _index(place / "index.db", lines)
    _outbox(place / "outbox.db")
    _machine(place)
    plain = {"payload": payload, "segment": segment, "record": records.encode(KEY, RECORD)}
    files = {
        name: zlib.compress(_settled(place / name), 9) for name in ("index.db", "outbox.db", "cache.db", "ledger.db")
    }
    texts = {name: base64.b64encode(data).decode("ascii") for name, data in {**plain, **files}.items()}
    return {"credential": OWNER.to_text(), "reader": OWNER.reader().to_text(), **texts}


def lines_for(payload: bytes) -> list[Line]:
    """An entry whose payload this is, and a tag's mark."""
    tags = tuple(OWNER.tag_code(tag) for tag in RECORD.tags)
    entry = Line(
        OWNER.index_key(TEAM, KEY.digest), flags=ENCRYPTED | PINNED, digest=digest_of(raw_cid(payload)), size=len(payload),
        created=CREATED, grace=RECORD.grace, seconds=RECORD.seconds, tags=tags,
    )  # fmt: skip
    return [entry, Line(OWNER.tag_code("gone") + bytes(8), TAG_MARK, created=CREATED - 1)]


def _index(path: Path, lines: list[Line]) -> None:
    table = Table(path, OWNER)
    table.remember(TEAM)
    assert table.accept(TEAM, SegmentFile(WRITER.id, f"{7:016d}", "cid", 7, 2 * 114), lines) == 1
    table.close()


def _outbox(path: Path) -> None:
    outbox = Outbox(path)
    outbox.add(KEY, RECORD)
    outbox.add_mark(MARK)
    outbox.close()


def _machine(place: Path) -> None:
    disk, ledger = DiskTier(place, 1 << 20), Ledger(place)
    disk.put(KEY, RECORD)
    disk.close()
    ledger.open()
    ledger.mark([MARK])
    ledger.add_totals({KEY.function: {"calls": 3.0, "hits.disk": 2.0}})
    ledger.close()


def _settled(path: Path) -> bytes:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    return path.read_bytes()


if __name__ == "__main__":
    main()
