"""A definition as text that is equal for equal code: blind to formatting, and the same on every Python version."""

from __future__ import annotations

import ast
import hashlib
from typing import Any, Final

from cachekit.files import forks

_SKIPPED: Final = frozenset({"ctx", "type_comment", "kind", "type_ignores"})


_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_DOCUMENTED: Final = (*_FUNCTIONS, ast.ClassDef, ast.Module)

_parsing: Final = forks.Lock()
_PARSE_ATTEMPTS: Final = 20


def parse(text: str) -> ast.Module:
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
    return _definition(node, documented=documented) if isinstance(node, _FUNCTIONS) else _dump(node, documented)


def _definition(node: ast.AST, *, documented: bool) -> str:
    left_out = ("body", "decorator_list", "returns")
    fields = [(name, value) for name, value in ast.iter_fields(node) if name not in left_out]
    return _render(type(node).__name__, [*fields, ("body", _body(node, documented))], documented)


def _body(node: Any, documented: bool) -> list[ast.stmt]:
    """A body without its docstring, and without annotations that only checkers read."""
    documented = documented or ast.get_docstring(node, clean=False) is None
    return list(node.body if documented else node.body[1:])


def dump_tree(value: Any) -> str:
    """Text of a syntax tree, or of any part of one, without positions and docstrings."""
    return _dump(value, False)


def _dump(value: Any, documented: bool) -> str:
    if isinstance(value, ast.JoinedStr):
        return f"JoinedStr({_dump(_merged(value.values), documented)})"
    if isinstance(value, ast.arg):
        return f"arg({value.arg})"
    if isinstance(value, ast.AST):
        fields = [(n, v) for n, v in ast.iter_fields(value) if n != "returns" or not isinstance(value, _FUNCTIONS)]
        if isinstance(value, _DOCUMENTED):
            fields = [(n, _body(value, documented) if n == "body" else v) for n, v in fields]
        return _render(type(value).__name__, fields, documented)
    if isinstance(value, list):
        return "[" + ",".join(_dump(item, documented) for item in value) + "]"
    return hex(value) if type(value) is int else ascii(value)


def _render(name: str, fields: list[tuple[str, Any]], documented: bool) -> str:
    # Python versions add fields; one that is absent and one that is empty say the same. None as a constant is a value.
    kept = [(n, v) for n, v in fields if n not in _SKIPPED and v != [] and (v is not None or name == "Constant")]
    return f"{name}({','.join(f'{n}={_dump(v, documented)}' for n, v in sorted(kept, key=lambda item: item[0]))})"


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
