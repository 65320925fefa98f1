"""The local table and its merging, without a daemon. The tree in MFS is tested with a real Kubo in test_ipfs_tier."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cachekit.errors import TierError
from cachekit.ipfs.credential import Credential
from cachekit.ipfs.index.index import Index, IndexMark, tag_of
from cachekit.ipfs.index.rows import SKEW, File
from cachekit.ipfs.index.segments import PINNED, UNPIN_MARK, Line
from cachekit.model import EVERYWHERE, Mark

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
def index(tmp_path: Path, reports: list[str]) -> Iterator[Index]:
    made = Index(tmp_path / "index.db", ONE, reports.append)
    yield made
    made.close()


def _entry(digest: bytes = DIGEST, created: int = NOW, **fields: object) -> Line:
    return Line(ONE.index_key("team", digest), created=created)._replace(**fields)  # type: ignore[arg-type]


def _accept(index: Index, *entries: Line, writer: str = "w", sequence: int = 1) -> int:
    return index.accept("team", File(writer, f"{sequence:016d}", f"cid{sequence}", sequence), entries)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_newest_wins_in_any_order(index: Index, order: tuple[int, int]) -> None:
    """Equal instants are decided by the writer's name, so that all machines agree."""
    old, new = _entry(created=NOW - 5, size=1), _entry(size=2)
    for number in order:
        _accept(index, (old, new)[number], sequence=number + 1)
    found = index.find("team", DIGEST)
    assert found == new
    for writer in ("z", "a")[:: 1 if order[0] else -1]:
        _accept(index, new._replace(size=len(writer) + ord(writer)), writer=writer)
    again = index.find("team", DIGEST)
    assert again is not None
    assert again.size == 1 + ord("z")


def test_another_namespace_or_secret_finds_nothing(index: Index, tmp_path: Path) -> None:
    """In the same file."""
    _accept(index, _entry())
    assert index.find("other", DIGEST) is None
    assert Index(tmp_path / "index.db", Credential.create()).find("team", DIGEST) is None


@pytest.mark.parametrize("kind", ["namespace", "tag", "key"])
@pytest.mark.parametrize("mark_first", [True, False])
def test_a_mark_ends_what_is_not_newer(index: Index, kind: str, mark_first: bool) -> None:
    """Before or after the entry became known; and what was created a moment later lives."""
    value = {"namespace": "", "tag": "a", "key": DIGEST.hex()}[kind]
    mark = Mark("team", kind, value, NOW)  # type: ignore[arg-type]
    tags = (tag_of(ONE, "b"), tag_of(ONE, "a"))
    if mark_first:
        index.add_mark(mark)
    _accept(index, _entry(tags=tags))
    if not mark_first:
        assert index.add_mark(mark) == 1
    assert index.find("team", DIGEST) is None
    assert index.covers("team", _entry(tags=tags))
    later = _entry(created=NOW + 1, tags=tags)
    _accept(index, later, sequence=2)
    assert index.find("team", DIGEST) == later
    assert not index.covers("team", later)


@pytest.mark.parametrize("mark_first", [True, False])
def test_a_tag_is_ended_in_all_namespaces_at_once(index: Index, mark_first: bool) -> None:
    """One mark for everywhere covers the tag wherever it is, and no other tag."""
    mark, other = Mark(EVERYWHERE, "tag", "a", NOW), bytes([7]) * 32
    if mark_first:
        index.add_mark(mark)
    _accept(index, _entry(tags=(tag_of(ONE, "a"),)), _entry(other, tags=(tag_of(ONE, "b"),)))
    if not mark_first:
        assert index.add_mark(mark) == 1
    assert index.find("team", DIGEST) is None
    assert index.find("team", other) is not None
    assert index.covers("team", _entry(tags=(tag_of(ONE, "a"),)))
    assert not index.covers("team", _entry(created=NOW + 1, tags=(tag_of(ONE, "a"),)))


def test_marks_are_handed_on_until_somebody_took_them(tmp_path: Path) -> None:
    """A failure leaves them to the next time, also of another process; then they are not handed on again."""
    heard: list[list[int]] = []

    def heed(_namespace: str, marks: Sequence[IndexMark]) -> None:
        heard.append([mark.at for mark in marks])
        if len(heard) == 1:
            raise TierError("no room")

    for number in range(2):
        one = Index(tmp_path / "index.db", ONE, heed=heed)
        if number == 0:
            one.add_mark(Mark("team", "tag", "a", 10))
            with pytest.raises(TierError):
                one.heed("team")
        one.add_mark(Mark("team", "key", DIGEST.hex(), 20 + number))
        one.heed("team")
        one.heed("team")
        assert one.namespaces() == ["team"]
        one.close()
    assert heard == [[10], [10, 20], [21]]


def test_marks_can_be_followed(index: Index) -> None:
    """Each change has a higher number; an older mark of the same thing is no change."""
    index.add_mark(Mark("team", "tag", "a", 10))
    (first,) = index.marks("team")
    index.add_mark(Mark("team", "tag", "a", 5))
    assert index.marks("team", first.number) == []
    index.add_mark(Mark("team", "tag", "a", 20))
    (again,) = index.marks("team", first.number)
    assert again.at == 20
    assert index.marks("other") == []


def test_the_future_is_not_believed(index: Index, reports: list[str]) -> None:
    """A clock far ahead can neither outlive every mark nor end everybody's entries."""
    ahead = time.time_ns() + 2 * SKEW
    mark = index.mark_entry(Mark("team", "namespace", "", ahead))
    _accept(index, _entry(), _entry(os.urandom(32), created=ahead), mark)
    assert reports == ["future"]
    assert index.find("team", DIGEST) is not None
    assert index.marks("team") == []


def test_pins_follow_entries_and_unpins_in_any_order(index: Index) -> None:
    """A reference per key; what was unpinned does not come back with an old segment."""
    pinned = _entry(flags=PINNED, digest=os.urandom(32))
    _accept(index, pinned)
    assert [pin.key for pin in index.pins()] == [pinned.key]
    unpin = Line(pinned.key, UNPIN_MARK, created=NOW + 1)
    _accept(index, unpin, sequence=2)
    assert index.pins() == []
    _accept(index, pinned, sequence=3)
    assert index.pins() == []
    _accept(index, pinned._replace(created=NOW + 2), sequence=4)
    assert len(index.pins()) == 1


def test_a_corrupt_file_is_set_aside(tmp_path: Path, reports: list[str]) -> None:
    """It is reported, and the index begins anew."""
    path = tmp_path / "index.db"
    path.write_bytes(os.urandom(8192))
    index = Index(path, ONE, reports.append)
    _accept(index, _entry())
    assert index.find("team", DIGEST) is not None
    assert reports == ["corrupt_index"]


def test_a_slow_index_is_taken_in_step_by_step(tmp_path: Path, index: Index, reports: list[str]) -> None:
    """A deadline ends the reading without an error, and the next call goes on where it stopped."""
    from cachekit.ipfs.credential import WriterKey

    tree, writer = StandIn(), WriterKey.load(tmp_path, ONE)
    other = Index(tmp_path / "other.db", ONE)
    for number in range(10):
        other.publish(tree, "team", [_entry(bytes([number]) * 32)], writer, 10.0)  # type: ignore[arg-type]
    tree.delay = 0.02
    first = index.refresh(tree, "team", 0.1)  # type: ignore[arg-type]
    assert 0 < first < 10
    total = first
    for _ in range(20):
        total += index.refresh(tree, "team", 0.1)  # type: ignore[arg-type]
    assert total == 10
    assert reports == []


def test_threads_refreshing_at_once_agree(tmp_path: Path, index: Index, reports: list[str]) -> None:
    """While a writer publishes: nothing is missed and nothing looks like a rollback."""
    from cachekit.ipfs.credential import WriterKey

    tree, writer = StandIn(), WriterKey.load(tmp_path, ONE)
    other, keys = Index(tmp_path / "other.db", ONE), [os.urandom(32) for _ in range(60)]
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            index.refresh(tree, "team", 5.0)  # type: ignore[arg-type]

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for key in keys:
        other.publish(tree, "team", [_entry(key)], writer, 10.0)  # type: ignore[arg-type]
    ended.set()
    for reader in readers:
        reader.join()
    index.refresh(tree, "team", 5.0)  # type: ignore[arg-type]
    assert all(index.find("team", key) for key in keys)
    assert reports == []


def test_damage_while_open_fails_one_call(tmp_path: Path, reports: list[str]) -> None:
    """The call that meets it raises; the next one has a new file."""
    path = tmp_path / "index.db"
    index = Index(path, ONE, reports.append)
    _accept(index, *[_entry(os.urandom(32)) for _ in range(500)])
    index.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    with pytest.raises(TierError):
        for number in range(500):
            _accept(index, _entry(bytes([number % 256]) * 32), sequence=number + 2)
    assert reports == ["corrupt_index"]
    _accept(index, _entry())
    assert index.find("team", DIGEST) is not None
