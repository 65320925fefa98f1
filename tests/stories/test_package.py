"""What a program sees of the package itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cachekit

ROOT = Path(__file__).parents[2]


def test_completion_shows_the_public_names() -> None:
    """`dir(cachekit)` is `__all__` and what every module has; no room and no module stands among them."""
    assert [name for name in dir(cachekit) if not name.startswith("__")] == sorted(cachekit.__all__)
    assert {"__all__", "__doc__", "__file__", "__name__", "__path__", "__version__"} <= set(dir(cachekit))


def test_every_name_that_completion_shows_is_there() -> None:
    """In a process that imported nothing else: names whose modules come later are fetched."""
    program = "import cachekit; assert all(hasattr(cachekit, name) for name in dir(cachekit))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_looking_imports_nothing() -> None:
    """`dir(cachekit)` loads no module that the import left for later."""
    program = "import sys, cachekit; before = set(sys.modules); dir(cachekit); sys.exit(before != set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
