"""What code a function is: a digest of its normalised source, equal on every machine and Python version.

The digest describes the code that is loaded, not the file as it stands now: the file is compiled again, and only a
definition whose code object equals the function's counts. Where there is none, the code object itself is digested.
"""

from __future__ import annotations

import ast
import builtins
import dis
import functools
import hashlib
import linecache
import threading
import types
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

_SKIPPED: Final = frozenset({"ctx", "type_comment", "kind", "type_ignores"})


_parsing: Final = threading.Lock()
_PARSE_ATTEMPTS: Final = 20


def parse(text: str) -> ast.Module:
    """`ast.parse`, one thread at a time. Raises what it raises.

    Python 3.11 before 3.11.8 counts the depth of the tree for all threads together, and two that parse at once may get
    a SystemError (python/cpython#106905); others may parse beside us, so it is tried again.
    """
    # With a bound: the child of a fork inherits a lock that nobody in it will release.
    locked = _parsing.acquire(timeout=5)
    try:
        for _ in range(_PARSE_ATTEMPTS):
            try:
                return ast.parse(text)
            except SystemError:
                continue
        raise MemoryError("ast.parse did not succeed beside other threads")
    finally:
        if locked:
            _parsing.release()


def normalised(node: ast.AST) -> str:
    """Text of a syntax tree without positions, and without the docstring and decorators of the definition itself."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
        fields = [(name, value) for name, value in ast.iter_fields(node) if name not in ("body", "decorator_list")]
        return _render(type(node).__name__, [*fields, ("body", body)])
    return dump_tree(node)


def dump_tree(value: Any) -> str:
    """Text of a syntax tree, or of any part of one, without positions."""
    if isinstance(value, ast.JoinedStr):
        return f"JoinedStr({dump_tree(_merged(value.values))})"
    if isinstance(value, ast.AST):
        return _render(type(value).__name__, list(ast.iter_fields(value)))
    if isinstance(value, list):
        return "[" + ",".join(map(dump_tree, value)) + "]"
    return hex(value) if type(value) is int else ascii(value)


def _render(name: str, fields: list[tuple[str, Any]]) -> str:
    # Python versions add fields; one that is absent and one that is empty say the same. None as a constant is a value.
    kept = [(n, v) for n, v in fields if n not in _SKIPPED and v != [] and (v is not None or name == "Constant")]
    return f"{name}({','.join(f'{n}={dump_tree(v)}' for n, v in sorted(kept, key=lambda item: item[0]))})"


def _merged(parts: list[ast.expr]) -> list[ast.expr]:
    """Pieces of an f-string with neighbouring texts joined: Python versions split them differently."""
    merged: list[ast.expr] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, ast.Constant) and isinstance(last, ast.Constant):
            merged[-1] = ast.Constant(f"{last.value!s}{part.value!s}")
        elif not (isinstance(part, ast.Constant) and part.value == ""):
            merged.append(part)
    return merged


def text_digest(text: str) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_DEFINITIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
# Nested, no-free, future-import and (types.coroutine) iterable flags are not of the definition itself.
_FLAGS: Final = 0x2AF
_PARSED_LIMIT: Final = 256


@dataclass(frozen=True, slots=True)
class _Found:
    """A definition in a file, the code it compiles to here, and where it stands."""

    shape: tuple[Any, ...]
    node: Definition
    qualname: str
    line: int


_parsed: dict[tuple[str, str, bool], tuple[_Found, ...]] = {}


def source_of(function: types.FunctionType) -> str:
    """Text of the file or cell as it stands now; empty where there is none."""
    linecache.checkcache(function.__code__.co_filename)
    return "".join(linecache.getlines(function.__code__.co_filename, function.__globals__))


def definition_of(function: types.FunctionType) -> Definition | None:
    """The one definition that compiles to the loaded code, or None where there is none or it cannot be told which."""
    filename, text, shape = function.__code__.co_filename, source_of(function), code_shape(function.__code__)
    # Two lambdas on a line cannot be told apart by line: then each definition gets a line of its own.
    for numbered in (False, True):
        matches = [found for found in _definitions(filename, text, numbered) if found.shape == shape]
        named = [found for found in matches if found.qualname == function.__qualname__] or matches
        lined = [found for found in named if found.line == function.__code__.co_firstlineno]
        lined = lined or (named if numbered else [])
        if lined:
            return lined[0].node if len({normalised(found.node) for found in lined}) == 1 else None
    return None


def _definitions(filename: str, text: str, numbered: bool) -> tuple[_Found, ...]:
    key = (filename, text_digest(text), numbered)
    if key not in _parsed:
        if len(_parsed) >= _PARSED_LIMIT:
            _parsed.clear()
        try:
            _parsed[key] = _parse(filename, text, numbered)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            _parsed[key] = ()
    return _parsed[key]


def _parse(filename: str, text: str, numbered: bool) -> tuple[_Found, ...]:
    tree = parse(text)
    places = list(_places(tree, ""))
    lines = list(range(1, len(places) + 1)) if numbered else [line for _, _, line in places]
    source = _number(tree, places) if numbered else tree
    whole = compile(source, filename, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)  # cells may await
    return tuple(_pair(whole, places, lines))


def _places(node: ast.AST, prefix: str) -> Iterator[tuple[Definition, str, int]]:
    for child in ast.iter_child_nodes(node):
        inner = prefix
        if isinstance(child, _DEFINITIONS):
            name = "<lambda>" if isinstance(child, ast.Lambda) else child.name
            decorators = [] if isinstance(child, ast.Lambda) else child.decorator_list
            yield child, prefix + name, decorators[0].lineno if decorators else child.lineno
            inner = f"{prefix}{name}.<locals>."
        elif isinstance(child, ast.ClassDef):
            inner = f"{prefix}{child.name}."
        yield from _places(child, inner)


def _number(tree: ast.Module, places: list[tuple[Definition, str, int]]) -> ast.Module:
    for number, (node, _, _) in enumerate(places, 1):
        decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
        for part in (node, *decorators[:1]):
            part.lineno = part.end_lineno = number
            part.col_offset = part.end_col_offset = 0
    return tree


def _pair(whole: types.CodeType, places: list[tuple[Definition, str, int]], lines: list[int]) -> Iterator[_Found]:
    """Each definition with the code compiled at its line, where just one definition of that name stands there."""
    codes: dict[tuple[int, str], list[types.CodeType]] = {}
    for code in nested_codes(whole):
        codes.setdefault((code.co_firstlineno, code.co_name), []).append(code)
    names = [qualname.rpartition(".")[2] for _, qualname, _ in places]
    spots = list(zip(lines, names, strict=True))
    count = Counter(spots)
    for spot, (node, qualname, line) in zip(spots, places, strict=True):
        if count[spot] == 1:
            yield from (_Found(code_shape(code), node, qualname, line) for code in codes.get(spot, ()))


def nested_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code object itself, and those of the functions and classes inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from nested_codes(constant)


def code_shape(code: types.CodeType) -> tuple[Any, ...]:
    """Everything a code object does, and nothing of where it stands."""
    return (
        *(code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
        *(code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS),
        getattr(code, "co_exceptiontable", b""),
        tuple(_constant(constant) for constant in code.co_consts),
    )


def _constant(value: Any) -> tuple[Any, ...]:
    if isinstance(value, types.CodeType):
        return ("code", *code_shape(value))
    if isinstance(value, tuple):
        return ("tuple", *map(_constant, value))
    if isinstance(value, frozenset):
        return ("frozenset", *sorted(map(_constant, value), key=ascii))
    return (type(value).__name__, hex(value) if type(value) is int else ascii(value))


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
