"""Whether what a function reads is still the very same, in one expression that Python itself makes fast.

The expression compares each thing that was read by identity, and what stands in dicts and lists one by one. Python looks a
module's attribute up in a few nanoseconds where the same expression asked before, which no loop over names comes near.
"""

from __future__ import annotations

import keyword
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

MOST: Final = 512
"""Comparisons that one guard makes at most."""

Guard = Callable[[], Any]
"""Gives what it was made with as long as everything is the same, else None; raises where a name is gone."""

_PREFIX: Final = "cachekit_"
_LEAVES: Final = frozenset({str, int, float, bool, type(None), bytes, complex})


class _Crowded(Exception):
    """There is more to compare than a guard may hold."""


class _Terms:
    """Comparisons as they are found, with a variable for each object that they name."""

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self.texts: list[str] = []
        self.variables: dict[int, str] = {}

    def variable(self, value: Any) -> str:
        if id(value) not in self.variables:
            self.variables[id(value)] = f"{_PREFIX}{len(self.objects)}"
            self.objects.append(value)
        return self.variables[id(value)]

    def add(self, text: str) -> None:
        if len(self.texts) == MOST:
            raise _Crowded
        self.texts.append(text)

    def same(self, found: str, value: Any) -> None:
        """What the expression `found` gives is `value`, and so is all that it holds."""
        self.add(f"{found} is {self.variable(value)}")
        if type(value) not in (dict, list, tuple):
            return
        self.add(f"{self.variable(len)}({self.variable(value)}) == {len(value)}")
        for at, one in value.items() if type(value) is dict else enumerate(value):
            self.same(f"{self.variable(value)}[{self.variable(at) if type(at) is str else at}]", one)


def guard(named: list[tuple[Mapping[str, Any], str, Any]], sizes: list[tuple[Any, int]], said: int) -> Guard | None:
    """A guard that gives `said` while each (mapping, name, value) and (mapping, size) holds; None where there is too much.

    Every value is code, which only its identity tells, or a tree that `is_exact`.
    """
    terms = _Terms()
    home = _home(named)
    try:
        for mapping, name, value in named:
            terms.same(name if mapping is home and _is_attribute(name) else _place(terms, mapping, name), value)
        for mapping, size in sizes:
            terms.add(f"{terms.variable(len)}({terms.variable(mapping)}) == {size}")
    except (_Crowded, RecursionError):
        return None
    names = list(terms.variables.values())
    text = f"def outer({', '.join(names)}):\n return lambda: {said} if {' and '.join(terms.texts)} else None"
    code = _inner(_inner(compile(text, "<cachekit guard>", "exec", dont_inherit=True)))
    cells = dict(zip(names, map(types.CellType, terms.objects), strict=True))
    return types.FunctionType(code, home, closure=tuple(cells[name] for name in code.co_freevars))


def _home(named: list[tuple[Mapping[str, Any], str, Any]]) -> dict[str, Any]:
    """The module of which most is read: its names are the guard's own globals, which are found even faster."""
    count = Counter(id(mapping) for mapping, _, _ in named if type(mapping) is dict and "__builtins__" in mapping)
    found = {id(mapping): mapping for mapping, _, _ in named if count and id(mapping) == count.most_common(1)[0][0]}
    home: Any = next(iter(found.values()), {"__builtins__": {}})
    return home


def is_exact(tree: Any) -> bool:
    """Whether identity tells the leaves of a tree: dicts by text, lists, tuples, and what cannot change."""
    waiting = [tree]
    for node in waiting:
        if type(node) is dict and all(type(name) is str for name in node):
            waiting.extend(node.values())
        elif type(node) is list or type(node) is tuple:
            waiting.extend(node)
        elif type(node) not in _LEAVES:
            return False
        if len(waiting) > MOST:
            return False
    return True


def _place(terms: _Terms, mapping: Mapping[str, Any], name: str) -> str:
    """How to look a name up: as an attribute of its module, if that is a plain one, or in the mapping."""
    module = sys.modules.get(str(mapping.get("__name__", ""))) if type(mapping) is dict else None
    if type(module) is types.ModuleType and vars(module) is mapping and _is_attribute(name):
        return f"{terms.variable(module)}.{name}"
    return f"{terms.variable(mapping)}[{terms.variable(name)}]"


def _is_attribute(name: str) -> bool:
    # Python writes other characters in a normal form; names with underscores may be the module type's own.
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and not name.startswith(("__", _PREFIX))


def _inner(code: types.CodeType) -> types.CodeType:
    return next(_codes(code))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    return (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
