"""What the code of a function says for itself, and the same in plain types, for other processes."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from cachekit.keys.code.names import Names, Outer


class Facts(NamedTuple):
    """What the code of a function says for itself, whatever it meets when it runs.

    `portable`: whether other machines can compute the same (False: read from the bytecode, where no source is). `place`
    is `file:line`; `returns` the annotation of what comes back. `mark` stands for the code and the file that this was
    read of, "" where there is no file.
    """

    digest: str
    portable: bool
    names: Names
    place: str
    returns: str = ""
    mark: str = ""


_WHOLE: Final = 0
"""What most names are: read as a whole, and not changed. One object stands for all of them."""
_READ: Final = Outer(((),))


def packed(facts: Facts) -> list[Any]:
    """Facts but for their mark, as lists, texts and numbers."""
    outer = {
        name: _WHOLE if use.reads == {()} and not use.changes else [use.changes, *sorted(use.reads)]
        for name, use in facts.names.outer.items()
    }
    imports = [[level, name, *sorted(chains)] for (level, name), chains in facts.names.imports.items()]
    return [facts.digest, facts.portable, outer, imports, facts.place, facts.returns]


def unpacked(data: list[Any], mark: str) -> Facts:
    """What was packed. Raises ValueError, TypeError or AttributeError for what never was facts."""
    digest, portable, outer, imports, place, returns = data
    names = Names({name: _READ if use == _WHOLE else _outer(use) for name, use in outer.items()})
    names.imports = {(level, name): set(map(tuple, chains)) for level, name, *chains in imports}
    return Facts(digest, portable, names, place, returns, mark)


def _outer(use: list[Any]) -> Outer:
    outer = Outer(map(tuple, use[1:]))
    outer.changes = use[0]
    return outer
