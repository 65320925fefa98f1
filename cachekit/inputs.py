"""The paths among the arguments of a call: inputs, which no output may take with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CONTAINERS = (list, tuple, set, frozenset)


def paths_in(value: Any) -> Iterator[Path]:
    """Every Path in nested containers; other objects are not looked into, nor is a container that holds itself."""
    waiting, seen = [value], set[int]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, Path):
            yield one
        elif isinstance(one, (dict, *_CONTAINERS)) and id(one) not in seen:
            seen.add(id(one))
            waiting.extend(one.values() if isinstance(one, dict) else one)
