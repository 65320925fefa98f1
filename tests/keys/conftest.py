"""Projects that a test writes, and that are forgotten with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from keys.projects import Project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Any]:
    made: list[Project] = []

    def make(**modules: str) -> Project:
        made.append(Project(tmp_path / "project", **modules))
        return made[-1]

    yield make
    for one in made:
        one.close()
