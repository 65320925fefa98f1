"""The local table and its merging, without a daemon. The tree in MFS is tested with a real Kubo in test_ipfs_tier."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cachekit.errors import TierError
from cachekit.ipfs.index.index import Index
from cachekit.ipfs.index.rows import SegmentFile
from cachekit.ipfs.index.segments import PINNED, UNPIN_MARK, Line
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.trust.credential import Credential
from cachekit.model import EVERYWHERE, SKEW, Mark
from cachekit.tiers.ledger import veiled

ONE = Credential.create()
DIGEST = bytes(32)
NOW = time.time_ns()


class StandIn:
    """A scripted stand-in for MFS, for what a real daemon cannot be made to do; paths to bytes."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.delay = 0.0

    def stat(self, path: str, *, timeout: float) -> str | None:
        del timeout
        return str(hash(tuple(sorted(self.files.items())))) if any(p.startswith(path) for p in self.files) else None

    def list(self, path: str, *, timeout: float) -> list[tuple[str, str, int]] | None:
        del timeout
        found = dict[str, tuple[str, str, int]]()
        for name, data in self.files.items():
            if name.startswith(path + "/"):
                rest = name.removeprefix(path + "/").split("/")
                whole = (rest[0], f"file-{hash(data)}", len(data))
                found[rest[0]] = whole if len(rest) == 1 else (rest[0], f"dir-{self.stat(path, timeout=1)}", 0)
        return list(found.values()) or None

    def read(self, path: str, *, limit: int, timeout: float) -> bytes | None:
        del limit, timeout
        time.sleep(self.delay)
        return self.files.get(path)

    def write(self, path: str, data: bytes, *, timeout: float) -> None:
        del timeout
        self.files[path] = data

    def remove(self, path: str, *, timeout: float) -> None:
        del timeout
        self.files = {name: data for name, data in self.files.items() if not name.startswith(path)}


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def table(tmp_path: Path, reports: list[str]) -> Iterator[Table]:
    made = Table(tmp_path / "index.db", ONE, reports.append)
    yield made
    made.close()


def _entry(digest: bytes = DIGEST, created: int = NOW, **fields: object) -> Line:
    return Line(ONE.index_key("team", digest), created=created)._replace(**fields)  # type: ignore[arg-type]


def _accept(table: Table, *entries: Line, writer: str = "w", sequence: int = 1) -> int:
    return table.accept("team", SegmentFile(writer, f"{sequence:016d}", f"cid{sequence}", sequence, 1), entries)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_newest_wins_in_any_order(table: Table, order: tuple[int, int]) -> None:
    """Equal instants are decided by the writer's name, so that all machines agree."""
    old, new = _entry(created=NOW - 5, size=1), _entry(size=2)
    for number in order:
        _accept(table, (old, new)[number], sequence=number + 1)
    found = table.find("team", DIGEST)
    assert found == new
    for writer in ("z", "a")[:: 1 if order[0] else -1]:
        _accept(table, new._replace(size=len(writer) + ord(writer)), writer=writer)
    again = table.find("team", DIGEST)
    assert again is not None
    assert again.size == 1 + ord("z")


def test_another_namespace_or_secret_finds_nothing(table: Table, tmp_path: Path) -> None:
    """In the same file."""
    _accept(table, _entry())
    assert table.find("other", DIGEST) is None
    assert Table(tmp_path / "index.db", Credential.create()).find("team", DIGEST) is None


@pytest.mark.parametrize("kind", ["namespace", "tag", "key"])
@pytest.mark.parametrize("mark_first", [True, False])
def test_a_mark_ends_what_is_not_newer(table: Table, kind: str, mark_first: bool) -> None:
    """Before or after the entry became known; and what was created a moment later lives."""
    value = {"namespace": "", "tag": "a", "key": DIGEST.hex()}[kind]
    mark = Mark("team", kind, value, NOW)  # type: ignore[arg-type]
    tags = (ONE.tag_code("b"), ONE.tag_code("a"))
    if mark_first:
        table.mark(mark)
    _accept(table, _entry(tags=tags))
    if not mark_first:
        assert table.mark(mark) == 1
    assert table.find("team", DIGEST) is None
    assert table.covers("team", _entry(tags=tags))
    later = _entry(created=NOW + 1, tags=tags)
    _accept(table, later, sequence=2)
    assert table.find("team", DIGEST) == later
    assert not table.covers("team", later)


@pytest.mark.parametrize("mark_first", [True, False])
def test_a_tag_is_ended_in_all_namespaces_at_once(table: Table, mark_first: bool) -> None:
    """One mark for everywhere covers the tag wherever it is, and no other tag."""
    mark, other = Mark(EVERYWHERE, "tag", "a", NOW), bytes([7]) * 32
    if mark_first:
        table.mark(mark)
    _accept(table, _entry(tags=(ONE.tag_code("a"),)), _entry(other, tags=(ONE.tag_code("b"),)))
    if not mark_first:
        assert table.mark(mark) == 1
    assert table.find("team", DIGEST) is None
    assert table.find("team", other) is not None
    assert table.covers("team", _entry(tags=(ONE.tag_code("a"),)))
    assert not table.covers("team", _entry(created=NOW + 1, tags=(ONE.tag_code("a"),)))


def test_marks_are_handed_on_until_somebody_took_them(tmp_path: Path) -> None:
    """A failure leaves them to the next time, also of another process; then they are not handed on again."""
    heard: list[list[int]] = []

    def heed(marks: Sequence[Mark]) -> None:
        heard.append([mark.at for mark in marks])
        if len(heard) == 1:
            raise TierError("no room")

    for number in range(2):
        one = Table(tmp_path / "index.db", ONE, heed=heed)
        if number == 0:
            one.mark(Mark("team", "tag", "a", 10))
            with pytest.raises(TierError):
                one.heed("team")
        one.mark(Mark("team", "key", DIGEST.hex(), 20 + number))
        one.heed("team")
        one.heed("team")
        assert one.namespaces() == ["team"]
        one.close()
    assert heard == [[10], [10, 20], [21]]


def test_only_what_is_new_is_handed_on(tmp_path: Path) -> None:
    """An older mark of the same thing is no change, a newer one is; and no namespace hears of another's."""
    heard: list[Mark] = []
    table = Table(tmp_path / "index.db", ONE, heed=heard.extend)
    for at, expected in ((10, [10]), (5, [10]), (20, [10, 20])):
        table.mark(Mark("team", "tag", "a", at))
        table.heed("team")
        table.heed("other")
        assert [mark.at for mark in heard] == expected
    assert {(mark.namespace, mark.kind, mark.value) for mark in heard} == {("team", "tag", veiled(ONE.tag_code("a")))}
    table.close()


def test_marks_of_an_unknown_kind_are_not_handed_on(tmp_path: Path) -> None:
    """A later version may invent some; what is known goes on."""
    heard: list[Mark] = []
    table = Table(tmp_path / "index.db", ONE, heed=heard.extend)
    _accept(table, Line(bytes(16), 77, created=NOW), table.mark_line(Mark("team", "namespace", "", NOW)))
    table.heed("team")
    assert heard == [Mark("team", "namespace", "", NOW)]
    table.close()


def test_the_future_is_not_believed(table: Table, reports: list[str]) -> None:
    """A clock far ahead can neither outlive every mark nor end everybody's entries."""
    ahead = time.time_ns() + 2 * SKEW
    mark = table.mark_line(Mark("team", "namespace", "", ahead))
    _accept(table, _entry(), _entry(os.urandom(32), created=ahead), mark)
    assert reports == ["future"]
    assert table.find("team", DIGEST) is not None
    assert not table.covers("team", _entry())


def test_pins_follow_entries_and_unpins_in_any_order(table: Table) -> None:
    """A reference per key; what was unpinned does not come back with an old segment."""
    pinned = _entry(flags=PINNED, digest=os.urandom(32))
    _accept(table, pinned)
    assert [pin.key for pin in table.pins()] == [pinned.key]
    unpin = Line(pinned.key, UNPIN_MARK, created=NOW + 1)
    _accept(table, unpin, sequence=2)
    assert table.pins() == []
    _accept(table, pinned, sequence=3)
    assert table.pins() == []
    _accept(table, pinned._replace(created=NOW + 2), sequence=4)
    assert len(table.pins()) == 1


def test_a_corrupt_file_is_set_aside(tmp_path: Path, reports: list[str]) -> None:
    """It is reported, and the index begins anew."""
    path = tmp_path / "index.db"
    path.write_bytes(os.urandom(8192))
    table = Table(path, ONE, reports.append)
    _accept(table, _entry())
    assert table.find("team", DIGEST) is not None
    assert reports == ["corrupt_index"]


def test_a_slow_index_is_taken_in_step_by_step(tmp_path: Path, table: Table, reports: list[str]) -> None:
    """A deadline ends the reading without an error, and the next call goes on where it stopped."""
    from cachekit.ipfs.trust.credential import WriterKey

    tree, writer = StandIn(), WriterKey.load(tmp_path, ONE)
    index, other = Index(tree, table), Index(tree, Table(tmp_path / "other.db", ONE))  # type: ignore[arg-type]
    for number in range(10):
        other.publish("team", [_entry(bytes([number]) * 32)], writer, 10.0)
    tree.delay = 0.02
    first = index.refresh("team", 0.1)
    assert 0 < first < 10
    total = first
    for _ in range(20):
        total += index.refresh("team", 0.1)
    assert total == 10
    assert reports == []


def test_threads_refreshing_at_once_agree(tmp_path: Path, table: Table, reports: list[str]) -> None:
    """While a writer publishes: nothing is missed and nothing looks like a rollback."""
    from cachekit.ipfs.trust.credential import WriterKey

    tree, writer = StandIn(), WriterKey.load(tmp_path, ONE)
    index, other = Index(tree, table), Index(tree, Table(tmp_path / "other.db", ONE))  # type: ignore[arg-type]
    keys = [os.urandom(32) for _ in range(60)]
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            index.refresh("team", 5.0)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for key in keys:
        other.publish("team", [_entry(key)], writer, 10.0)
    ended.set()
    for reader in readers:
        reader.join()
    index.refresh("team", 5.0)
    assert all(table.find("team", key) for key in keys)
    assert reports == []


def test_damage_while_open_fails_one_call(tmp_path: Path, reports: list[str]) -> None:
    """The call that meets it raises; the next one has a new file."""
    path = tmp_path / "index.db"
    table = Table(path, ONE, reports.append)
    _accept(table, *[_entry(os.urandom(32)) for _ in range(500)])
    table.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    with pytest.raises(TierError):
        for number in range(500):
            _accept(table, _entry(bytes([number % 256]) * 32), sequence=number + 2)
    assert reports == ["corrupt_index"]
    _accept(table, _entry())
    assert table.find("team", DIGEST) is not None
