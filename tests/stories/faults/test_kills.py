"""Six stories killed with SIGKILL; another process then finds right values, and nothing that hangs or grows.

50 kills at random instants, and some before an operation; with `CACHEKIT_TEST_FAULTS=all` 1 000, and one before each
operation on files or SQLite. `CACHEKIT_TEST_SEED` gives other instants.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from killing import KINDS
from programs import told

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a child is forked warm")

EVERY: Final = os.environ.get("CACHEKIT_TEST_FAULTS") == "all"
SEED: Final = int(os.environ.get("CACHEKIT_TEST_SEED", "1"))
SECONDS: Final = 1_200.0 if EVERY else 120.0
EITHER_WAY: Final = [(name, False) for name, kind in KINDS.items() if not kind.ipfs]
SHARED: Final = [(name, True) for name, kind in KINDS.items() if kind.ipfs or EVERY]


@pytest.mark.parametrize(("name", "shared"), [*EITHER_WAY, *SHARED])
def test_killed_at_any_instant(name: str, shared: bool, own_cache: Path, request: pytest.FixtureRequest) -> None:
    """What was finished before the kill stands, what was not is whole or not there, and the next call works and hits."""
    settings: dict[str, Any] = {}
    # Together 50, and 1 000: with a daemon each takes three times as long.
    kills, operations = (100, 1_000) if EVERY else (5, 1) if shared else (10, 2)
    if shared:
        settings = {"ipfs": "rw", "ipfs_api": request.getfixturevalue("kubo_api"), "ipfs_timeout": "5"}
    script = "import killing, sys; killing.main(sys.argv[1], *map(int, sys.argv[2:]))"
    found = json.loads(told(script, own_cache, name, kills, SEED, operations, seconds=SECONDS, **settings)[-1])
    print(found["figures"])
    assert not found["broken"], "\n\n".join(found["broken"])
    assert not found["counted"], "a kill is no error of those who come after"
