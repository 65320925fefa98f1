"""A process of one machine of cluster.py's team: evaluates the lines that it is sent, and answers each with JSON."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cachekit
from cachekit import MISS, distributed_cache
from cachekit.cache.default import default
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.index.rows import cid_of
from cachekit.ipfs.index.segments import Line
from cachekit.ipfs.index.shelves import path_of
from cachekit.ipfs.outbox.sending import raw_blocks

_BOUND = 20.0


@distributed_cache(ttl=None, version="1")
def small(number: int) -> str:
    return random.Random(number).randbytes(1000).hex()


@distributed_cache(ttl=None, version="1", coalesce="team")
def slow(text: str) -> str:
    with Path(os.environ["CALLS"]).open("a") as log:
        log.write(f"{text}\n")
    time.sleep(1.0)
    return text


def team() -> Any:
    """What shares, once the cache is open."""
    return default().ready().team


def swarm() -> Any:
    return team().tier.swarm


def online() -> int:
    """How many other members are heard."""
    return sum(one.online for one in swarm().book.members())


def flushed(number: int) -> tuple[float, float]:
    """Computes one entry; when `flush` began and ended, in s of the machine's own clock."""
    small(number)
    begin = time.monotonic()
    cachekit.flush()
    return begin, time.monotonic()


def seen(number: int) -> float:
    """When the entry is a hit here."""
    until(lambda: small.peek(number) is not MISS)
    return time.monotonic()


def until(holds: Callable[[], bool]) -> None:
    """Waits; TimeoutError after a bound."""
    end = time.monotonic() + _BOUND
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.001)


def entry_of(number: int) -> Line | None:
    key = small.key_for(number)
    found: Line | None = team().table.find(key.namespace, key.digest)
    return found


def far(numbers: Sequence[int]) -> list[int]:
    """Those whose payload did not come along with the word that they exist: this daemon has to fetch it."""
    until(lambda: all(entry_of(number) for number in numbers))
    found = [(number, entry_of(number)) for number in numbers]
    return [n for n, entry in found if entry and team().transport.block_get(cid_of(entry), timeout=2.0) is None]


def fetched(numbers: Sequence[int], cids: Sequence[str]) -> list[tuple[float, float]]:
    """In turn, in us: the first hit of an entry, and the daemon's own `block/get` of a raw block, asked online."""
    host, port = team().transport.api.split("/")[2::2][:2]
    connection = http.client.HTTPConnection(host, int(port), timeout=5)

    def bare(cid: str) -> None:
        connection.request("POST", f"/api/v0/block/get?arg={cid}")
        answer = connection.getresponse()
        assert len(answer.read()) > 2000
        assert answer.status == 200

    return [(_micros(lambda: small(number)), _micros(lambda: bare(cid))) for number, cid in zip(numbers, cids)]


def near(numbers: Sequence[int], place: str) -> dict[str, float]:
    """Median us of a round in turn, each key once: the second hit, `diskcache.Cache.get`, and joblib on a shared directory."""
    import diskcache

    plain, peer = diskcache.Cache(f"{os.environ['CACHEKIT_DIR']}-plain"), memory(place)
    for number in numbers:
        plain.set(number, small(number))
    bodies: dict[str, Callable[[int], object]] = {"second": small, "diskcache": plain.get}
    if peer is not None:
        bodies["joblib"] = peer
    taken: dict[str, list[float]] = {name: [] for name in bodies}
    for round_number in range(8):
        for name, body in bodies.items():
            took = _micros(lambda body=body: [body(number) for number in numbers])  # type: ignore[misc]
            if round_number:  # the first warms up, and fills joblib's
                taken[name].append(took / len(numbers))
    plain.close()
    return {name: statistics.median(times) for name, times in taken.items()}


def plain_small(number: int) -> str:
    return random.Random(number).randbytes(1000).hex()


def memory(place: str) -> Any:
    """joblib's over a directory that the machines share; None where it is not installed."""
    try:
        from joblib import Memory
    except ImportError:
        return None
    return Memory(place, verbose=0).cache(plain_small)


def publish(namespace: str, entries: int) -> int:
    """Lines without payloads, which a new member does not read; how many bytes the writer's segments are."""
    found = team()
    writer = found.tier._sender.writer()
    for at in range(0, entries, 50_000):
        digests = [hashlib.sha256(b"%d" % number).digest() for number in range(at, min(entries, at + 50_000))]
        lines = [
            Line(found.credential.index_key(namespace, one), digest=one, size=2100, created=time.time_ns())
            for one in digests
        ]
        written = found.tier._index.publish(namespace, lines, writer, 120.0)
    swarm().announce(namespace, dict(raw_blocks(written)), Deadline(30.0))
    path = f"{path_of(found.table, namespace)}/{writer.id}"
    return sum(size for _, _, size in found.transport.list(path, timeout=10.0))


def join(namespace: str, entries: int) -> float:
    """Seconds until all entries of a namespace are known that nobody here asked for before."""
    begin = time.monotonic()
    found = team()
    found.tier.listen(namespace)
    found.table.remember(namespace)
    space, end = found.credential.namespace_id(namespace), begin + 300.0
    while found.table._database.rows("SELECT count(*) FROM entries WHERE space = ?", space)[0][0] < entries:
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)
    return time.monotonic() - begin


def weight() -> tuple[int, int]:
    """Bytes of the index's file, and of this process in memory."""
    database = team().table._database
    database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    held = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")]
    return database.path.stat().st_size, held[0] if held else 0


def looked_up(many: tuple[str, int], few: tuple[str, int], rounds: int, calls: int) -> list[tuple[float, float]]:
    """In turn, us a lookup in the index: among many entries, and among few."""
    table, chosen = team().table, random.Random(7)

    def micros(namespace: str, entries: int) -> float:
        digests = [hashlib.sha256(b"%d" % chosen.randrange(entries)).digest() for _ in range(calls)]
        begin = time.perf_counter()
        found = [table.find(namespace, digest) for digest in digests]
        took = time.perf_counter() - begin
        assert None not in found
        return took * 1e6 / calls

    sides, pairs = [many, few], []
    for number in range(rounds + 1):
        took = {side: micros(*side) for side in sides}
        sides.reverse()  # so that nobody always runs behind the same neighbour
        if number:  # the first warms up
            pairs.append((took[many], took[few]))
    return pairs


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _micros(work: Callable[[], object]) -> float:
    return seconds(work) * 1e6


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(eval(line)), flush=True)
