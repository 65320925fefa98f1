"""The benchmarks run; what they measure is for docs/performance.md, never for an assertion."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import harness

LOCAL = [
    pytest.param(benchmark, id=benchmark.__name__)
    for module in ("time_hits", "time_store", "time_growth", "time_adapters", "time_peers")
    for benchmark in importlib.import_module(module).ALL
]
DAEMON = [
    pytest.param(benchmark, id=benchmark.__name__)
    for module in ("time_ipfs", "time_artifacts")
    for benchmark in importlib.import_module(module).ALL
]


def _check(figures: list[Any]) -> None:
    assert figures
    for figure in figures:
        assert figure.value == figure.value, f"{figure.name} is not a number"
        assert figure.name in figure.line()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("benchmark", LOCAL)
def test_a_local_benchmark_gives_figures(benchmark: Callable[[Any], list[Any]]) -> None:
    """Each benchmark of the local tiers runs to its end and gives named figures."""
    _check(benchmark(harness.SMOKE))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("benchmark", DAEMON)
def test_a_shared_benchmark_gives_figures(benchmark: Callable[[Any], list[Any]], kubo_api: str) -> None:
    """Each benchmark of the IPFS tier runs against a node of its own; `kubo_api` says whether there can be one."""
    assert kubo_api
    _check(benchmark(harness.SMOKE))


def test_a_figure_says_whether_its_gate_holds() -> None:
    """A bound is an upper one unless it is called a floor; without one there is no verdict."""
    assert harness.Figure("a", 1.2, 1.25).verdict == "pass"
    assert harness.Figure("a", 1.3, 1.25).verdict == "MISS"
    assert harness.Figure("a", 1.9, 1.8, floor=True).verdict == "pass"
    assert harness.Figure("a", 1.9).verdict == ""


def test_the_ratio_is_of_the_same_round() -> None:
    """A round that was slow for both sides does not move the figure."""
    taken = {"ours": [1.0, 10.0, 1.0], "base": [2.0, 20.0, 2.0]}
    assert harness.ratio(taken, "ours", "base") == 0.5
