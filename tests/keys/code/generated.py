"""Random projects of own code and random edits of them, with what each edit touches known beforehand.

A project is a graph of nodes: functions, constants, dicts and classes in a few modules. Each node holds one number, and
every function adds up what it reads, so an edited number that is reached changes the answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

KINDS: Final = ("function", "function", "function", "constant", "dict", "class")
NEUTRAL: Final = ("comment", "docstring", "annotation", "unreached", "format", "swap")


@dataclass
class Node:
    """`reads` are the nodes that it names; a class has the first of them as its base, if that is a class."""

    module: int
    number: int
    kind: str
    value: int
    reads: list[Node] = field(default_factory=list)
    doc: int = 0
    note: str = "int"
    spaces: int = 1

    @property
    def name(self) -> str:
        return f"{self.kind[0]}{self.number}"

    @property
    def base(self) -> Node | None:
        first = self.reads[0] if self.kind == "class" and self.reads else None
        # A module's classes exist before those of the modules that import it first.
        return first if first is not None and first.kind == "class" and first.module >= self.module else None


class Generated:
    """One project. `modules()` are its texts; `reached()` the nodes that `ask` reaches."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = self.random.randint(1, 6)
        total = self.random.randint(5, 40)
        self.nodes: list[Node] = []
        for number in range(total):
            kind = self.random.choice(KINDS)
            self.nodes.append(Node(self.random.randrange(self.count), number, kind, self.random.randint(1, 9)))
        self.style = {(one.number, other): self.random.random() for one in self.nodes for other in range(total)}
        for place, node in enumerate(self.nodes):
            later = self.nodes[place + 1 :]
            if node.kind in ("function", "class") and later:
                node.reads = self.random.sample(later, min(len(later), self.random.randint(0, 3)))
        self.entry = self.random.sample(self.nodes, min(3, total))
        self.extra: list[str] = ["" for _ in range(self.count)]
        self.tail: list[str] = ["" for _ in range(self.count)]

    def reached(self) -> set[int]:
        seen: set[int] = set()
        waiting = list(self.entry)
        while waiting:
            node = waiting.pop()
            if node.number not in seen:
                seen.add(node.number)
                waiting.extend(node.reads)
        return seen

    def modules(self) -> dict[str, str]:
        texts = {}
        for module in range(self.count):
            # Classes stand below the classes they are derived from.
            own = [node for node in reversed(self.nodes) if node.module == module]
            lines = [f"import m{other}" for other in range(self.count) if other != module]
            texts[f"m{module}"] = "\n".join([*lines, self.extra[module], *map(self.text, own), self.tail[module], ""])
        reads = " + ".join(f"m{node.module}.{self.use(node)}" for node in self.entry)
        imports = "\n".join(f"import m{module}" for module in range(self.count))
        texts["main"] = (
            f"from cachekit import distributed_cache\n{imports}\n@distributed_cache\ndef ask(x):\n    return x + {reads}\n"
            "CALL = (1,)\n"
        )
        return texts

    @staticmethod
    def use(node: Node) -> str:
        """An expression of a number that reads the node, after the name of its module."""
        forms = {"function": "{}(1)", "constant": "{}", "dict": "{}['n'][0]", "class": "{}().run(1)"}
        return forms[node.kind].format(node.name)

    def read(self, reader: Node, node: Node) -> str:
        """How one node names another: by an attribute, by an import inside, or as it is in the same module."""
        if node.module == reader.module:
            text = self.use(node)
        elif self.style[reader.number, node.number] < 0.3:
            text = f"__import__('m{node.module}') and m{node.module}.{self.use(node)}"
        else:
            text = f"m{node.module}.{self.use(node)}"
        wrap = self.style[reader.number, node.number]
        if wrap > 0.9:
            return f"(lambda: {text})()"
        return f"sum([{text} for _ in range(1)])" if wrap > 0.8 else f"({text})"

    def text(self, node: Node) -> str:
        pad = " " * node.spaces
        if node.kind == "constant":
            return f"{node.name} ={pad}{node.value}"
        if node.kind == "dict":
            return f"{node.name} ={pad}{{'n': [{node.value}]}}"
        reads = " + ".join(
            ["x", str(node.value), *(self.read(node, one) for one in node.reads if one is not node.base)]
        )
        if node.kind == "function":
            return f"def {node.name}(x: {node.note}):\n    '''doc {node.doc}'''\n    return{pad}{reads}\n"
        base = node.base
        above = "" if base is None else base.name if base.module == node.module else f"m{base.module}.{base.name}"
        inherited = "" if base is None else " + super().run(0)"
        return (
            f"class {node.name}({above}):\n    N ={pad}{node.value}\n\n    def run(self, x: {node.note}):\n"
            f"        '''doc {node.doc}'''\n        return{pad}self.N + {reads}{inherited}\n"
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
        else:
            self.extra[module] += "\n\n"
