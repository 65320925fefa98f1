"""A definition as text that is equal for equal code: blind to formatting, and the same on every Python version."""

from __future__ import annotations

import ast
import functools
import hashlib
from typing import Any, Final

from cachekit.files import forks

_SKIPPED: Final = frozenset({"ctx", "type_comment", "kind", "type_ignores"})


_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_DOCUMENTED: Final = (*_FUNCTIONS, ast.ClassDef, ast.Module)

_CONTEXTS: Final = frozenset({ast.Load, ast.Store, ast.Del})

_parsing: Final = forks.Lock()
_PARSE_ATTEMPTS: Final = 20


def parse(text: str | bytes) -> ast.Module:
    """`ast.parse`, one thread at a time. Raises what it raises.

    Python 3.11 before 3.11.8 counts the depth of the tree for all threads together, and two that parse at once may get
    a SystemError (python/cpython#106905); others may parse beside us, so it is tried again.
    """
    with _parsing:
        for _ in range(_PARSE_ATTEMPTS):
            try:
                return ast.parse(text)
            except SystemError:
                continue
    raise MemoryError("ast.parse did not succeed beside other threads")


def normalised(node: ast.AST, *, documented: bool = False) -> str:
    """Text of a definition without positions, annotations, docstrings (unless `documented`) and its own decorators."""
    return _dump(node, documented, "decorator_list" if isinstance(node, _FUNCTIONS) else "")


def _body(node: Any, documented: bool) -> list[ast.stmt]:
    """A body without its docstring, and without annotations that only checkers read."""
    documented = documented or ast.get_docstring(node, clean=False) is None
    return list(node.body if documented else node.body[1:])


def children(node: ast.AST) -> list[ast.AST]:
    """As `ast.iter_child_nodes`, several times as fast; without contexts, which have no meaning of their own."""
    found: list[ast.AST] = []
    for value in vars(node).values():
        if type(value) is list:
            found += [child for child in value if isinstance(child, ast.AST)]
        elif isinstance(value, ast.AST) and type(value) not in _CONTEXTS:
            found.append(value)
    return found


def dump_tree(value: Any) -> str:
    """Text of a syntax tree, or of any part of one, without positions and docstrings."""
    return _dump(value, False)


def _dump(value: Any, documented: bool, left_out: str = "", local: bool = False) -> str:
    # Written for speed: most of what a first key costs is this walk. The commonest first.
    kind: Any = type(value)
    if kind is ast.Name:
        return f"Name(id={value.id!a})"
    if kind is str:
        return ascii(value)
    if kind is list:
        return "[" + ",".join([_dump(item, documented, "", local) for item in value]) + "]"
    if kind is ast.Constant:
        return f"Constant(value={_dump(value.value, documented)})"
    if kind is ast.JoinedStr:
        return f"JoinedStr({_dump(_merged(value.values), documented)})"
    if kind is ast.arg:
        return f"arg({value.arg})"
    if not isinstance(value, ast.AST):
        return hex(value) if kind is int else ascii(value)
    if isinstance(value, ast.AnnAssign) and local:
        # Python evaluates no annotation in a function: with a value it is an assignment, else it makes a name local.
        target = _dump(value.target, documented)
        if value.value is None:
            return f"AnnAssign(target={target})"
        return f"Assign(targets=[{target}],value={_dump(value.value, documented)})"
    local = kind in _FUNCTIONS or (local and kind is not ast.ClassDef)
    texts = []
    for name in _fields(kind):
        part = _body(value, documented) if name == "body" and kind in _DOCUMENTED else getattr(value, name, None)
        # Python versions add fields; one that is absent and one that is empty say the same.
        if part is not None and part != [] and name != left_out:
            texts.append(f"{name}={_dump(part, documented, '', local)}")
    return f"{kind.__name__}({','.join(texts)})"


@functools.cache
def _fields(kind: Any) -> list[str]:
    """What counts of a node, in the order of names: the same on every Python version."""
    return sorted({*kind._fields} - _SKIPPED - ({"returns"} if kind in _FUNCTIONS else set()))


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
