"""Whether what a key was made of is still so: by identity where nothing can change in place, else by its bytes.

A function that reaches fifty others pays for one comparison a module, not for a walk.
"""

from __future__ import annotations

import operator
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

ABSENT: Final = object()
"""What stands where a name is missing."""

_SCALARS: Final = frozenset({str, int, float, bool, type(None), bytes, complex})
_CODE: Final = (types.FunctionType, types.ModuleType, type)


class Cell(Mapping[str, Any]):
    """A closure's cell as a mapping from its name to its content."""

    def __init__(self, name: str, cell: types.CellType) -> None:
        self._name, self._cell = name, cell

    def __getitem__(self, name: str) -> Any:
        try:
            return self._cell.cell_contents
        except ValueError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter((self._name,))

    def __len__(self) -> int:
        return 1


class Missing(Mapping[str, Any]):
    """A mapping that says of each name whether another one lacks it."""

    def __init__(self, mapping: Mapping[str, Any]) -> None:
        self._mapping = mapping

    def __getitem__(self, name: str) -> Any:
        return name not in self._mapping

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


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
    return "closure" if isinstance(mapping, Cell) else "constant"


class Watched(NamedTuple):
    """A name that was read: `mapping` had `value` there. `stamp` tells what can change in place; None for what cannot.

    Without a name it is the size of the mapping.
    """

    mapping: Mapping[str, Any]
    name: str
    value: Any
    stamp: bytes | None


def can_change(value: Any) -> bool:
    """Whether a value may become another one in place."""
    if type(value) is tuple:
        return any(map(can_change, value))
    return not (type(value) in _SCALARS or issubclass(type(value), _CODE))


def is_marshalled(value: Any) -> bool:
    """Whether the bytes of a fast lane hold the value: plain types only, containers as they are now."""
    return type(value) in _SCALARS or type(value) in (dict, list, tuple)


class Watch:
    """Everything that one walk read. `same` is asked by who builds a key, `state` by the fast lane."""

    def __init__(self, watched: list[Watched], stamp: Callable[[Any, str], bytes]) -> None:
        self._watched, self._stamp = watched, stamp
        self.fast = all(_is_fast(one) for one in watched)
        """Whether `state` holds everything that a key holds."""
        named = [one for one in watched if one.name]
        self._sizes = tuple((one.mapping, one.value) for one in watched if not one.name)
        self._code = _grouped([one for one in named if not is_marshalled(one.value)])
        self._data = tuple(
            (get, mapping) for get, mapping, _ in _grouped([one for one in named if is_marshalled(one.value)])
        )

    def same(self) -> bool:
        """Whether a walk now would read what it read then."""
        return all(self._is_same(one) for one in self._watched)

    def _is_same(self, one: Watched) -> bool:
        if not one.name:
            return bool(len(one.mapping) == one.value)
        if one.mapping.get(one.name, ABSENT) is not one.value:
            return False
        return one.stamp is None or bool(one.stamp == self._stamp(one.value, kind_of(one.mapping)))

    def state(self) -> tuple[Any, ...] | None:
        """The data that is read, as it is now; None where code is another one than it was."""
        try:
            for get, mapping, values in self._code:
                if get(mapping) != values:
                    return None
            for sized, size in self._sizes:
                if len(sized) != size:
                    return None
            return tuple([get(mapping) for get, mapping in self._data])
        except KeyError:
            return None


def _is_fast(one: Watched) -> bool:
    return not one.name or is_marshalled(one.value) or one.stamp is None


def _grouped(watched: list[Watched]) -> tuple[tuple[Callable[[Any], Any], Mapping[str, Any], tuple[Any, ...]], ...]:
    """One look-up for all names of a mapping."""
    by_mapping: dict[int, list[Watched]] = {}
    for one in watched:
        by_mapping.setdefault(id(one.mapping), []).append(one)
    groups = []
    for ones in by_mapping.values():
        # Twice, where there is one: else it would not be a tuple.
        names = {one.name: one.value for one in ones}
        keys = [*names, *names] if len(names) == 1 else list(names)
        groups.append((operator.itemgetter(*keys), ones[0].mapping, tuple(names[key] for key in keys)))
    return tuple(groups)
