"""What code a function is: a digest of its normalised source, equal on every machine and Python version.

The digest describes the code that is loaded, not the file as it stands now: the file is compiled again, and only a
definition whose code object equals the function's counts. Where there is none, the code object itself is digested.
"""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import linecache
import os
import stat
import types
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from cachekit.keys.code import carried
from cachekit.keys.code.carried import code_shape
from cachekit.keys.code.names import Names, Outer, names_of
from cachekit.keys.code.own import SCRIPT
from cachekit.keys.code.shelf import Facts, facts_at, mark_of
from cachekit.keys.code.text import children, dump_tree, normalised, parse, text_digest

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_DEFINITIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_BARE: Final = frozenset({ast.Name, ast.Constant})
_PARSED_LIMIT: Final = 256


class _Found:
    """A definition in a file, the code it compiles to here, and where it stands."""

    def __init__(self, code: types.CodeType, node: Definition, qualname: str, line: int) -> None:
        self.code, self.node, self.qualname, self.line = code, node, qualname, line

    @functools.cached_property
    def shape(self) -> tuple[Any, ...]:
        return code_shape(self.code)


_parsed: dict[tuple[str, bytes, bool], tuple[_Found, ...]] = {}


def source_of(function: types.FunctionType) -> str | bytes:
    """The file (its bytes) or cell (its text) as it stands now; empty where there is none."""
    filename = function.__code__.co_filename
    try:
        # Absolute, or it is looked for along sys.path; and nothing that could be waited for.
        if os.path.isabs(filename) and stat.S_ISREG(os.stat(filename).st_mode):
            with open(filename, "rb", buffering=0) as stream:
                return stream.readall()
    except (OSError, ValueError):  # in an archive, or gone: a loader may have it
        pass
    linecache.checkcache(filename)
    return "".join(linecache.getlines(filename, function.__globals__))


def definition_of(function: types.FunctionType, text: str | bytes) -> Definition | None:
    """The one definition that compiles to the loaded code, or None where there is none or it cannot be told which."""
    texts = (text, *carried.texts())
    return next((node for node in (_defined(function, one) for one in texts) if node is not None), None)


def _defined(function: types.FunctionType, text: str | bytes) -> Definition | None:
    code, filename = function.__code__, function.__code__.co_filename
    for found in _definitions(filename, text, numbered=False):
        # What stands in the same place, and does the same: most functions end here.
        if found.line == code.co_firstlineno and found.qualname == function.__qualname__ and found.code == code:
            return found.node
    shape = code_shape(code)
    # Two lambdas on a line cannot be told apart by line: then each definition gets a line of its own.
    for numbered in (False, True):
        matches = [found for found in _definitions(filename, text, numbered) if found.shape == shape]
        named = [found for found in matches if found.qualname == function.__qualname__] or matches
        lined = [found for found in named if found.line == function.__code__.co_firstlineno]
        lined = lined or (named if numbered else [])
        if lined:
            alike = len(lined) == 1 or len({normalised(found.node) for found in lined}) == 1
            return lined[0].node if alike else None
    return None


def _definitions(filename: str, text: str | bytes, numbered: bool) -> tuple[_Found, ...]:
    key = (filename, _content(text), numbered)
    if key not in _parsed:
        if len(_parsed) >= _PARSED_LIMIT:
            _parsed.clear()
        try:
            _parsed[key] = _parse(filename, text, numbered)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            _parsed[key] = ()
    return _parsed[key]


def _parse(filename: str, text: str | bytes, numbered: bool) -> tuple[_Found, ...]:
    tree = parse(text)
    places = list(_places(tree, ""))
    lines = list(range(1, len(places) + 1)) if numbered else [line for _, _, line in places]
    source = _number(tree, places) if numbered else tree
    whole = compile(source, filename, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)  # cells may await
    return tuple(_pair(whole, places, lines))


def _places(node: ast.AST, prefix: str) -> Iterator[tuple[Definition, str, int]]:
    for child in children(node):
        if type(child) in _BARE:
            continue
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
        # Python 3.12 compiles a lambda otherwise whose body stands on another line.
        parts = ast.walk(node) if isinstance(node, ast.Lambda) else (node, *node.decorator_list[:1])
        for part in parts:
            if isinstance(part, (ast.expr, ast.stmt, ast.arg)):
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
            yield from (_Found(code, node, qualname, line) for code in codes.get(spot, ()))


def nested_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code object itself, and those of the functions and classes inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from nested_codes(constant)


_LOADS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_MEMO_LIMIT: Final = 4096

_Known = dict[int, tuple[weakref.ref[types.CodeType], str, Any]]
# By the identity of the code: a lambda written in a call is a new function, of the same code, each time. (Code objects
# compare equal across files, so they cannot be the keys themselves.)
_facts: _Known = {}
_contents: dict[str, bytes] = {}
"""By file name: the digest of its content, as it was last read."""


def facts_of(function: types.FunctionType) -> Facts:
    """What is read of the code once."""
    facts: Facts = _remembered(_facts, function, _find_facts)
    return facts


def source_digest(function: types.FunctionType) -> tuple[str, bool]:
    """Hex SHA-256 of the normalised source, and whether other machines can compute the same (False: from bytecode)."""
    return facts_of(function)[:2]


def _find_facts(function: types.FunctionType) -> Facts:
    """From the shelf, where an earlier process read the very same, else from the source."""
    code, content = function.__code__, _contents.get(function.__code__.co_filename)
    # Of the file as it was when it was last read: what stood there then is true of this code for ever.
    found = None if content is None else facts_at(mark_of(code, function.__qualname__, content))
    if found is not None:
        return found
    text = source_of(function)
    if not isinstance(text, bytes):
        return _read_facts(function, text)
    if len(_contents) >= _MEMO_LIMIT:
        _contents.clear()
    content = _contents[code.co_filename] = _content(text)
    mark = mark_of(code, function.__qualname__, content)
    return facts_at(mark) or _read_facts(function, text)._replace(mark=mark)


def _content(text: str | bytes) -> bytes:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).digest()


def _read_facts(function: types.FunctionType, text: str | bytes) -> Facts:
    node, code = definition_of(function, text), function.__code__
    place = f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}"
    if node is None:
        digest = _code_digest(code)
        return Facts(digest, False, _names_in_bytecode(code), place)
    returns = "" if isinstance(node, ast.Lambda) or node.returns is None else dump_tree(node.returns)
    return Facts(text_digest(normalised(node)), True, names_of(node), place, returns)


def documented(met: Any) -> bytes:
    """What a function or a class says with its docstrings, for code that reads them."""
    if not isinstance(met, types.FunctionType):
        return str(met.__doc__).encode("utf-8", "surrogatepass")
    node = definition_of(met, source_of(met))
    return b"" if node is None else text_digest(normalised(node, documented=True)).encode()


def _names_in_bytecode(code: types.CodeType) -> Names:
    """Every name that is loaded from outside, as read: without a source nothing better can be told."""
    return Names({name: Outer({()}) for name in {*_globals_read(code), *code.co_freevars}})


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


def module_name(function: types.FunctionType) -> str:
    """The module as every machine knows it: a script or a notebook is just `__main__`, what its code is says the rest."""
    if function.__module__ not in SCRIPT:
        return function.__module__ or ""
    spec = function.__globals__.get("__spec__")
    return str(spec.name) if spec is not None and spec.name else "__main__"


@functools.lru_cache(maxsize=1024)
def _globals_read(code: types.CodeType) -> tuple[str, ...]:
    steps = (step for part in nested_codes(code) for step in dis.get_instructions(part))
    return tuple(sorted({str(step.argval) for step in steps if step.opname in _LOADS}))


def _code_digest(code: types.CodeType) -> str:
    return text_digest("code:" + ascii(code_shape(code)))
