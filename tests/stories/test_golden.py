"""Mixed versions: what an earlier version wrote is read, and goes on being written to, by this one."""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from stories.golden.write import CREATED, KEY, OWNER, RECORD, TEAM, WRITER, lines_for

from cachekit.ipfs.index import segments
from cachekit.ipfs.index.reading import record_of
from cachekit.ipfs.index.rows import SegmentFile
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.outbox.queue import Outbox
from cachekit.ipfs.trust.credential import Credential
from cachekit.model import Key, Record
from cachekit.tiers import records
from cachekit.tiers.disk import DiskTier
from cachekit.tiers.ledger import Ledger

GOLDEN = sorted((Path(__file__).parent / "golden").glob("v*.json"))
BEFORE = Record(RECORD.codec, RECORD.payload, CREATED - 2, tags=("gone",))
"""What the mark of `gone` covers."""


class Kept:
    """One version's formats, by name."""

    def __init__(self, path: Path) -> None:
        self.texts: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))

    def bytes(self, name: str) -> bytes:
        return base64.b64decode(self.texts[name])

    def unpacked(self, name: str, place: Path) -> Path:
        """A file of SQLite, in `place`."""
        path = place / name
        path.write_bytes(zlib.decompress(self.bytes(name)))
        return path


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def kept(request: pytest.FixtureRequest) -> Kept:
    return Kept(request.param)


@pytest.fixture
def entry(kept: Kept) -> segments.Line:
    """What the segment says of the key."""
    return segments.decode(kept.bytes("segment"), OWNER, TEAM).lines[0]


def test_something_is_kept() -> None:
    """The formats of version 1 are among what is read."""
    assert GOLDEN[0].name == "v1.json"


def test_credentials_are_read(kept: Kept) -> None:
    """A team's credential, and one that only reads, mean what they meant."""
    assert Credential.parse(kept.texts["credential"]) == OWNER
    assert Credential.parse(kept.texts["reader"]) == OWNER.reader()


def test_a_segment_is_read(kept: Kept) -> None:
    """A segment that a machine with an earlier version published verifies and has its lines."""
    segment = segments.decode(kept.bytes("segment"), OWNER.reader(), TEAM)
    assert (segment.writer, segment.sequence) == (WRITER.public, 7)
    assert segment.lines == lines_for(kept.bytes("payload"))


def test_a_payload_is_read(kept: Kept, entry: segments.Line, tmp_path: Path) -> None:
    """The payload that such a segment names is unsealed to the record's bytes."""
    table = Table(tmp_path / "index.db", OWNER)
    record = record_of(table, TEAM, entry, kept.bytes("payload"))
    table.close()
    assert (record.codec, record.payload, record.created) == (RECORD.codec, RECORD.payload, CREATED)


def test_an_index_is_read_and_goes_on(kept: Kept, tmp_path: Path) -> None:
    """A local table finds what it had, heeds its marks, and takes in the next segment."""
    reports: list[str] = []
    table = Table(kept.unpacked("index.db", tmp_path), OWNER, reports.append)
    found = table.find(TEAM, KEY.digest)
    assert found is not None and found.created == CREATED and table.namespaces() == [TEAM]
    assert [pin.key for pin in table.pins()] == [found.key]
    fresh = found._replace(created=time.time_ns(), flags=0)
    ended = found._replace(key=b"k" * 16, flags=0, created=CREATED - 2, tags=(OWNER.tag_code("gone"),))
    assert table.accept(TEAM, SegmentFile(WRITER.id, f"{8:016d}", "next", 8, 2 * 114), [fresh, ended]) == 1
    assert table.find(TEAM, KEY.digest) == fresh
    table.close()
    assert reports == []


def test_an_outbox_is_sent(kept: Kept, tmp_path: Path) -> None:
    """What an earlier version queued waits whole, and new items are queued behind it."""
    reports: list[str] = []
    outbox = Outbox(kept.unpacked("outbox.db", tmp_path), reports.append)
    outbox.add(KEY, RECORD)
    first, mark, last = outbox.batch()
    assert (first.key, first.payload, first.tag_list, first.pin) == (KEY.digest, RECORD.payload, list(RECORD.tags), 1)
    assert (mark.kind, mark.text, last.payload) == ("tag", "gone", RECORD.payload)
    outbox.done([first.id, mark.id, last.id])
    assert outbox.pending() == 0 and reports == []
    outbox.close()


@pytest.mark.parametrize(
    "read",
    [
        lambda kept, _place: records.decode(KEY, kept.bytes("record")),
        lambda kept, place: DiskTier(kept.unpacked("cache.db", place).parent, 1 << 20).get(KEY),
    ],
    ids=["record", "cache.db"],
)
def test_an_entry_on_disk_is_read(kept: Kept, tmp_path: Path, read: Callable[[Kept, Path], Record | None]) -> None:
    """A record, by itself and out of a cache file, is what was stored."""
    assert read(kept, tmp_path) == RECORD


def test_a_ledger_is_read(kept: Kept, tmp_path: Path) -> None:
    """Invalidations hold on, and the machine's totals go on being added to."""
    ledger = Ledger(kept.unpacked("ledger.db", tmp_path).parent)
    ledger.open()
    assert ledger.covers(KEY, BEFORE) and not ledger.covers(Key(TEAM, bytes(32)), RECORD)
    ledger.add_totals({KEY.function: {"calls": 1.0}})
    assert ledger.totals() == {KEY.function: {"calls": 4.0, "hits.disk": 2.0}}
    ledger.close()
