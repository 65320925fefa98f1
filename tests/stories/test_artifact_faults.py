"""Artifacts when things go wrong, with real processes, a real Kubo, and a full disk.

Between a process and the daemon stands `relay`, which passes bytes on, counts them, and stops or cuts where told.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit import Retry, UsageError, persist_artifact, stats
from cachekit.artifacts.manifest import Manifest
from cachekit.cache.default import default
from cachekit.cache.operations import registry
from cachekit.files import copying
from cachekit.ipfs.node import install

MIB = 1 << 20
ROOT = Path(__file__).parents[2]

# Both processes run this file, so that the function is the same one. `FAULT` kills the process at its n-th change to the
# file system once the function has returned: the instants in which something half could become visible.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import cachekit
from cachekit import persist_artifact
log, gate, fault = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
CHANGES = ("os.rename", "os.link", "os.mkdir", "os.chmod", "os.remove", "os.rmdir")
seen = None

def hook(name, arguments):
    global seen
    if seen is None or not (name in CHANGES or name == "open" and arguments[1] not in ("r", "rb")):
        return
    seen += 1
    if seen == fault:
        os.kill(os.getpid(), signal.SIGKILL)

@persist_artifact(scratch="work", version="1")
def build(name, work=None):
    global seen
    with log.open("a") as file:
        file.write("built\\n")
    while not gate.exists():
        time.sleep(0.005)
    tree = work / "model"
    (tree / "sub").mkdir(parents=True)
    for number in range(3):
        (tree / "sub" / f"{number}.bin").write_bytes(bytes([number]) * 100_000)
    (tree / "run").write_text("#!")
    (tree / "run").chmod(0o755)
    seen = 0 if fault else None
    return tree

sys.addaudithook(hook)
print(build("model"), flush=True)
print(seen, flush=True)
"""

FETCH = """
import os, sys
from pathlib import Path
import cachekit
from cachekit import persist_artifact

@persist_artifact(version="1", encrypt=os.environ["SEALED"] == "1")
def weights(name):
    if not os.environ.get("SOURCE"):
        raise LookupError("asked to build")
    return Path(os.environ["SOURCE"])

cachekit.sync()
path = weights("large")
cachekit.flush(60)
print(path)
"""


def run(script: str, *arguments: object, environ: dict[str, str]) -> subprocess.Popen[str]:
    """A process of its own, with this checkout and the settings in `environ`."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    told = {**os.environ, "PYTHONPATH": str(ROOT), "CACHEKIT_MODE": "on", **environ}
    return subprocess.Popen(command, env=told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return out


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def litter(directory: Path) -> list[Path]:
    """What lies among the temporaries and the scratch directories."""
    return [path for name in ("tmp", "scratch") for path in (directory / "artifacts" / name).glob("*")]


def manifest_of(function: Any, *args: Any) -> Manifest:
    found = registry().find(str(function.key_for(*args)))
    assert found is not None
    return found.manifest


# -- processes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    return {"CACHEKIT_DIR": str(tmp_path / "shared"), "CACHEKIT_IPFS": "off"}


def test_two_processes_build_once(tmp_path: Path, offline: dict[str, str]) -> None:
    """One process builds; the other, which comes meanwhile, waits and gets the same path."""
    log, gate = tmp_path / "log", tmp_path / "gate"
    first = run(SCRIPT, log, gate, 0, environ=offline)
    until(lambda: lines(log) == 1, "nobody builds")
    second = run(SCRIPT, log, gate, 0, environ=offline)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1.0)
    gate.touch()
    assert finish(first).splitlines()[0] == finish(second).splitlines()[0]
    assert lines(log) == 1


def test_who_waits_for_a_killed_builder_builds(tmp_path: Path, offline: dict[str, str]) -> None:
    """SIGKILL in the middle of the function: the process that waited takes over, without waiting for any time to pass."""
    log, gate = tmp_path / "log", tmp_path / "gate"
    first = run(SCRIPT, log, gate, 0, environ=offline)
    until(lambda: lines(log) == 1, "nobody builds")
    second = run(SCRIPT, log, gate, 0, environ=offline)
    first.send_signal(signal.SIGKILL)
    until(lambda: lines(log) == 2, "nobody takes over")
    gate.touch()
    assert (Path(finish(second).splitlines()[0]) / "sub" / "2.bin").stat().st_size == 100_000
    first.communicate()


@pytest.mark.parametrize("fault", [1, 4, 8, 12, 16, 20, 26, 34])
def test_a_builder_killed_while_storing_leaves_no_half(tmp_path: Path, offline: dict[str, str], fault: int) -> None:
    """Killed at its n-th change to the file system: whatever stands then, the next call gives the whole tree."""
    log, gate = tmp_path / "log", tmp_path / "gate"
    gate.touch()
    killed = run(SCRIPT, log, gate, fault, environ=offline)
    out, _ = killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL, f"only {out} changes were made"
    path = Path(finish(run(SCRIPT, log, gate, 0, environ=offline)).splitlines()[0])
    found = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    expected = {f"sub/{number}.bin": bytes([number]) * 100_000 for number in range(3)}
    assert found == {**expected, "run": b"#!"}
    assert os.access(path / "run", os.X_OK)


# -- output and scratch --------------------------------------------------------------------------------------------------

CALLS: list[Path | None] = []


@pytest.fixture(autouse=True)
def nothing_called() -> None:
    CALLS.clear()


@persist_artifact(output="output", scratch="work", version="1")
def make(kind: str, how: str, output: Path | None = None, work: Path | None = None) -> Path:
    """A file or a tree, written to `output` or in `work`."""
    CALLS.append(work)
    place = output if how == "itself" else (work or Path()) / "made"
    assert place is not None
    if kind == "file":
        place.write_text("content")
    else:
        place.mkdir(exist_ok=True)
        (place / "a.txt").write_text("content")
    return place


# What stands in the way of a function that writes there itself is its own to deal with.
@pytest.mark.parametrize(
    ("how", "before"), [("itself", "nothing"), *(("elsewhere", what) for what in ("nothing", "file", "tree", "link"))]
)
@pytest.mark.parametrize("kind", ["file", "tree"])
@pytest.mark.parametrize("mode", ["on", "off", "read-only"])
def test_output_holds_the_content(tmp_path: Path, mode: str, kind: str, how: str, before: str) -> None:
    """Whoever writes it, whatever stood there, stored or not: the call gives `output`, which holds the whole content."""
    cachekit.configure(mode=mode)
    for number in range(2):
        output = tmp_path / f"out{number}"
        if before == "file":
            output.write_text("old")
        elif before == "tree":
            (output / "old").mkdir(parents=True)
        elif before == "link":
            (tmp_path / f"elsewhere{number}").mkdir()
            output.symlink_to(tmp_path / f"elsewhere{number}")
        assert make(kind, how, output) == output
        assert not output.is_symlink()
        found = output if kind == "file" else output / "a.txt"
        assert found.read_text() == "content"
        assert kind == "file" or os.listdir(output) == ["a.txt"]
        found.write_text("mine")
    assert len(CALLS) == (1 if mode == "on" else 2)
    assert not [work for work in CALLS if work is not None and work.exists()]


def test_an_output_that_cannot_be_is_named(tmp_path: Path) -> None:
    """Directories above `output` are made; where a file stands in their place, UsageError names the output."""
    assert make("file", "elsewhere", tmp_path / "new" / "deep" / "out").read_text() == "content"
    (tmp_path / "plain").write_text("a file")
    with pytest.raises(UsageError, match="plain/out"):
        make("file", "elsewhere", tmp_path / "plain" / "out")


def test_an_output_in_a_missing_directory_is_the_functions_own_error(tmp_path: Path) -> None:
    """A function that writes to `output` itself gets the system's error, which names the place; nothing is stored."""
    with pytest.raises(FileNotFoundError, match="nowhere/out"):
        make("file", "itself", tmp_path / "nowhere" / "out")
    assert stats(make).as_dict()["stores"] == 0


def test_scratch_goes_when_the_function_raises(own_cache: Path) -> None:
    """The exception passes untouched, and the directory is gone with all that was in it."""
    seen: list[Path] = []

    @persist_artifact(scratch="work")
    def fails(work: Path | None = None) -> Path:
        assert work is not None
        (work / "half").write_text("half")
        seen.append(work)
        raise LookupError("no")

    with pytest.raises(LookupError):
        fails()
    assert not seen[0].exists()
    assert litter(own_cache) == []


def test_each_attempt_has_a_scratch_of_its_own() -> None:
    """Retried as often as was said and no more; an attempt never finds what the last one left."""
    seen: list[Path] = []

    @persist_artifact(scratch="work", retry=Retry(on=(OSError,), attempts=2, max_wait=0.01))
    def flaky(work: Path | None = None) -> Path:
        assert work is not None and not list(work.iterdir())
        seen.append(work)
        (work / "out").write_text("x")
        raise OSError("not today")

    with pytest.raises(OSError, match="not today"):
        flaky()
    assert len(set(seen)) == len(seen) == 2


def test_a_path_inside_scratch_comes_back(own_cache: Path) -> None:
    """What is returned from inside scratch is in the store, and the scratch directory is gone."""
    path = make("tree", "elsewhere")
    assert (path / "a.txt").read_text() == "content"
    assert CALLS[0] is not None and not CALLS[0].exists()
    assert litter(own_cache) == []


def test_refresh_builds_again(tmp_path: Path) -> None:
    """`refresh` asks the function whatever is stored, with a scratch directory of its own and `output` as in a call."""
    first = make("tree", "elsewhere")
    assert make.refresh("tree", "elsewhere") == first
    assert make.refresh("tree", "elsewhere", tmp_path / "out") == tmp_path / "out"
    assert make("tree", "elsewhere") == first
    assert len(set(CALLS)) == len(CALLS) == 3
    assert (tmp_path / "out" / "a.txt").read_text() == "content"


# -- keys ----------------------------------------------------------------------------------------------------------------

OPENED: list[str] = []
WATCHED: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if WATCHED and event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(WATCHED[0]):
        OPENED.append(arguments[0])


sys.addaudithook(_watch)  # for ever, as Python has it; it looks only while something is watched


@persist_artifact(version="1", ignore=("target",))
def listing(tree: Path, target: str) -> Path:
    CALLS.append(tree)
    Path(target).write_text(str(len(list(tree.iterdir()))))
    return Path(target)


def test_a_hit_of_ten_thousand_files_opens_none(tmp_path: Path) -> None:
    """A warm key of a tree costs stats: not one of its 10 000 files is opened, and one that changes is a miss."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(10_000):
        (tree / f"{number}.txt").write_text(str(number))
    target = str(tmp_path / "target")
    WATCHED.append(str(tree) + os.sep)
    try:
        listing(tree, target)
        first = len(OPENED)
        # Files so young that another write could leave no trace are read again.
        until(lambda: not _opened(lambda: listing(tree, target)), "files are opened again and again")
    finally:
        WATCHED.clear()
        OPENED.clear()
    assert first >= 10_000
    assert len(CALLS) == 1
    (tree / "77.txt").write_text("changed")
    listing(tree, target)
    assert len(CALLS) == 2


def _opened(body: Callable[[], object]) -> int:
    OPENED.clear()
    body()
    return len(OPENED)


def test_an_input_tree_changed_in_place_is_a_miss(tmp_path: Path) -> None:
    """Bytes of the same length, a new name, an empty file more: each makes another key; changed back, it is a hit."""
    tree, target = tmp_path / "tree", str(tmp_path / "target")
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "a").write_text("one")
    listing(tree, target)
    (tree / "sub" / "a").write_text("two")
    listing(tree, target)
    (tree / "sub" / "a").rename(tree / "sub" / "b")
    listing(tree, target)
    (tree / "empty").touch()
    listing(tree, target)
    assert len(CALLS) == 4
    (tree / "empty").unlink()
    (tree / "sub" / "b").rename(tree / "sub" / "a")
    (tree / "sub" / "a").write_text("one")
    listing(tree, target)
    assert len(CALLS) == 4


# -- a store that refuses ------------------------------------------------------------------------------------------------


def no_room(*_arguments: object) -> int:
    raise OSError(28, os.strerror(28))


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", ["file", "tree"])
def test_a_full_disk_costs_the_cache_not_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, named: bool
) -> None:
    """ENOSPC where the store makes a file last: the caller has the whole result all the same, and the reason is counted."""
    monkeypatch.setattr(copying.os, "fsync", no_room)
    output = tmp_path / "out" if named else None
    path = make(kind, "elsewhere", output)
    assert path == output if named else path == (CALLS[0] or Path()) / "made"
    assert (path if kind == "file" else path / "a.txt").read_text() == "content"
    told = stats(make).as_dict()
    assert told["errors"]["artifacts"] == {"full": 1}
    assert told["stores"] == 0
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert make(kind, "elsewhere", output).exists()
    assert len(CALLS) == 2
    assert stats(make).as_dict()["stores"] == 1


def test_a_file_that_is_too_large_for_the_system(tmp_path: Path, offline: dict[str, str]) -> None:
    """The system's own refusal (RLIMIT_FSIZE) half way through copying: the path of the origin, whole, and counted."""
    source = tmp_path / "large"
    source.write_bytes(os.urandom(3 * MIB))
    script = """
import resource, sys
from pathlib import Path
from cachekit import persist_artifact, stats

@persist_artifact(version="1")
def large():
    return Path(sys.argv[1])

resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))
print(large())
print(stats(large).as_dict()["errors"])
"""
    path, errors = finish(run(script, source, environ=offline)).splitlines()
    assert path == str(source)
    assert "artifacts" in errors and "full" in errors
    assert list((tmp_path / "shared" / "artifacts" / "tmp").glob("*")) == []


def test_a_forbidden_entry_raises_after_the_origin_ran(tmp_path: Path) -> None:
    """The caller's own fault is no degradation: UsageError names the entry, with the store full or not."""

    @persist_artifact(version="1")
    def odd() -> Path:
        CALLS.append(tmp_path)
        (tmp_path / "odd").mkdir(exist_ok=True)
        (tmp_path / "odd" / "leaving").symlink_to("../../elsewhere")
        return tmp_path / "odd"

    with pytest.raises(UsageError, match="leaving"):
        odd()
    assert len(CALLS) == 1
    assert "artifacts" not in stats(odd).as_dict().get("errors", {})


# -- the team ------------------------------------------------------------------------------------------------------------


@dataclass
class Relay:
    """What came from the daemon so far, and where that ends: after `stop` bytes it waits for `go`, or cuts."""

    target: tuple[str, int]
    stop: int = 1 << 62
    cut: bool = False
    passed: int = 0
    held: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    api: str = ""
    lock: Any = field(default_factory=threading.Lock)

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(client,), daemon=True).start()

    def _converse(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.target) as server:
            answers = threading.Thread(target=self._back, args=(server, client), daemon=True)
            answers.start()
            with contextlib.suppress(OSError):
                while data := client.recv(64 << 10):
                    server.sendall(data)
            _shut(server)
            answers.join()

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(64 << 10):
                with self.lock:
                    over = self.passed + len(data) > self.stop
                    self.passed += 0 if over else len(data)
                if over:
                    self.held.set()
                    if self.cut:
                        break
                    self.go.wait()
                    break
                client.sendall(data)
        _shut(client)
        _shut(server)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relay(api: str, **how: Any) -> Iterator[Relay]:
    """A way to the daemon at `api` that can be stopped."""
    parts = api.split("/")
    made = Relay((parts[2], int(parts[4])), **how)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made.api = f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}"
        serving = threading.Thread(target=made.serve, args=(listener,), daemon=True)
        serving.start()
        try:
            yield made
        finally:
            made.go.set()
            _shut(listener)
            serving.join()


@pytest.fixture(params=["plain", "sealed"])
def team(request: pytest.FixtureRequest, kubo_api: str, tmp_path: Path) -> tuple[dict[str, str], Path]:
    """Two files of 16 MiB, stored by a first machine; what a second machine's environment is, and where the source is."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "b"):
        (source / name).write_bytes(os.urandom(16 * MIB))
    common = {
        "CACHEKIT_SECRET_FILE": str(tmp_path / "credential"),
        "CACHEKIT_IPFS": "rw",
        "CACHEKIT_IPFS_TIMEOUT": "20",
        "SEALED": "1" if request.param == "sealed" else "0",
    }
    one = {
        "CACHEKIT_DIR": str(tmp_path / "one"),
        "CACHEKIT_IPFS_API": kubo_api,
        "XDG_CONFIG_HOME": str(tmp_path / "c1"),
    }
    finish(run(FETCH, environ={**common, **one, "SOURCE": str(source)}))
    two = {"CACHEKIT_DIR": str(tmp_path / "two"), "XDG_CONFIG_HOME": str(tmp_path / "c2")}
    return {**common, **two}, source


def same(path: Path, source: Path) -> bool:
    return all((path / name).read_bytes() == (source / name).read_bytes() for name in os.listdir(source))


def test_a_killed_fetch_goes_on_where_it_stopped(
    team: tuple[dict[str, str], Path], kubo_api: str, tmp_path: Path
) -> None:
    """SIGKILL after 24 of 32 MiB: the next process fetches what is missing only, and nothing was visible in between."""
    environ, source = team
    with relay(kubo_api, stop=24 * MIB) as first:
        fetching = run(FETCH, environ={**environ, "CACHEKIT_IPFS_API": first.api})
        assert first.held.wait(60)
        until(lambda: _kept(tmp_path / "two") > 16 * MIB, "what passed the relay was not written down")
        fetching.send_signal(signal.SIGKILL)
        fetching.communicate()
    here = _kept(tmp_path / "two")
    assert not list((tmp_path / "two" / "artifacts").glob("trees/??/*/*"))
    with relay(kubo_api) as second:
        path = Path(finish(run(FETCH, environ={**environ, "CACHEKIT_IPFS_API": second.api})).strip())
    assert same(path, source)
    kept = here // MIB * MIB - 2 * MIB  # whole chunks of two files
    assert second.passed < 32 * MIB - kept + 2 * MIB, f"{second.passed} bytes, where {here} were there"


def _kept(directory: Path) -> int:
    """Bytes of files that a fetch wrote: of unfinished ones, and of the one that may be whole already."""
    found = [*directory.glob("artifacts/partial/*"), *directory.glob("artifacts/blobs/??/*")]
    return sum(path.stat().st_size for path in found)


TOGETHER = FETCH.replace(
    'path = weights("large")',
    """from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    (path,) = set(pool.map(weights, ["large"] * 4))""",
)


def test_who_comes_while_it_is_fetched_waits_for_it(team: tuple[dict[str, str], Path], kubo_api: str) -> None:
    """Two processes of four threads each: nobody builds, and each file comes over the wire about once."""
    environ, source = team
    with relay(kubo_api) as counting:
        asking = [run(TOGETHER, environ={**environ, "CACHEKIT_IPFS_API": counting.api}) for _ in range(2)]
        paths = {Path(finish(process).strip()) for process in asking}
    assert len(paths) == 1 and same(paths.pop(), source)
    assert counting.passed < 2 * 32 * MIB


def test_the_names_of_pins_tell_nothing_of_sealed_files(team: tuple[dict[str, str], Path], kubo_api: str) -> None:
    """Whoever runs the daemon sees names of pins: of plain files their paths, of sealed ones a number."""
    from cachekit.ipfs.kubo.transport import KuboTransport
    from cachekit.ipfs.trust.tokens import load_credential

    environ, _source = team
    transport = KuboTransport(kubo_api)
    try:
        names = [str(pin.get("Name", "")) for pin in transport.ask("pin/ls", {"names": "true"}, 20)["Keys"].values()]
    finally:
        transport.close()
    credential = load_credential(None, Path(environ["CACHEKIT_SECRET_FILE"]))
    said = {name.rpartition("/")[2] for name in names if credential.namespace_id("default") in name}
    assert said >= ({"a", "b"} if environ["SEALED"] == "0" else {"0", "1"})
    assert environ["SEALED"] == "0" or not said & {"a", "b"}


def test_a_connection_that_breaks_is_the_origins_turn(team: tuple[dict[str, str], Path], kubo_api: str) -> None:
    """Cut after 20 of 32 MiB: the origin is asked, and what came is kept for the next time."""
    environ, source = team
    with relay(kubo_api, stop=20 * MIB, cut=True) as cutting:
        process = run(FETCH, environ={**environ, "CACHEKIT_IPFS_API": cutting.api})
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0 and "asked to build" in errors
    with relay(kubo_api) as second:
        path = Path(finish(run(FETCH, environ={**environ, "CACHEKIT_IPFS_API": second.api})).strip())
    assert same(path, source)
    assert second.passed < 28 * MIB


def test_a_wrong_block_in_the_daemon_never_becomes_visible(
    team: tuple[dict[str, str], Path], kubo_api: str, tmp_path: Path
) -> None:
    """A block altered in Kubo's own store: the call does not give it, nor does anything with it appear."""
    environ, source = team
    repository = _repository(kubo_api)
    alter = _altered(repository, 4)
    assert alter
    process = run(FETCH, environ={**environ, "CACHEKIT_IPFS_API": kubo_api})
    out, errors = process.communicate(timeout=60)
    for block, data in alter.items():
        block.write_bytes(data)
    assert process.returncode != 0 and "asked to build" in errors, out
    store = tmp_path / "two" / "artifacts"
    assert not list(store.glob("trees/??/*/*"))
    right = {hashlib.sha256((source / name).read_bytes()).hexdigest() for name in ("a", "b")}
    for blob in store.glob("blobs/??/*"):
        assert blob.name in right and hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    path = Path(finish(run(FETCH, environ={**environ, "CACHEKIT_IPFS_API": kubo_api})).strip())
    assert same(path, source)


def _repository(api: str) -> Path:
    from cachekit.ipfs.kubo.transport import KuboTransport

    transport = KuboTransport(api)
    try:
        return Path(transport.ask("repo/stat", {}, 20)["RepoPath"])
    finally:
        transport.close()


def _altered(repository: Path, count: int) -> dict[Path, bytes]:
    """Flips a bit in the youngest `count` blocks of a whole MiB; what they held."""
    blocks = [block for block in repository.glob("blocks/*/*.data") if block.stat().st_size == MIB]
    found = {}
    for block in sorted(blocks, key=lambda block: block.stat().st_mtime_ns)[-count:]:
        found[block] = data = block.read_bytes()
        block.chmod(0o644)
        block.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    return found


@persist_artifact(version="1", encrypt=False)
def published(source: str) -> Path:
    CALLS.append(Path(source))
    return Path(source)


def test_published_cids_are_kubos_own(kubo_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `encrypt=False` a second machine restores, and each CID is the one that `ipfs add` itself gives the file."""
    source = tmp_path / "source"
    source.mkdir()
    for name, size in (("empty", 0), ("small", 10), ("chunk", MIB), ("large", 5 * MIB + 3)):
        (source / name).write_bytes(os.urandom(size))
    monkeypatch.setenv("CACHEKIT_SECRET_FILE", str(tmp_path / "credential"))
    common = {"ipfs": "rw", "ipfs_api": kubo_api, "ipfs_timeout": 20}
    with cachekit.configure(dir=tmp_path / "one", **common):
        published(str(source))
        cachekit.flush(60)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config two"))
    with cachekit.configure(dir=tmp_path / "two", **common):
        path = published(str(source))
        manifest = manifest_of(published, str(source))
        assert default().artifacts is not None
    assert len(CALLS) == 1
    assert {file.path: (path / file.path).read_bytes() for file in manifest.files} == {
        name: (source / name).read_bytes() for name in os.listdir(source)
    }
    assert {file.path: file.cid for file in manifest.files} == {
        name: _kubo_cid(kubo_api, source / name) for name in os.listdir(source)
    }


def _kubo_cid(api: str, path: Path) -> str:
    binary = str(install.install(path.parent).path)
    options = ["--cid-version=1", "--raw-leaves", "--chunker=size-1048576", "--only-hash", "--quieter"]
    told = subprocess.run(
        [binary, f"--api={api}", "add", *options, str(path)], capture_output=True, text=True, check=True
    )
    return told.stdout.strip()
