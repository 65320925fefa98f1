"""A directory that several processes write at once, with all that goes wrong on a shared disk."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachekit.errors import IntegrityError, TierError, TierFull, TierUnavailable
from cachekit.ipfs.content.cids import binary_cid, file_cid, raw_cid
from cachekit.ipfs.directory import files
from cachekit.ipfs.directory.collecting import UNUSED_SECONDS
from cachekit.ipfs.directory.files import USED_SECONDS
from cachekit.ipfs.directory.layout import LISTING, decode, sharded
from cachekit.ipfs.directory.mounted import Mounted

MIB = 1 << 20
LONG = 20.0
SHORT = 0.3
SPACE = "/cachekit/v1/ns"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with nothing in it, as an administrator made it."""
    made = tmp_path / "team"
    made.mkdir()
    return made


@pytest.fixture
def store(root: Path) -> Mounted:
    return Mounted(root.as_uri())


def keep(store: Mounted, block: bytes) -> str:
    cid = raw_cid(block)
    store.import_blocks([(binary_cid(cid), block)], timeout=LONG)
    return cid


def place(root: Path, cid: str, kind: str = "blocks") -> Path:
    return root.joinpath(*sharded(kind, cid))


def aged(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


# -- several writers --------------------------------------------------------------------------------------------------

_WRITER = """
import sys, time
from cachekit.ipfs.directory.mounted import Mounted
store, writer, count = Mounted(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True); sys.stdin.readline()
for number in range(count):
    store.write(f"/cachekit/v1/ns/{writer}/{number:016d}", b"x" * 100, timeout=60)
    print(number, flush=True)
"""


def _writers(root: Path, number: int, count: int) -> list[Any]:
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, root.as_uri(), f"{writer:032x}", str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        for writer in range(number)
    ]
    for one in begun:
        assert one.stdout.readline() == b"ready\n"  # type: ignore[union-attr]
    for one in begun:
        one.stdin.write(b"\n")  # type: ignore[union-attr]
        one.stdin.flush()  # type: ignore[union-attr]
    return begun


def test_writers_at_once_lose_nothing_of_each_other(root: Path, store: Mounted) -> None:
    """Four processes write in one namespace, without a lock: afterwards the listing has all of each."""
    for one in _writers(root, 4, 12):
        assert one.communicate(timeout=60) and one.returncode == 0
    listed = store.list(SPACE, timeout=LONG) or []
    assert [name for name, _, _ in listed] == [f"{writer:032x}" for writer in range(4)]
    for name, cid, _ in listed:
        assert cid == store.stat(f"{SPACE}/{name}", timeout=LONG)
        assert [entry for entry, _, _ in store.list(f"{SPACE}/{name}", timeout=LONG) or []] == [
            f"{number:016d}" for number in range(12)
        ]


def test_a_listing_that_was_overwritten_in_between_is_made_again(
    root: Path, store: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine lists what it saw before our file was there, right after us: we look once more, and see it."""
    store.write(f"{SPACE}/a/1", b"x", timeout=LONG)
    stale = (root / "tree/cachekit/v1/ns" / LISTING).read_bytes()
    put, done = files.Files.put, list[str]()

    def putting(self: files.Files, where: Any, data: bytes) -> None:
        put(self, where, data)
        if where[-3:] == ("v1", "ns", LISTING) and not done:
            done.append("overwritten")
            put(self, where, stale)

    monkeypatch.setattr(files.Files, "put", putting)
    store.write(f"{SPACE}/b/1", b"y", timeout=LONG)
    assert done
    assert [name for name, _, _ in store.list(SPACE, timeout=LONG) or []] == ["a", "b"]


def test_a_file_replaced_within_the_clocks_tick_is_another(
    root: Path, store: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size and its time are the same as before; its listing says what is there now."""
    put = files.Files.put

    def putting(self: files.Files, where: Any, data: bytes) -> None:
        put(self, where, data)
        os.utime(root.joinpath(*where), (1e9, 1e9))

    monkeypatch.setattr(files.Files, "put", putting)
    for data in (b"one", b"two"):
        store.write(f"{SPACE}/a/1", data, timeout=LONG)
        assert store.stat(f"{SPACE}/a/1", timeout=LONG) == raw_cid(data)


def test_a_writer_killed_at_any_moment_leaves_nothing_half(root: Path, store: Mounted) -> None:
    """SIGKILL, again and again: whatever is listed is there whole, and the next writer finishes."""
    for round_ in range(6):
        (one,) = _writers(root, 1, 1000)
        for _ in range(1 + round_ * 3):
            one.stdout.readline()
        one.send_signal(signal.SIGKILL)
        one.wait(timeout=30)
        one.stdin.close()
        one.stdout.close()
        for name, cid, size in store.list(f"{SPACE}/{0:032x}", timeout=LONG) or []:
            data = store.read(f"{SPACE}/{0:032x}/{name}", limit=MIB, timeout=LONG)
            assert data is not None
            assert (file_cid(data), len(data)) == (cid, size)
    store.write(f"{SPACE}/{0:032x}/{999:016d}", b"last", timeout=LONG)
    names = [name for name, _, _ in store.list(f"{SPACE}/{0:032x}", timeout=LONG) or []]
    assert names[-1] == f"{999:016d}"
    assert not any(name.startswith(".") for name in names)


@pytest.mark.parametrize("step", range(12))
def test_what_is_listed_stands_on_the_disk(
    root: Path, store: Mounted, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Cut off before any one of its steps: a reader sees the file with its bytes, or does not see it."""
    store.write(f"{SPACE}/a/1", b"old", timeout=LONG)
    steps = 0

    def cut(before: Any) -> Any:
        def one(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > step:
                raise KeyboardInterrupt
            return before(*arguments, **options)

        return one

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace"):
            patch.setattr(os, name, cut(getattr(os, name)))
        with pytest.raises(KeyboardInterrupt):
            store.write(f"{SPACE}/a/2", b"new", timeout=LONG)
            raise KeyboardInterrupt
    for name, cid, _ in store.list(f"{SPACE}/a", timeout=LONG) or []:
        assert raw_cid(store.read(f"{SPACE}/a/{name}", limit=9, timeout=LONG) or b"") == cid
    store.write(f"{SPACE}/a/2", b"new", timeout=LONG)
    assert [name for name, _, _ in store.list(f"{SPACE}/a", timeout=LONG) or []] == ["1", "2"]


def test_blocks_are_forced_to_the_disk_before_they_have_their_name(
    store: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync of the file, the rename, fsync of the directory; in that order."""
    told, fsync, replace = list[str](), os.fsync, os.replace

    def synced(descriptor: int) -> None:
        told.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def replaced(old: Any, new: Any) -> None:
        told.append("name")
        replace(old, new)

    store.version()
    keep(store, b"so that the directory is there")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    keep(store, b"so that the directory is there" + b"!")
    assert told[-3:] == ["file", "name", "directory"]


def test_what_is_made_has_the_rights_of_the_directory(root: Path, store: Mounted) -> None:
    """A team's group may write what one of them made, although his umask says otherwise; a private store stays private."""
    before = os.umask(0o077)
    try:
        for mode in (0o2770, 0o700):
            root.chmod(mode)
            space = f"/cachekit/{mode:o}/ns/w"
            store.write(f"{space}/1", b"x", timeout=LONG)
            file = root / f"tree{space}/1"
            assert stat.S_IMODE(file.stat().st_mode) == mode & 0o666
            assert stat.S_IMODE(file.parent.stat().st_mode) == mode
    finally:
        os.umask(before)


# -- what others did to it --------------------------------------------------------------------------------------------


def test_a_broken_block_is_stored_again(root: Path, store: Mounted) -> None:
    """Whoever has the right bytes repairs it, although a file of its name and size is there."""
    cid = keep(store, b"as it should be")
    place(root, cid).write_bytes(b"as it shouldn't")
    assert store.block_get(cid, timeout=LONG) != b"as it should be"
    keep(store, b"as it should be")
    assert store.block_get(cid, timeout=LONG) == b"as it should be"


def test_a_broken_leaf_is_no_answer(root: Path, store: Mounted) -> None:
    """`cat` verifies: an IntegrityError, not the bytes."""
    data = os.urandom(3 * MIB)
    cid = store.add(data, timeout=LONG)
    leaf = place(root, raw_cid(data[MIB : 2 * MIB]))
    leaf.write_bytes(os.urandom(MIB))
    with pytest.raises(IntegrityError) as caught:
        store.cat(cid, size=len(data), timeout=LONG)
    assert caught.value.reason == "wrong_bytes"
    leaf.unlink()
    assert store.cat(cid, size=len(data), timeout=LONG) is None


@pytest.mark.parametrize("what", ["file", "directory", "fifo"])
def test_nothing_is_read_or_written_through_a_link(root: Path, store: Mounted, tmp_path: Path, what: str) -> None:
    """A member's link out of the store, in a file's or a directory's place, and what is no file at all."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "1").write_bytes(b"a secret")
    store.write(f"{SPACE}/b/1", b"x", timeout=LONG)
    (root / "tree/cachekit/v1/ns/a").mkdir()
    path = f"{SPACE}/a/1"
    if what == "file":
        (root / f"tree{path}").symlink_to(outside / "1")
    elif what == "fifo":
        os.mkfifo(root / f"tree{path}")
    else:
        (root / "tree/cachekit/v1/ns/a").rmdir()
        (root / "tree/cachekit/v1/ns/a").symlink_to(outside)
    with pytest.raises(TierError) as caught:
        store.read(path, limit=100, timeout=LONG)
    assert caught.value.reason == "strange_file"
    if what == "directory":
        with pytest.raises(TierError):
            store.write(f"{SPACE}/a/2", b"y", timeout=LONG)
        with pytest.raises(TierError):
            store.remove(path, timeout=LONG)
    else:
        store.write(path, b"y", timeout=LONG)
        assert store.read(path, limit=9, timeout=LONG) == b"y"
    assert sorted(os.listdir(outside)) == ["1"]
    assert (outside / "1").read_bytes() == b"a secret"


def test_links_and_temporaries_are_not_listed(root: Path, store: Mounted, tmp_path: Path) -> None:
    """Only files and directories are, under names that are no temporaries'."""
    store.write(f"{SPACE}/a/1", b"x", timeout=LONG)
    (root / "tree/cachekit/v1/ns/a/2").symlink_to(tmp_path)
    (root / "tree/cachekit/v1/ns/a/.tmp-1").write_bytes(b"half")
    store.write(f"{SPACE}/a/3", b"z", timeout=LONG)
    assert [name for name, _, _ in store.list(f"{SPACE}/a", timeout=LONG) or []] == ["1", "3"]


@pytest.mark.parametrize(
    "path", ["/a/../b", "/a/./b", "/a//b", "/a\0b", "/a/" + "n" * 256, "/a/..", "a", "", "/", "/a/listing", "/.x"]
)
def test_a_path_that_leads_out_is_refused(store: Mounted, path: str) -> None:
    """To every call alike: `..`, NUL, 256 bytes, and the names that are the store's own."""
    calls = (
        lambda: store.read(path, limit=9, timeout=LONG),
        lambda: store.stat(path, timeout=LONG),
        lambda: store.list(path, timeout=LONG),
        lambda: store.names(path, timeout=LONG),
        lambda: store.write(path, b"x", timeout=LONG),
        lambda: store.remove(path, timeout=LONG),
        lambda: store.link(keep(store, b"x"), path, timeout=LONG),
    )
    for call in calls:
        with pytest.raises(TierError) as caught:
            call()
        assert caught.value.reason == "bad_name"


@pytest.mark.parametrize("cid", ["../../etc/passwd", "", "Qm" + "a" * 44, "b" * 59, "b\0", raw_cid(b"x").upper()])
def test_what_is_no_cid_is_refused(store: Mounted, cid: str) -> None:
    """Before it becomes a path."""
    for call in (store.block_get, store.pinned, store.unpin):
        with pytest.raises(TierError):
            call(cid, timeout=LONG)


@pytest.mark.parametrize(
    "listing", [b"", b"{}", b"[[1]]", b'[["x","y",-1,0]]', b"\xff", b"[" * 10_000, b"x" * 5_000_000]
)
def test_a_listing_that_is_none_is_one_strange_file(root: Path, store: Mounted, listing: bytes) -> None:
    """Its reader refuses it and goes on; the writer makes it anew."""
    store.write(f"{SPACE}/a/1", b"x", timeout=LONG)
    (root / "tree/cachekit/v1/ns/a" / LISTING).write_bytes(listing)
    if len(listing) < MIB and decode(listing) is None:
        assert store.list(f"{SPACE}/a", timeout=LONG) == [(LISTING, raw_cid(listing), len(listing))]
    store.write(f"{SPACE}/a/2", b"y", timeout=LONG)
    assert [name for name, _, _ in store.list(f"{SPACE}/a", timeout=LONG) or []] == ["1", "2"]


# -- the disk ---------------------------------------------------------------------------------------------------------


def test_a_missing_mount_is_unavailable(tmp_path: Path) -> None:
    """The directory is not there: every call says so, none makes it."""
    store = Mounted((tmp_path / "not mounted").as_uri())
    for call in (
        store.version,
        lambda: store.block_get(raw_cid(b"x"), timeout=LONG),
        lambda: store.stat(SPACE, timeout=LONG),
        lambda: keep(store, b"x"),
        lambda: store.write(f"{SPACE}/a/1", b"x", timeout=LONG),
    ):
        with pytest.raises(TierUnavailable) as caught:
            call()
        assert caught.value.reason == "no_store"
    assert not (tmp_path / "not mounted").exists()


def test_who_only_reads_founds_no_store(root: Path) -> None:
    """An empty directory is no store yet, and stays empty."""
    with pytest.raises(TierUnavailable) as caught:
        Mounted(root.as_uri(), founding=False).version()
    assert caught.value.reason == "no_store"
    assert not os.listdir(root)


def test_a_directory_with_other_things_becomes_no_store(root: Path, store: Mounted) -> None:
    """A wrong address writes nothing into somebody's home; what a new file system has in it is no hindrance."""
    (root / "lost+found").mkdir()
    (root / "thesis.tex").write_text("x")
    with pytest.raises(TierUnavailable) as caught:
        keep(store, b"x")
    assert caught.value.reason == "no_store"
    with pytest.raises(TierUnavailable):
        store.collect(timeout=LONG)
    assert sorted(os.listdir(root)) == ["lost+found", "thesis.tex"]
    (root / "thesis.tex").unlink()
    assert store.version()


def test_a_store_of_a_newer_layout_is_left_alone(root: Path, store: Mounted) -> None:
    """An older cachekit says so instead of reading it wrong."""
    (root / "store").write_bytes(b"cachekit 2\n")
    with pytest.raises(TierUnavailable) as caught:
        store.version()
    assert caught.value.reason == "too_new"


def test_a_directory_that_may_not_be_written_is_read_only() -> None:
    """Reading goes on; writing is a TierError that says nothing against the engine."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        store = Mounted(root.as_uri())
        cid, hidden = keep(store, b"here"), keep(store, b"hidden")
        place(root, hidden).chmod(0o600)
        for directory in (root, *(path for path in root.rglob("*") if path.is_dir())):
            directory.chmod(0o555)
        pid = os.fork()
        if pid == 0:
            try:
                if os.geteuid() == 0:
                    os.setuid(65534)  # root may write anywhere
                os._exit(_read_only(store, cid, hidden))
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _read_only(store: Mounted, cid: str, hidden: str) -> int:
    """0 where all is as it should be; in a child that has no rights."""
    if store.block_get(cid, timeout=LONG) != b"here":
        return 1
    for call, reason in (
        (lambda: keep(store, b"there"), "read_only"),
        *([(lambda: store.block_get(hidden, timeout=LONG), "forbidden")] if os.geteuid() == 65534 else []),
    ):
        try:
            call()
        except TierError as error:
            if (type(error), error.reason) != (TierError, reason):
                return 2
        else:
            return 3
    return 0


@pytest.mark.parametrize(
    ("number", "kind", "reason"),
    [(28, TierFull, "full"), (122, TierFull, "full"), (30, TierError, "read_only"), (5, TierUnavailable, "disk")],
)
def test_what_the_disk_says_is_told_apart(
    root: Path, store: Mounted, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[TierError], reason: str
) -> None:
    """ENOSPC, EDQUOT, EROFS, EIO: full, full, read only, gone; and no temporary is left."""

    def failing(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    store.version()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(kind) as caught:
            store.write(f"{SPACE}/a/1", b"x", timeout=LONG)
    assert caught.value.reason == reason
    assert store.read(f"{SPACE}/a/1", limit=9, timeout=LONG) is None
    assert not list(root.rglob(".tmp-*"))


@pytest.fixture
def hung(store: Mounted, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """STAND-IN for a mount whose server is gone: reading a file comes back when the event is set."""
    store.version()
    back, reading = threading.Event(), files.Files.read

    def hanging(*arguments: Any, **options: Any) -> Any:
        back.wait(LONG)
        return reading(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(files.Files, "read", hanging)
        yield back
        back.set()
        for thread in threading.enumerate():
            if thread.name == "cachekit-store":
                thread.join(LONG)


def test_a_mount_that_hangs_costs_a_call_its_time(store: Mounted, hung: threading.Event) -> None:
    """And after a few nothing; it keeps a few threads, whoever asks how often; when it is back all goes on."""
    before = time.monotonic()
    for _ in range(40):
        with pytest.raises(TierUnavailable) as caught:
            store.block_get(raw_cid(b"x"), timeout=0.05)
        assert caught.value.reason == "timeout"
    assert time.monotonic() - before < 2.0
    assert sum(thread.name == "cachekit-store" for thread in threading.enumerate()) <= 4
    hung.set()
    end = time.monotonic() + LONG
    while True:
        try:
            assert store.block_get(raw_cid(b"x"), timeout=LONG) is None
            break
        except TierUnavailable:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_forked_child_uses_it(store: Mounted) -> None:
    """No lock and no thread of the parent's is missing there."""
    cid = keep(store, b"of the parent")
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(
                0 if store.block_get(cid, timeout=LONG) == b"of the parent" and keep(store, b"of the child") else 1
            )
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert store.block_get(raw_cid(b"of the child"), timeout=LONG) == b"of the child"


# -- collecting -------------------------------------------------------------------------------------------------------


def test_unused_blocks_are_collected_and_kept_ones_stay(root: Path, store: Mounted) -> None:
    """Old and needed by nobody goes; young, pinned with all parts, and linked stays."""
    data = os.urandom(3 * MIB)
    pinned = store.add_stream([data], size=len(data), pin_name="p", idle=LONG)
    linked, old, young = keep(store, b"linked"), keep(store, b"old"), keep(store, b"young")
    store.link(linked, "/cachekit/v1/pins/xx/one", timeout=LONG)
    for path in (root / "blocks").rglob("*"):
        if path.is_file() and path.name != young:
            aged(path, UNUSED_SECONDS + 60)
    assert store.collect(timeout=LONG) == 1
    assert store.block_get(old, timeout=LONG) is None
    assert store.block_get(young, timeout=LONG) and store.block_get(linked, timeout=LONG)
    assert store.cat(pinned, size=len(data), timeout=LONG) == data


@pytest.mark.parametrize("use", ["read", "stored", "pinned"])
def test_who_uses_a_block_keeps_it(root: Path, store: Mounted, use: str) -> None:
    """Reading, storing again and pinning: each says that it is needed, before it is swept."""
    cid = keep(store, b"old but good")
    aged(place(root, cid), UNUSED_SECONDS + 60)
    if use == "read":
        store.block_get(cid, timeout=LONG)
    elif use == "stored":
        keep(store, b"old but good")
    else:
        store.pin(cid, "x", timeout=LONG)
        store.unpin(cid, timeout=LONG)
    assert store.collect(timeout=LONG) == 0
    assert store.block_get(cid, timeout=LONG) == b"old but good"


def test_a_block_of_another_user_is_stored_as_ours(root: Path, store: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where we may not say that it is used, it becomes ours, and is young; a pin takes it as it is."""
    cid = keep(store, b"of another user")
    aged(place(root, cid), UNUSED_SECONDS + 60)

    def refused(*_: Any) -> None:
        raise PermissionError(1, "not yours")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "utime", refused)
        assert store.block_get(cid, timeout=LONG) == b"of another user"
        store.pin(cid, "x", timeout=LONG)
        store.unpin(cid, timeout=LONG)
        keep(store, b"of another user")
    assert store.collect(timeout=LONG) == 0
    assert store.block_get(cid, timeout=LONG) == b"of another user"


def test_what_killed_writers_left_is_collected(root: Path, store: Mounted) -> None:
    """Their temporaries, a day later; what is no block of ours is left alone."""
    cid = keep(store, b"a block")
    store.write(f"{SPACE}/a/1", b"x", timeout=LONG)
    left = [place(root, cid).with_name(".tmp-1"), root / "tree/cachekit/v1/ns/a/.tmp-2"]
    foreign = place(root, cid).with_name("notes.txt")
    for path in (*left, foreign):
        path.write_bytes(b"half")
        aged(path, UNUSED_SECONDS + USED_SECONDS)
    store.collect(timeout=LONG)
    assert not any(path.exists() for path in left)
    assert foreign.exists()
    assert store.read(f"{SPACE}/a/1", limit=9, timeout=LONG) == b"x"


def test_collecting_makes_listings_whole(root: Path, store: Mounted) -> None:
    """What a killed writer's old listing hides is listed again."""
    store.write(f"{SPACE}/a/1", b"x", timeout=LONG)
    listing = root / "tree/cachekit/v1/ns" / LISTING
    stale = listing.read_bytes()
    store.write(f"{SPACE}/b/1", b"y", timeout=LONG)
    before = store.stat(SPACE, timeout=LONG)
    listing.write_bytes(stale)
    store.collect(timeout=LONG)
    assert store.stat(SPACE, timeout=LONG) == before
