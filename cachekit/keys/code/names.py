"""Which outer names a definition reads, and which it only writes: told from its syntax tree, the same on every Python.

A counter or a log does not decide the answer: `calls += 1` and `calls.append(x)` beside it only write. In doubt a name is
read. What an object is that is changed in place, only its value says: `changes` are judged where the value is known.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from cachekit.keys.code.text import children

Chain = tuple[str, ...]
"""Names of attributes, one read of the other; () is the value itself."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef

MUTATORS: Final = frozenset(
    {"append", "appendleft", "extend", "add", "update", "insert", "put", "put_nowait", "clear", "setdefault"}
)
"""Methods that change their object: as a statement of its own, such a call tells the function nothing."""

_ASKED: Final = frozenset({"KeyError", "IndexError", "LookupError", "Exception", "BaseException"})

_LOOKING_UP: Final = ("globals", "eval", "exec")

_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Outer:
    """What a definition does with one name that it does not bind itself: chains it reads, and whether it changes it."""

    __slots__ = ("changes", "reads")

    def __init__(self, reads: Iterable[Chain] = ()) -> None:
        self.reads = set(reads)
        self.changes = False


Imported = tuple[int, str]
"""A module named by an import inside the definition: how many dots stand before a relative one, and its name."""


class Names:
    """`outer` by name; `imports` with the chains that are read of each module."""

    def __init__(self, outer: dict[str, Outer] | None = None) -> None:
        self.outer: dict[str, Outer] = outer or {}
        self.imports: dict[Imported, set[Chain]] = {}


def names_of(node: Definition) -> Names:
    """The outer names of a definition's body, nested functions, lambdas, comprehensions and classes included.

    Decorators, defaults and annotations of the definition itself are left out: they were evaluated when it was made.
    """
    walk = _Walk()
    walk.definition(node, [])
    return walk.names


def looks_up(outer: Mapping[str, Outer], loaded: Mapping[str, Any]) -> bool:
    """Whether a function reads its module by names that only its run knows."""
    itself = "__name__" in outer and "sys" in outer and ("modules",) in outer["sys"].reads
    return itself or any(name in outer and name not in loaded for name in _LOOKING_UP)


class _Scope:
    """One function, class or comprehension: what it binds, and by which imports."""

    def __init__(self, *, is_class: bool = False) -> None:
        self.is_class = is_class
        self.bound: set[str] = set()
        self.imported: dict[str, set[tuple[Imported, Chain]]] = {}
        self.executed: list[tuple[Imported, Imported, Chain]] = []
        self.outside: set[str] = set()


class _Walk:
    """One walk over one definition. A stack of scopes says to whom a name belongs."""

    def __init__(self) -> None:
        self.names = Names()
        self._asking = 0

    def definition(self, node: Definition, scopes: list[_Scope]) -> None:
        """What stands inside a definition; what is evaluated when it is made belongs to the scope around it."""
        scope = _scope_of(node)
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        self.all([*getattr(node, "type_params", ()), *body], [*scopes, scope])
        # What is imported and not read was imported for what that does.
        self.imports(one[1:] for one in scope.executed if one[0] not in self.names.imports)

    def all(self, nodes: Iterable[ast.AST], scopes: list[_Scope]) -> None:
        for node in nodes:
            self.visit(node, scopes)

    def visit(self, node: ast.AST, scopes: list[_Scope]) -> None:
        if isinstance(node, _SCOPES):
            self.all(_around(node), scopes)
            self.definition(node, scopes)
        elif isinstance(node, _COMPREHENSIONS):
            # The first iterable is evaluated in the scope around.
            first = node.generators[0]
            self.visit(first.iter, scopes)
            inside = [part for part in ast.iter_child_nodes(node) if part is not first]
            self.all([first.target, *first.ifs, *inside], [*scopes, _comprehension_scope(node)])
        elif isinstance(node, ast.Expr) and (changed := _changed_by(node.value)) is not None:
            self.change(changed[0].id, scopes)
            self.all(changed[1], scopes)
        elif isinstance(node, (ast.Name, ast.Attribute, ast.Call)) and (read := _read(node)) is not None:
            self.touch(*read, scopes)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            self.change(node.value.id, scopes)
            self.visit(node.slice, scopes)
            if self._asking:
                self.read(node.value.id, (), scopes)
        elif isinstance(node, ast.Subscript) and (name := _of_globals(node)):
            self.names.outer.setdefault(name, Outer()).reads.add(())
        elif isinstance(node, ast.AnnAssign) and not scopes[-1].is_class:
            # Python evaluates no annotation of a local variable.
            self.all([node.target, *filter(None, [node.value])], scopes)
        elif isinstance(node, (ast.Try, ast.With)) and _asks(node):
            self._asking += 1
            self.all(node.body, scopes)
            self._asking -= 1
            self.all([part for part in ast.iter_child_nodes(node) if part not in node.body], scopes)
        elif not isinstance(node, (ast.Global, ast.Nonlocal)):
            self.all(children(node), scopes)

    def touch(self, name: str, chain: Chain, context: ast.expr_context, scopes: list[_Scope]) -> None:
        if isinstance(context, ast.Load):
            self.read(name, chain, scopes)
        elif len(chain) == 1:
            self.change(name, scopes)
        elif chain:
            self.read(name, chain[:-1], scopes)

    def read(self, name: str, chain: Chain, scopes: list[_Scope]) -> None:
        for scope in _owners(name, scopes):
            if scope is None:
                self.names.outer.setdefault(name, Outer()).reads.add(chain)
            else:
                # By whichever import it was bound: one may stand in the `except` of another.
                self.imports((module, (*prefix, *chain)) for module, prefix in scope.imported.get(name, ()))

    def imports(self, reads: Iterable[tuple[Imported, Chain]]) -> None:
        for module, chain in reads:
            self.names.imports.setdefault(module, set()).add(chain)

    def change(self, name: str, scopes: list[_Scope]) -> None:
        for scope in _owners(name, scopes):
            if scope is None:
                self.names.outer.setdefault(name, Outer()).changes = True
            elif name in scope.imported:
                self.read(name, (), scopes)


def _owners(name: str, scopes: list[_Scope]) -> Iterator[_Scope | None]:
    """The scope that binds the name, None for the outside. In a class body it may be read from either."""
    for number, scope in enumerate(reversed(scopes)):
        if scope.is_class and number:
            continue
        if name in scope.outside:
            yield from (scope, None)  # an import may bind a global
            return
        if name in scope.bound:
            yield scope
            if not scope.is_class:
                return
    yield None


def _of_globals(node: ast.Subscript) -> str:
    """The name in `globals()["name"]`."""
    call, name = node.value, node.slice
    looked_up = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "globals"
    is_text = isinstance(node.ctx, ast.Load) and isinstance(name, ast.Constant) and isinstance(name.value, str)
    return str(name.value) if looked_up and is_text else ""  # type: ignore[attr-defined]


def _asks(node: ast.Try | ast.With) -> bool:
    """Whether a block's author catches a KeyError, or all there is: then it decides what follows whether an item is there."""
    handlers = node.handlers if isinstance(node, ast.Try) else [item.context_expr for item in node.items]
    caught = [one.type if isinstance(one, ast.ExceptHandler) else one for one in handlers]
    return any(
        one is None or (isinstance(part, ast.Name) and part.id in _ASKED)
        for one in caught
        for part in ast.walk(one or node)
    )


def _around(node: Definition) -> Iterator[ast.AST]:
    """What of a nested definition is evaluated in the scope around it; annotations decide no answer."""
    if isinstance(node, ast.ClassDef):
        yield from (*node.decorator_list, *node.bases, *node.keywords)
        return
    if not isinstance(node, ast.Lambda):
        yield from node.decorator_list
    yield from (*node.args.defaults, *(default for default in node.args.kw_defaults if default is not None))


def _changed_by(value: ast.expr) -> tuple[ast.Name, list[ast.AST]] | None:
    """The name whose object a statement like `calls.append(x)` changes, and the call's arguments."""
    call = value.value if isinstance(value, ast.Await) else value
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or call.func.attr not in MUTATORS:
        return None
    owner = call.func.value
    return (owner, [*call.args, *call.keywords]) if isinstance(owner, ast.Name) else None


def _read(node: ast.Name | ast.Attribute | ast.Call) -> tuple[str, Chain, ast.expr_context] | None:
    """A name with the attributes read of it: `a`, `a.b.c`, `getattr(a, "b")`; None for anything else."""
    if isinstance(node, ast.Name):
        return node.id, (), node.ctx
    if isinstance(node, ast.Attribute):
        inner = _read(node.value) if isinstance(node.value, (ast.Name, ast.Attribute, ast.Call)) else None
        return None if inner is None else (inner[0], (*inner[1], node.attr), node.ctx)
    owner, name = (*node.args[:2], None, None)[:2]
    if not isinstance(node.func, ast.Name) or node.func.id != "getattr" or len(node.args) != 2 or node.keywords:
        return None
    if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
        return None
    inner = _read(owner) if isinstance(owner, (ast.Name, ast.Attribute, ast.Call)) else None
    return None if inner is None else (inner[0], (*inner[1], name.value), ast.Load())


def _scope_of(node: Definition) -> _Scope:
    scope = _Scope(is_class=isinstance(node, ast.ClassDef))
    if not isinstance(node, ast.ClassDef):
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        scope.bound |= {argument.arg for argument in every if argument is not None}
    for parameter in getattr(node, "type_params", ()):
        scope.bound.add(parameter.name)
    nonlocals = set[str]()
    for inner in _inside([node.body] if isinstance(node, ast.Lambda) else node.body):
        _bind(inner, scope, nonlocals)
    scope.bound -= scope.outside | nonlocals
    return scope


def _comprehension_scope(node: ast.AST) -> _Scope:
    scope = _Scope()
    for generator in getattr(node, "generators", ()):
        scope.bound |= {part.id for part in ast.walk(generator.target) if isinstance(part, ast.Name)}
    return scope


def _inside(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """What stands in a scope itself. Of a comprehension only what `:=` binds, which belongs to the scope around it."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, _SCOPES):
            waiting.extend(_around(node))
        elif isinstance(node, _COMPREHENSIONS):
            waiting.extend(part for part in ast.walk(node) if isinstance(part, ast.NamedExpr))
        else:
            waiting.extend(children(node))


def _bind(node: ast.AST, scope: _Scope, nonlocals: set[str]) -> None:
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        scope.bound.add(node.id)
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        scope.bound.add(node.name)
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        _bind_import(node, scope)
    elif isinstance(node, ast.Global):
        scope.outside |= set(node.names)
    elif isinstance(node, ast.Nonlocal):
        nonlocals |= set(node.names)
    else:
        name = getattr(node, "rest", None) if isinstance(node, ast.MatchMapping) else getattr(node, "name", None)
        if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar, ast.MatchMapping)) and name:
            scope.bound.add(name)


def _bind_import(node: ast.Import | ast.ImportFrom, scope: _Scope) -> None:
    for alias in node.names:
        prefix: Chain = ()
        if isinstance(node, ast.ImportFrom):
            name, module, prefix = alias.asname or alias.name, (node.level, node.module or ""), (alias.name,)
        elif alias.asname:
            name, module = alias.asname, (0, alias.name)
        else:
            # `import a.b` binds `a`, and `a.b` is read of it.
            name, module = alias.name.partition(".")[0], (0, alias.name.partition(".")[0])
        scope.bound.add(name)
        scope.imported.setdefault(name, set()).add((module, prefix))
        scope.executed.append((module, module if prefix else (0, alias.name), prefix))
