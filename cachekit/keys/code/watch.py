"""Whether what a key was made of is still so: by identity where nothing can change in place, else by its bytes.

A function that reaches fifty others pays for one comparison a module, not for a walk.
"""

from __future__ import annotations

import itertools
import marshal
import operator
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

ABSENT: Final = object()
"""What stands where a name is missing."""

_SCALARS: Final = frozenset({str, int, float, bool, type(None), bytes, complex})
_ENOUGH: Final = 16
"""Calls without a change after which a guard is made, which takes a millisecond."""
_STATES: Final = 256
_MANY: Final = 512
_numbers: Final = itertools.count(1)
_CODE: Final = (types.FunctionType, types.ModuleType, type)


class Cell(Mapping[str, Any]):
    """A closure's cell as a mapping from its name to its content."""

    def __init__(self, name: str, cell: types.CellType) -> None:
        self._name, self.cell = name, cell

    def __getitem__(self, name: str) -> Any:
        try:
            return self.cell.cell_contents
        except ValueError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter((self._name,))

    def __len__(self) -> int:
        return 1


class _Loaded(Mapping[str, Any]):
    """Functions as a mapping from any name to their code and defaults: the same object as long as they are the same."""

    def __init__(self, functions: list[types.FunctionType]) -> None:
        self._functions = functions
        self._held = iter([(one.__code__, one.__defaults__) for one in functions])  # kept, so that no id is used again
        self._known = self._now()

    def _now(self) -> list[int]:
        return [number for one in self._functions for number in (id(one.__code__), id(one.__defaults__))]

    def __getitem__(self, name: str) -> Any:
        return self._held if self._now() == self._known else None

    def __iter__(self) -> Iterator[str]:
        return iter(("code",))

    def __len__(self) -> int:
        return 1


_RELOADING: Final = ("IPython.extensions.autoreload", "jurigged")


def reloaded(met: list[Any]) -> list[Watched]:
    """What tells that functions were given other code in place, where something is loaded that does so."""
    functions = [one for one in met if type(one) is types.FunctionType]
    if not functions or not any(name in sys.modules for name in _RELOADING):
        return []
    loaded = _Loaded(functions)
    return [Watched(loaded, "code", loaded["code"], None)]


def kind_of(mapping: Mapping[str, Any]) -> str:
    """What `explain` calls a value that was read there."""
    return "closure" if type(mapping) is Cell else "constant"


class Watched(NamedTuple):
    """A name that was read: `mapping` had `value` there. `stamp` tells what can change in place; None for what cannot.

    Without a name it is the size of the mapping.
    """

    mapping: Mapping[str, Any]
    name: str
    value: Any
    stamp: bytes | None


Group = tuple[Callable[[Any], Any], Mapping[str, Any], list[str], tuple[Any, ...]]
"""What looks all names of a mapping up at once, the mapping, the names and their values."""


def can_change(value: Any) -> bool:
    """Whether a value may become another one in place."""
    if type(value) is tuple:
        return any(map(can_change, value))
    return not (type(value) in _SCALARS or issubclass(type(value), _CODE))


def is_marshalled(value: Any) -> bool:
    """Whether the bytes of a fast lane hold the value: plain types only, containers as they are now."""
    return type(value) in _SCALARS or type(value) in (dict, list, tuple)


def is_exact(tree: Any) -> bool:
    """Whether identity tells the leaves of a tree: dicts by text, lists, tuples, and what cannot change."""
    waiting = [tree]
    for node in waiting:
        if type(node) is dict and all(type(name) is str for name in node):
            waiting.extend(node.values())
        elif type(node) is list or type(node) is tuple:
            waiting.extend(node)
        elif type(node) not in _SCALARS:
            return False
        if len(waiting) > _MANY:
            return False
    return True


class Watch:
    """Everything that one walk read. `same` is asked by who builds a key, `state` by the fast lane."""

    def __init__(self, watched: list[Watched], stamp: Callable[[Any, str], bytes]) -> None:
        self._watched, self._stamp = watched, stamp
        self.fast = all(_is_fast(one) for one in watched)
        """Whether `state` holds everything that a key holds."""
        named = [one for one in watched if one.name and one.value is not ABSENT]
        self._missing = list({(id(one.mapping), one.name): one[:2] for one in watched if one.value is ABSENT}.values())
        self._sizes = tuple((one.mapping, one.value) for one in watched if not one.name)
        self._code = _grouped([one for one in named if not is_marshalled(one.value)])
        self._data = [group[:3] for group in _grouped([one for one in named if is_marshalled(one.value)])]
        self._numbers: dict[bytes, int] = {}
        self._own = next(_numbers)
        self._last, self._times, self._enough = 0, 0, _ENOUGH
        self.otherwise: Callable[[], Any] = self.number
        """What is asked where a guard does not hold."""
        self.guard: Callable[[], Any] = self.number
        """Gives the number of the state, quickly while it stays."""

    def same(self) -> bool:
        """Whether a walk now would read what it read then."""
        return all(self._is_same(one) for one in self._watched)

    def _is_same(self, one: Watched) -> bool:
        if not one.name:
            return bool(len(one.mapping) == one.value)
        if one.mapping.get(one.name, ABSENT) is not one.value:
            return False
        return one.stamp is None or bool(one.stamp == self._stamp(one.value, kind_of(one.mapping)))

    def number(self) -> Any:
        """What stands for the state now, equal while it is; None where code is another one than it was.

        A number where that says it all, else the data itself: who remembers something under it must look at it.
        """
        data = self.state()
        if data is None:
            return None
        if not is_exact(data):  # else what is marshalled alike may differ
            return self._own, data
        text = marshal.dumps(data, 2)
        number = self._numbers.get(text)
        if number is None:
            if len(self._numbers) >= _STATES:
                self._numbers.clear()
            number = self._numbers[text] = next(_numbers)
        self._settle(number, text)
        return number

    def _settle(self, number: int, text: bytes) -> None:
        """A state that stays gets a guard. Each one has to be worth more, where states come and go."""
        self._times = self._times + 1 if number == self._last else 1
        self._last = number
        if self._times < self._enough:
            return
        self._times, self._enough = 0, 2 * self._enough
        code = [(mapping, *one) for _, mapping, names, values in self._code for one in zip(names, values, strict=True)]
        data = [(mapping, name, mapping[name]) for _, mapping, names in self._data for name in dict.fromkeys(names)]
        from cachekit.keys.guard import guard  # few processes call a function so often

        made, copies = guard(code, data, self._missing, self._sizes, number, self.otherwise)
        held = {(id(mapping), name): copy for (mapping, name, _), copy in zip(data, copies, strict=False)}
        now = tuple([tuple([held[id(mapping), name] for name in names]) for _, mapping, names in self._data if made])
        # Another thread may have changed something since the state was taken.
        if made is not None and marshal.dumps(now, 2) == text:
            self.guard = made

    def state(self) -> tuple[Any, ...] | None:
        """The data that is read, as it is now; None where code is another one than it was."""
        try:
            for get, mapping, _, values in self._code:
                if get(mapping) != values:
                    return None
            if any(name in mapping for mapping, name in self._missing):
                return None
            for sized, size in self._sizes:
                if len(sized) != size:
                    return None
            return tuple([get(mapping) for get, mapping, _ in self._data])
        except KeyError:
            return None


def _is_fast(one: Watched) -> bool:
    return not one.name or is_marshalled(one.value) or one.stamp is None


def _grouped(watched: list[Watched]) -> list[Group]:
    """One look-up for all names of a mapping: the look-up, the mapping, names and values."""
    by_mapping: dict[int, list[Watched]] = {}
    for one in watched:
        by_mapping.setdefault(id(one.mapping), []).append(one)
    groups: list[Group] = []
    for ones in by_mapping.values():
        # Twice, where there is one: else it would not be a tuple.
        names = {one.name: one.value for one in ones}
        keys = [*names, *names] if len(names) == 1 else list(names)
        groups.append((operator.itemgetter(*keys), ones[0].mapping, keys, tuple(names[key] for key in keys)))
    return groups
