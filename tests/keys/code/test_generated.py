"""Random projects, edited at random and run for real: another answer has another key, and what is not reached costs nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from keys.code.generated import Generated
from keys.projects import Project

EDITS = int(os.environ.get("KEY_EDITS", "500"))
A_PROJECT = 10
"""Edits of one project before the next one is made."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", range(10))
def test_another_answer_has_another_key(tmp_path: Path, block: int) -> None:
    """Of each edit: the answer differs, then the key does; nothing that is reached was touched, then it does not."""
    for number in range(max(1, EDITS // 10 // A_PROJECT)):
        seed = block * 100_000 + number
        generated = Generated(seed)
        project = Project(tmp_path / str(seed), **generated.modules())
        try:
            before = project.outcome()
            for _ in range(A_PROJECT):
                touched = generated.edit()
                project.modules = generated.modules()
                project.write()
                after = project.outcome()
                assert (after.answer == before.answer) or (after.key != before.key), (seed, project.modules)
                assert touched or after.key == before.key, (seed, project.modules)
                before = after
        finally:
            project.close()
