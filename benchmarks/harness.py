"""Interleaved rounds and their median ratios: every figure is made within one run, beside its own baseline."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import cachekit

Body = Callable[[], int]
"""Does its work once and returns how many calls that were."""

Measure = Callable[[], float]
"""Microseconds."""


@dataclass(frozen=True)
class Scale:
    """How much is done. `small`, `large`: entries of the growth benchmark; `uploads`: entries sent to the daemon;
    `imports`: fresh processes; `pairs`: of compare.py's workers."""

    rounds: int = 21
    calls: int = 400
    small: int = 1_000
    large: int = 100_000
    uploads: int = 3_000
    imports: int = 9
    pairs: int = 8


SMOKE = Scale(rounds=2, calls=3, small=5, large=10, uploads=20, imports=1, pairs=1)


@dataclass(frozen=True)
class Figure:
    """One line. `bound` is None where nothing is promised; `floor` turns "at most" into "at least"; `digits` are decimals."""

    name: str
    value: float
    bound: float | None = None
    unit: str = "x"
    floor: bool = False
    note: str = ""
    digits: int = 2

    @property
    def verdict(self) -> str:
        if self.bound is None:
            return ""
        return "pass" if (self.value >= self.bound if self.floor else self.value <= self.bound) else "MISS"

    def line(self) -> str:
        limit = "" if self.bound is None else f"{'>=' if self.floor else '<='} {self.bound:g}"
        return f"{self.name:<46} {_short(self.value, self.digits):>9} {self.unit:<9} {limit:<9} {self.verdict:<5} {self.note}".rstrip()


def _short(value: float, digits: int) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value >= 100 else f"{value:.{digits}f}"


def turns(measures: Mapping[str, Measure], count: int) -> dict[str, list[float]]:
    """What each measure gives in each of `count` rounds, after one that warms up and is thrown away."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    names = list(measures)
    for number in range(count + 1):
        # Rotated, so that nobody always runs behind the same neighbour.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            figure = measures[name]()
            if number:
                taken[name].append(figure)
    return taken


def rounds(bodies: Mapping[str, Body], count: int) -> dict[str, list[float]]:
    """Microseconds per call of each body, one figure a round."""
    return turns({name: functools.partial(_micros, body) for name, body in bodies.items()}, count)


def _micros(body: Body) -> float:
    begin = perf_counter_ns()
    calls = body()
    return (perf_counter_ns() - begin) / 1e3 / calls


def ratio(taken: Mapping[str, list[float]], name: str, base: str) -> float:
    """The median of the rounds' own ratios: what slows a whole round cancels out."""
    return statistics.median(mine / other for mine, other in zip(taken[name], taken[base]))


def added(taken: Mapping[str, list[float]], name: str, base: str) -> float:
    """Microseconds that `name` takes longer than `base`: the median of the rounds' differences."""
    return statistics.median(mine - other for mine, other in zip(taken[name], taken[base]))


def middle(taken: Mapping[str, list[float]], name: str) -> float:
    """Median microseconds."""
    return statistics.median(taken[name])


def beside(taken: Mapping[str, list[float]], name: str, base: str, unit: str = "us") -> str:
    """The absolute figures, for the reader; no gate rests on them."""
    return f"{middle(taken, name):.1f} {unit} beside {middle(taken, base):.1f}"


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A place of its own on the disk where the real cache would be, removed at the end."""
    made = Path(tempfile.mkdtemp(prefix="cachekit-bench-", dir=os.environ.get("BENCH_DIR")))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def cache(**settings: Any) -> Iterator[Path]:
    """An empty default cache; `ipfs="off"` unless told."""
    with directory() as place:
        with cachekit.configure(**{"dir": place / "cache", "ipfs": "off", "mode": "on", **settings}):
            yield place
