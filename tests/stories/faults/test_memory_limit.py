"""CACHEKIT_MEMORY_LIMIT is a bound on what the process grows by, whatever the values are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from programs import told

KINDS = ["int", "text", "dict", "list", "bytes", "tagged"]
"""Twenty seconds each: the first three in CI, all with CACHEKIT_TEST_FAULTS=all."""
EVERY = os.environ.get("CACHEKIT_TEST_FAULTS") == "all"
GROWTH = """
def resident():
    # Without the pages of mapped files, which the system takes back when it wants them.
    (line,) = [line for line in open("/proc/self/status") if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024
make = {"int": lambda x: x, "text": lambda x: f"{x} " * 60, "dict": lambda x: {"text": "word " * 40, "n": x},
        "list": lambda x: [x] * 50, "bytes": lambda x: b"%d" % x * 400, "tagged": lambda x: (x, "y")}[sys.argv[1]]
@distributed_cache(version="1")
def value(x): return make(x)
limit = 16_000_000
for x in range(10_000): value(-1 - x % 3)  # what a process takes once, whatever is kept
before = resident()
for x in range(25_000):
    value(x)
    if not x % 5000: stats()
print(f"{(resident() - before) / limit:.2f}")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says how large a process is")
@pytest.mark.parametrize("kind", KINDS if EVERY else KINDS[:3])
def test_small_values_stay_within_the_limit(own_cache: Path, kind: str) -> None:
    """25 000 values, more than fit: the process grows by at most 1.15 times the limit."""
    (growth,) = told(GROWTH, own_cache, kind, seconds=120, memory_limit="16MB")
    assert float(growth) <= 1.15
