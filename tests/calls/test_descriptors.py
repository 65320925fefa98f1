"""Calls of a process that has no file descriptor free, or only a few."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import asyncio, json, os, resource, sys, warnings
from pathlib import Path
from cachekit import Adapter, Reply, Retry, distributed_cache, persist_artifact, stats

warnings.simplefilter("ignore")
source = Path(sys.argv[1])
retry = Retry(on=KeyError, attempts=2, max_wait=0.01)
adapter = Adapter(name="test", capture=lambda answer: Reply("plain", b"1"), restore=lambda *_: 1, judge=lambda _: "")

@distributed_cache
def value(n): return n
@distributed_cache
def annotated(n) -> list[int]: return [n]
@distributed_cache(retry=retry)
def retried(n): return n
@distributed_cache
async def coroutine(n): return n
@distributed_cache
def generator(n): yield n
@distributed_cache
async def agenerator(n): yield n
@distributed_cache(adapter=adapter)
def adapted(n): return n
@persist_artifact
def artifact(n) -> Path: return source

async def pieces(): return [one async for one in agenerator(1)]

loop = asyncio.new_event_loop()
calls = dict(
    value=lambda: value(1),
    annotated=lambda: annotated(1)[0],
    retried=lambda: retried(1),
    coroutine=lambda: loop.run_until_complete(coroutine(1)),
    generator=lambda: list(generator(1))[0],
    agenerator=lambda: loop.run_until_complete(pieces())[0],
    adapted=lambda: adapted(1),
    artifact=lambda: int(artifact(1).suffix == ".bin"),
    refresh=lambda: value.refresh(1),
)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
held = []
try:
    while True: held.append(os.dup(0))
except OSError: pass
for _ in range(int(sys.argv[2])): os.close(held.pop())
answers = {}
for name, call in calls.items():
    try: answers[name] = call()
    except BaseException as error: answers[name] = repr(error)
while len(held) > 55: os.close(held.pop())
for name, call in calls.items(): call()
print(json.dumps([answers, stats().as_dict()["bypasses"]]))
"""


@pytest.mark.parametrize("free", [0, 1, 2, 3, 5, 8])
def test_a_call_needs_no_descriptor_of_ours(free: int, tmp_path: Path) -> None:
    """Each kind of call passes through, although what it would import cannot be opened."""
    source = tmp_path / "made.bin"
    source.write_bytes(b"1")
    environ = {**os.environ, "CACHEKIT_DIR": str(tmp_path / "cache"), "CACHEKIT_IPFS": "off"}
    environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", SCRIPT, str(source), str(free)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answers, bypasses = json.loads(done.stdout)
    assert set(answers.values()) == {1}, answers
    assert free or bypasses["no_file"] >= len(answers)
