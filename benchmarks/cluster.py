"""Three machines of a team, each with a Kubo of its own in one private swarm, on loopback: how fast they share, beside peers.

`cluster.py [--entries N] [--rounds N]`; `cluster.py --nodes N` only lets N machines converge. Ends with status 0 whatever
the figures.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [os.fspath(place) for place in (HERE, HERE.parent, HERE.parent / "tests")]

import teams
from harness import Figure, directory
from teams import Machine, Talking, free_port, team_of

teams.PROGRAM = (HERE / "cluster_worker.py").read_text()
FEW = 1_000


def milliseconds(times: Sequence[float], share: float) -> float:
    """A percentile of seconds."""
    return sorted(times)[min(len(times) - 1, int(len(times) * share))] * 1e3


def time_travel(first: Talking, second: Talking, rounds: int) -> Iterator[Figure]:
    """From the end of `flush` on one machine until the entry is a hit on another, which looks every millisecond."""
    after, whole = [], []
    with ThreadPoolExecutor(1) as pool:
        for number in range(rounds + 1):
            looking = pool.submit(second.ask, f"seen({number})")
            began, ended = first.ask(f"flushed({number})")
            there = looking.result()
            after.append(max(0.0, there - ended))
            whole.append(there - began)
    note = f"from the start of flush {milliseconds(whole, 0.5):.1f} and {milliseconds(whole, 0.95):.1f} ms"
    opening = max(0.0, after.pop(0)) * 1e3
    yield Figure("the first entry of a namespace B did not know", opening, unit="ms", digits=1, note="not among these:")
    del whole[0]
    yield Figure("flush() on A -> hit on B, p50", milliseconds(after, 0.5), 30, "ms", digits=1, note=note)
    yield Figure("flush() on A -> hit on B, p95", milliseconds(after, 0.95), 200, "ms", digits=1)


def time_first_hit(team: list[Machine], first: Talking, second: Talking, rounds: int) -> Iterator[Figure]:
    """Of entries whose payload only the other daemon has, beside what the two daemons take for such a block."""
    numbers = range(10_000, 10_000 + 2 * rounds + 100)
    first.ask(f"[[small(n) for n in {numbers}], cachekit.flush()] and None")
    far = second.ask(f"far({numbers})")
    blocks = first.ask(f"[team().transport.add(os.urandom(2100), timeout=5.0) for _ in {range(len(far))}]")
    times = second.ask(f"fetched({far}, {blocks})")
    mine, bare = (statistics.median(column) for column in zip(*times))
    note = f"{mine / 1e3:.1f} ms beside {bare / 1e3:.1f}, {len(far)} of each"
    ratio = statistics.median(one / other for one, other in times)
    yield Figure("first hit on B, 2 kB / its daemon's block/get", ratio, 1.5, note=note)
    near = second.ask(f"near({far}, {os.fspath(team[0].home.parent / 'shared')!r})")
    note = f"{near['second']:.0f} us beside {near['diskcache']:.0f}"
    yield Figure("the second / diskcache.get", near["second"] / near["diskcache"], note=note)
    if "joblib" in near:
        yield Figure("joblib on a shared directory / the second", near["joblib"] / near["second"], note="no bound")
    yield from _redis(near["second"])


def _redis(second: float) -> Iterator[Figure]:
    binary = shutil.which("redis-server")
    try:
        import redis
    except ImportError:
        binary = None
    if binary is None:
        print("  redis-server with redis-py: not here")
        return
    port = free_port()
    process = subprocess.Popen([binary, "--port", str(port), "--save", ""], stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=port, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 50))
        client.set("key", os.urandom(2100))
        times = []
        for _ in range(500):
            begin = time.perf_counter()
            client.get("key")
            times.append((time.perf_counter() - begin) * 1e6)
        yield Figure("redis GET of 2 kB / the second", statistics.median(times) / second, note="no bound")
    finally:
        process.terminate()
        process.wait()


def time_cold_key(processes: list[Talking], log: Path) -> Iterator[Figure]:
    """All processes of all machines ask for one value at once that takes a second."""
    with ThreadPoolExecutor(len(processes)) as pool:
        took = list(pool.map(lambda one: one.ask("seconds(lambda: slow('cold'))"), processes))
    calls = len(log.read_text().splitlines())
    note = f"the first {min(took):.2f} s, the slowest {max(took):.2f} s"
    yield Figure(f"calls, {len(processes)} processes on 3 nodes", calls, 1, "", digits=0, note=note)
    yield Figure("the slowest / the origin's own 1 s", max(took))


def time_joining(first: Talking, machine: Machine, log: Path, entries: int, rounds: int) -> Iterator[Figure]:
    """A member that was not there while a namespace grew, and lookups in what it took in."""
    published = first.ask(f"publish('many', {entries})")
    first.ask(f"publish('few', {FEW})")
    late = machine.process(CALLS=os.fspath(log), CACHEKIT_DIR=os.fspath(machine.home / "late"))
    late.until("online()", lambda heard: heard >= 1)
    before, light = late.ask("weight()")
    seconds = late.ask(f"join('many', {entries})")
    after, heavy = late.ask("weight()")
    late.ask(f"join('few', {FEW})")
    yield Figure(f"joining {entries:,} entries", seconds, 45, "s", note=f"{entries / seconds:,.0f} entries/s")
    yield Figure("index.db, bytes an entry", (after - before) / entries, unit="B", note=f"{after / 1e6:.1f} MB")
    yield Figure("published beside the payload, an entry", published / entries, 300, "B")
    yield Figure("RSS of the member", heavy / 1e6, 200, "MB", note=f"{light / 1e6:.0f} before it joined")
    pairs = late.ask(f"looked_up(('many', {entries}), ('few', {FEW}), {rounds}, 300)")
    among, few = (statistics.median(column) for column in zip(*pairs))
    ratio = statistics.median(one / other for one, other in pairs)
    note = f"{among:.1f} us beside {few:.1f}"
    yield Figure(f"lookup among {entries:,} / among {FEW:,}", ratio, 1.3, note=note)


def convergence(nodes: int) -> Iterator[Figure]:
    """Every machine publishes five entries at once; how long until all have all."""
    with directory() as place:
        for team in team_of(nodes, place):
            processes = [machine.process(CALLS=os.fspath(place / "calls")) for machine in team]
            for one in processes:
                one.until("online()", lambda heard: heard == nodes - 1, 300)
            begin = time.monotonic()
            with ThreadPoolExecutor(nodes) as pool:
                list(pool.map(lambda n: processes[n].ask(f"[flushed(5 * {n} + m) for m in range(5)]"), range(nodes)))
                said = time.monotonic() - begin
                list(pool.map(lambda one: one.ask(f"[seen(n) for n in range({5 * nodes})] and None"), processes))
            note = f"published after {said:.1f} s"
            yield Figure(f"{nodes} nodes, 5 entries each: all have all", time.monotonic() - begin, unit="s", note=note)


def cluster(entries: int, rounds: int) -> Iterator[Figure]:
    """All figures of one run."""
    with directory() as place:
        log = place / "calls"
        for team in team_of(3, place):
            own = [[machine.process(CALLS=os.fspath(log)) for _ in range(4)] for machine in team]
            everybody = [one for processes in own for one in processes]
            for processes in own:
                processes[0].until("online()", lambda heard: heard == 2)
            variables = {"CALLS": os.fspath(log), "CACHEKIT_MEMORY_LIMIT": "0"}
            second = team[1].process(**variables)
            yield from time_travel(own[0][0], second, 4 * rounds)
            yield from time_first_hit(team, own[0][0], second, 4 * rounds)
            yield from time_cold_key(everybody, log)
            yield from time_joining(own[0][0], team[2], log, entries, rounds)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entries", type=int, default=20_000, help="of the namespace that a new member joins")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--nodes", type=int, default=0, help="only let so many machines converge")
    given = parser.parse_args(arguments)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs{load}, {platform.platform()}")
    for figure in convergence(given.nodes) if given.nodes else cluster(given.entries, given.rounds):
        print(f"  {figure.line()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
