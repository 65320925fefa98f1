"""The end of a process, and `flush`, while a real daemon hangs: both keep to their time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stopping import stop

import cachekit
from cachekit.cache.default import default
from cachekit.ipfs.node import daemon, install
from cachekit.model import Key, Record

_CHILD = """
import atexit, sys, time
ended = []
# Registered first, called last.
atexit.register(lambda: print(time.monotonic() - ended[0], flush=True))
import cachekit
from cachekit.cache.default import default
caches = []
@cachekit.distributed_cache
def answer(n):
    return n
for name in sys.argv[2:]:
    cachekit.configure(dir=name, ipfs="rw", ipfs_api=sys.argv[1], ipfs_timeout=5)
    answer(1)
    cachekit.flush(30)
    caches.append(default())
print("ready", flush=True)
sys.stdin.readline()
with cachekit.mode("refresh"):
    answer(2)
from cachekit.model import Key, Record
for cache in caches:
    cache.ready().team.tier.put(Key("default", bytes(32)), Record("text", b"x", time.time_ns()))
# Now each sends, and hangs.
while not all(cache.team.tier._sending._run.thread for cache in caches):
    time.sleep(0.01)
ended.append(time.monotonic())
"""


@pytest.fixture
def hanging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[daemon.NodeStatus]:
    """A node of this test's own, to be stopped; it runs on in the end, and ends."""
    home = tmp_path_factory.mktemp("node")
    status = daemon.start(home, binary=Path(install.install(home).path), timeout=60)
    yield status
    os.kill(status.pid, signal.SIGCONT)
    daemon.stop(home)


@pytest.mark.parametrize("caches", [1, 3])
def test_a_process_ends_within_five_seconds(hanging: daemon.NodeStatus, tmp_path: Path, caches: int) -> None:
    """However many caches it has, and whatever each of them still has to send."""
    command = [sys.executable, "-c", _CHILD, hanging.api, *(str(tmp_path / f"{n}") for n in range(caches))]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        stop(hanging.pid)
        child.stdin.write(b"\n")
        child.stdin.close()
        assert float(child.stdout.readline()) < 5.0
    assert child.returncode == 0


@pytest.mark.parametrize("timeout", [0.05, 0.5])
@pytest.mark.parametrize("size", [10, 3 << 20])
@pytest.mark.parametrize("busy", [False, True])
def test_flush_keeps_to_its_time(
    hanging: daemon.NodeStatus, tmp_path: Path, timeout: float, size: int, busy: bool
) -> None:
    """Within 0.2 s, whether it sends or waits for who does."""
    with cachekit.configure(dir=tmp_path / "own", ipfs="rw", ipfs_api=hanging.api):
        team = default().ready().team
        assert team is not None
        stop(hanging.pid)
        key, record = Key("default", os.urandom(32)), Record("text", os.urandom(size), time.time_ns(), pin=True)
        (team.tier.put if busy else team.outbox.add)(key, record)
        began = time.monotonic()
        with pytest.raises(cachekit.TierError):
            cachekit.flush(timeout)
        assert time.monotonic() - began < timeout + 0.2
