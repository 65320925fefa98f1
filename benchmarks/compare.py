"""Two checkouts of cachekit beside each other, in one run: `compare.py OTHER [THIS]`, THIS being the script's own.

Every figure is the ratio THIS/OTHER, the median of the rounds' own ratios. Ends with status 0 whatever the figures; with
--strict, with 1 where a bound is missed.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

from chat_server import SDKS, ChatServer
from harness import Figure, Scale, beside, directory, ratio, turns
from worker import Process

WORKER = ROOT / "benchmarks" / "compare_worker.py"
FULL = Scale(rounds=50, calls=100, imports=48, pairs=8)
QUICK = Scale(rounds=25, calls=100, imports=16, pairs=4)
IMPORT, KEY, CODE, BOUND = "import cachekit", "first key, by its code", "memory hit, by its code", 1.03
BOUNDS = {IMPORT: 0.95, KEY: 1.1, CODE: 1.02}
"""Those that are not `BOUND`."""
FIRST = {"first call, a miss": "", "first call, a hit": "found"}
"""{figure: the cache that its processes share; each has an empty one of its own where there is none}"""

PARTS = {"memory hit": 1, CODE: 1, "disk hit": 5, "miss + store": 20, "wrapped SDK, hit": 5, "wrapped SDK, miss": 100}
"""{figure: by what `Scale.calls` is divided}, so that a turn takes a millisecond or two: short ones are near each other."""

TURNS = 4
"""How often each side is asked in a round; the fastest counts, which is the one that nothing came between."""

Taken = dict[str, list[float]]
"""What "this" and "other" took, round by round."""


@dataclass(frozen=True)
class Side:
    """One checkout. `place` is for caches and bytecode."""

    checkout: Path
    place: Path

    def start(self, *arguments: str, cache: str = "") -> Process:
        """A worker; without a cache given, with an empty one. Nothing of the caller's settings reaches it."""
        dropped = ("CI", "PYTHONDONTWRITEBYTECODE")
        kept = {k: v for k, v in os.environ.items() if k not in dropped and not k.startswith("CACHEKIT_")}
        ours = {
            "CACHEKIT_DIR": str(self.place / cache if cache else tempfile.mkdtemp(dir=self.place)),
            "CACHEKIT_IPFS": "off",
            "XDG_CONFIG_HOME": str(self.place),
            "PYTHONPATH": os.pathsep.join([str(self.checkout), str(self.checkout / "adapters")]),
            "PYTHONHASHSEED": "0",
        }
        if len(arguments) < 2:  # an import is measured: compiled even where the checkout cannot be written to
            ours["PYTHONPYCACHEPREFIX"] = str(self.place / "compiled")
        command = [sys.executable, str(WORKER), str(self.checkout), *arguments]
        return Process(command, {**kept, **ours}, self.place)


def fresh(sides: dict[str, Side], scale: Scale) -> dict[str, Taken]:
    """Milliseconds at a process's beginning. The round that warms up compiles, and stores what the hits find.

    Both sides' processes run at once: they are too long to be cut into turns, and under a load or a clock rate that
    changes the ratio of two at once moves far less than that of one behind the other.
    """
    taken: dict[str, Taken] = {figure: {name: [] for name in sides} for figure in (IMPORT, KEY, *FIRST)}
    for number in range(scale.imports + 1):
        for figure, cache in FIRST.items():
            with ExitStack() as stack:
                started = {name: stack.enter_context(sides[name].start(cache=cache)) for name in _order(sides, number)}
                answers = {name: (process.answer(), process.answer()) for name, process in started.items()}
            for name, (imported, called) in answers.items() if number else ():
                taken[IMPORT][name].append(imported)
                taken[figure][name].append(called)
        with ExitStack() as stack:
            started = {name: stack.enter_context(sides[name].start("key")) for name in _order(sides, number)}
            for name, process in started.items():
                taken[KEY][name] += [process.answer()] if number else []
    return taken


def hot(sides: dict[str, Side], scale: Scale, sdk: str) -> dict[str, Taken]:
    """Microseconds per call in processes that live long: of many pairs, as none is exactly as fast as its neighbour."""
    taken: dict[str, Taken] = {figure: {name: [] for name in sides} for figure in PARTS if sdk or "SDK" not in figure}
    with ChatServer() as server:
        for number in range(scale.pairs):
            with ExitStack() as stack:
                names = _order(sides, number)
                workers = {name: stack.enter_context(sides[name].start(sdk, server.url)) for name in names}
                for worker in workers.values():
                    worker.answer()
                for figure, so_far in taken.items():
                    for name, micros in _asked(workers, figure, scale).items():
                        so_far[name] += micros
    return taken


def _asked(workers: dict[str, Process], figure: str, scale: Scale) -> Taken:
    order = f"{figure} {max(1, scale.calls // PARTS[figure])}"
    measures = {name: functools.partial(worker.ask, order) for name, worker in workers.items()}
    taken = turns(measures, scale.rounds * TURNS)
    return {name: [min(every[at : at + TURNS]) for at in range(0, len(every), TURNS)] for name, every in taken.items()}


def _order(sides: dict[str, Side], number: int) -> list[str]:
    """Who starts first, and so is asked first, changes each time."""
    return list(sides)[:: -1 if number % 2 else 1]


def figures(other: Path, this: Path, scale: Scale) -> Iterator[Figure]:
    sdk = next((name for name in sorted(SDKS, reverse=True) if importlib.util.find_spec(name)), "")
    if not sdk:
        print(f"  none of {', '.join(SDKS)} is installed; their figures are left out")
    with directory() as place:
        sides = {"this": Side(this, place / "this"), "other": Side(other, place / "other")}
        for side in sides.values():
            side.place.mkdir()
        yield from _compared(fresh(sides, scale), "ms")
        yield from _compared(hot(sides, scale, sdk), "us")


def _compared(measured: dict[str, Taken], unit: str) -> Iterator[Figure]:
    for name, taken in measured.items():
        note = beside(taken, "this", "other", unit)
        yield Figure(name, ratio(taken, "this", "other"), BOUNDS.get(name, BOUND), note=note, digits=3)


def checkout(given: str) -> Path:
    path = Path(given).resolve()
    for file in ("cachekit/__init__.py", "adapters/cachekit_adapters/__init__.py"):
        if not (path / file).is_file():
            raise argparse.ArgumentTypeError(f"{given} is not a checkout of cachekit: it has no {file}")
    return path


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=checkout, metavar="OTHER", help="the checkout that is the base")
    parser.add_argument("this", type=checkout, metavar="THIS", nargs="?", default=ROOT, help="the one that is measured")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--strict", action="store_true", help="status 1 where a bound is missed")
    said = parser.parse_args(arguments)
    print(f"THIS  {said.this}\nOTHER {said.other}\n", flush=True)
    missed = False
    for figure in figures(said.other, said.this, QUICK if said.quick else FULL):
        print(f"  {figure.line()}", flush=True)
        missed = missed or figure.verdict == "MISS"
    return 1 if missed and said.strict else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
