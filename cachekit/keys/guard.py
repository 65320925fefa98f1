"""Whether what a function reads is still the very same, in one expression that Python itself makes fast.

The expression compares each thing that was read by identity, and what stands in dicts and lists one by one. Python looks a
module's attribute up in a few nanoseconds where the same expression asked before, which no loop over names comes near.
"""

from __future__ import annotations

import keyword
import sys
import types
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

MOST: Final = 512
"""Comparisons that one guard makes at most."""

Named = tuple[Mapping[str, Any], str, Any]
Guard = Callable[[], Any]
"""Gives what it was made with as long as everything is the same, else what another one says."""

_TEXT: Final = """
def outer({}):
    def guard():
        try:
            {}
            if {}:
                return {}
        except {}:  # a name that is gone is not the same
            pass
        return {}()
"""
_PREFIX: Final = "cachekit_"


class _Crowded(Exception):
    """There is more to compare than a guard may hold."""


class _Terms:
    """Comparisons as they are found, with a variable for each object that they name."""

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self.texts: list[str] = []
        self.lines: list[str] = []
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

    def same(self, found: str, value: Any) -> Any:
        """What the expression `found` gives is `value`, and so is all that it holds; a copy of what is compared with."""
        self.add(f"{found} is {self.variable(value)}")
        return self._content(value)

    def _content(self, value: Any) -> Any:
        """A copy of what a container holds, compared in its order; any other value itself."""
        if type(value) is dict:
            copy = dict(value)  # whoever changes it now changes no copy
            self._unpacked(self.variable(value), copy)
            self._unpacked(f"{self.variable(value)}.values()", copy.values())
            return {at: self._content(one) for at, one in copy.items()}
        if type(value) is list or type(value) is tuple:
            held = tuple(value)
            self._unpacked(self.variable(value), held)
            return type(value)(map(self._content, held))
        return value

    def _unpacked(self, found: str, held: Collection[Any]) -> None:
        # An unpacking goes through a container in order, and raises where it has another length.
        names = [f"{_PREFIX}at{len(self.texts) + number}" for number in range(len(held))]
        self.lines.append(f"[{', '.join(names)}] = {found}")
        for name, one in zip(names, held, strict=True):
            self.add(f"{name} is {self.variable(one)}")


def guard(
    code: list[Named],
    data: list[Named],
    missing: list[tuple[Mapping[str, Any], str]],
    sizes: Iterable[tuple[Any, int]],
    said: int,
    otherwise: Guard,
) -> tuple[Guard | None, list[Any]]:
    """A guard that gives `said` while each (mapping, name, value) and (mapping, size) holds and what is `missing` is, and
    else what `otherwise` says; and copies of the data that it compares with. None where there is too much to compare.

    What is code only its identity tells; what is data is a tree that `is_exact`.
    """
    terms, home = _Terms(), _home([*code, *data, *((mapping, name, None) for mapping, name in missing)])
    try:
        for mapping, name, value in code:
            terms.add(f"{_place(terms, mapping, name, home)} is {terms.variable(value)}")
        copies = [terms.same(_place(terms, mapping, name, home), value) for mapping, name, value in data]
        if any(mapping[name] is not value for mapping, name, value in data):
            return None, []  # os.environ makes a new text each time
        for mapping, name in missing:
            terms.add(_unshadowed(terms, mapping, name, home))
        for mapping, size in sizes:
            terms.add(f"{terms.variable(len)}({terms.variable(mapping)}) == {size}")
    except (_Crowded, RecursionError, KeyError):
        return None, []
    return _compiled(terms, home, said, otherwise), copies


def _compiled(terms: _Terms, home: dict[str, Any], said: int, otherwise: Guard) -> Guard:
    failed, slow = terms.variable(Exception), terms.variable(otherwise)
    names = list(terms.variables.values())
    text = _TEXT.format(
        ", ".join(names), "; ".join(terms.lines) or "pass", " and ".join(terms.texts), said, failed, slow
    )
    code = compile(text, "<cachekit guard>", "exec", dont_inherit=True)
    for _ in ("outer", "guard"):
        code = next(constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    cells = dict(zip(names, map(types.CellType, terms.objects), strict=True))
    return types.FunctionType(code, home, closure=tuple(cells[name] for name in code.co_freevars))


def _home(named: list[Named]) -> dict[str, Any]:
    """The module of which most is read: its names are the guard's own globals, which are found even faster."""
    modules = {id(mapping): mapping for mapping, _, _ in named if type(mapping) is dict and "__builtins__" in mapping}
    count = Counter(id(mapping) for mapping, _, _ in named if id(mapping) in modules)
    return modules[count.most_common(1)[0][0]] if count else {"__builtins__": {}}


def _unshadowed(terms: _Terms, mapping: Mapping[str, Any], name: str, home: dict[str, Any]) -> str:
    """That the name stands for a builtin, or for nothing."""
    builtin = home.get("__builtins__")
    known = vars(builtin) if isinstance(builtin, types.ModuleType) else builtin
    if mapping is home and _is_attribute(name) and isinstance(known, dict) and name in known:
        return f"{name} is {terms.variable(known[name])}"
    return f"{terms.variable(name)} not in {terms.variable(mapping)}"


def _place(terms: _Terms, mapping: Mapping[str, Any], name: str, home: dict[str, Any]) -> str:
    """How to look a name up: as a global, as an attribute of its module, if that is a plain one, or in the mapping."""
    if mapping is home and _is_attribute(name):
        return name
    cell = getattr(mapping, "cell", None)
    if type(cell) is types.CellType:
        return f"{terms.variable(cell)}.cell_contents"
    module = sys.modules.get(str(mapping.get("__name__", ""))) if type(mapping) is dict else None
    if type(module) is types.ModuleType and vars(module) is mapping and _is_attribute(name):
        return f"{terms.variable(module)}.{name}"
    return f"{terms.variable(mapping)}[{terms.variable(name)}]"


def _is_attribute(name: str) -> bool:
    # Python writes other characters in a normal form; names with underscores may be the module type's own.
    return (
        name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and not name.startswith(("__", _PREFIX))
    )
