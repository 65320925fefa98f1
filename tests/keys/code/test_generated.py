"""Random projects, edited at random and run for real: another answer has another key, and what is not reached costs nothing."""

from __future__ import annotations

import linecache
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from keys.code.generated import Generated
from keys.projects import Project

from cachekit import distributed_cache

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
                if after.answer != before.answer:
                    assert after.key != before.key, (seed, project.modules)
                    assert after.first != before.first, (seed, project.modules)
                assert touched or after.key == before.key, (seed, project.modules)
                assert touched or after.first == before.first, (seed, project.modules)
                before = after
        finally:
            project.close()


class Notebook:
    """Cells run one after another in one namespace, as IPython does it."""

    def __init__(self) -> None:
        self.space: dict[str, Any] = {"__name__": "__main__", "distributed_cache": distributed_cache}
        self._count = 0

    def run(self, cell: str) -> None:
        self._count += 1
        filename = f"<cell {self._count}>"
        linecache.cache[filename] = (len(cell), None, cell.splitlines(keepends=True), filename)
        exec(compile(cell, filename, "exec", dont_inherit=True), self.space)  # noqa: S102

    def close(self) -> None:
        for number in range(self._count + 1):
            linecache.cache.pop(f"<cell {number}>", None)


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    made = Notebook()
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(max(1, EDITS // 50)))
def test_a_notebook_s_answers_are_those_of_its_cells(notebook: Notebook, seed: int) -> None:
    """Edited cells are run again, and some that were not edited: each call answers as the function does now."""
    generated, choose = Generated(seed, modules=1), random.Random(seed)
    cells = generated.cells()
    for cell in cells:
        notebook.run(cell)
    before, key = notebook.space["ask"](1), notebook.space["ask"].key_for(1)
    for _ in range(A_PROJECT):
        touched = generated.edit()
        edited = generated.cells()
        if not touched:
            # A class that was not run again keeps its old base: only a run of all cells is the same notebook.
            for cell in cells:
                notebook.run(cell)
            before, key = notebook.space["ask"](1), notebook.space["ask"].key_for(1)
        for old, new in zip(cells, edited, strict=True):
            if not touched or old != new or choose.random() < 0.1:
                notebook.run(new)
        cells, ask = edited, notebook.space["ask"]
        assert ask(1) == ask(1) == ask.__wrapped__(1)
        assert (ask(1) == before) or (ask.key_for(1) != key)
        assert touched or ask.key_for(1) == key
        before, key = ask(1), ask.key_for(1)
