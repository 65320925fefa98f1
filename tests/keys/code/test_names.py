"""A sweep over the grammar: a name that is read is never taken for one that is only written, on any Python."""

from __future__ import annotations

import ast
import dis
import itertools
import textwrap
from collections.abc import Iterator

import pytest

from cachekit.keys.code.names import Names, names_of
from cachekit.keys.code.source import nested_codes

EXPRESSIONS = (
    *("P", "P.a", "P.a.b", "P[0]", "P[x]", "P()", "P.m()", "P.m().a", "P.a[0]", "P[0].a", "P[0]()", "P()[0]"),
    *("(P,)", "[P]", "{P: 1}", "{'k': P}", "{P}", "{**P}", "[*P]", "(*P,)", "{'k': {**x, **P}}"),
    *("f'{P}'", "f'{P!r:>5}'", "f'{1:{P}}'", "f'{x}{P=}'", "'a' f'{P.a}' 'b'"),
    *(
        "not P",
        "-P",
        "~P",
        "P + 1",
        "1 + P",
        "P @ 1",
        "x ** P",
        "P and x",
        "x and P",
        "P or x",
        "x or P",
        "x or x.y or P.a",
    ),
    *("x if P else 1", "P if x else 1", "1 if x else P", "P < x", "x < P", "P < x < 2", "x < P < 2", "x < 1 < P"),
    *("1 <= P.low < x != 3", "x is P", "P is None", "P is not x", "x in P", "P in x", "x not in P", "x == P == 1"),
    *("lambda: P", "lambda y=P: y", "lambda *, y=P: y", "(lambda y: y + P)(x)", "lambda: (lambda: P)"),
    *(
        "[P for _ in x]",
        "[y for y in P]",
        "[y for y in x if P]",
        "{y: P for y in x}",
        "{P: y for y in x}",
        "{P for y in x}",
    ),
    *("(y for y in P)", "[y for y in x for _ in P]", "[[P for _ in y] for y in x]", "[y for y in x if y in P]"),
    *("(y := P)", "(y := P.a) or y", "[y := P, x]", "[(z := P) for y in x]", "(z := x) and P"),
    *("x[P]", "x[P:]", "x[:P]", "x[::P]", "x[1, P]", "x[P.a:1, 2]", "x(P)", "x(*P)", "x(k=P)", "x(**P)", "x.y(P)(1)"),
    *(
        "getattr(P, 'a')",
        "getattr(x, P)",
        "getattr(P, 'a', None)",
        "getattr(P, x)",
        "hasattr(P, 'a')",
        "getattr(P.a, 'b')",
    ),
    *(
        "P.append(1)",
        "P.add(x)",
        "P.setdefault(x, [])",
        "P.update(x) or x",
        "[P.append(y) for y in x]",
        "(P.append(1), 2)",
    ),
    *("P.a.append(1)", "P[0].append(1)", "P().append(1)", "x.append(P)", "P.pop()", "P.get(x)", "P.append(P)"),
    *("await P", "(await P.add(x))", "(yield P)", "(yield from P)", "(yield P.append(1))"),
)
"""Expressions that read P."""

PLACES = (
    *("return {}", "return x, {}", "y = {}", "a = b = {}", "a, b = {}", "a, *b = {}", "y: int = {}", "y = 0; y += {}"),
    *(
        "y = []; y[0] = {}",
        "x[{}] = 1",
        "x[{}] += 1",
        "x.a = {}",
        "x.a += {}",
        "x.a[{}].b = 1",
        "del x[{}]",
        "del x[{}].a",
    ),
    *(
        "({}).a = 1",
        "({})[0].a = 1",
        "({}).a.b += 1",
        "({}).a[0] = 1",
        "del ({}).a.b",
        "({}).a: int = 1",
        "y = x if {} else 0",
    ),
    *(
        "if {}: return 1",
        "if x: pass\nelif {}: return 1",
        "if x:\n pass\nelse:\n return {}",
        "while {}: break",
        "while x:\n y = {}",
    ),
    *("for y in {}: return y", "for x[{}] in x: pass", "for ({}).a in x: pass", "for y in x: pass\nelse: return {}"),
    *("with {}: return 1", "with {} as y: return y", "with x, {} as (y, z): pass", "with x as ({}).a: pass"),
    *(
        "assert {}",
        "assert x, {}",
        "raise {}",
        "raise x from {}",
        "x.append({})",
        "W.append({})",
        "W[{}] = x",
        "W.update(k={})",
    ),
    *("try:\n y = {}\nexcept OSError: pass", "try: x()\nexcept OSError: return {}", "try: x()\nexcept ({}): pass"),
    *(
        "try: x()\nexcept (OSError, {}) as e: pass",
        "try: x()\nexcept OSError: pass\nelse: return {}",
        "try: x()\nfinally: y = {}",
    ),
    *("match {}:\n case 1: return 1", "match x:\n case y if {}: return 1", "match x:\n case _: return {}"),
    *("match x:\n case [1, *r] if {}: return r", "match x:\n case 1: pass\n case _:\n  return {}"),
    *(
        "def g(y={}): return y",
        "def g(*, y={}): return y",
        "@({})\ndef g(): pass",
        "def g(): return {}",
        "def g():\n def h(): return {}",
    ),
    *("class C(({})): pass", "class C(metaclass={}): pass", "class C: y = {}", "class C:\n def m(self): return {}"),
    *(
        "@({})\nclass C: pass",
        "class C:\n class D: y = {}",
        "class C:\n def m(self, y={}): return y",
        "class C: y: int = {}",
    ),
    *(
        "global z; z = {}",
        "z = 1\ndef g():\n nonlocal z; z = {}",
        "z = 1\ndef g():\n nonlocal z; z += {}",
        "global z\nz += {}",
    ),
    *(
        "async def g(): return {}",
        "if x: return 1\nreturn {}",
        "{}; return 1",
        "y = lambda: ({})",
        "return [y for y in x if ({})]",
    ),
    *(
        "P.append(1); return {}",
        "P[0] = 1; return {}",
        "if x: return 1\nP.append(1)\n{}",
        "P.a = 1; y = {}",
        "del P.a; y = {}",
    ),
    *(
        "global P; P += 1; return {}",
        "global P\nif x: P = 1\nreturn {}",
        "global P\ny = {}\nP = y",
        "global P\ndel P\ny = {}",
    ),
    *(
        "def g():\n global P\n P = {}\n return P",
        "for P.a in x: y = {}",
        "P.append({})",
        "P[0] = {}",
        "P.update(x)\nreturn {}",
    ),
)
"""Places of a function body at which an expression stands. In some of them P is written beside."""

AWAITING = (
    *(
        "async for y in {}: return y",
        "async with {} as y: return y",
        "async with x, {}: pass",
        "y = [z async for z in {}]",
    ),
    *("return [{} async for z in x]", "await x({})"),
)

READS = (
    *(
        "match x:\n case P.a: return 1",
        "match x:\n case P(): return 1",
        "match x:\n case P.a(y=1): return 1",
        "match x:\n case {P.a: y}: pass",
    ),
    *(
        "match x:\n case [P.a, *_] | P.b: return 1",
        "match x:\n case {'k': P.a, **r}: return r",
        "match x:\n case 1 | P.a as y: pass",
    ),
    *(
        "global P\nif P is None: P = x\nreturn 1",
        "global P\nP = P or x",
        "global P\nP = P + 1",
        "global P\nP = x if P else 1",
    ),
    *(
        "global P\ntry: P\nexcept NameError: P = 1",
        "global P\nP += P",
        "global P\nP += 1\nreturn P",
        "P.n += 1\nreturn P.n",
    ),
    *(
        "P[0] += 1\nreturn P[0]",
        "P[0] += P[1]",
        "P[P] = 1",
        "P[P.a] = 1",
        "P.a[0] = 1",
        "P.a.b = 1",
        "P.a.b += 1",
        "P[0][1] = 1",
    ),
    *("del P[0]", "del P[0], x", "del P[0][1]", "for P[P] in x: pass", "try: P[x] += 1\nexcept KeyError: return 1"),
    *("try:\n if x: P[x] += 1\nexcept KeyError: return 1", "try:\n with x: P[x] = 1\nexcept LookupError: return 1"),
    *("import contextlib\nwith contextlib.suppress(KeyError):\n P[x] += 1\n return 1",),
    *("try: P[x] += 1\nexcept Exception: return 1", "try: P[x] += 1\nexcept (TypeError, BaseException): return 1"),
    *(
        "try: P[x] += 1\nexcept: return 1",
        "import contextlib\nwith contextlib.suppress(Exception):\n P[x] += 1\n return 1",
    ),
    *(
        "class C:\n P = P",
        "class C:\n def m(self): return P\n P = 1",
        "class C: P: int = P",
        "class C(P): pass",
        "class C:\n x = P\n P = 1",
    ),
    *(
        "y = [P for P in P]",
        "y = {P: P for P in P}",
        "y = lambda P=P: P",
        "def P2(P=P): return P",
        "return (lambda: P.append(1))()",
    ),
    *(
        "def g():\n nonlocal x\n x = P\n return x",
        "P.append(1)\nreturn len(P)",
        "P.append(1) or x",
        "return P.append(1)",
    ),
    *(
        "return P.add(x)",
        "y = P.add(x)",
        "x(P.append(1))",
        "if P.append(1): pass",
        "P.append(1).a",
        "P.append",
        "P.append.a(1)",
    ),
    *("print(P)", "P()", "P", "P.m()", "P.sort()", "P.pop()", "P.remove(x)", "P.a", "P < x", "f'{P}'", "P if x else 1"),
)
"""Statements that read P, each on its own."""

NEWER = (
    *("try: x()\nexcept* P: pass", "try: x()\nexcept* (OSError, P): pass", "try: x()\nexcept* OSError:\n y = P"),
    *(
        "type Y = P",
        "type Y[T] = list[P]",
        "type Y[T: P] = T",
        "def g[T: P](x: T): return x",
        "class C[T: P]: pass",
        "class C[T](P): pass",
    ),
    *(
        "def g[T](x=P): return x",
        "return f'{f'{P}'}'",
        'return f"{P["a"]}"',
        "class C[T]:\n y = P",
        "def g[T]():\n return P",
    ),
    *("def g[T = P](): pass", "type Y[T = P] = T"),
)
READS = (*READS, *NEWER)

WRITES = (
    *(
        "P.append(x)",
        "P.append(1); return x",
        "P.add(x)",
        "P.update(k=x)",
        "P.extend([x])",
        "P.insert(0, x)",
        "P.clear()",
    ),
    *(
        "await P.put(x)",
        "P.setdefault(x, []); return 1",
        "P.appendleft(x)",
        "P[x] = 1",
        "P[0] += 1",
        "P['calls'] += 1; return x",
    ),
    *(
        "P.n += 1",
        "P.last = x",
        "P[0], y = x",
        "P[0]: int = 1",
        "P.a: int = x",
        "for P[0] in x: pass",
        "with x() as P.a: pass",
    ),
    *(
        "global P; P = x",
        "global P; P += 1",
        "global P; P += 1; return x",
        "global P\nfor P in x: pass",
        "global P\nP, y = x",
    ),
    *(
        "global P\nwith x as P: pass",
        "global P\nimport os as P",
        "global P\nfrom os import path as P",
        "global P\ndef P(): pass",
    ),
    *(
        "global P\nclass P: pass",
        "global P\n(P := x)",
        "global P\ntry: x()\nexcept OSError as P: pass",
    ),
    *(
        "global P\nmatch x:\n case P: pass",
        "global P\nmatch x:\n case [*P]: pass",
        "global P\nmatch x:\n case {**P}: pass",
    ),
    *(
        "global P\ny = [(P := z) for z in x]",
        "if x: P.append(x)",
        "for y in x: P.append(y)",
        "while x: P.append(x); break",
    ),
    *("def g():\n P.append(x)\ng()\nreturn x", "def g():\n global P\n P += 1\ng()\nreturn x", "class C:\n P.append(1)"),
    *(
        "try: x()\nfinally: P.append(x)",
        "try: x()\nexcept OSError: P.append(x)",
        "try: P.append(x)\nexcept OSError: pass",
        "try: P[x] += 1\nexcept (OSError, TypeError): pass",
    ),
    *("with x: P.append(x)", "P[x] = P2 = x", "y = P[x] = 1", "match x:\n case 1: P.append(x)", "P.a = P2 = x"),
    *("def g(y: P): return y", "y: P = x", "y: P", "async def g(y) -> P: return y"),
)
"""Statements that tell the function nothing of what P was."""

BOUND = (
    *(
        "P = 1\nreturn P",
        "for P in x: return P",
        "import P\nreturn P.a",
        "from os import P\nreturn P",
        "with x as P: return P",
    ),
    *(
        "def P(): return P",
        "class P: pass\nreturn P",
        "(P := x)\nreturn P",
        "[(P := y) for y in x]\nreturn P",
        "return [P for P in x]",
    ),
    *(
        "try: x()\nexcept OSError as P: return P",
        "match x:\n case P: return P",
        "match x:\n case [*P]: return P",
        "lambda P: P",
    ),
    *(
        "match x:\n case {**P}: return P",
        "match x:\n case (1 | 2) as P: return P",
        "del P",
        "P += 1",
        "P: int\nreturn P",
    ),
    *(
        "async def g(P): return P",
        "def g(*P): return P",
        "def g(**P): return P",
        "def g(*, P=1): return P",
        "return {P: 1 for P, y in x}",
    ),
    *(
        "P = 1\ndef g():\n nonlocal P\n P += 1\n return P",
        "P = 1\nclass C:\n def m(self): return P",
        "return lambda *P: P",
    ),
    *(
        "def g(P, /): return [P for _ in x]",
        "for x.a, (P, *y) in x: return P",
        "import P.a\nreturn P.a.b",
        "import a.b as P\nreturn P",
    ),
)
"""Statements in which P is a local name."""


MUTATING = ("P.append(1)", "P.add(x)", "P.setdefault(x, [])", "(await P.add(x))", "P.append(P)")
LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")


def function(body: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The syntax tree of a function with this body; None where Python does not compile it."""
    for head in ("def", "async def"):
        text = f"{head} f(x):\n" + textwrap.indent(body, "    ")
        try:
            compile(text, "<sweep>", "exec", dont_inherit=True)
        except SyntaxError:
            continue
        node = ast.parse(text).body[0]
        assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        return node
    return None


def reads_p(names: Names) -> bool:
    return "P" in names.outer and bool(names.outer["P"].reads)


def sweep() -> Iterator[str]:
    """Each expression at each place, but where the two make a write: P as a target, or a mutator that stands alone."""
    for place, expression in itertools.product((*PLACES, *AWAITING), EXPRESSIONS):
        target = (
            expression == "P" and "({}).a" in place and "del" not in place and ".b" not in place and "[0]" not in place
        )
        alone = expression in MUTATING and (place.startswith("{}") or place.endswith("\n{}"))
        if not target and not alone:
            yield place.replace("{}", expression)


def loads_p(node: ast.AST) -> bool:
    """Whether the code that Python makes of it loads P from outside."""
    code = compile(ast.Module([node], []), "<sweep>", "exec", dont_inherit=True)  # type: ignore[list-item]
    steps = (step for part in nested_codes(code) for step in dis.get_instructions(part))
    return any(step.argval == "P" and step.opname in LOADS for step in steps)


def test_a_name_that_is_read_is_never_only_written() -> None:
    """Every expression of the grammar at every place of a statement."""
    nodes = [(body, node) for body in sweep() if (node := function(body)) is not None]
    assert len(nodes) > 10_000
    assert [body for body, node in nodes if not reads_p(names_of(node))] == []
    assert [body for body, node in nodes[::7] if not loads_p(node)] == []


@pytest.mark.parametrize("body", READS)
def test_a_statement_that_reads(body: str) -> None:
    """What asks the object anything reads it; newer grammar where this Python has it."""
    node = function(body)
    assert node is not None or body in NEWER
    assert node is None or (reads_p(names_of(node)) and loads_p(node))


@pytest.mark.parametrize("body", WRITES)
def test_a_statement_that_only_writes(body: str) -> None:
    """A counter, a log or a cache that is filled beside the answer decides nothing."""
    node = function(body)
    assert node is not None
    assert not reads_p(names_of(node))


@pytest.mark.parametrize("body", BOUND)
def test_a_local_name_is_none_of_the_outer_ones(body: str) -> None:
    """What is bound inside is not looked up outside."""
    node = function(body)
    assert node is not None
    assert "P" not in names_of(node).outer
    assert not loads_p(node)


IMPORTS = {
    "import a": {(0, "a"): {()}},
    "import a.b": {(0, "a.b"): {()}},
    "import a.b\nreturn a.b.c": {(0, "a"): {("b", "c")}},
    "import a.b as c\nreturn c.d": {(0, "a.b"): {("d",)}},
    "from a import b": {(0, "a"): {("b",)}},
    "from .a import b as c\nreturn c.d": {(1, "a"): {("b", "d")}},
    "from . import a\nreturn a": {(1, ""): {("a",)}},
    "try: from a import f\nexcept ImportError: from b import f\nreturn f": {(0, "a"): {("f",)}, (0, "b"): {("f",)}},
    "global a\nif a is None: import a\nreturn a.b": {(0, "a"): {(), ("b",)}},
    "def g():\n global a\n import a": {(0, "a"): {()}},
    "import a\nreturn lambda a: a.b": {(0, "a"): {()}},
    "class C:\n import a\n b = a.c": {(0, "a"): {("c",)}},
}


@pytest.mark.parametrize("body", IMPORTS)
def test_an_import_inside_names_its_module(body: str) -> None:
    """With what is read of it, whichever of several imports binds the name, and bound as a global too."""
    node = function(body)
    assert node is not None
    assert names_of(node).imports == IMPORTS[body]
