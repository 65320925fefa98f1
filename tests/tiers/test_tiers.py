"""One conformance suite for all tiers, the IPFS one against the real daemon; then what is each tier's own."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import diskcache
import pytest

from cachekit.artifacts.store import ArtifactStore
from cachekit.config.resolve import resolve
from cachekit.errors import IntegrityError, TierError, UsageError
from cachekit.files.places import prepare
from cachekit.ipfs.sharing import Shared
from cachekit.model import NANOSECONDS, Key, Record
from cachekit.tiers.disk import BytesDisk, DiskTier
from cachekit.tiers.ledger import Ledger
from cachekit.tiers.memory import OVERHEAD, MemoryTier


def key(number: int, namespace: str = "n") -> Key:
    return Key(namespace, number.to_bytes(32, "big"), "tests.f")


def record(payload: bytes = b"[1]", **changes: Any) -> Record:
    now = time.time_ns()
    return replace(Record("json", payload, now, now + 3600 * NANOSECONDS, seconds=1.5), **changes)


@pytest.fixture(params=["memory", "disk", "ipfs"])
def tier(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, Callable[[], None]]]:
    """A tier, and what makes its writes visible."""
    if request.param == "memory":
        yield MemoryTier(1 << 24), lambda: None
        return
    prepare(tmp_path / "tier")
    if request.param == "disk":
        disk = DiskTier(tmp_path / "tier", 1 << 24)
        yield disk, lambda: None
        disk.close()
        return
    api = request.getfixturevalue("kubo_api")
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    overrides = {"dir": tmp_path / "tier", "ipfs": "rw", "ipfs_api": api, "ipfs_timeout": 5}
    ledger = Ledger(tmp_path / "tier")
    ledger.open()
    resolved = resolve(environ, overrides=overrides, toml=None)
    shared = Shared(resolved, environ, lambda _: None, ledger, ArtifactStore(tmp_path / "artifacts"))
    yield shared.tier, lambda: shared.tier.flush(30) and None
    shared.close(5)


def test_what_is_put_is_got(tier: Any) -> None:
    """Codec, payload and times come back."""
    subject, settle = tier
    given = record(b'{"a":1}')
    subject.put(key(1), given)
    settle()
    found = subject.get(key(1))
    assert (found.codec, found.payload, found.created, found.expires, round(found.seconds, 3)) == (
        given.codec,
        given.payload,
        given.created,
        given.expires,
        given.seconds,
    )


def test_what_was_not_put_is_a_miss(tier: Any) -> None:
    """None, for another digest and for another namespace's."""
    subject, settle = tier
    subject.put(key(1), record())
    settle()
    assert subject.get(key(2)) is None


def test_the_newer_record_wins(tier: Any) -> None:
    """A second put replaces the first."""
    subject, settle = tier
    subject.put(key(1), record(b"[1]"))
    settle()
    subject.put(key(1), record(b"[2]"))
    settle()
    assert subject.get(key(1)).payload == b"[2]"


def test_what_is_dropped_is_gone(tier: Any) -> None:
    """drop says whether something was there."""
    subject, settle = tier
    subject.put(key(1), record())
    settle()
    assert subject.drop(key(1)) is True
    assert subject.get(key(1)) is None
    assert subject.drop(key(3)) is False


@pytest.mark.parametrize("size", [0, 1, 2_000, 200_000, (1 << 20) + 1])
def test_any_size(tier: Any, size: int) -> None:
    """From nothing to more than one block."""
    subject, settle = tier
    payload = os.urandom(size)
    subject.put(key(size), record(payload, codec="bytes"))
    settle()
    assert subject.get(key(size)).payload == payload


def test_memory_is_bounded_by_bytes() -> None:
    """The limit holds, and what was used is spared."""
    memory = MemoryTier(10 * (OVERHEAD + 1000))
    for number in range(100):
        memory.put(key(number), record(b"x" * 1000))
        memory.get(key(0))
    assert memory.used <= memory.limit
    assert memory.get(key(0)) is not None
    assert memory.get(key(50)) is None


def test_memory_ends_with_the_generation() -> None:
    """Whatever was stored before the counter moved is read from a slower tier."""
    generation = [0]
    memory = MemoryTier(1 << 20, generation)
    memory.put(key(1), record())
    generation[0] = 1
    assert memory.get(key(1)) is None


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DiskTier]:
    prepare(tmp_path / "disk")
    tier = DiskTier(tmp_path / "disk", 1 << 20)
    yield tier
    tier.close()


def test_the_directory_is_ours_alone(tmp_path: Path) -> None:
    """0700, with CACHEDIR.TAG and .gitignore."""
    prepare(tmp_path / "made")
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    assert {"CACHEDIR.TAG", ".gitignore"} <= {p.name for p in (tmp_path / "made").iterdir()}
    prepare(tmp_path / "made")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A directory of a later cachekit is left alone, with a sentence."""
    prepare(tmp_path / "made")
    (tmp_path / "made" / "cachekit-format").write_text("99\n")
    with pytest.raises(UsageError, match="99"):
        prepare(tmp_path / "made")


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
    if when == "before":
        tier.close()
    for suffix in ("-wal", "-shm"):
        (tmp_path / "disk" / f"cache.db{suffix}").unlink(missing_ok=True)
    (tmp_path / "disk" / "cache.db").write_bytes(b"not a database, " * 1000)
    if when == "while":
        tier.close()
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
