"""Random projects of own code and random edits of them, with what each edit touches known beforehand.

A project is a graph of nodes: functions, lambdas, decorators, partials, constants, dicts and classes in a few modules. Each
node holds one number, and every function adds up what it reads, so an edited number that is reached changes the answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

KINDS: Final = (*("function",) * 4, *("constant", "dict", "class", "class", "lambda", "partial", "outer", "decorator"))
READERS: Final = ("function", "class", "lambda", "partial", "outer", "decorator")
NEUTRAL: Final = ("comment", "docstring", "annotation", "unreached", "format", "swap", "asked")
USES: Final = {
    **{"function": "{}(1)", "constant": "{}", "dict": "{}['n'][0]", "class": "{}().run(1)", "lambda": "{}(1)"},
    **{"partial": "{}()", "outer": "{}(2)(1)", "decorator": "{}(abs)(1)"},
}
"""An expression of a number that reads the node, by its kind."""


@dataclass
class Node:
    """`reads` are the nodes that it names; a class has the first of them as its base, if that is a class.

    `around` decorates a function; `back` is read by a call that is never made, so that there are cycles.
    """

    module: int
    number: int
    kind: str
    value: int
    reads: list[Node] = field(default_factory=list)
    around: Node | None = None
    back: Node | None = None
    doc: int = 0
    note: str = "int"
    spaces: int = 1

    @property
    def name(self) -> str:
        return f"{self.kind[0]}{self.number}"

    @property
    def base(self) -> Node | None:
        first = self.reads[0] if self.kind == "class" and self.reads else None
        return first if first is not None and first.kind == "class" and self.may_use(first) else None

    def may_use(self, other: Node) -> bool:
        """Whether the other one is there when this one is made: the last module is the first to be imported."""
        return other.module >= self.module and other.number > self.number

    @property
    def named(self) -> list[Node]:
        return [*self.reads, *(one for one in (self.around, self.back) if one is not None)]


class Generated:
    """One project. `modules()` are its texts; `reached()` the nodes that `ask` reaches.

    A lazy module is imported inside functions only, and nothing of it was imported when the first key is made.
    """

    def __init__(self, seed: int, *, modules: int | None = None) -> None:
        self.random = random.Random(seed)
        self.count = modules or self.random.randint(1, 6)
        total = self.random.randint(5, 40)
        self.nodes: list[Node] = []
        for number in range(total):
            kind = self.random.choice(KINDS)
            self.nodes.append(Node(self.random.randrange(self.count), number, kind, self.random.randint(1, 9)))
        self.style = {(one.number, other): self.random.random() for one in self.nodes for other in range(total)}
        lazy = self.count - 1 if self.count > 2 and self.random.random() < 0.3 else None
        self.lazy = {lazy} if lazy is not None else set[int]()
        for place, node in enumerate(self.nodes):
            self._connect(node, self.nodes[place + 1 :])
        self.entry = self.random.sample(self.nodes, min(3, total))
        self.extra: list[str] = ["" for _ in range(self.count)]
        self.tail: list[str] = ["" for _ in range(self.count)]
        self.asked = 0

    def _connect(self, node: Node, later: list[Node]) -> None:
        if node.kind not in READERS:
            return
        # Without statements inside there is no import inside.
        there = [one for one in later if one.module not in self.lazy - {node.module}]
        seen = there if node.kind in ("lambda", "partial") else later
        node.reads = self.random.sample(seen, min(len(seen), self.random.randint(0, 3)))
        if node.base is not None and node.base not in there:
            del node.reads[:]
        around = [one for one in there if one.kind == "decorator" and node.may_use(one)]
        if node.kind == "function" and around and self.random.random() < 0.3:
            node.around = self.random.choice(around)
        if node.kind == "function" and self.random.random() < 0.2:
            node.back = self.random.choice(self.nodes)

    def reached(self) -> set[int]:
        seen: set[int] = set()
        waiting = list(self.entry)
        while waiting:
            node = waiting.pop()
            if node.number not in seen:
                seen.add(node.number)
                waiting.extend(node.named)
        return seen

    def modules(self) -> dict[str, str]:
        texts = {}
        for module in range(self.count):
            # What another one is made of stands above it.
            own = [node for node in reversed(self.nodes) if node.module == module]
            others = [other for other in range(self.count) if other != module and other not in self.lazy]
            lines = ["import functools", *(f"import m{other}" for other in others)]
            texts[f"m{module}"] = "\n".join([*lines, self.extra[module], *map(self.text, own), self.tail[module], ""])
        imports = "\n".join(f"import m{module}" for module in range(self.count) if module not in self.lazy)
        texts["main"] = f"from cachekit import distributed_cache\n{imports}\n{self.ask()}\nCALL = (1,)\n"
        return texts

    def cells(self) -> list[str]:
        """A notebook of a project of one module: a cell for each node, and one for `ask`."""
        return ["import functools", *map(self.text, reversed(self.nodes)), self.ask().replace("m0.", "")]

    def ask(self) -> str:
        """The decorated function."""
        reads = [f"m{node.module}.{USES[node.kind].format(node.name)}" for node in self.entry]
        local = [f"    import m{module}" for module in sorted({node.module for node in self.entry} & self.lazy)]
        body = "\n".join([f"    '''doc {self.asked}'''", *local, f"    return x + {' + '.join(reads)}"])
        return f"@distributed_cache\ndef ask(x):\n{body}"

    def read(self, reader: Node, node: Node) -> tuple[str, str]:
        """How one node names another, and the import inside that this needs."""
        style, name, line = self.style[reader.number, node.number], f"m{node.module}.{node.name}", ""
        inside = reader.kind not in ("lambda", "partial") and (style < 0.3 or node.module in self.lazy)
        if node.module == reader.module:
            name = node.name
        elif inside and style < 0.1:
            line, name = f"from m{node.module} import {node.name} as l{node.number}", f"l{node.number}"
        elif inside and style < 0.2:
            line, name = f"import m{node.module} as l{node.number}", f"l{node.number}.{node.name}"
        elif inside:
            line = f"import m{node.module}"
        text = USES[node.kind].format(name)
        if style > 0.9:
            return f"(lambda: {text})()", line
        return f"sum([{text} for _ in range(1)])" if style > 0.8 else f"({text})", line

    def text(self, node: Node) -> str:
        pad = " " * node.spaces
        if node.kind == "constant":
            return f"{node.name} ={pad}{node.value}"
        if node.kind == "dict":
            return f"{node.name} ={pad}{{'n': [{node.value}]}}"
        reads = [self.read(node, one) for one in node.reads if one is not node.base]
        total = " + ".join(["x", str(node.value), *(text for text, _ in reads)])
        lines = [f"'''doc {node.doc}'''", *sorted({line for _, line in reads if line})]
        if node.kind == "lambda":
            return f"{node.name} =\\\n{pad}lambda x: {total}"
        if node.kind == "partial":
            return f"{node.name} = functools.partial(lambda x, y:{pad}y + {total}, 1, y={node.value})"
        if node.kind == "class":
            return self._class(node, total, lines)
        if node.kind == "outer":
            lines += [f"d = {node.value}", "def made(y):", f"    return{pad}y + d + {total}", "return made"]
        elif node.kind == "decorator":
            # Imports when it is called: it decorates while modules are half made.
            inner = [*lines[1:], f"return{pad}x(*y) + {total.removeprefix('x + ')}"]
            lines = [
                lines[0],
                "@functools.wraps(x)",
                "def made(*y):",
                *(f"    {line}" for line in inner),
                "return made",
            ]
        else:
            lines += self._unmade(node) + [f"return{pad}{total}"]
        return f"{self._above(node)}def {node.name}(x: {node.note}):\n" + "".join(f"    {line}\n" for line in lines)

    def _above(self, node: Node) -> str:
        if node.around is None:
            return ""
        return f"@{self._name(node, node.around)}\n"

    @staticmethod
    def _name(reader: Node, node: Node) -> str:
        return node.name if node.module == reader.module else f"m{node.module}.{node.name}"

    def _unmade(self, node: Node) -> list[str]:
        """A call that is never made."""
        if node.back is None:
            return []
        line = [f"import m{node.back.module}"] if node.back.module in self.lazy - {node.module} else []
        return [*line, f"if x > 99: return {USES[node.back.kind].format(self._name(node, node.back))}"]

    def _class(self, node: Node, total: str, lines: list[str]) -> str:
        pad, base = " " * node.spaces, node.base
        above = "" if base is None else self._name(node, base)
        inherited = "" if base is None else " + super().run(0)"
        body = [*lines, f"return{pad}self.N + {total}{inherited}"]
        return (
            f"class {node.name}({above}):\n    N ={pad}{node.value}\n\n    def run(self, x: {node.note}):\n"
            + "".join(f"        {line}\n" for line in body)
        )

    def edit(self) -> bool:
        """One random edit; whether it touches anything that `ask` reaches."""
        if self.random.random() < 0.4:
            self._neutral(self.random.choice(NEUTRAL))
            return False
        node = self.random.choice(self.nodes)
        node.value += 10
        return node.number in self.reached()

    def _neutral(self, kind: str) -> None:
        node, module = self.random.choice(self.nodes), self.random.randrange(self.count)
        if kind == "comment":
            self.extra[module] += f"# {self.random.random()}\n"
        elif kind == "docstring":
            node.doc += 1
        elif kind == "annotation":
            node.note = "str" if node.note == "int" else "int"
        elif kind == "unreached":
            self.tail[module] += f"\ndef unreached{self.random.randrange(10**9)}(): return {self.random.random()}\n"
        elif kind == "format":
            node.spaces += 1
        elif kind == "asked":
            self.asked += 1
        else:
            self.extra[module] += "\n\n"
