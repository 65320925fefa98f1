"""Artifacts: a warm hit whatever the size, storing beside `ipfs add`, restoring beside a bare GET, and the memory it takes.

`BENCH_ARTIFACT_MIB` says how large the large one is (256), in 20 files.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.util
import itertools
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from harness import Figure, Scale, added, cache, directory, middle, rounds
from time_ipfs import _home, kubo

import cachekit
from cachekit.cache.operations import registry
from cachekit.ipfs.node import install

MIB = 1 << 20
FILES = 20
_CAT = "/api/v0/cat?arg="


@cachekit.persist_artifact(version="1", encrypt=False)
def plain(source: str) -> Path:
    """A model that is there already: the call is nothing but storing it."""
    return Path(source)


@cachekit.persist_artifact(version="1")
def sealed(source: str) -> Path:
    return Path(source)


def size_of(scale: Scale) -> int:
    """Bytes of the large artifact; a smoke test makes it small."""
    return (2 if scale.rounds < 5 else int(os.environ.get("BENCH_ARTIFACT_MIB", "256"))) * MIB


def tree(place: Path, size: int) -> Path:
    """`FILES` files of random bytes, together `size`."""
    place.mkdir(parents=True)
    for number in range(FILES):
        with open(place / f"part-{number:02}.bin", "wb") as file:
            for at in range(0, size // FILES, MIB):
                file.write(os.urandom(min(MIB, size // FILES - at)))
    return place


def time_hits(scale: Scale) -> list[Figure]:
    """A hit of the large artifact, of one of 1 MiB, and what else is used to have a large thing again."""
    size = size_of(scale)
    with cache() as place:
        large, small = tree(place / "large", size), tree(place / "small", MIB)
        for source in (large, small):
            plain(str(source))
        bodies = {
            "large": _times(scale.calls, lambda: plain(str(large))),
            "small": _times(scale.calls, lambda: plain(str(small))),
            **_hub(place, scale.calls),
        }
        taken = rounds(bodies, scale.rounds)
        slow = {"copytree": _copying(large, place / "copy"), **_joblib(place, size)}
        others = rounds(slow, min(scale.rounds, 3))
    label = f"{size // MIB} MiB in {FILES} files"
    return [
        Figure(f"warm hit, {label}", middle(taken, "large"), 200, "us"),
        Figure("the same less a hit of 1 MiB", added(taken, "large", "small"), unit="us"),
        *([Figure("huggingface_hub, 20 cache lookups", middle(taken, "hub"), unit="us")] if "hub" in taken else []),
        *[Figure(f"{name}, {label}", middle(others, name) / 1e3, unit="ms") for name in others],
    ]


_KEY = """
import sys, time
from pathlib import Path
import cachekit
from cachekit.cache.default import default
@cachekit.distributed_cache(version="1")
def size(tree: Path) -> int:
    return 0
default()
begin = time.perf_counter()
size.key_for(Path(sys.argv[1]))
print(time.perf_counter() - begin)
"""


def time_keys(scale: Scale) -> list[Figure]:
    """The key of a large tree in a process of its own that knows it from an earlier one, beside one that reads it."""
    size, found = size_of(scale), []
    with directory() as place:
        source, kept = tree(place / "tree", size), place / "cache"
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        environ.update(CACHEKIT_DIR=str(kept), CACHEKIT_IPFS="off", CACHEKIT_MODE="on")
        for _ in range(min(scale.rounds, 5)):
            shutil.rmtree(kept, ignore_errors=True)
            command = [sys.executable, "-c", _KEY, str(source)]
            found.append([float(subprocess.check_output(command, env=environ, text=True)) for _ in range(2)])
    cold, warm = (statistics.median(one[at] for one in found) * 1e3 for at in (0, 1))
    ratio = statistics.median(second / first for first, second in found)
    label = f"key of {size // MIB} MiB in {FILES} files, in a new process / reading it"
    return [Figure(label, ratio, note=f"{warm:.2f} ms beside {cold:.0f}")]


def time_storing(scale: Scale) -> list[Figure]:
    """From the call until every file stands pinned in the daemon, beside `ipfs add` of the same directory."""
    size, turns = size_of(scale), min(scale.rounds, 5)
    ratios: dict[str, list[float]] = {"plain": [], "sealed": [], "whole plain": [], "whole sealed": []}
    speeds = []
    with kubo() as status, _home() as home:
        binary = str(install.install(home).path)
        for turn in range(turns):
            for name, function in (("plain", plain), ("sealed", sealed)):
                # Never a name twice: the daemon remembers what was stored under it, and the call would be a hit.
                sources = [tree(home / f"{name}-{turn}-{number}", size) for number in range(2)]
                bare = _seconds(lambda: _ipfs_add(binary, status.api, sources[0]))
                with cache(ipfs="rw", ipfs_api=status.api, ipfs_timeout=10.0):
                    taking = _seconds(lambda: function(str(sources[1])))
                    sending = _seconds(lambda: cachekit.flush(600))
                    if not cachekit.stats(function).as_dict().get("stores"):
                        raise RuntimeError("found instead of stored")
                ratios[name].append(bare / sending)
                ratios[f"whole {name}"].append(bare / (taking + sending))
                speeds.append(size / MIB / bare)
                for source in sources:
                    shutil.rmtree(source)
    note = f"of the rate of `ipfs add`, {statistics.median(speeds):.0f} MiB/s"
    return [
        Figure("storing in the daemon, plain", statistics.median(ratios["plain"]), 0.8, floor=True, note=note),
        Figure("storing in the daemon, encrypted", statistics.median(ratios["sealed"]), 0.5, floor=True, note=note),
        Figure("with the local store's copy, plain", statistics.median(ratios["whole plain"]), note="call + flush"),
        Figure(
            "with the local store's copy, encrypted", statistics.median(ratios["whole sealed"]), note="call + flush"
        ),
    ]


def time_restoring(scale: Scale) -> list[Figure]:
    """A second machine's call, beside the bytes of the same files drawn through SHA-256 in three ways."""
    size, turns = size_of(scale), min(scale.rounds, 5)
    others = {
        "curl GATEWAY | sha256sum": lambda api, gateway, cids: _pipe(gateway, cids),
        "a gateway GET into hashlib": lambda api, gateway, cids: _draw(gateway, cids),
        "the RPC's cat into hashlib": lambda api, gateway, cids: _draw(api, cids, method="POST", call=_CAT),
    }
    if shutil.which("curl") is None:
        del others["curl GATEWAY | sha256sum"]
    found: dict[tuple[str, str], list[float]] = {}
    rates: dict[str, list[float]] = {}
    with _with_gateway() as (api, gateway), _home() as home:
        sharing = {"ipfs": "rw", "ipfs_api": api, "ipfs_timeout": 10.0}
        for kind, function in (("plain", plain), ("encrypted", sealed)):
            source = tree(home / kind, size)
            with cache(**sharing):
                function(str(source))
                known = registry().find(str(function.key_for(str(source))))
                cids = [file.cid for file in known.manifest.files] if known else []
                cachekit.flush(600)
            for _ in range(turns):
                took = _restored(function, source, sharing)
                for name, draw in others.items():
                    bare = _seconds(lambda draw=draw, cids=cids: draw(api, gateway, cids))
                    found.setdefault((kind, name), []).append(bare / took)
                    rates.setdefault(name, []).append(size / MIB / bare)
    return [
        Figure(
            f"restoring, {kind} / {name}",
            statistics.median(ratios),
            None if "cat" in name else 0.7,
            floor=True,
            note=f"{statistics.median(rates[name]):.0f} MiB/s",
        )
        for (kind, name), ratios in found.items()
    ]


def _restored(function: Any, source: Path, sharing: dict[str, Any]) -> float:
    """Seconds of a second machine's call."""
    with cache(**sharing):
        cachekit.sync()
        before = _fetched(function)
        took = _seconds(lambda: function(str(source)))
        if _fetched(function) == before:
            raise RuntimeError("built again instead of fetched")
    return took


def time_memory(scale: Scale) -> list[Figure]:
    """The largest resident set of a process that stores the large artifact, then of one that restores it."""
    size = size_of(scale)
    with kubo() as status, _home() as home:
        source = tree(home / "source", size)
        peaks = {what: _peak(status.api, home / what, source) for what in ("store", "restore")}
    label = f"{size // MIB} MiB, encrypted"
    return [Figure(f"peak RSS above the import, {what}, {label}", peaks[what], 120, "MB") for what in peaks]


_PEAK = """
import os, resource, sys, threading
sys.path.insert(0, sys.argv[4])
import cachekit
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before, peak, over = resident(), [0], threading.Event()
def watch():
    while not over.wait(0.01):
        peak[0] = max(peak[0], resident())
watcher = threading.Thread(target=watch); watcher.start()
from time_artifacts import sealed
with cachekit.configure(dir=sys.argv[2], ipfs="rw", ipfs_api=sys.argv[1], ipfs_timeout=10, mode="on"):
    cachekit.sync()
    sealed(sys.argv[3])
    cachekit.flush(600)
over.set(); watcher.join()
print((peak[0] - before) / 1e6)
"""


def _peak(api: str, place: Path, source: Path) -> float:
    here = Path(__file__).parent
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)])}
    command = [sys.executable, "-c", _PEAK, api, str(place), str(source), str(here)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=600)
    return float(done.stdout)


def _times(calls: int, body: Callable[[], object]) -> Callable[[], int]:
    def repeated() -> int:
        for _ in range(calls):
            body()
        return calls

    return repeated


def _copying(source: Path, target: Path) -> Callable[[], int]:
    def copy() -> int:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        return 1

    return copy


def _joblib(place: Path, size: int) -> dict[str, Callable[[], int]]:
    if importlib.util.find_spec("joblib") is None:
        return {}
    import joblib
    import numpy

    memory = joblib.Memory(place / "joblib", verbose=0)

    def weights(number: int) -> Any:
        return numpy.random.default_rng(number).bytes(size)

    def array(number: int) -> Any:
        return numpy.frombuffer(weights(number), dtype=numpy.uint8)

    cached = memory.cache(array)
    cached(1)
    return {"joblib.Memory, one array": _times(1, lambda: cached(1))}


def _hub(place: Path, calls: int) -> dict[str, Callable[[], int]]:
    """Twenty files of a model repository laid out as the hub's cache does, each looked up by name."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return {}
    from huggingface_hub import try_to_load_from_cache

    repository, commit = place / "hub" / "models--team--model", "0" * 40
    tree(repository / "snapshots" / commit, MIB)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    names = sorted(path.name for path in (repository / "snapshots" / commit).iterdir())

    def look() -> None:
        for name in names:
            assert isinstance(try_to_load_from_cache("team/model", name, cache_dir=place / "hub"), str)

    return {"hub": _times(max(1, calls // 10), look)}


def _fetched(function: Any) -> int:
    hits = cachekit.stats(function).as_dict().get("hits", {})
    return int(hits.get("ipfs", 0))


def _ipfs_add(binary: str, api: str, source: Path) -> None:
    options = ["--recursive", "--quieter", "--cid-version=1", "--raw-leaves", "--chunker=size-1048576", "--pin=true"]
    command = [binary, f"--api={api}", "add", *options, str(source)]
    subprocess.run(command, check=True, capture_output=True)


def _draw(multiaddr: str, cids: list[str], *, method: str = "GET", call: str = "/ipfs/") -> None:
    """One connection after the other, each file into SHA-256 in this process."""
    host, port = multiaddr.split("/")[2], int(multiaddr.split("/")[4])
    for cid in cids:
        with contextlib.closing(http.client.HTTPConnection(host, port)) as connection:
            connection.request(method, f"{call}{cid}")
            answer, digest = connection.getresponse(), hashlib.sha256()
            while piece := answer.read(MIB):
                digest.update(piece)


def _pipe(gateway: str, cids: list[str]) -> None:
    """`curl URL | sha256sum` for each file, as a shell runs it."""
    host, port = gateway.split("/")[2], gateway.split("/")[4]
    for cid in cids:
        with subprocess.Popen(
            ["curl", "--silent", "--fail", f"http://{host}:{port}/ipfs/{cid}"], stdout=subprocess.PIPE
        ) as curl:
            subprocess.run(["sha256sum"], stdin=curl.stdout, stdout=subprocess.DEVNULL, check=True)
        if curl.returncode:
            raise RuntimeError("the gateway did not give the file")


@contextlib.contextmanager
def _with_gateway() -> Iterator[tuple[str, str]]:
    """(RPC, gateway) of a Kubo of its own: our private node has no gateway."""
    with directory() as home:
        binary = str(install.install(home).path)
        told = {**os.environ, "IPFS_PATH": str(home / "repo"), "IPFS_TELEMETRY": "off"}
        for words in (
            ["init", "--profile=test"],
            ["config", "--json", "Addresses.API", '["/ip4/127.0.0.1/tcp/0"]'],
            ["config", "--json", "Addresses.Gateway", '["/ip4/127.0.0.1/tcp/0"]'],
        ):
            subprocess.run([binary, *words], env=told, check=True, capture_output=True)
        with subprocess.Popen([binary, "daemon", "--offline"], env=told, stdout=subprocess.PIPE, text=True) as daemon:
            try:
                said = iter(daemon.stdout or ())
                lines = list(itertools.takewhile(lambda line: "Daemon is ready" not in line, said))
                yield tuple(next(line.split()[-1] for line in lines if what in line) for what in ("RPC API", "Gateway"))
            finally:
                daemon.terminate()


def _seconds(body: Callable[[], object]) -> float:
    begin = perf_counter()
    body()
    return perf_counter() - begin


ALL = [time_hits, time_keys, time_storing, time_restoring, time_memory]
