"""Which outer variables a function writes rather than reads: a counter or a log does not decide the answer.

Without this a function that counts its calls, `calls.append(x)` or `count += 1`, would have another key each time.
"""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from typing import Any, Final

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
