"""What a contributor types."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_help_says_what_each_target_is_for() -> None:
    """`make help` has a line for every target that is no file, and makes nothing."""
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    # The suite itself is started by make, which tells its children that they are some.
    environ = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
    asked = subprocess.run(["make", "help"], cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    lines = asked.stdout.splitlines()
    assert sorted(re.fullmatch(r"make (\S+) +\w.*", line)[1] for line in lines) == sorted(phony[1].split())  # type: ignore[index]
