"""Six stories killed at random instants, with SIGKILL; another process then finds right values, and nothing that hangs or grows.

50 kills, and 1 000 with `CACHEKIT_TEST_FAULTS=all`; `CACHEKIT_TEST_SEED` gives other instants.
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
KILLS: Final = 100 if EVERY else 9
SECONDS: Final = 600.0 if EVERY else 120.0
EITHER_WAY: Final = [(name, False) for name, kind in KINDS.items() if not kind.ipfs]
SHARED: Final = [(name, True) for name, kind in KINDS.items() if kind.ipfs or EVERY]


@pytest.mark.parametrize(("name", "shared"), [*EITHER_WAY, *SHARED])
def test_killed_at_any_instant(name: str, shared: bool, own_cache: Path, request: pytest.FixtureRequest) -> None:
    """What was finished before the kill stands, what was not is whole or not there, and the next call works and hits."""
    settings: dict[str, Any] = {}
    if shared:
        settings = {"ipfs": "rw", "ipfs_api": request.getfixturevalue("kubo_api"), "ipfs_timeout": "5"}
    script = "import killing, sys; killing.main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))"
    found = json.loads(told(script, own_cache, name, KILLS, SEED, seconds=SECONDS, **settings)[-1])
    print(found)
    assert not found["broken"], "\n\n".join(found["broken"])
    assert not found["counted"], "a kill is no error of those who come after"
