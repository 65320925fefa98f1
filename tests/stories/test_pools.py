"""Servers that fork: each worker calls, hits, counts and ends."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from programs import environment

APPLICATION = """
import os
from cachekit import distributed_cache, stats

@distributed_cache
def f(x): return [x, os.getpid()]

BEFORE = f(0)

def application(environ, start_response):
    x = int(environ["PATH_INFO"][1:])
    body = repr((f(x)[1], os.getpid(), os.getppid())).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@contextmanager
def served(place: Path, directory: Path, *options: str) -> Iterator[str]:
    """The address of gunicorn with two workers; it is told to end, and must within 20 s."""
    (place / "application.py").write_text(APPLICATION, encoding="utf-8")
    log = place / "log"
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", "127.0.0.1:0", "--log-file", str(log)]
    command += ["--no-control-socket", *options, "application"]
    server = subprocess.Popen(command, env=environment(directory), cwd=place)
    try:
        yield _address(log, server)
        server.terminate()
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.wait()


def _address(log: Path, server: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + 30
    while time.monotonic() < end and server.poll() is None:
        said = log.read_text(encoding="utf-8") if log.exists() else ""
        if said.count("Booting worker") == 2:
            return said.split("Listening at: ")[1].split()[0]
        time.sleep(0.02)
    raise AssertionError(f"gunicorn did not come up: {log.read_text(encoding='utf-8') if log.exists() else ''}")


@pytest.mark.parametrize("options", [[], ["--preload"], ["--preload", "--threads", "4"]], ids=" ".join)
def test_gunicorns_workers_share(own_cache: Path, tmp_path: Path, options: list[str]) -> None:
    """What one worker, or the master before it forked, paid for is a hit in the others; all of it reaches the totals."""
    pytest.importorskip("gunicorn")
    with served(tmp_path, own_cache, *options) as address:
        answers = []
        for x in [*range(20)] * 3:
            with urllib.request.urlopen(f"{address}/{x}", timeout=20) as reply:
                answers.append((x, json.loads(reply.read().decode().replace("(", "[").replace(")", "]"))))
    origins = {x: paid for x, (paid, _, _) in answers}
    assert all(paid == origins[x] for x, (paid, _, _) in answers)
    masters = {master for _, (_, _, master) in answers}
    workers = {worker for _, (_, worker, _) in answers}
    assert {origins[x] for x in range(1, 20)} <= workers
    assert (origins[0] in masters) is bool(options)
    # `f(0)` as the application is loaded: once in the master, or in each worker.
    expected = 60 + (1 if options else 2)
    assert _totals(own_cache) == {"calls": expected, "misses": 20}


def _totals(directory: Path) -> dict[str, int]:
    command = [sys.executable, "-m", "cachekit", "stats", "--json"]
    done = subprocess.run(command, env=environment(directory), capture_output=True, text=True, check=True)
    totals = json.loads(done.stdout)["total"]
    return {name: totals[name] for name in ("calls", "misses")}


WORKERS = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from cachekit import distributed_cache

@distributed_cache
def f(x): return [x]

if __name__ == "__main__":
    kind, method = sys.argv[1:]
    context = multiprocessing.get_context(method)
    f(0)
    if kind == "pool":
        with context.Pool(3) as pool:
            pool.map(f, [0, 1, 2, 3] * 10)
            pool.close()
            pool.join()
    else:
        with ProcessPoolExecutor(3, mp_context=context) as executor:
            list(executor.map(f, [0, 1, 2, 3] * 10))
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.parametrize("kind", ["pool", "executor"])
def test_the_machine_counts_what_workers_of_multiprocessing_did(tmp_path: Path, kind: str, method: str) -> None:
    """Workers that end by themselves add to the machine's totals, though their processes skip atexit."""
    program = tmp_path / "program.py"
    program.write_text(WORKERS, encoding="utf-8")
    around = environment(tmp_path / "cache")
    subprocess.run([sys.executable, program, kind, method], env=around, check=True, timeout=60)
    told = subprocess.run(
        [sys.executable, "-m", "cachekit", "stats", "--json"], env=around, check=True, capture_output=True, timeout=60
    )
    assert json.loads(told.stdout)["total"]["calls"] == 41
