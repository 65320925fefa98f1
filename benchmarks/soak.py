"""Eight processes with eight threads each on one directory, for minutes: nothing hangs, no value is wrong, nothing grows.

Four processes fork all the while; tasks of event loops, generators, artifacts, invalidations and collections go on
beside the calls. Each process reads its own memory, descriptors and threads; the slope after warm-up is what is judged.

    python benchmarks/soak.py --seconds 300
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import harness

import cachekit
from cachekit import TierUnavailable, distributed_cache, gc, invalidate, persist_artifact

PROCESSES: Final = 8
THREADS: Final = 8
FORKS: Final = 32
TASKS: Final = 5_000
KEYS: Final = 400
STILL: Final = 60.0
"""Seconds without one call after which a process is said to hang: its stacks are printed, and it ends."""

BOUNDS: Final = {"rss": 2.0, "files": 1.0, "threads": 1.0}
"""What a process may grow by in a minute: MiB, descriptors, threads."""


class Place(NamedTuple):
    """Where a process is in the soak, and what it wrote down."""

    number: int
    seconds: float
    wrong: list[str]
    calls: list[int]


@distributed_cache(tags=["soak"])
def plain(x: int) -> dict[str, Any]:
    return {"x": x, "text": f"{x} " * 200}


@distributed_cache(ttl=2)
async def awaited(x: int) -> list[int]:
    await asyncio.sleep(0.001)
    return [x] * 50


@distributed_cache
def pieces(x: int) -> Any:
    for number in range(5):
        yield x + number


@distributed_cache
async def apieces(x: int) -> Any:
    for number in range(5):
        await asyncio.sleep(0)
        yield x + number


@persist_artifact(scratch="work")
def built(x: int, *, work: Path | None = None) -> Path:
    assert work is not None
    made = work / "made"
    made.write_bytes(b"%d " % x * 2000)
    return made


def _plain(x: int) -> bool:
    return plain(x) == {"x": x, "text": f"{x} " * 200}


def _pieces(x: int) -> bool:
    return list(pieces(x)) == list(range(x, x + 5))


def _built(x: int) -> bool:
    return Path(built(x % 20)).read_bytes() == b"%d " % (x % 20) * 2000


def _invalidates(x: int) -> bool:
    plain.invalidate(x)
    if x % 40 == 0:
        invalidate(tag="soak")
    return True


def _collects(x: int) -> bool:
    if x % 40 == 0:
        with suppress(TierUnavailable):  # another process collects
            gc()
    return True


DOES: Final[list[Callable[[int], bool]]] = [*[_plain] * 12, *[_pieces] * 4, _built, _invalidates, _collects]


def _call(place: Place, does: Callable[[int], bool], x: int) -> None:
    try:
        right = does(x)
    except Exception as error:  # whatever reaches a caller is a finding
        place.wrong.append(f"{does.__name__}({x}): {error!r}")
    else:
        if not right:
            place.wrong.append(f"{does.__name__}({x}): a wrong value")
    place.calls[0] += 1


def _thread(place: Place, seed: int, end: float) -> None:
    dice = random.Random(seed)
    while time.monotonic() < end:
        _call(place, dice.choice(DOES), dice.randrange(KEYS))
        time.sleep(dice.random() * 0.02)


async def _task(place: Place, x: int) -> None:
    right = await awaited(x) == [x] * 50 and [piece async for piece in apieces(x)] == list(range(x, x + 5))
    if not right:
        place.wrong.append(f"awaited({x}): a wrong value")
    place.calls[0] += 1


async def _tasks(place: Place, count: int, end: float) -> None:
    dice = random.Random(place.number)
    groups = max(1, count // 25)
    for number in range(groups):
        await asyncio.gather(*(_task(place, dice.randrange(KEYS)) for _ in range(min(25, count))))
        await asyncio.sleep(max(0.0, (end - time.monotonic()) / (groups - number)))


def _fork(place: Place, seed: int) -> None:
    # A child that inherits an armed watchdog waits for its thread, which is not there, when it arms its own.
    faulthandler.cancel_dump_traceback_later()
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(STILL, exit=True)
        mine = place._replace(wrong=[])
        dice = random.Random(seed)
        for _ in range(30):
            _call(mine, dice.choice(DOES), dice.randrange(KEYS))
        print("\n".join(mine.wrong), file=sys.stderr, flush=True)
        os._exit(1 if mine.wrong else 0)
    faulthandler.dump_traceback_later(2 * STILL, exit=True)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        place.wrong.append("a forked child hung, or saw a wrong value")


def _look() -> dict[str, float]:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = dict(line.split(":", 1) for line in status.splitlines())
    return {
        "rss": int(found["VmRSS"].split()[0]) / 1024,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": int(found["Threads"]),
    }


def _watch(place: Place, end: float, forks: int) -> list[tuple[float, dict[str, float]]]:
    """Forks and looks until the end; a process without a call for `STILL` seconds prints its stacks and ends."""
    seen, begin, forked = [], time.monotonic(), 0
    while (now := time.monotonic()) < end:
        faulthandler.dump_traceback_later(STILL, exit=True)
        if forked < forks and now - begin >= forked * place.seconds / (forks + 1):
            _fork(place, 100 * place.number + forked)
            forked += 1
        seen.append((now - begin, _look()))
        before = place.calls[0]
        time.sleep(min(1.0, place.seconds / 20))
        while place.calls[0] == before and time.monotonic() < end:
            time.sleep(0.05)
    return seen


def _process(number: int, seconds: float) -> None:
    place = Place(number, seconds, [], [0])
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(target=_thread, args=(place, THREADS * number + seed, end)) for seed in range(THREADS - 1)
    ]
    count = max(1, int(TASKS / PROCESSES * min(1.0, seconds / 60)))
    threads.append(threading.Thread(target=lambda: asyncio.run(_tasks(place, count, end))))
    for thread in threads:
        thread.start()
    seen = _watch(place, end, FORKS // PROCESSES * 2 * (number % 2))
    for thread in threads:
        thread.join()
    faulthandler.dump_traceback_later(STILL, exit=True)
    print(json.dumps({"seen": seen, "wrong": place.wrong, "calls": place.calls[0]}), flush=True)


def slope(points: list[tuple[float, float]]) -> float:
    """What is added in a minute, by least squares of (seconds, value); 0 for fewer than two points."""
    if len(points) < 2:
        return 0.0
    middle = sum(at for at, _ in points) / len(points)
    spread = sum((at - middle) ** 2 for at, _ in points)
    return 60 * sum((at - middle) * value for at, value in points) / spread


def soak(seconds: float) -> list[harness.Figure]:
    """The figures; raises AssertionError where something hung or was wrong."""
    with harness.directory() as place:
        environ = {**os.environ, "CACHEKIT_DIR": str(place / "cache"), "CACHEKIT_IPFS": "off"}
        ours = [str(Path(cachekit.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, ours))
        running = [
            subprocess.Popen(
                [sys.executable, __file__, "--seconds", str(seconds), "--process", str(number)],
                env=environ, stdout=subprocess.PIPE, text=True,
            )
            for number in range(PROCESSES)
        ]  # fmt: skip
        try:
            told = [one.communicate(timeout=seconds + 4 * STILL)[0] for one in running]
        finally:
            for one in running:
                one.kill()
    assert [one.returncode for one in running] == [0] * PROCESSES, "a process hung or failed"
    reports = [json.loads(text.splitlines()[-1]) for text in told]
    wrong = [word for report in reports for word in report["wrong"]]
    assert not wrong, wrong[:20]
    return _figures(reports, seconds)


def _figures(reports: list[dict[str, Any]], seconds: float) -> list[harness.Figure]:
    found = [harness.Figure("calls, each value right", sum(report["calls"] for report in reports), unit="")]
    for name, bound in BOUNDS.items():
        late = [[(at, look[name]) for at, look in report["seen"] if at >= seconds / 3] for report in reports]
        last = max(points[-1][1] for points in late if points)
        steepest = max(map(slope, late))
        judged = bound if seconds >= 120 else None
        found.append(harness.Figure(f"{name}: steepest slope", steepest, judged, "/min", note=f"at the end {last:.0f}"))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--process", type=int, default=-1)
    given = parser.parse_args()
    if given.process >= 0:
        _process(given.process, given.seconds)
    else:
        lines = soak(given.seconds)
        print(*(figure.line() for figure in lines), sep="\n")
        sys.exit(any(figure.verdict == "MISS" for figure in lines))
