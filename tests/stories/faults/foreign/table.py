"""Every reader of bytes that come from outside of the process, and what tries them: of few inputs, or a million.

CACHEKIT_TEST_FAULTS=all pytest tests/stories/faults/test_foreign.py     # a million, from one seed
python tests/stories/faults/foreign/guided.py DIRECTORY                  # guided by coverage, with atheris
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stories.faults.foreign import said, shared, stored
from stories.faults.foreign.mutating import Mutator
from stories.faults.foreign.reader import Reader


def readers(place: Path) -> list[Reader]:
    """All of them; files are made in `place`."""
    kinds = {"stored": stored, "shared": shared, "said": said}
    for name in kinds:
        (place / name).mkdir()
    return [reader for name, kind in kinds.items() for reader in kind.readers(place / name)]


def share(table: list[Reader], inputs: int) -> dict[str, int]:
    """How many of `inputs` each reader gets, by its name."""
    total = sum(1 / reader.costs for reader in table)
    return {reader.name: max(8, round(inputs / total / reader.costs)) for reader in table}


def faults(reader: Reader, inputs: int, number: int) -> Iterator[str]:
    """What is wrong with how `inputs` changed seeds are read. `number` begins the random numbers."""
    mutator = Mutator(number)
    for _ in range(inputs):
        fault = reader.fault(mutator.mutated(mutator.random.choice(reader.seeds), reader.seeds))
        if fault:
            yield fault
