"""What code a function is: a digest of its normalised source, equal on every machine and Python version.

The digest describes the code that is loaded, not the file as it stands now: only a definition whose code object equals
the function's counts. Where there is none, the code object itself is digested.
"""

from __future__ import annotations

import builtins
import dis
import functools
import types
import weakref
from collections.abc import Callable
from typing import Any, Final

from cachekit.definitions import code_shape, definition_of, nested_codes, source_of
from cachekit.syntax import dump_tree, normalised, parse, text_digest

_LOADS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
# Module attributes that say where the code stands: a key depends on no path.
_WHEREABOUTS: Final = frozenset(
    {
        *("__name__", "__file__", "__doc__", "__package__", "__spec__", "__loader__"),
        *("__path__", "__builtins__", "__cached__"),
    }
)
_MEMO_LIMIT: Final = 4096
_SCRIPT: Final = ("__main__", "__mp_main__")  # the second is the same script in a spawned worker

_Known = dict[int, tuple[weakref.ref[types.CodeType], str, Any]]
# By the identity of the code: a lambda written in a call is a new function, of the same code, each time. (Code objects
# compare equal across files, so they cannot be the keys themselves.)
_digests: _Known = {}
_scripts: _Known = {}


def source_digest(function: types.FunctionType) -> tuple[str, bool]:
    """Hex SHA-256 of the normalised source, and whether other machines can compute the same (False: from bytecode)."""
    answer: tuple[str, bool] = _remembered(_digests, function, _find_digest)
    return answer


def _find_digest(function: types.FunctionType) -> tuple[str, bool]:
    node = definition_of(function)
    return (_code_digest(function.__code__), False) if node is None else (text_digest(normalised(node)), True)


def _remembered(memo: _Known, function: types.FunctionType, find: Callable[[types.FunctionType], Any]) -> Any:
    code = function.__code__
    known = memo.get(id(code))
    if known is not None and known[0]() is code and known[1] == function.__qualname__:
        return known[2]
    if len(memo) >= _MEMO_LIMIT:
        memo.clear()
    found = find(function)
    memo[id(code)] = (weakref.ref(code), function.__qualname__, found)
    return found


def module_name(function: types.FunctionType, versioned: bool) -> str:
    """The module as every machine knows it: a script or a notebook cell is what its source says.

    With an explicit version (`versioned`) a script is just `__main__`: the version says what it is.
    """
    if function.__module__ not in _SCRIPT:
        return function.__module__ or ""
    spec = function.__globals__.get("__spec__")
    if spec is not None and spec.name:
        return str(spec.name)
    return "__main__" if versioned else f"__main__:{_remembered(_scripts, function, _script_digest)}"


def plain_globals(function: types.FunctionType) -> tuple[str, ...]:
    """Sorted names that the code, nested code included, reads from its module; builtins only where shadowed."""
    loaded = function.__globals__
    return tuple(n for n in _globals_read(function.__code__) if n in loaded or not hasattr(builtins, n))


@functools.lru_cache(maxsize=1024)
def _globals_read(code: types.CodeType) -> tuple[str, ...]:
    steps = (step for part in nested_codes(code) for step in dis.get_instructions(part))
    return tuple(sorted({str(step.argval) for step in steps if step.opname in _LOADS} - _WHEREABOUTS))


def _code_digest(code: types.CodeType) -> str:
    return text_digest("code:" + ascii(code_shape(code)))


def _script_digest(function: types.FunctionType) -> str:
    """The digest of the file or cell, if all its functions are still what the file says; else of those functions."""
    filename, text = function.__code__.co_filename, source_of(function)
    loaded = [
        value
        for _, value in sorted(function.__globals__.items())
        if type(value) is types.FunctionType and value.__code__.co_filename == filename
    ]
    if text and all(definition_of(value) is not None for value in (function, *loaded)):
        return text_digest(dump_tree(parse(text)))
    return text_digest("".join(_code_digest(value.__code__) for value in (function, *loaded)))
