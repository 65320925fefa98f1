"""What every engine keeps, in Kubo's words and in a directory's: the seam `content.engine.Engine`, call by call.

Reading is asked of a directory behind a web server too; Python's own stands there for any static one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from webbing import served

from cachekit.errors import IntegrityError, TierError
from cachekit.ipfs.content.cids import binary_cid, directory_block, file_cid, raw_cid
from cachekit.ipfs.content.engine import Engine
from cachekit.ipfs.directory.mounted import Mounted
from cachekit.ipfs.directory.web import Web
from cachekit.ipfs.kubo.transport import KuboTransport

MIB = 1 << 20
LONG = 20.0
ABSENT = raw_cid(b"nobody ever stored this block")


class Place(NamedTuple):
    """`writer` stores what `reader` reads; `root` is a path that no other test uses."""

    writer: Engine
    reader: Engine
    root: str


@pytest.fixture(params=["kubo", "directory", "web"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each engine, and what only reads over what the directory stored."""
    root = f"/engines/{os.urandom(8).hex()}"
    if request.param == "kubo":
        kubo = KuboTransport(request.getfixturevalue("kubo_api"))
        yield Place(kubo, kubo, root)
        kubo.close()
        return
    store = tmp_path / "a team's store"
    store.mkdir()
    mounted = Mounted(store.as_uri())
    assert mounted.version()
    if request.param == "directory":
        yield Place(mounted, mounted, root)
        return
    with served(store.parent) as url:
        web = Web(f"{url}/{store.name}")
        yield Place(mounted, web, root)
        web.close()


def _store(engine: Engine, *blocks: bytes) -> list[str]:
    names = [raw_cid(block) for block in blocks]
    engine.import_blocks([(binary_cid(cid), block) for cid, block in zip(names, blocks, strict=True)], timeout=LONG)
    return names


def test_it_says_what_and_where_it_is(place: Place) -> None:
    """A kind and a version for people, an address as the setting has it."""
    assert all((place.reader.kind, place.reader.version(), place.reader.api))
    assert place.writer.writable


def test_blocks_come_back_as_stored(place: Place) -> None:
    """Any number at once, the empty one and one of 1 MiB; storing them again, or none, is fine."""
    blocks = [b"", *(os.urandom(2048) for _ in range(20)), os.urandom(MIB)]
    place.writer.import_blocks([], timeout=LONG)
    for cid, block in zip(_store(place.writer, *blocks), blocks, strict=True):
        assert place.reader.block_get(cid, timeout=LONG) == block
    _store(place.writer, *blocks)


def test_a_block_under_a_false_cid_is_refused(place: Place) -> None:
    """A TierError, and the block is not there afterwards."""
    false = raw_cid(b"a" + os.urandom(16))
    with pytest.raises(TierError):
        place.writer.import_blocks([(binary_cid(false), b"not that")], timeout=LONG)
    assert place.reader.block_get(false, timeout=LONG) is None


def test_what_is_missing_is_none(place: Place) -> None:
    """Blocks, files and paths: absence is an answer, and removing it is fine."""
    missing = f"{place.root}/no/such"
    assert place.reader.block_get(ABSENT, timeout=LONG) is None
    assert place.reader.cat(ABSENT, size=5, timeout=LONG) is None
    assert place.reader.stat(missing, timeout=LONG) is None
    assert place.reader.list(missing, timeout=LONG) is None
    assert place.reader.read(missing, limit=10, timeout=LONG) is None
    assert list(place.reader.names(missing, timeout=LONG)) == []
    assert place.reader.pinned(ABSENT, timeout=LONG) is None
    place.writer.remove(missing, timeout=LONG)
    place.writer.unpin(ABSENT, timeout=LONG)


@pytest.mark.parametrize("size", [0, 5, MIB, MIB + 1, 5 * MIB + 1])
def test_a_file_has_the_cid_computed_here(place: Place, size: int) -> None:
    """However it is stored; and comes back whole, piece by piece, and from the middle."""
    data = os.urandom(size)
    cid = place.writer.add(data, timeout=LONG)
    assert cid == file_cid(data)
    halves = [data[: size // 2], data[size // 2 :]]
    assert place.writer.add_stream(halves, size=size, pin_name=None, idle=LONG) == cid
    assert place.reader.cat(cid, size=size, timeout=LONG) == data
    pieces = list(place.reader.cat_stream(cid, offset=0, length=size, idle=LONG))
    assert b"".join(pieces) == data
    assert all(len(piece) == MIB for piece in pieces[:-1])
    at = size // 3
    assert b"".join(place.reader.cat_stream(cid, offset=at, length=size - at, idle=LONG)) == data[at:]


@pytest.mark.timeout(240)
def test_a_file_of_two_levels_has_it_too(place: Place) -> None:
    """More leaves than one node has links: there is a node between them and the root."""
    data = os.urandom(MIB) * 175 + b"and a bit"
    cid = place.writer.add_stream([data], size=len(data), pin_name=None, idle=LONG)
    assert cid == file_cid(data)
    at = 174 * MIB
    assert b"".join(place.reader.cat_stream(cid, offset=at, length=len(data) - at, idle=LONG)) == data[at:]


@pytest.mark.parametrize("size", [4, 6])
def test_a_file_of_another_size_is_refused(place: Place, size: int) -> None:
    """`cat` gives exactly the bytes it was told to expect, or none."""
    cid = place.writer.add(b"hello", timeout=LONG)
    with pytest.raises(IntegrityError):
        place.reader.cat(cid, size=size, timeout=LONG)


def test_a_stream_that_is_not_there_is_not_found(place: Place) -> None:
    """A TierError under that reason, and nothing is searched for elsewhere."""
    with pytest.raises(TierError) as caught:
        list(place.reader.cat_stream(ABSENT, offset=0, length=10, idle=LONG))
    assert caught.value.reason == "not_found"


@pytest.mark.parametrize("size", [1, 3 * MIB])
def test_a_stream_of_another_length_is_an_error(place: Place, size: int) -> None:
    """Pieces that are fewer bytes than were said store no file."""
    with pytest.raises(TierError):
        place.writer.add_stream([b"12"], size=size, pin_name=None, idle=1.0)


def test_what_the_pieces_raise_passes_through(place: Place) -> None:
    """Whoever feeds a stream hears of its own trouble."""

    def failing() -> Iterator[bytes]:
        yield b"x" * MIB
        raise LookupError("a file changed")

    with pytest.raises(LookupError):
        place.writer.add_stream(failing(), size=2 * MIB, pin_name=None, idle=LONG)


def test_an_upload_ends_at_its_instant(place: Place) -> None:
    """`until` is over: a TierUnavailable, not a wait."""
    begun = time.monotonic()
    with pytest.raises(TierError):
        place.writer.add_stream([b"x"], size=1, pin_name=None, idle=LONG, until=begun - 1)
    assert time.monotonic() - begun < LONG / 2


def test_files_are_written_listed_read_and_removed(place: Place) -> None:
    """The life of an index segment; the namespace's stat changes at each step."""
    space, path = f"{place.root}/ns", f"{place.root}/ns/w/1"
    place.writer.write(path, b"second", timeout=LONG)
    assert place.reader.list(f"{space}/w", timeout=LONG) == [("1", raw_cid(b"second"), 6)]
    assert [name for name, _, _ in place.reader.list(space, timeout=LONG) or []] == ["w"]
    assert place.reader.names(f"{space}/w", timeout=LONG) == ["1"]
    assert place.reader.read(path, limit=6, timeout=LONG) == b"second"
    assert place.reader.stat(path, timeout=LONG) == raw_cid(b"second")
    before = place.reader.stat(space, timeout=LONG)
    place.writer.write(f"{space}/w/2", b"third", timeout=LONG)
    then = place.reader.stat(space, timeout=LONG)
    place.writer.remove(path, timeout=LONG)
    place.writer.remove(f"{space}/w/2", timeout=LONG)
    assert place.reader.list(f"{space}/w", timeout=LONG) == []
    assert len({None, before, then, place.reader.stat(space, timeout=LONG)}) == 4


def test_a_writers_listing_has_a_cid_that_changes_with_it(place: Place) -> None:
    """Of two writers only the one that wrote is another afterwards; a new one is there beside them."""
    space = f"{place.root}/ns"
    for writer in ("a", "b"):
        place.writer.write(f"{space}/{writer}/1", b"x", timeout=LONG)
    before = {name: cid for name, cid, _ in place.reader.list(space, timeout=LONG) or []}
    place.writer.write(f"{space}/a/2", b"y", timeout=LONG)
    after = {name: cid for name, cid, _ in place.reader.list(space, timeout=LONG) or []}
    assert before["a"] != after["a"]
    assert before["b"] == after["b"]
    assert [name for name, _, _ in place.reader.list(place.root, timeout=LONG) or []] == ["ns"]


def test_writing_again_replaces_the_whole_file(place: Place) -> None:
    """Nothing of a longer first version is left."""
    path = f"{place.root}/again"
    place.writer.write(path, b"a longer first version", timeout=LONG)
    before = place.reader.stat(path, timeout=LONG)
    place.writer.write(path, b"second", timeout=LONG)
    assert place.reader.read(path, limit=100, timeout=LONG) == b"second"
    assert place.reader.stat(path, timeout=LONG) not in (None, before)


def test_reading_more_than_the_limit_is_refused(place: Place) -> None:
    """A file longer than its reader allows never gets into memory as a whole."""
    path = f"{place.root}/big"
    place.writer.write(path, os.urandom(3 * MIB), timeout=LONG)
    for limit in (10, 3 * MIB - 1):
        with pytest.raises(IntegrityError) as caught:
            place.reader.read(path, limit=limit, timeout=LONG)
        assert caught.value.reason == "oversized"
    assert place.reader.block_get(ABSENT, timeout=LONG) is None


def test_names_are_taken_literally(place: Place) -> None:
    """What is special in a URL is not special in a path."""
    path = f"{place.root}/a b&c=d#e%2Fé+'"
    place.writer.write(path, b"x", timeout=LONG)
    assert place.reader.read(path, limit=1, timeout=LONG) == b"x"


def test_a_removed_directory_is_gone_with_all_below(place: Place) -> None:
    """Nothing of it can be read any more."""
    place.writer.write(f"{place.root}/ns/w/1", b"x", timeout=LONG)
    place.writer.remove(f"{place.root}/ns/w", timeout=LONG)
    assert place.reader.read(f"{place.root}/ns/w/1", limit=9, timeout=LONG) is None
    assert place.reader.list(f"{place.root}/ns", timeout=LONG) == []


def test_pins_come_and_go(place: Place) -> None:
    """A pin has a name, a new one replaces it, and unpinning what is not pinned is fine."""
    (cid,) = _store(place.writer, os.urandom(100))
    assert place.reader.pinned(cid, timeout=LONG) is None
    for name in ("a name", "another"):
        place.writer.pin(cid, name, timeout=LONG)
        assert place.reader.pinned(cid, timeout=LONG) == name
    for _ in range(2):
        place.writer.unpin(cid, timeout=LONG)
    assert place.reader.pinned(cid, timeout=LONG) is None


def test_a_stream_is_pinned_as_it_is_stored(place: Place) -> None:
    """Under its name, without a call of its own."""
    data = os.urandom(2 * MIB)
    cid = place.writer.add_stream([data], size=len(data), pin_name="cachekit/x", idle=LONG)
    assert place.reader.pinned(cid, timeout=LONG) == "cachekit/x"


def test_what_is_missing_is_not_pinned(place: Place) -> None:
    """`not_found`, at once."""
    with pytest.raises(TierError) as caught:
        place.writer.pin(raw_cid(os.urandom(16)), "x", timeout=LONG)
    assert caught.value.reason == "not_found"


def test_what_lacks_a_part_is_not_pinned(place: Place) -> None:
    """A directory whose file nobody stored; Kubo waits for it, offline or not, and the call's time ends that."""
    cid, block, _ = directory_block([("file", raw_cid(os.urandom(16)), 16)])
    place.writer.import_blocks([(binary_cid(cid), block)], timeout=LONG)
    with pytest.raises(TierError) as caught:
        place.writer.pin(cid, "x", timeout=1.0)
    assert caught.value.reason in ("not_found", "timeout")
    assert place.reader.pinned(cid, timeout=LONG) is None


def test_links_are_named_and_removed(place: Place) -> None:
    """Twice the same is fine; what is not there cannot be linked."""
    (cid,) = _store(place.writer, os.urandom(100))
    shelf = f"{place.root}/pins"
    for _ in range(2):
        place.writer.link(cid, f"{shelf}/{cid}.one", timeout=LONG)
    assert place.writer.names(shelf, timeout=LONG) == [f"{cid}.one"]
    place.writer.remove(f"{shelf}/{cid}.one", timeout=LONG)
    assert list(place.writer.names(shelf, timeout=LONG)) == []
    with pytest.raises(TierError) as caught:
        place.writer.link(raw_cid(os.urandom(16)), f"{shelf}/x", timeout=LONG)
    assert caught.value.reason == "not_found"


def test_collecting_keeps_what_is_young(place: Place) -> None:
    """Nobody loses what was stored a moment ago."""
    (cid,) = _store(place.writer, os.urandom(100))
    place.writer.collect(timeout=LONG)
    place.reader.collect(timeout=LONG)
    assert place.reader.block_get(cid, timeout=LONG) is not None


@pytest.mark.parametrize("path", ["/a/../b", "/a/./b", "/a//b", "/a\0b", "/" + "n" * 5000, "/a/.."])
def test_no_path_leads_out(place: Place, path: str) -> None:
    """A TierError or nothing, whatever is asked for; never bytes, never another exception."""
    for ask in (
        lambda: place.reader.read(place.root + path, limit=100, timeout=LONG),
        lambda: place.reader.stat(place.root + path, timeout=LONG),
    ):
        try:
            assert ask() is None
        except TierError:
            pass


def test_a_call_has_its_time(place: Place) -> None:
    """None is left: a TierError, at once, of every call."""
    (cid,) = _store(place.writer, b"something")
    with pytest.raises(TierError):
        place.reader.block_get(cid, timeout=0.0)
    with pytest.raises(TierError):
        place.reader.read(f"{place.root}/x", limit=10, timeout=0.0)
