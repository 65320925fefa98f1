"""The definition a function was compiled from: found by compiling its file again and comparing code objects.

So it is the code that is loaded, not the file as it stands now. Where it cannot be told which definition it was, there
is none.
"""

from __future__ import annotations

import ast
import linecache
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from cachekit.syntax import normalised, parse, text_digest

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
