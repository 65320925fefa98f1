"""What a function is besides its arguments: module, name, version, the constants it reads, its closure.

The functions that it refers to count with their own surroundings.

Which outer variables a function writes rather than reads: a counter or a log does not decide the answer.

Without this a function that counts its calls, `calls.append(x)` or `count += 1`, would have another key each time.
"""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cachekit.errors import CannotKey
from cachekit.files.digests import frame
from cachekit.keys.canonical import canonical
from cachekit.keys.secrets import is_secret_name, seal
from cachekit.keys.source import module_name, plain_globals, source_digest
from cachekit.model import ARTIFACT

_STORES: Final = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF"})
_LOADS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"})
_MUTATORS: Final = frozenset(
    {"append", "appendleft", "extend", "add", "update", "insert", "put", "put_nowait", "clear"}
)
"""Methods that change their object and return None, so that calling one tells the function nothing."""
_NEUTRAL_MODULES: Final = frozenset(
    {"_thread", "threading", "asyncio.locks", "queue", "_queue", "logging", "multiprocessing.synchronize"}
)


def written_only(function: types.FunctionType) -> frozenset[str]:
    """Names of globals and closure variables that the function rebinds, or only ever changes in place."""
    return _written_only(function.__code__)


@functools.lru_cache(maxsize=1024)
def _written_only(code: types.CodeType) -> frozenset[str]:
    read: set[str] = set()
    written: set[str] = set()
    for part in _codes(code):
        _sort(list(_instructions(part)), read, written)
    return frozenset(written - read)


def coordinates(value: Any) -> bool:
    """Whether the value is a lock, an event, a queue or a logger: it decides when or what is told, never the answer."""
    return type(value).__module__ in _NEUTRAL_MODULES


def _sort(instructions: list[dis.Instruction], read: set[str], written: set[str]) -> None:
    seen: set[str] = set()
    counters: set[str] = set()
    for number, item in enumerate(instructions):
        name, following = item.argval, instructions[number + 1 : number + 4]
        if item.opname in _STORES:
            written.add(name)
            counters |= {name} - seen
        elif item.opname in _LOADS and name not in counters:
            if name not in seen and any(step.opname in _STORES and step.argval == name for step in following):
                counters.add(name)  # `count += 1`: what is read afterwards is what the function itself wrote
            else:
                (written if _changes(following[:2]) else read).add(name)
        if item.opname in _STORES or item.opname in _LOADS:
            seen.add(name)


def _changes(following: list[dis.Instruction]) -> bool:
    if not following:
        return False
    if following[0].opname in ("LOAD_METHOD", "LOAD_ATTR") and following[0].argval in _MUTATORS:
        return True
    # `calls["n"] += 1`: the container and its subscript are duplicated for the store that follows.
    return len(following) == 2 and following[1].opname in ("COPY", "DUP_TOP_TWO")


def _instructions(code: types.CodeType) -> Iterator[dis.Instruction]:
    return (item for item in dis.get_instructions(code) if item.opname not in ("CACHE", "PRECALL", "PUSH_NULL"))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


PLAIN: Final = frozenset({str, int, float, bool, type(None), bytes, complex})
OTHER: Final = ...
"""Stands in a state for a value that is not plain: marshal knows it, and it equals no plain value."""


def is_plain(value: Any) -> bool:
    return type(value) in PLAIN or (type(value) is tuple and all(map(is_plain, value)))


class Describer:
    """Bytes for functions met inside a key. `portable` turns False once a source could not be had; `inputs` are the
    paths that were met, with the digest of their content.
    """

    def __init__(self) -> None:
        self.portable = True
        self.inputs: list[tuple[Path, bytes]] = []
        self._open: list[types.FunctionType] = []

    def __call__(self, function: types.FunctionType) -> bytes:
        if function in self._open:
            return frame(b"recursion", b"%d" % self._open.index(function))
        self._open.append(function)
        try:
            return frame(self.identity(function, None), *self._surroundings(function))
        finally:
            self._open.pop()

    def identity(self, function: Any, version: str | None) -> bytes:
        """Module, qualified name, and what the code is: the version given, or the source."""
        if isinstance(function, types.FunctionType):
            names = (module_name(function, version is not None), function.__qualname__)
        else:
            names = (str(function.__module__), str(function.__qualname__))
        return frame(*(name.encode() for name in names), self._version(function, version))

    def codec(self, chosen: Any, version: str | None) -> bytes:
        """What the stored form of a value depends on. Codecs by name read each other's entries, but for files."""
        if isinstance(chosen, str):
            return chosen.encode() if chosen == ARTIFACT else b""
        kind = type(chosen)
        found = [getattr(chosen, name, None) for name in ("dump", "save", "load")]
        methods = [getattr(one, "__func__", one) for one in found]
        parts = [self.identity(one, version) for one in methods if isinstance(one, types.FunctionType)]
        return frame(kind.__module__.encode(), kind.__qualname__.encode(), self._state_of(chosen), *parts)

    def _state_of(self, chosen: Any) -> bytes:
        try:
            return canonical(chosen, where="codec", describe=self)
        except CannotKey:  # most codecs say nothing of themselves: what they hold is what tells them apart
            return canonical(getattr(chosen, "__dict__", {}), where="codec", describe=self)

    def _version(self, function: Any, version: str | None) -> bytes:
        if version is not None:
            return frame(b"version", version.encode())
        if not isinstance(function, types.FunctionType):
            self.portable = False
            return frame(b"opaque")
        digest, portable = source_digest(function)
        self.portable = self.portable and portable
        return frame(b"source" if portable else b"code", digest.encode())

    def _surroundings(self, function: types.FunctionType) -> Iterator[bytes]:
        """What decides a function's answer besides its code and arguments."""
        where = function.__name__
        defaults = (function.__defaults__, function.__kwdefaults__)
        yield canonical(defaults, where=where, describe=self)
        yield canonical(constants(function, plain_globals(function), frozenset()), where=where)
        for name, cell in cells(function, frozenset()):
            yield self.closure(name, cell)

    def closure(self, name: str, cell: types.CellType) -> bytes:
        try:
            value = cell.cell_contents
        except ValueError:
            return frame(name.encode(), b"empty")
        return named(name, value, self)


def named(name: str, value: Any, describe: Describer) -> bytes:
    data = canonical(value, where=name, describe=describe)
    return frame(name.encode(), seal(data) if is_secret_name(name) else data)


def constants(function: types.FunctionType, names: tuple[str, ...], ignore: frozenset[str]) -> dict[str, Any]:
    loaded = function.__globals__
    return {name: loaded[name] for name in names if name in loaded and name not in ignore and is_plain(loaded[name])}


def cells(function: types.FunctionType, ignore: frozenset[str]) -> list[tuple[str, types.CellType]]:
    pairs = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    ignore = ignore | written_only(function)
    # `__class__`, the cell of super(), is the class the function stands in: its qualified name says it.
    return [(name, cell) for name, cell in pairs if name not in ignore and name != "__class__" and not _neutral(cell)]


def _neutral(cell: types.CellType) -> bool:
    try:
        return coordinates(cell.cell_contents)
    except ValueError:
        return False


def content(cell: types.CellType) -> Any:
    try:
        value = cell.cell_contents
    except ValueError:
        return OTHER
    return value if is_plain(value) else OTHER
