"""Digests of large files outlive the process that read them, and are never believed for anything else."""

from __future__ import annotations

import hashlib
import mmap
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from cachekit import bypass, distributed_cache, gc, mode
from cachekit.files import digests as content
from cachekit.files.digest_cache import UNUSED, Digests
from cachekit.model import NANOSECONDS

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
DAY = 24 * 3600 * NANOSECONDS

SCRIPT = """
import sys
from pathlib import Path
watched, opened = sys.argv[1], []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" and str(args[0]).startswith(watched) else None)
from cachekit import distributed_cache
@distributed_cache(version="1")
def size(path: Path) -> int:
    return 0
size(Path(watched))
print(size.key_for(Path(watched)), len(opened))
"""
RUN = """
import sys
watched, opened = sys.argv[1], []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" and str(args[0]).startswith(watched) else None)
from cachekit.cli.parser import main
try:
    main(["run", "--input", watched, "--", sys.executable, "-c", "pass"])
except SystemExit:
    pass
print("ran", len(opened))
"""


@distributed_cache(version="1")
def look(path: Path) -> int:
    return 0


class Process:
    """Calls `look` as a process would that knows nothing yet, and says how many files it read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = 0
        self._monkeypatch, self._digest = monkeypatch, content.stream_digest
        monkeypatch.setattr(content, "stream_digest", self._counted)

    def __call__(self, path: Path) -> tuple[str, int]:
        self._monkeypatch.setattr(content, "_files", {})
        self.read = 0
        look(path)
        return str(look.key_for(path)), self.read

    def _counted(self, stream: object) -> bytes:
        self.read += 1
        return self._digest(stream)  # type: ignore[arg-type]


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    return Process(monkeypatch)


def made(path: Path, data: bytes) -> Path:
    """A file whose signature is settled: a write from now on would change it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    while not content.settled(content.signature(path.stat()), time.time_ns()):
        time.sleep(0.001)
    return path


def _told_of_stores(file: Path, mapped: mmap.mmap) -> bool:
    mapped.flush()
    before = file.stat().st_mtime_ns
    mapped[1:2] = b"x"
    return file.stat().st_mtime_ns != before


def entries(directory: Path) -> list[Path]:
    return sorted((directory / "digests").glob("??/*"))


def real_process(script: str, path: Path, directory: Path) -> list[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "CACHEKIT_DIR": str(directory), "CACHEKIT_IPFS": "off"}
    done = subprocess.run([sys.executable, "-c", script, str(path)], env=environ, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("script", [SCRIPT, RUN], ids=["function", "run"])
def test_another_process_does_not_open_the_files(script: str, tmp_path: Path) -> None:
    """Large files of a tree are read by the first process only; the second has the same key. A changed one is read again."""
    tree, directory = tmp_path / "tree", tmp_path / "kept"
    for number in range(3):
        made(tree / f"{number}.bin", os.urandom(2 * MIB))
    first, read = real_process(script, tree, directory)
    assert read == "3"
    assert real_process(script, tree, directory) == [first, "0"]
    with open(tree / "1.bin", "r+b") as file:
        file.write(b"changed in place")
    changed, read = real_process(script, tree, directory)
    assert read == "1"
    assert script is RUN or changed != first


def test_a_changed_file_is_read_again(tmp_path: Path, process: Process) -> None:
    """Same size, same inode, its mtime put back: another digest all the same."""
    file = made(tmp_path / "f", b"a" * MIB)
    before, status = process(file), file.stat()
    made(file, b"b" * MIB)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert before[1] == 1
    after = process(file)
    assert after[0] != before[0]
    assert after[1] > 0
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)


@pytest.mark.parametrize("damage", ["flipped", "short", "empty", "long", "other format"])
def test_a_damaged_entry_is_not_believed(damage: str, tmp_path: Path, own_cache: Path, process: Process) -> None:
    """Whatever is wrong with an entry, the file is read, its key is right, and the entry is right again."""
    file = made(tmp_path / "f", os.urandom(MIB))
    right, _ = process(file)
    (entry,) = entries(own_cache)
    data = entry.read_bytes()
    flipped = bytearray(data)
    flipped[-40] ^= 1  # in the digest itself
    entry.write_bytes(
        {
            "flipped": bytes(flipped), "short": data[:-1], "empty": b"", "long": data + b"\0",
            "other format": data.replace(b"cachekit digest 1", b"cachekit digest 2"),
        }[damage]
    )  # fmt: skip
    assert process(file) == (right, 1)
    assert process(file) == (right, 0)


def test_an_entry_of_another_file_is_not_believed(tmp_path: Path, own_cache: Path, process: Process) -> None:
    """An entry put where another path's belongs is none, even for the same file under two names."""
    first = made(tmp_path / "first", os.urandom(MIB))
    second = tmp_path / "second"
    os.link(first, second)
    process(first)
    (own,) = entries(own_cache)
    process(second)
    (other,) = set(entries(own_cache)) - {own}
    other.write_bytes(own.read_bytes())
    assert process(second)[1] == 1
    assert process(first)[1] == 0


def test_only_large_and_settled_files_are_kept(tmp_path: Path, own_cache: Path, process: Process) -> None:
    """A file below 1 MiB is read by every process, and so is one that was changed within the clock's tick."""
    small = made(tmp_path / "small", b"a" * (content.SHELVED - 1))
    process(small)
    assert process(small)[1] == 1
    future = made(tmp_path / "future", b"a" * content.SHELVED)
    ahead = time.time_ns() + DAY + 1
    os.utime(future, ns=(ahead, ahead))
    process(future)
    assert process(future)[1] > 0
    assert entries(own_cache) == []


def test_a_signature_in_whole_seconds_is_not_kept(tmp_path: Path) -> None:
    """What a file system without finer times, or an image with set times, tells of a file does not tell contents apart."""
    digests = Digests(tmp_path / "digests", lambda: "on")
    for changed, kept in ((5 * NANOSECONDS, None), (5 * NANOSECONDS + 1, b"d" * 32)):
        digests.put("/model", (1, 2, MIB, changed, changed), b"d" * 32)
        assert digests.get("/model", (1, 2, MIB, changed, changed)) == kept


def test_a_store_through_a_map_is_seen(process: Process) -> None:
    """A page that was dirty in a map when the file was read, and is stored to again, makes another digest."""
    with tempfile.TemporaryDirectory(dir=ROOT) as place:  # /tmp may be a tmpfs
        file = made(Path(place) / "f", b"a" * MIB)
        with open(file, "r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
            if not _told_of_stores(file, mapped):
                pytest.skip("this file system does not tell of stores through a map")
            mapped[0:1] = b"b"
            made(Path(place) / "other", b"")  # by now the signature with this store in it is settled
            before, _ = process(file)
            mapped[0:1] = b"c"
            assert process(file)[0] != before


def test_every_part_of_the_signature_counts(tmp_path: Path) -> None:
    """An entry is for its device, inode, size, mtime and ctime together."""
    known, digests = (1, 2, MIB, 11, 12), Digests(tmp_path / "digests", lambda: "on")
    digests.put("/model", known, b"d" * 32)
    assert digests.get("/model", known) == b"d" * 32
    for place in range(5):
        moved = tuple(part + (number == place) for number, part in enumerate(known))
        assert digests.get("/model", moved) is None


def test_a_place_that_cannot_be_written_costs_readings_only(tmp_path: Path, own_cache: Path, process: Process) -> None:
    """A file in the way: calls work and know a digest within the process; it is set aside, with what it held."""
    file = made(tmp_path / "f", os.urandom(MIB))
    look(Path(__file__))  # the cache directory is there now
    (own_cache / "digests").write_text("in the way")
    assert process(file)[1] == 1
    assert content.file_digest(file) == hashlib.sha256(file.read_bytes()).digest()
    assert process.read == 1
    (aside,) = own_cache.glob("digests.corrupt-*")
    assert aside.read_text() == "in the way"
    assert gc()["leftovers"] == 1
    assert not aside.exists()


def test_a_failed_write_leaves_no_temporary(
    tmp_path: Path, own_cache: Path, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is not told to the caller, and what was begun is removed."""
    file = made(tmp_path / "f", os.urandom(MIB))
    look(Path(__file__))  # the cache directory is there now

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cachekit.files.digest_cache.os.replace", no_room)
    assert process(file)[1] == 1
    assert list((own_cache / "digests" / "tmp").iterdir()) == []


@pytest.mark.parametrize("name", ["read-only", "off", "bypass"])
def test_a_mode_that_does_not_write_keeps_nothing(name: str, tmp_path: Path, own_cache: Path, process: Process) -> None:
    """Outside of `on` and `refresh` nothing is written; with the cache off nothing is looked up either."""
    file = made(tmp_path / "f", os.urandom(MIB))
    with bypass() if name == "bypass" else mode(name):  # type: ignore[arg-type]
        process(file)
        assert not (own_cache / "digests").exists()
    assert process(file)[1] == 1
    with bypass() if name == "bypass" else mode(name):  # type: ignore[arg-type]
        assert process(file)[1] == (0 if name == "read-only" else 1)


def test_gc_removes_what_was_not_used_for_thirty_days(tmp_path: Path, own_cache: Path, process: Process) -> None:
    """Use renews an entry, at most once a day; what nobody used goes, and a dead process's temporary with it."""
    files = [made(tmp_path / name, os.urandom(MIB)) for name in ("used", "unused")]
    for file in files:
        process(file)
    long_ago = time.time_ns() - UNUSED - DAY
    for entry in entries(own_cache):
        os.utime(entry, ns=(long_ago, long_ago))
    left = own_cache / "digests" / "tmp" / "left"
    left.write_bytes(b"")
    os.utime(left, ns=(long_ago, long_ago))
    assert process(files[0])[1] == 0
    renewed = max(entry.stat().st_mtime_ns for entry in entries(own_cache))
    assert process(files[0])[1] == 0
    assert max(entry.stat().st_mtime_ns for entry in entries(own_cache)) == renewed
    assert gc()["leftovers"] == 2
    assert (process(files[0])[1], process(files[1])[1]) == (0, 1)


def test_the_cache_opened_last_has_them(tmp_path: Path) -> None:
    """A closed one lets go of them, unless another took its place."""
    first, second = (Digests(tmp_path / name, lambda: "on") for name in ("first", "second"))
    first.open()
    second.open()
    first.close()
    file = made(tmp_path / "f", os.urandom(MIB))
    content.file_digest(file)
    assert list((tmp_path / "second").glob("??/*"))
    assert not (tmp_path / "first").exists()
    second.close()
    content.file_digest(made(tmp_path / "g", os.urandom(MIB)))
    assert len(list((tmp_path / "second").glob("??/*"))) == 1
