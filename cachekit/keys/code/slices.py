"""What of a module's source decides the names that are read of it, told without executing it.

The statements that bind a name, and by their names those that these read; and whatever does something when the module is
imported. In doubt the whole module.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from cachekit.keys.code.own import WHEREABOUTS
from cachekit.keys.code.text import children, dump_tree

Wanted = frozenset[str] | None
"""Names that are read of a module; None for all of it."""
Reads = list[tuple[str, Wanted]]
"""Modules by their full names, with what is read of each."""

_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS: Final = (*_FUNCTIONS, ast.ClassDef)
_ASSIGNMENTS: Final = (ast.Assign, ast.AnnAssign, ast.AugAssign)
_IMPORTS: Final = (ast.Import, ast.ImportFrom)
_PLAIN: Final = (ast.Constant, ast.Lambda, ast.UnaryOp, ast.BinOp, ast.JoinedStr)
_WORD: Final = re.compile(r"[^\W\d]\w*")

_UNTOLD: Final = frozenset(
    {
        *("*", "globals", "locals", "vars", "dir", "eval", "exec", "getattr", "setattr", "delattr", "__import__"),
        *("importlib", "modules", "gc", "inspect", "__subclasses__", "__getattr__", "__dict__", "__globals__"),
        *("__init_subclass__", "__set_name__", "__builtins__", "__class_getitem__", "__mro_entries__"),
    }
)
"""Names beside which it cannot be told what the statements of a module read and change."""

_STATELESS: Final = frozenset(
    {
        *("__future__", "abc", "collections", "dataclasses", "datetime", "decimal", "enum", "fractions", "functools"),
        *("itertools", "math", "operator", "pathlib", "re", "string", "textwrap", "types", "typing"),
    }
)
"""Modules whose functions change nothing but what they are given."""

_MAKING: Final = frozenset({"functools.partial", "re.compile", "typing.TypeVar", "os.getenv", "os.environ.get"})
"""What only makes a value, and calls nothing that it is given."""


class _Statement:
    """A statement at the top of a module: the names in it, what it binds, what it imports and reads of its imports."""

    def __init__(self, node: ast.stmt, package: str) -> None:
        inside = list(ast.walk(node))
        self.node = node
        self.attributes: dict[str, set[str]] = {}
        self.imports = [one for part in inside if isinstance(part, _IMPORTS) for one in _imported(part, package)]
        owners, told = set[int](), set[str]()
        for part in inside:
            if isinstance(part, ast.Attribute):
                told.add(part.attr)
                if isinstance(part.value, ast.Name):
                    self.attributes.setdefault(part.value.id, set()).add(part.attr)
                    owners.add(id(part.value))
        self.whole = {part.id for part in inside if isinstance(part, ast.Name) and id(part) not in owners}
        self.names = self.whole | set(self.attributes)
        said = {id(part) for one in inside if isinstance(one, _FUNCTIONS) for part in _below(one.body)}
        said |= {id(one.value) for one in inside if isinstance(one, ast.Expr)}
        for part in inside:
            # An annotation may be a text.
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and id(part) not in said:
                self.whole |= set(_WORD.findall(part.value))
        self.names |= self.whole
        bound = {name for part in inside for name in _binds(part)} | {name for name, _, _ in self.imports}
        every = bound
        self.acts = not (isinstance(node, _IMPORTS) or _only_binds(node))
        if not self.acts and not isinstance(node, _IMPORTS):  # what functions and comprehensions bind is theirs
            outside = {name for part in inside if isinstance(part, ast.Global) for name in part.names}
            outside |= {part.target.id for part in inside if isinstance(part, ast.NamedExpr)}
            bound = {*(bound & outside), *_own_names(node)}
        self.binds = bound
        self.untold = bool((self.names | every | told | {name for _, name, _ in self.imports}) & _UNTOLD)
        self.is_import = isinstance(node, _IMPORTS)
        self.runs = not self.is_import and any(map(_runs, _executed(node)))


_Taken = dict[_Statement, None]


class Sliced:
    """A module that was parsed once; `of` gives its slices."""

    def __init__(self, tree: ast.Module, package: str, look: Callable[[str], Sliced | bool | None]) -> None:
        """`package` is what relative imports are relative to; `look` finds modules by name: False where none is."""
        self._tree, self._look = tree, look
        body = tree.body if ast.get_docstring(tree, clean=False) is None else tree.body[1:]
        self._statements = [_Statement(node, package) for node in body]
        self._untold = any(one.untold for one in self._statements)
        self._binders: dict[str, list[_Statement]] = {}
        for one in self._statements:
            for name in one.binds:
                self._binders.setdefault(name, []).append(one)

    def of(self, wanted: Wanted, submodule: str) -> tuple[str, Reads]:
        """Text of what counts, and what it reads of other modules. `submodule` is what a module inside is called below."""
        missing = set() if wanted is None else wanted - set(self._binders) - WHEREABOUTS
        inner = {name for name in missing if self._has(f"{submodule}.{name}")}
        if wanted is None or self._untold or missing != inner:
            every: Reads = []
            for one in self._statements:
                every += [(name, None) for module in one.imports for name in _named(module, self)]
            return dump_tree(self._tree), every
        taken = self._closed(wanted, [one for one in self._statements if one.acts])
        # What does something when the module is imported may do it to what is read.
        while more := [
            one for one in self._statements if one not in taken and self._runs(one) and self._touches(one, taken)
        ]:
            taken = self._closed(wanted, [*taken, *more])
        reads: Reads = [(f"{submodule}.{name}", None) for name in inner]
        for one in self._statements:
            for name, module, attribute in one.imports:
                if one in taken or one.is_import:
                    reads += self._read(name, module, attribute, taken, wanted)
        return "".join(dump_tree(one.node) for one in self._statements if one in taken), reads

    def _has(self, module: str) -> bool:
        return self._look(module) is not False

    def _runs(self, one: _Statement) -> bool:
        """Whether a statement executes more at import than it binds, as far as can be told."""
        node = one.node
        if not one.runs or not isinstance(node, _DEFINITIONS):
            return one.runs
        above: list[Any] = [*node.decorator_list, *(node.bases if isinstance(node, ast.ClassDef) else ())]
        inside = node.body if isinstance(node, ast.ClassDef) else [node.args]
        keywords = getattr(node, "keywords", ())
        return (
            bool(keywords) or not all(map(self._is_quiet, above)) or any(_runs(x) for y in inside for x in _executed(y))
        )

    def _is_quiet(self, read: ast.expr) -> bool:
        """Whether it is a decorator that only makes its wrapper, or a base class that sees nothing of its subclasses."""
        module, name = self._place_of(read)
        node = None if module is None else module._only_node(name)
        if isinstance(node, ast.ClassDef) and module is not None:
            plain = not module._untold and not node.decorator_list and not node.keywords
            return plain and node is not None and all(map(module._is_quiet, node.bases))
        return isinstance(node, ast.FunctionDef) and _is_wrapper(node)

    def _place_of(self, read: ast.expr) -> tuple[Sliced | None, str]:
        """The module and the name that `name` or `module.name` mean."""
        if isinstance(read, ast.Name):
            return self, read.id
        if not isinstance(read, ast.Attribute) or not isinstance(read.value, ast.Name):
            return None, ""
        bound = self._binders.get(read.value.id, [])
        imports = [one for one in bound[0].imports if one[0] == read.value.id] if len(bound) == 1 else []
        if len(imports) != 1 or not bound[0].is_import or imports[0][2] or "." in imports[0][1]:
            return None, ""
        found = self._look(imports[0][1])
        return (found if isinstance(found, Sliced) else None), read.attr

    def _only_node(self, name: str) -> ast.stmt | None:
        bound = self._binders.get(name, [])
        return bound[0].node if len(bound) == 1 else None

    def _closed(self, wanted: Iterable[str], first: Iterable[_Statement]) -> _Taken:
        """These statements, and what they and the wanted names need."""
        taken = dict.fromkeys(first)
        waiting = [one for name in wanted for one in self._binders.get(name, ())]
        waiting += [other for one in taken for name in one.names for other in self._binders.get(name, ())]
        while waiting:
            one = waiting.pop()
            if one not in taken:
                taken[one] = None
                waiting += [other for name in one.names for other in self._binders.get(name, ())]
        return taken

    def _touches(self, one: _Statement, taken: _Taken) -> bool:
        """Whether what a statement executes may change what others of the slice read, or another module."""
        for met in self._closed((), [one]):
            if any(module.partition(".")[0] not in _STATELESS for _, module, _ in met.imports):
                return True
            if met is not one and met in taken and self._is_state(met):
                return True
        return False

    def _is_state(self, one: _Statement) -> bool:
        node = one.node
        if isinstance(node, _IMPORTS):
            return False
        if isinstance(node, _FUNCTIONS):  # `run.register`, `register.all`
            return any(node.name in other.attributes for other in self._statements)
        return not (isinstance(node, _ASSIGNMENTS) and isinstance(node.value, _PLAIN))

    def _read(self, name: str, module: str, attribute: str, taken: _Taken, wanted: Iterable[str]) -> Iterator[Any]:
        """What is read of an import: of each package above that it is executed, of a name what the slice reads of it."""
        above = module.split(".")
        yield from ((".".join(above[:count]), frozenset[str]()) for count in range(1, len(above) + 1))
        readers = [one for one in taken if name in one.names]
        if not readers and name not in wanted:
            return
        whole = name in wanted or any(name in one.whole for one in readers)
        told = frozenset(attr for one in readers for attr in one.attributes.get(name, ()))
        if attribute:
            yield module, frozenset({attribute})
            if self._has(f"{module}.{attribute}"):
                yield f"{module}.{attribute}", None if whole else told
        else:
            yield module, None if whole or "." in module else told
            # `import a.b` binds `a`.
            yield above[0], None if whole else told


def _named(imported: tuple[str, str, str], sliced: Sliced) -> list[str]:
    _, module, attribute = imported
    above = module.split(".")
    return [
        *(".".join(above[:count]) for count in range(1, len(above) + 1)),
        *([f"{module}.{attribute}"] if attribute and sliced._has(f"{module}.{attribute}") else []),
    ]


def _imported(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, str, str]]:
    """The name that an import binds, the module's full name, and the attribute of it, if any."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0], alias.name, ""
        return
    parts = package.split(".")
    above = parts[: len(parts) - node.level + 1] if node.level else []
    base = ".".join([*above, *([node.module] if node.module else [])])
    for alias in node.names:
        yield alias.asname or alias.name, base, alias.name


def _below(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    return (part for node in nodes for part in ast.walk(node))


def _binds(part: ast.AST) -> Iterator[str]:
    """The name that a node binds, wherever it stands; but for imports."""
    if isinstance(part, _DEFINITIONS):
        yield part.name
    elif isinstance(part, ast.Name):
        yield from () if isinstance(part.ctx, ast.Load) else (part.id,)
    elif isinstance(part, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar, ast.MatchMapping)):
        name = part.rest if isinstance(part, ast.MatchMapping) else part.name
        yield from (name,) if name else ()


def _own_names(node: ast.stmt) -> set[str]:
    if isinstance(node, _DEFINITIONS):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _only_binds(node: ast.stmt) -> bool:
    """Whether a statement binds names and does nothing else that could be seen from its shape."""
    if isinstance(node, _ASSIGNMENTS):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return all(isinstance(target, ast.Name) for target in targets)
    return isinstance(node, (*_DEFINITIONS, ast.Pass)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )


def _is_wrapper(node: ast.FunctionDef) -> bool:
    *inner, last = node.body
    made = [part for part in inner if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
    return (
        not node.decorator_list
        and isinstance(last, ast.Return)
        and isinstance(last.value, ast.Name)
        and len(made) == 1
        and isinstance(made[0], _FUNCTIONS)
        and not any(map(_runs, _executed(made[0].args)))
        and all(ast.unparse(part).partition("(")[0] in ("functools.wraps", "wraps") for part in made[0].decorator_list)
    )


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """What of a statement runs when the module is imported: not the bodies of functions."""
    yield node
    if isinstance(node, _FUNCTIONS):
        inner: list[Any] = [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
    else:
        inner = [] if isinstance(node, ast.Lambda) else children(node)
    for part in inner:
        yield from _executed(part)


def _runs(node: ast.AST) -> bool:
    """Whether a node may execute code of whoever wrote it."""
    if isinstance(node, _DEFINITIONS):
        return bool(node.decorator_list or getattr(node, "bases", ()) or getattr(node, "keywords", ()))
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) not in _MAKING
    return isinstance(node, ast.Await)
