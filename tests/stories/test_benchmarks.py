"""The benchmarks run; what they measure is for docs/performance.md, never for an assertion."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import compare
import harness
import soak

ROOT = Path(__file__).parents[2]
LOCAL = [
    pytest.param(benchmark, id=benchmark.__name__)
    for module in ("time_hits", "time_keys", "time_store", "time_growth", "time_adapters", "time_peers")
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


def test_a_checkout_is_compared_with_itself() -> None:
    """Every figure comes of two sides, also where both are one checkout; only the import is to be faster than before."""
    figures = list(compare.figures(ROOT, ROOT, harness.SMOKE))
    _check(figures)
    assert {figure.name for figure in figures} >= {"import cachekit", "first call, a hit", "memory hit", "disk hit"}
    assert {figure.bound for figure in figures if figure.name not in compare.BOUNDS} == {1.03}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [([], "required: OTHER"), (["."], ". is not a checkout"), ([str(ROOT), "nowhere"], "nowhere is not a checkout")],
)
def test_what_is_no_checkout_is_said(
    given: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Wrong usage ends with status 2 before anything is measured."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        compare.main(given)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_missed_bound_fails_only_a_strict_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared machine must not fail a build that did not ask for it."""
    monkeypatch.setattr(compare, "figures", lambda *_: [harness.Figure("a", 1.1, 1.03), harness.Figure("b", 1.0, 1.03)])
    assert compare.main([str(ROOT)]) == 0
    assert compare.main([str(ROOT), "--strict"]) == 1


def test_another_cachekit_than_the_checkouts_is_refused(tmp_path: Path) -> None:
    """What is installed must not be measured in a checkout's place."""
    environ = {"PYTHONPATH": str(ROOT), "CACHEKIT_DIR": str(tmp_path), "CACHEKIT_IPFS": "off"}
    command = [sys.executable, str(compare.WORKER), str(tmp_path)]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"which is not in {tmp_path}" in done.stderr


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the soak reads what a process takes from /proc")
def test_the_soak_ends() -> None:
    """Threads, processes, forks and tasks on one directory for two seconds: nothing hangs, and no value is wrong."""
    _check(soak.soak(2.0))
