"""The IPFS tier against a private Kubo node, beside the plainest call ipfshttpclient can make for the same thing."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from harness import Figure, Scale, added, beside, cache, directory, ratio, rounds
from inputs import completion

import cachekit
from cachekit.cache.default import default
from cachekit.ipfs.content.cids import binary_cid, raw_cid
from cachekit.ipfs.node import daemon, install
from cachekit.ipfs.sharing import Team
from cachekit.model import FOREVER, Key, Record

DEAD: str = "/ip4/127.0.0.1/tcp/9"
"""Nothing listens on the discard port."""


@cachekit.distributed_cache(version="1")
def answer(number: int) -> Any:
    return completion(number)


@cachekit.distributed_cache(version="1", share=False)
def local(number: int) -> Any:
    return completion(number)


@contextlib.contextmanager
def kubo() -> Iterator[daemon.NodeStatus]:
    """A private node, stopped at the end; its binary is installed once for the machine."""
    with directory() as home:
        status = daemon.start(home, binary=Path(install.install(home).path), timeout=60)
        try:
            yield status
        finally:
            daemon.stop(home)


@contextlib.contextmanager
def bare(api: str) -> Iterator[Any]:
    """ipfshttpclient as its documentation says to use it, with one session kept open."""
    import ipfshttpclient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with ipfshttpclient.Client(api) as client:
            yield client


def team() -> Team:
    found = default().team
    assert found is not None
    return found


def time_reads(scale: Scale) -> list[Figure]:
    """An entry found in IPFS only, then what asking for one that nobody has adds to a miss."""
    per_round = max(2, scale.calls // 10)
    total = per_round * (scale.rounds + 1) + 1
    with kubo() as status, bare(status.api) as client, _home() as home:
        sharing = {"ipfs": "rw", "ipfs_api": status.api, "memory_limit": 0, "ipfs_timeout": 5.0}
        with cache(**sharing):
            for number in range(total):
                answer(number)
            cachekit.flush(120)
        cids = [client.block.put(_file(home, number))["Key"] for number in range(per_round)]
        client.files.mkdir("/bench")
        with cache(**sharing):
            answer(total - 1)
            hits = rounds(_hit_bodies(client, cids, per_round), scale.rounds)
            from_ipfs = cachekit.stats(answer).as_dict()
            misses = rounds(_miss_bodies(client, per_round), scale.rounds)
    served = from_ipfs["hits"]["ipfs"] if "hits" in from_ipfs else from_ipfs
    note = f"{beside(hits, 'ours', 'bare')}; {served} of {total} from IPFS"
    return [
        Figure("IPFS hit, 2 kB / bare block/get", ratio(hits, "ours", "bare"), 1.5, note=note),
        Figure("IPFS miss / bare files/stat", ratio(misses, "ours", "bare"), 1.3, note=beside(misses, "ours", "bare")),
    ]


def _hit_bodies(client: Any, cids: list[str], count: int) -> dict[str, Callable[[], int]]:
    fresh = iter(range(10**9))

    def ours() -> int:
        for _ in range(count):
            answer(next(fresh))
        return count

    def plain() -> int:
        for cid in cids:
            client.block.get(cid)
        return count

    return {"ours": ours, "bare": plain}


def _miss_bodies(client: Any, count: int) -> dict[str, Callable[[], int]]:
    tier, space = team().tier, answer.key_for(0).namespace

    def ours() -> int:
        for _ in range(count):
            tier.get(Key(space, os.urandom(32)))
        return count

    def plain() -> int:
        for _ in range(count):
            client.files.stat("/bench")
        return count

    return {"ours": ours, "bare": plain}


def time_open_breaker(scale: Scale) -> list[Figure]:
    """Misses of a function that shares beside one that does not, while the daemon is known to be away."""
    calls, fresh = scale.calls, iter(range(10**9))
    with _home(), cache(ipfs="rw", ipfs_api=DEAD, memory_limit=0):
        answer.peek(-1)
        _until(lambda: not team().breaker.allows())
        tier, keys = team().tier, [answer.key_for(number) for number in range(calls)]

        def sharing() -> int:
            for _ in range(calls):
                answer.peek(next(fresh))
            return calls

        def alone() -> int:
            for _ in range(calls):
                local.peek(next(fresh))
            return calls

        def asked() -> int:
            for key in keys:
                tier.get(key)
            return calls

        taken = rounds({"sharing": sharing, "alone": alone, "tier": asked}, scale.rounds)
    return [
        Figure(
            "open breaker, added to a disk miss",
            added(taken, "sharing", "alone"),
            2,
            "us",
            note=beside(taken, "sharing", "alone"),
        ),
        Figure("of that, the tier's own `get`", statistics.median(taken["tier"]), unit="us"),
    ]


def time_write_behind(scale: Scale) -> list[Figure]:
    """Entries a second from the durable queue into the daemon, and what the repository grows by."""
    with kubo() as status, bare(status.api) as client, _home():
        with cache(ipfs="rw", ipfs_api=status.api, memory_limit=0, ipfs_timeout=5.0, size_limit="4GB"):
            answer(-1)
            cachekit.flush(60)
            _settle(team())
            before = int(client.repo.stat()["RepoSize"]), _used(status.repo)
            third = max(1, scale.uploads // 3)
            grown_after = _queue_and_send(0, third)
            after = int(client.repo.stat()["RepoSize"]), _used(status.repo)
            speeds = [grown_after, *[_queue_and_send(start * third, third) for start in (1, 2)]]
            bare_speed = statistics.median(_import_bare(third) for _ in range(3))
            begin = perf_counter_ns()
            for number in range(third):
                answer(number)
            cachekit.flush(120)
            whole = third / ((perf_counter_ns() - begin) / 1e9)
    note = f"beside {bare_speed:,.0f} blocks/s of bare dag/import, one call for all"
    growth = (after[0] - before[0]) / third
    disk = f"{(after[1] - before[1]) / third:,.0f} B of disk blocks; a new node adds 4 MiB of directories once"
    return [
        Figure("write-behind, 2 kB", statistics.median(speeds), 3_000, "entries/s", floor=True, note=note),
        Figure("calls, each a miss, until all is flushed", whole, unit="calls/s"),
        Figure(f"repository growth per entry, {third:,} entries", growth, 3_000, "B", note=disk),
    ]


def _settle(found: Team) -> None:
    """Lets Kubo make the 1,024 directories of its block store, 4 KiB each, which it counts to the first entries."""
    blocks = [os.urandom(16) for _ in range(8_192)]
    found.transport.import_blocks([(binary_cid(raw_cid(block)), block) for block in blocks], timeout=60.0)


def _queue_and_send(first: int, count: int) -> float:
    """Queued as the tier does, without waking its thread, so that `flush` is all that sends."""
    found, space = team(), answer.key_for(0).namespace
    codec = answer._self_target.codec
    for number in range(first, first + count):
        name, payload = codec.dump(completion(number))
        key = Key(space, os.urandom(32), "bench.answer", shareable=True)
        found.outbox.add(key, Record(name, payload, time.time_ns(), FOREVER))
    begin = perf_counter_ns()
    found.tier.flush(120)
    return count / ((perf_counter_ns() - begin) / 1e9)


def _import_bare(count: int) -> float:
    """What Kubo takes for as many blocks when nothing is sealed, signed, indexed or queued."""
    blocks = [os.urandom(2_100) for _ in range(count)]
    pairs = [(binary_cid(raw_cid(block)), block) for block in blocks]
    begin = perf_counter_ns()
    team().transport.import_blocks(pairs, timeout=120.0)
    return count / ((perf_counter_ns() - begin) / 1e9)


def _file(home: Path, number: int) -> str:
    path = home / f"block-{number}"
    path.write_bytes(os.urandom(2_100))
    return str(path)


def _used(repo: Path) -> int:
    told = subprocess.run(["du", "-s", "--block-size=1", str(repo)], capture_output=True, text=True, check=True)
    return int(told.stdout.split()[0])


def _until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError("the breaker did not open")
        answer.peek(-1 - time.perf_counter_ns())


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    """A credential for this benchmark alone."""
    with directory() as home:
        before = os.environ.get("XDG_CONFIG_HOME")
        os.environ["XDG_CONFIG_HOME"] = str(home / "config")
        try:
            yield home
        finally:
            if before is None:
                del os.environ["XDG_CONFIG_HOME"]
            else:
                os.environ["XDG_CONFIG_HOME"] = before


ALL = [time_reads, time_open_breaker, time_write_behind]
