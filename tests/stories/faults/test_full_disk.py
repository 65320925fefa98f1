"""No room in the cache directory: a real small file system, which only this process sees, or a file size limit.

Nothing raises, what is returned is right, and what there is no room for is stored again once there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from programs import small_disk, told

FUNCTIONS = """
from cachekit import TierError, UsageError, persist_artifact
@distributed_cache(version="1")
def blob(x): return bytes([x]) * 2000
@distributed_cache(version="1", ttl=1)
def big(x): return bytes([x]) * 300_000
@persist_artifact(version="1", scratch="work")
def tree(name, size, work=None):
    (work / name).write_bytes(b"x" * size)
    return work / name
BALLAST = HERE.parent / "ballast"
def fill(pages=0):
    (HERE.parent / "hole").write_bytes(b"x" * 4096 * pages)
    with open(BALLAST, "ab", buffering=0) as file:
        for piece in (1 << 16, 1):
            try:
                while True: file.write(b"x" * piece)
            except OSError: pass
    (HERE.parent / "hole").unlink()
def right(numbers):
    for x in numbers: assert blob(x) == bytes([x]) * 2000 and big(x) == bytes([x]) * 300_000, x
def built(name, size): assert Path(tree(name, size)).read_bytes() == b"x" * size
def free(): return os.statvfs(HERE.parent).f_bavail
"""


@pytest.fixture
def small(tmp_path: Path) -> Sequence[str]:
    """What runs a program with six megabytes at `tmp_path/disk`; what it stores ends with it."""
    return small_disk(tmp_path)


@pytest.mark.parametrize("pages", [0, 4, 9, 22, 40, 150])
def test_a_disk_that_fills(tmp_path: Path, small: Sequence[str], pages: int) -> None:
    """With room for so many pages before the first call: right values, nothing raises but `gc`, all is well with room again."""
    script = """
fill(int(sys.argv[1]))
right(range(8)), built("a", 20_000), built("b", 500_000)
flush()
try: gc()
except TierError as error: assert error.reason in ("full", "sqlite"), error
assert stats().as_dict()["errors"]
BALLAST.unlink()
flush()
assert status()["disk"].on
before = errors()
right(range(20, 23)), built("c", 20_000)
ROOT.cache().close()
counted = stats().as_dict()["misses"]
right(range(20, 23)), built("c", 20_000)
say(stats().as_dict()["misses"] - counted, errors() == before)
"""
    assert told(FUNCTIONS + script, tmp_path / "disk" / "cache", pages, within=small) == ["0 True"]


def test_a_disk_that_fills_while_entries_stand_on_it(tmp_path: Path, small: Sequence[str]) -> None:
    """What was stored goes on hitting, what does not fit is counted as `full`, and a store fits once there is room."""
    script = """
@distributed_cache(version="1")
def kept(x): return bytes([x]) * (2000 if x else 300_000)
right(range(4)), built("a", 20_000), kept(0), kept(1)
fill()
ROOT.cache().memory.clear()
kept(0), kept(1)
assert stats(kept).as_dict()["hits"]["disk"] == 2
right(range(8)), flush()
say(errors())
BALLAST.unlink()
right(range(30, 32)), built("c", 20_000)
gc()
say(free() > 500)
"""
    reasons, roomy = told(FUNCTIONS + script, tmp_path / "disk" / "cache", within=small)
    assert "full" in reasons
    assert roomy == "True"


def test_a_tier_that_was_off_comes_back_by_itself(tmp_path: Path, small: Sequence[str]) -> None:
    """No room for the directory at first, then there is: calls that miss are enough for it to be used, without a restart."""
    script = """
from cachekit.cache import upkeep
upkeep.SAVE_EVERY = 0.1  # of ten seconds
fill()
right([1])
assert not status()["disk"].on
BALLAST.unlink()
cache, end = ROOT.cache(), time.monotonic() + 30
while cache.disk is None and time.monotonic() < end:
    blob.refresh(2)
    time.sleep(0.01)
right([3])
say(status()["disk"].on, (HERE / "cache.db").exists())
"""
    assert told(FUNCTIONS + script, tmp_path / "disk" / "cache", within=small) == ["True True"]


def test_expired_files_make_room_on_a_full_disk(tmp_path: Path, small: Sequence[str]) -> None:
    """SQLite needs room to delete a row: `gc` takes the files of what expired first."""
    script = """
right(range(12))
time.sleep(1.1)
fill()
assert free() < 4
assert gc()["dropped"] == 12
say(free() > 700)
"""
    assert told(FUNCTIONS + script, tmp_path / "disk" / "cache", within=small) == ["True"]


def test_scratch_is_made_where_there_is_room(tmp_path: Path, small: Sequence[str]) -> None:
    """Little is free beside the store: what a function writes goes to the system's temporary directory, and is kept."""
    script = """
fill(100)
built("a", 1 << 22)
say(Path(tree("a", 1 << 22)).is_relative_to(HERE))
BALLAST.unlink()
say(Path(tree("b", 1 << 20)).is_relative_to(HERE))
"""
    assert told(FUNCTIONS + script, tmp_path / "disk" / "cache", within=small) == ["False", "True"]


def test_an_invalidation_on_a_full_disk_holds_or_raises(tmp_path: Path, small: Sequence[str]) -> None:
    """It says that it could not be written, or nothing that it covers is served any more."""
    script = """
right(range(3))
for pages in range(0, 40, 2):
    fill(pages)
    try:
        blob.invalidate(1)
    except UsageError as error:
        assert "CACHEKIT_DIR" in str(error)
    else:
        misses = stats().as_dict()["misses"]
        right([1])
        assert stats().as_dict()["misses"] > misses, pages
    BALLAST.unlink()
say("held")
"""
    assert told(FUNCTIONS + script, tmp_path / "disk" / "cache", within=small) == ["held"]


def test_flush_raises_nothing_of_sqlites(own_cache: Path) -> None:
    """The machine's totals cannot be written: it is counted, and what was computed stays right."""
    script = """
import resource
@distributed_cache(version="1")
def square(x): return x * x
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
square(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
assert square(2) == 4
flush()
say(errors())
"""
    (reasons,) = told(script, own_cache)
    assert "housekeeping" in reasons
