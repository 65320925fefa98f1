"""The disk tier: the suite of all tiers, then what is its own."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import diskcache
import pytest
from tiers.conformance import Place, TierConformance, key, record

from cachekit.errors import IntegrityError, TierError
from cachekit.files.places import prepare
from cachekit.model import NANOSECONDS
from cachekit.tiers.disk import DiskTier
from cachekit.tiers.disk_writer import BytesDisk


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    prepare(tmp_path / "tier")
    tier = DiskTier(tmp_path / "tier", 1 << 24)
    yield Place(tier)
    tier.close()


class TestDisk(TierConformance):
    """Disk, as every tier."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DiskTier]:
    prepare(tmp_path / "disk")
    tier = DiskTier(tmp_path / "disk", 1 << 20)
    yield tier
    tier.close()


def test_a_torn_record_is_a_miss_and_dropped(disk: DiskTier, tmp_path: Path) -> None:
    """An altered byte raises IntegrityError once, and the row is gone."""
    disk.put(key(1), record())
    with sqlite3.connect(tmp_path / "disk" / "cache.db") as connection:
        (value,) = connection.execute("SELECT value FROM Cache").fetchone()
        connection.execute("UPDATE Cache SET value = ?", (value[:-1] + bytes([value[-1] ^ 1]),))
    with pytest.raises(IntegrityError):
        disk.get(key(1))
    assert disk.get(key(1)) is None


def test_a_row_under_another_key_is_refused(disk: DiskTier, tmp_path: Path) -> None:
    """A record answers its own key only."""
    disk.put(key(1), record())
    with sqlite3.connect(tmp_path / "disk" / "cache.db") as connection:
        connection.execute("UPDATE Cache SET key = ?", (key(2).digest,))
    with pytest.raises(IntegrityError):
        disk.get(key(2))


def test_a_pickle_is_refused_both_ways(disk: DiskTier, tmp_path: Path) -> None:
    """A row marked as a pickle is never loaded, and a value that needs one is never stored."""
    disk.put(key(1), record())
    with sqlite3.connect(tmp_path / "disk" / "cache.db") as connection:
        connection.execute("UPDATE Cache SET mode = 4")
    with pytest.raises(IntegrityError, match="pickle"):
        disk.get(key(1))
    with diskcache.Cache(str(tmp_path / "disk"), disk=BytesDisk) as cache:
        with pytest.raises(IntegrityError, match="pickle"):
            cache.set(b"k", object())
        with pytest.raises(IntegrityError, match="pickle"):
            cache.set("text", b"v")
        with pytest.raises(IntegrityError, match="pickle"):
            cache.get(key(1).digest)


def test_culling_spares_what_is_pinned(disk: DiskTier) -> None:
    """The oldest unpinned entries go until the limit holds."""
    for number in range(40):
        disk.put(key(number), record(os.urandom(60_000), codec="bytes", pin=number < 3))
    assert disk.wants_culling()
    assert disk.cull() > 0
    assert disk.volume() <= 1 << 20
    assert [disk.get(key(n)) is not None for n in (0, 1, 2, 3, 39)] == [True, True, True, False, True]


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_corrupt_file_is_set_aside(tmp_path: Path, when: str) -> None:
    """Named, kept beside, and the cache starts empty."""
    said: list[str] = []
    prepare(tmp_path / "disk")
    tier = DiskTier(tmp_path / "disk", 1 << 20, report=said.append)
    tier.put(key(1), record())
    tier.cull()  # nothing is left in the log, from which SQLite would repair the file
    if when == "before":
        tier.close()
    (tmp_path / "disk" / "cache.db").write_bytes(b"not a database, " * 10_000)
    try:
        assert tier.get(key(1)) is None
    except TierError:
        assert tier.get(key(1)) is None
    tier.put(key(1), record(b"[2]"))
    assert tier.get(key(1)).payload == b"[2]"  # type: ignore[union-attr]
    assert "corrupt" in said[0]
    assert list((tmp_path / "disk").glob("cache.db.corrupt-*"))
    tier.close()


def test_entries_are_listed(disk: DiskTier) -> None:
    """Headers without payloads, for `cachekit ls`."""
    disk.put(key(1), record(tags=("a",)))
    ((digest, header),) = list(disk.entries())
    assert (digest, header.namespace, header.function) == (key(1).digest, "n", "tests.f")


def test_a_record_of_a_clock_far_ahead_is_a_miss(disk: DiskTier) -> None:
    """It would outlive its TTL by as much as the clock was ahead; a few minutes are believed."""
    now = time.time_ns()
    disk.put(key(1), record(created=now + 20 * 3600 * NANOSECONDS))
    disk.put(key(2), record(created=now + 60 * NANOSECONDS))
    assert [disk.get(key(number)) is not None for number in (1, 2)] == [False, True]


def test_value_files_without_a_row_are_collected(disk: DiskTier, tmp_path: Path) -> None:
    """What a killed store left goes after an hour; what a row names stays, and so does what is just being written."""
    disk.put(key(1), record(b"x" * 300_000, codec="bytes"))
    for number, hours in enumerate((2, 0)):
        left = tmp_path / "disk" / "ab" / "cd" / f"{number}.val"
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_bytes(b"left")
        os.utime(left, (time.time() - hours * 3600,) * 2)
    for path in (tmp_path / "disk").glob("??/??/*.val"):
        if path.parent.name != "cd":
            os.utime(path, (time.time() - 7200,) * 2)
    assert disk.collect(time.time_ns()) == 1
    assert disk.get(key(1)) is not None
    assert [path.name for path in (tmp_path / "disk" / "ab" / "cd").iterdir()] == ["1.val"]


def test_what_is_stored_again_is_the_newest(disk: DiskTier) -> None:
    """Entries are listed, and culled, in the order of their storing, without an index that every store would keep up."""
    for number in (1, 2, 3, 1):
        disk.put(key(number), record())
    assert [digest for digest, _ in disk.entries()] == [key(number).digest for number in (1, 3, 2)]


@pytest.mark.parametrize("size", [300_000, 10])
def test_a_replaced_value_file_is_gone(disk: DiskTier, tmp_path: Path, size: int) -> None:
    """It counts no more in the volume either, whether a file takes its place or a row."""
    disk.put(key(2), record(b"x" * size, codec="bytes"))
    alone = disk.volume()
    disk.drop(key(2))
    disk.put(key(1), record(b"x" * 900_000, codec="bytes"))
    disk.put(key(1), record(b"x" * size, codec="bytes"))
    assert len(list((tmp_path / "disk").glob("??/??/*.val"))) == (size > 1000)
    assert disk.volume() < alone + 100_000


def test_a_store_of_a_new_key_is_one_statement(disk: DiskTier, tmp_path: Path) -> None:
    """Each costs microseconds, and a miss waits for it."""
    disk.put(key(1), record())
    said: list[str] = []
    connection = disk._file.connections.mine.connection
    assert connection is not None
    connection.set_trace_callback(said.append)
    disk.put(key(2), record())
    # SQLite tells a statement again for each trigger.
    assert list(dict.fromkeys(statement.split()[0] for statement in said)) == ["BEGIN", "INSERT", "COMMIT"]
