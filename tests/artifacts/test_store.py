"""The content store of artifacts, with real files, real processes and real kills."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from neighbour import forked

from cachekit.artifacts import output as outputs
from cachekit.artifacts.manifest import EXECUTABLE, PLAIN, File, Manifest
from cachekit.artifacts.store import ArtifactStore, Progress
from cachekit.errors import IntegrityError, TierError, UsageError
from cachekit.files import digests
from cachekit.files.digest_cache import Digests
from cachekit.files.digests import signature
from cachekit.files.temporary import remove, temporary

DAY = 24 * 3600 * 10**9
MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ArtifactStore]:
    yield ArtifactStore(tmp_path / "store")
    remove(tmp_path / "store")  # directories are read-only, for pytest too


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A file, an executable, the first file's content again, a link, an empty directory, an empty file."""
    top = tmp_path / "model"
    (top / "deep" / "er").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "a.bin").write_bytes(b"weights" * 1000)
    (top / "deep" / "again.bin").write_bytes(b"weights" * 1000)
    (top / "deep" / "er" / "run").write_bytes(b"#!/bin/sh\n")
    (top / "deep" / "er" / "run").chmod(0o755)
    (top / "link").symlink_to("deep/er/run")
    (top / "nothing").touch()
    return top


def content(top: Path) -> dict[str, object]:
    """What stands there: bytes and executability of files, targets of links, directories."""
    found: dict[str, object] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        name = path.relative_to(top).as_posix()
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        else:
            found[name] = "directory" if path.is_dir() else (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


def litter(directory: Path) -> list[Path]:
    """Temporaries that lie about."""
    return [path for name in ("tmp", "scratch", "partial") for path in (directory / name).glob("*")]


def test_a_tree_comes_back(store: ArtifactStore, tree: Path) -> None:
    """Bytes, modes, empty directories and links; read-only; each content once."""
    before = content(tree)
    manifest = store.ingest(tree, about={"function": "f"})
    path = store.have(manifest)
    assert path is not None and path.name == "model" and path.parent.name == manifest.digest
    assert content(path) == before == content(tree)
    assert (manifest.name, manifest.directories, manifest.about) == ("model", ("empty",), {"function": "f"})
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((path / "deep").stat().st_mode) == 0o555
    assert stat.S_IMODE((path / "a.bin").stat().st_mode) == 0o444
    assert stat.S_IMODE((path / "deep/er/run").stat().st_mode) == 0o555
    assert (path / "a.bin").samefile(path / "deep/again.bin")
    assert (path / "a.bin").samefile(store.blob(hashlib.sha256(b"weights" * 1000).hexdigest()))
    assert not litter(path.parents[3])


def test_a_file_comes_back(store: ArtifactStore, tmp_path: Path) -> None:
    """One entry whose path is empty."""
    (tmp_path / "x.gguf").write_bytes(b"gguf")
    manifest = store.ingest(tmp_path / "x.gguf")
    assert manifest.files == (File("", 4, PLAIN, hashlib.sha256(b"gguf").hexdigest()),)
    path = store.have(manifest)
    assert path is not None and (path.name, path.read_bytes()) == ("x.gguf", b"gguf")


def test_the_same_content_under_two_names(store: ArtifactStore, tmp_path: Path) -> None:
    """Has one digest and both names."""
    manifests = []
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")
        manifests.append(store.ingest(tmp_path / name))
    assert manifests[0].digest == manifests[1].digest
    assert [path.name for path in map(store.have, manifests) if path] == ["a", "b"]
    assert len(list(store.entries())) == 2


@pytest.mark.parametrize("own", [False, True])
def test_a_snapshot_of_huggingface_hub_is_its_files(store: ArtifactStore, tmp_path: Path, own: bool) -> None:
    """Links into the blobs beside all snapshots count as files, and the blobs stay; a link elsewhere is refused."""
    repo = tmp_path / "models--org--name"
    snapshot, blob = repo / "snapshots" / "1", repo / "blobs" / "abc"
    (snapshot / "below").mkdir(parents=True)
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    (snapshot / "a.bin").symlink_to("../../blobs/abc")
    (snapshot / "below" / "b.bin").symlink_to("../../../blobs/abc")
    placed = store.have(store.ingest(snapshot, own=own))
    assert placed is not None
    plain = (b"weights", False)
    assert content(placed) == {".": "directory", "a.bin": plain, "below": "directory", "below/b.bin": plain}
    assert (blob.read_bytes(), (snapshot / "a.bin").is_symlink()) == (b"weights", True)
    (tmp_path / "secret").write_bytes(b"s")
    (snapshot / "c.bin").symlink_to("../../../secret")
    with pytest.raises(UsageError, match=r"c\.bin"):
        store.ingest(snapshot)


def test_own_moves_what_lies_in_scratch(store: ArtifactStore, tmp_path: Path) -> None:
    """The files are moved, not copied; a file with a second name elsewhere is copied, for it could be written there."""
    with temporary(tmp_path / "store" / "scratch") as scratch:
        (scratch / "out").mkdir()
        (scratch / "out" / "moved").write_bytes(b"m")
        (scratch / "out" / "linked").write_bytes(b"l")
        os.link(scratch / "out" / "linked", scratch / "other name")
        inode = (scratch / "out" / "moved").stat().st_ino
        manifest = store.ingest(scratch / "out", own=True)
        (scratch / "other name").write_bytes(b"changed")
        assert not (scratch / "out" / "moved").exists()
    path = store.have(manifest)
    assert path is not None and (path / "moved").stat().st_ino == inode
    assert (path / "linked").read_bytes() == b"l"
    assert not scratch.exists()


def test_what_was_moved_is_given_back(store: ArtifactStore, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where storing fails at the end, what the function built is still there."""
    before = content(tree)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store._trees, "publish", fail)
    with pytest.raises(TierError):
        store.ingest(tree, own=True)
    assert content(tree) == before
    (tree / "a.bin").write_bytes(b"mine")
    assert all(path.read_bytes() != b"mine" for path in (tree.parent / "store").rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["fifo", "socket", "outside", "absolute", "colon", "case", "bytes", "device"])
def test_what_cannot_be_kept_is_refused_by_name(store: ArtifactStore, tree: Path, kind: str) -> None:
    """A UsageError names it, and nothing of the tree is stored."""
    names = {"colon": "odd:name", "case": "A.BIN", "bytes": os.fsdecode(b"odd\xff")}
    odd = tree / names.get(kind, "odd")
    if kind == "fifo":
        os.mkfifo(odd)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(tree)  # a socket's path has 108 bytes at most
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("odd")
        os.chdir(here)
    elif kind in ("outside", "absolute"):
        odd.symlink_to("../other" if kind == "outside" else tree / "a.bin")
    elif kind == "device":
        try:
            os.mknod(odd, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root makes devices")
    else:
        odd.touch()
    with pytest.raises(UsageError, match="odd" if kind != "case" else "(?i)a.bin"):
        store.ingest(tree)
    assert not (tree.parent / "store").exists() or not [p for p in (tree.parent / "store").rglob("*") if p.is_file()]


def deep(top: Path, levels: int) -> Path:
    """Directories below one another, made from inside: their path may be longer than the system takes."""
    here = os.open(".", os.O_RDONLY)
    top.mkdir()
    os.chdir(top)
    for _ in range(levels):
        os.mkdir("deeper")
        os.chdir("deeper")
    Path("file").touch(mode=0o400)
    os.fchdir(here)
    os.close(here)
    return top


def test_a_tree_too_deep_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    """The place and the limit are named, nothing is left in the store, and 200 levels still come back."""
    assert store.have(store.ingest(deep(tmp_path / "fine", 199))) is not None
    with (
        pytest.raises(UsageError, match=r"'deeper/.*more than 200 directories"),
        temporary(tmp_path / "store" / "scratch") as scratch,
    ):
        store.ingest(deep(scratch / "model", 1200), own=True)
    assert not any(path.is_dir() for path in (tmp_path / "store" / "scratch").glob("*"))
    remove(tmp_path / "fine")


@pytest.mark.parametrize("levels", [1200, 3000])
def test_leftovers_of_any_depth_are_removed(store: ArtifactStore, tmp_path: Path, levels: int) -> None:
    """What a killed process left is measured and collected, deeper than Python calls and than a path is long."""
    left = tmp_path / "store" / "scratch"
    left.mkdir(parents=True)
    deep(left / "1-1-abc", levels)
    assert store.volume() == 0
    assert store.collect(time.time_ns()) == 0
    assert store.collect(time.time_ns() + 2 * DAY) == 1
    assert list(left.iterdir()) == []


def test_nothing_there_is_a_usage_error(store: ArtifactStore, tmp_path: Path) -> None:
    """A path that leads nowhere, and a circle."""
    (tmp_path / "circle").symlink_to("circle")
    for name in ("nothing", "circle"):
        with pytest.raises(UsageError, match=name):
            store.ingest(tmp_path / name)


@pytest.mark.parametrize("change", ["content", "same size and time", "mode", "more", "less", "link", "gone"])
def test_what_was_altered_is_no_hit(store: ArtifactStore, tree: Path, change: str) -> None:
    """It is removed, and stored anew the next time, whole."""
    before = content(tree)
    manifest = store.ingest(tree)
    path = store.have(manifest)
    assert path is not None
    file = path / "a.bin"
    file.parent.chmod(0o755)
    times = file.stat()
    if change in ("content", "same size and time"):
        file.chmod(0o644)
        file.write_bytes(b"Weights" * 1000 if change != "content" else b"x")
    if change == "same size and time":
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif change == "mode":
        (path / "deep/er/run").chmod(0o444)
    elif change == "more":
        (path / "more").touch()
    elif change == "less":
        file.unlink()
    elif change == "link":
        (path / "link").unlink()
        (path / "link").symlink_to("a.bin")
    elif change == "gone":
        remove(path)
    assert store.have(manifest) is None
    assert not path.exists()
    assert store.ingest(tree) == manifest
    again = store.have(manifest)
    assert again is not None and content(again) == before


def test_a_touched_file_is_read_once_more(store: ArtifactStore, tree: Path) -> None:
    """A signature moved, the content did not: a hit still, and the next one reads nothing."""
    manifest = store.ingest(tree)
    path = store.have(manifest)
    assert path is not None
    run = path / "deep/er/run"
    os.utime(run, ns=(0, 0))
    told: list[Progress] = []
    again = ArtifactStore(path.parents[3], told=told.append)
    time.sleep(0.05)  # so that the change lies before the clock's tick in which it is looked at
    assert again.have(manifest) == path
    assert {event.name for event in told} == {"deep/er/run"}
    told.clear()
    assert again.have(manifest) == path
    assert told == []


@pytest.mark.parametrize("name", ["", "a.bin", "deep/er/run"])
@pytest.mark.parametrize("own", [False, True])
def test_a_hit_reads_nothing(store: ArtifactStore, tree: Path, tmp_path: Path, name: str, own: bool) -> None:
    """Not even the first one: what was just stored is known to be right."""
    manifest = store.ingest(tree / name, own=own)
    told: list[Progress] = []
    assert ArtifactStore(tmp_path / "store", told=told.append).have(manifest) is not None
    assert told == []


def test_a_shared_blob_is_not_read_for_its_neighbours(store: ArtifactStore, tree: Path, tmp_path: Path) -> None:
    """Another artifact's link changes the file's ctime; the first is a hit still, without reading it."""
    manifest = store.ingest(tree)
    (tmp_path / "alone").write_bytes(b"weights" * 1000)
    other = store.ingest(tmp_path / "alone")
    told: list[Progress] = []
    again = ArtifactStore(tmp_path / "store", told=told.append)
    assert again.have(manifest) is not None
    store.remove(other.digest)
    assert again.have(manifest) is not None
    assert told == []


def test_a_large_shared_blob_is_not_read_by_another_process(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What links a large file anew says on the shelf that its bytes stayed, for processes that know nothing yet."""
    shelf = Digests(tmp_path / "digests", lambda: "on").open()
    try:
        for name in ("one", "other"):
            (tmp_path / name).write_bytes(b"weights" * MIB)
        manifest = store.ingest(tmp_path / "one")
        store.ingest(tmp_path / "other")
        monkeypatch.setattr(digests, "_files", {})
        told: list[Progress] = []
        monkeypatch.setattr(digests, "stream_digest", lambda *_: pytest.fail("it is read"))
        assert ArtifactStore(tmp_path / "store", told=told.append).have(manifest) is not None
        assert told == [] and store.missing(manifest) == []
    finally:
        shelf.close()


def test_a_blob_that_others_link_while_it_is_read_is_right(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that come and go move its signature, and not its bytes: it is neither missed nor removed."""
    (tmp_path / "one").write_bytes(os.urandom(16 * MIB))
    (file,) = store.ingest(tmp_path / "one").files
    monkeypatch.setattr(digests, "_files", {})  # as in a process that knows nothing yet
    stop = threading.Event()

    def link() -> None:
        while not stop.is_set():
            os.link(store.blob(file.sha256), tmp_path / "name")
            os.unlink(tmp_path / "name")

    linking = threading.Thread(target=link)
    linking.start()
    try:
        assert [store.has(file.sha256) for _ in range(5)] == [True] * 5
    finally:
        stop.set()
        linking.join()


def test_a_store_of_the_former_version_works(store: ArtifactStore, tree: Path, tmp_path: Path) -> None:
    """It kept signatures of contents in `seen/`: they are not looked at, and the janitor removes them."""
    manifest = store.ingest(tree)
    for file in manifest.files:
        (tmp_path / "store" / "seen" / file.sha256[:2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "store" / "seen" / file.sha256[:2] / (file.sha256 or "x")).write_bytes(b"1 2 3 4 5")
    assert store.have(manifest) is not None and store.missing(manifest) == []
    store.collect(time.time_ns())
    assert not (tmp_path / "store" / "seen").exists()
    assert store.have(manifest) is not None and store.missing(manifest) == []


def test_place_gives_a_copy_of_ones_own(store: ArtifactStore, tree: Path, tmp_path: Path) -> None:
    """Replacing what stood there; writable; and writing there never reaches the store."""
    before = content(tree)
    manifest = store.ingest(tree)
    output = tmp_path / "new" / "out"
    store.place(manifest, output)
    assert content(output) == before
    (output / "a.bin").write_bytes(b"mine")
    (output / "extra").touch()
    (output / "deep" / "extra").touch()
    path = store.have(manifest)
    assert path is not None and content(path) == before
    store.place(manifest, output)
    assert content(output) == before
    assert [p.name for p in output.parent.iterdir()] == ["out"]


def test_place_replaces_one_kind_by_another(store: ArtifactStore, tree: Path, tmp_path: Path) -> None:
    """A tree where a file or a link stood, a file where a tree stood; what a link led to is left alone."""
    file, manifest = store.ingest(tree / "a.bin"), store.ingest(tree)
    output, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    output.write_bytes(b"old")
    store.place(manifest, output)
    assert output.is_dir()
    store.place(file, output)
    assert output.read_bytes() == b"weights" * 1000
    output.unlink()
    output.symlink_to(elsewhere)
    store.place(manifest, output)
    assert output.is_dir() and not output.is_symlink() and list(elsewhere.iterdir()) == []


def test_place_refuses_the_store(store: ArtifactStore, tree: Path, tmp_path: Path) -> None:
    """Replacing the store, or something in it, would destroy it."""
    manifest = store.ingest(tree)
    for output in (tmp_path, tmp_path / "store", tmp_path / "store" / "trees"):
        with pytest.raises(UsageError, match="output"):
            store.place(manifest, output)
    assert store.have(manifest) is not None


def test_what_a_killed_process_left_beside_an_output_goes_a_day_later(
    store: ArtifactStore, tree: Path, tmp_path: Path
) -> None:
    """With the next artifact that is wanted there; what is younger, or somebody else's, stays."""
    manifest, place = store.ingest(tree), tmp_path / "place"
    place.mkdir()
    old, young = (place / f".cachekit-999999999-1-{mark * 12}" for mark in "ab")
    foreign = [
        place / name for name in ("other", ".cachekit-notes", ".cachekit-1-2", f".cachekit-replaced-9-1-{'c' * 12}")
    ]
    for path in (old, young, *foreign):
        path.write_text("left")
    for path in (old, *foreign):
        os.utime(path, ns=(0, 0))
    store.place(manifest, place / "out")
    assert {path.name for path in place.iterdir()} == {young.name, "out", *(path.name for path in foreign)}


def test_a_kill_while_a_replaced_result_is_removed(
    store: ArtifactStore, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one stands; what is left of the old one has the name of what is swept a day later."""
    manifest, place = store.ingest(tree), tmp_path / "place"
    (place / "out" / "old").mkdir(parents=True)

    def killed() -> bool:
        monkeypatch.setattr(outputs, "remove", lambda _path: os.kill(os.getpid(), signal.SIGKILL))
        store.place(manifest, place / "out")
        return True

    assert not forked(killed)
    assert content(place / "out") == content(tree)
    (left,) = [path for path in place.iterdir() if path.name != "out"]
    assert not left.name.startswith(".cachekit-replaced")
    os.utime(left, ns=(0, 0))
    os.utime(left / "old", ns=(0, 0))
    store.place(manifest, place / "again")
    assert {path.name for path in place.iterdir()} == {"out", "again"}


def test_assembled_of_blobs(store: ArtifactStore, tree: Path, tmp_path: Path) -> None:
    """What is missing is named, each content once; with it the artifact is whole."""
    manifest = store.ingest(tree)
    there = ArtifactStore(tmp_path / "there")
    missing = there.missing(manifest)
    assert sorted(file.sha256 for file in missing) == sorted({file.sha256 for file in manifest.files if not file.link})
    with pytest.raises(TierError):
        there.assemble(manifest)
    for file in missing:
        there.partial(file.sha256).write_bytes(store.blob(file.sha256).read_bytes())
        there.publish(file.sha256, there.partial(file.sha256))
    assert there.missing(manifest) == []
    assert content(there.assemble(manifest)) == content(tree)
    assert there.have(manifest) is not None
    remove(tmp_path / "there")


def test_a_wrong_download_is_removed(store: ArtifactStore) -> None:
    """Other bytes, or fewer, are refused, and no blob appears."""
    sha256 = hashlib.sha256(b"right").hexdigest()
    for wrong in (b"wrong", b"righ", b""):
        store.partial(sha256).write_bytes(wrong)
        with pytest.raises(IntegrityError):
            store.publish(sha256, store.partial(sha256))
        assert not store.partial(sha256).exists() and not store.blob(sha256).exists()
    with pytest.raises(IntegrityError):
        store.blob("../../etc/passwd")


def test_a_download_changed_since_it_was_digested_is_read_again(store: ArtifactStore) -> None:
    """A signature that the file no longer has vouches for nothing."""
    sha256, partial = hashlib.sha256(b"right").hexdigest(), store.partial(hashlib.sha256(b"right").hexdigest())
    partial.write_bytes(b"right")
    known = signature(os.lstat(partial))
    partial.write_bytes(b"wrong, and longer")
    with pytest.raises(IntegrityError):
        store.publish(sha256, partial, known)
    assert not store.blob(sha256).exists()


def test_a_manifest_that_escapes_is_not_assembled(store: ArtifactStore, tmp_path: Path) -> None:
    """Nothing is made outside the store, even of a manifest that was never decoded."""
    store.ingest(Path(__file__))
    sha256 = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    for manifest in (
        Manifest("tree", "x", (File("../../../../../out", 1, PLAIN, sha256),)),
        Manifest("file", "../../../../out", (File("", 1, EXECUTABLE, sha256),)),
    ):
        with pytest.raises(IntegrityError):
            store.assemble(manifest)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_removing_keeps_what_others_use(store: ArtifactStore, tree: Path, tmp_path: Path) -> None:
    """Blobs of another artifact stay, the rest goes; the volume counts each content once."""
    (tmp_path / "alone").write_bytes(b"weights" * 1000)
    manifest, alone = store.ingest(tree), store.ingest(tmp_path / "alone")
    assert {entry.name for entry, _ in store.entries()} == {"model", "alone"}
    assert 7000 < store.volume() < 14000
    store.remove(manifest.digest)
    assert store.have(manifest) is None
    assert [file.sha256 for file in store.missing(manifest)] != []
    assert store.have(alone) is not None and store.missing(alone) == []
    store.remove(alone.digest)
    assert list(store.entries()) == [] and store.volume() == 0


def _slow(directory: str, source: str, ready: str) -> None:
    def told(progress: Progress) -> None:
        if progress.done >= 2 * MIB:
            Path(ready).touch()
            time.sleep(60)

    ArtifactStore(Path(directory), told=told).ingest(Path(source))


def test_a_killed_ingest_leaves_nothing_visible(store: ArtifactStore, tree: Path, tmp_path: Path) -> None:
    """No artifact, no blob; the janitor removes what it left, after a day, and not what a living process has."""
    (tree / "big").write_bytes(os.urandom(4 * MIB))
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=_slow, args=(str(tmp_path / "store"), str(tree), str(tmp_path / "ready")))
    child.start()
    while not (tmp_path / "ready").exists():
        assert child.is_alive()
        time.sleep(0.005)
    assert litter(tmp_path / "store")
    assert store.collect(time.time_ns() + 2 * DAY) == 0  # its owner lives
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert list(store.entries()) == [] and not list((tmp_path / "store").glob("blobs/*/*"))
    assert not list((tmp_path / "store").glob("trees/*/*/*"))
    assert store.collect(time.time_ns()) == 0  # it is not a day old
    assert store.collect(time.time_ns() + 2 * DAY) == 1
    assert litter(tmp_path / "store") == []
    assert store.have(store.ingest(tree)) is not None


def test_what_was_described_and_never_published_goes_a_day_later(
    store: ArtifactStore, tree: Path, tmp_path: Path
) -> None:
    """The note and the directory of a tree that never came; not those of one that did, nor of one that comes just now."""
    manifest, here = store.ingest(tree), tmp_path / "store"
    kept = sorted(here.glob("notes/*/*"))
    (tree / "more").write_text("more")
    other = store.ingest(tree)
    remove(next(here.glob(f"trees/*/{other.digest}/*")))
    assert store.collect(time.time_ns()) == 0
    assert store.collect(time.time_ns() + 2 * DAY) == 3  # its content is one
    assert sorted(here.glob("notes/*/*")) == kept and not list(here.glob(f"trees/*/{other.digest}"))
    assert store.have(manifest) is not None


def _killed_at(directory: str, source: str, number: int) -> None:
    """An ingest that dies at its `number`-th change of the file system."""
    left = [number]

    def audit(event: str, _: object) -> None:
        if event in ("os.rename", "os.link", "os.mkdir", "os.chmod", "os.remove"):
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)

    sys.addaudithook(audit)
    ArtifactStore(Path(directory)).ingest(Path(source))


def test_whenever_it_dies_nothing_half_is_a_hit(tree: Path, tmp_path: Path) -> None:
    """Killed at its n-th change, for every n: either no artifact or a whole one; and the next ingest succeeds."""
    manifest = ArtifactStore(tmp_path / "model store").ingest(tree)
    context = multiprocessing.get_context("fork")
    number, code = 0, 9
    while code == 9:
        number += 1
        directory = tmp_path / f"store{number}"
        child = context.Process(target=_killed_at, args=(str(directory), str(tree), number))
        child.start()
        child.join()
        code = child.exitcode or 0
        store = ArtifactStore(directory)
        path = store.have(manifest)
        assert path is None or content(path) == content(tree)
        again = store.have(store.ingest(tree))
        assert again is not None and content(again) == content(tree)
        store.collect(time.time_ns() + 2 * DAY)
        assert litter(directory) == []
        remove(directory)
    assert code == 0 and number > 20


def _together(directory: str, source: str, begin: str, results: multiprocessing.Queue[str]) -> None:
    while not Path(begin).exists():
        pass
    store = ArtifactStore(Path(directory))
    manifest = store.ingest(Path(source))
    results.put(f"{manifest.digest} {store.have(manifest)}")


def test_two_processes_at_once(store: ArtifactStore, tree: Path, tmp_path: Path) -> None:
    """Both succeed, one copy remains."""
    (tree / "big").write_bytes(os.urandom(2 * MIB))
    context = multiprocessing.get_context("fork")
    for turn in range(5):
        results: multiprocessing.Queue[str] = context.Queue()
        arguments = (str(tmp_path / "store"), str(tree), str(tmp_path / f"begin{turn}"), results)
        children = [context.Process(target=_together, args=arguments) for _ in range(3)]
        for child in children:
            child.start()
        (tmp_path / f"begin{turn}").touch()
        said = {results.get(timeout=60) for _ in children}
        for child in children:
            child.join()
            assert child.exitcode == 0
        assert len(said) == 1 and "None" not in next(iter(said))
        ((manifest, _),) = store.entries()
        path = store.have(manifest)
        assert path is not None and content(path) == content(tree)
        assert litter(tmp_path / "store") == []
        assert store.volume() < 2.5 * MIB
        store.remove(manifest.digest)


MEMORY = """
import resource, sys
from pathlib import Path
from cachekit.artifacts.store import ArtifactStore
store = ArtifactStore(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
manifest = store.ingest(Path(sys.argv[2]))
assert store.have(manifest)
store.place(manifest, Path(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_constant(store: ArtifactStore, tmp_path: Path) -> None:
    """Storing and placing 64 MiB takes less than 16 MiB; and every MiB is told."""
    big = tmp_path / "big"
    with open(big, "wb") as stream:
        for _ in range(64):
            stream.write(os.urandom(MIB))
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "store"), str(big), str(tmp_path / "out")]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 16 * 1024
    told: list[Progress] = []
    ArtifactStore(tmp_path / "other", told=told.append).ingest(big)
    assert [event.done for event in told] == [MIB * (i + 1) for i in range(64)]
    assert {(event.name, event.total) for event in told} == {("big", 64 * MIB)}


def test_scratch_is_removed_whatever_happens(tmp_path: Path) -> None:
    """An exception, and read-only directories in it."""
    with pytest.raises(KeyError):
        with temporary(tmp_path / "scratch") as scratch:
            (scratch / "a" / "b").mkdir(parents=True)
            (scratch / "a" / "b" / "c").touch()
            (scratch / "a" / "b").chmod(0o500)
            (scratch / "a").chmod(0o500)
            raise KeyError
    assert not scratch.exists()


def test_the_later_manifest_is_told(store: ArtifactStore, tree: Path) -> None:
    """`assemble` of what is here keeps the manifest's cids for the registry."""
    manifest = store.ingest(tree)
    files = tuple(file._replace(cid="bafy") if not file.link else file for file in manifest.files)
    named = Manifest(manifest.kind, manifest.name, files, manifest.directories, False, {"machine": "m"})
    assert store.assemble(named) == store.have(manifest)
    assert [entry for entry, _ in store.entries()] == [named]


def test_nothing_happens_in_the_constructor(tmp_path: Path) -> None:
    """No directory, no file; and looking makes none either."""
    store = ArtifactStore(tmp_path / "store")
    assert store.have(Manifest("file", "x", (File("", 1, PLAIN, "ab" * 32),))) is None
    assert list(store.entries()) == [] and store.volume() == 0 and store.collect(0) == 0
    assert not (tmp_path / "store").exists()
