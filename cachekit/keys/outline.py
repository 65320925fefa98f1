"""What an explanation shows to people: what reached what, where it stands, and a short digest of each.

The place of a name is looked up in the source when it is asked for.
"""

from __future__ import annotations

import ast
import functools
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from cachekit.keys.code.text import parse
from cachekit.keys.parts import Part, Sketch, is_unit, shown
from cachekit.model import Key

_TITLES: Final = {"code": "function", "constant": "value"}
_HELPERS: Final = {"code": "helper"}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the key of a call holds, and where an answer stands; `str()` of it is for people.

    `key` is None where the call cannot be keyed, `parts` are (name, readable text) pairs, `found` says which tier has an
    answer ("" for none), `notes` what stands in the way. `tree` is what the code reaches, a line each, indented below
    what reached it; `unfollowed` what is not followed, and why; `reason` why there is no answer; `differs` what is another
    one than in the nearest earlier call of this machine, a line each. `sketch` is what all this was read of.
    """

    key: Key | None
    parts: tuple[tuple[str, str], ...]
    found: str
    notes: tuple[str, ...] = ()
    tree: tuple[str, ...] = ()
    unfollowed: tuple[tuple[str, str], ...] = ()
    reason: str = ""
    differs: tuple[str, ...] = ()
    sketch: Sketch | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        lines = [f"key    {self.key}" if self.key else "key    none: the call cannot be keyed", *self.tree]
        lines += [f"  {name:<14} {text}" for name, text in self.parts if not self.tree or name.startswith(_CALL)]
        lines += [f"  not followed {name}: {why}" for name, why in self.unfollowed]
        lines.append(f"found  {self.found or 'nowhere'}{f': {self.reason}' if self.reason else ''}")
        lines += [f"  {line}" for line in self.differs]
        return "\n".join([*lines, *self.notes])

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """What a notebook shows."""
        printer.text(str(self))


_CALL: Final = ("argument ", "namespace", "sample", "version")
"""Parts of a key that are no code."""


def named(parts: Iterable[Part], lines: Iterable[str]) -> list[str]:
    """The lines of a comparison with the names that people have for things, and where these stand."""
    titles = {f"{part.kind} {part.name} ": f"{_title(part)} " for part in parts}
    return [
        next((titles[name] + line[len(name) :] for name in titles if line.startswith(name)), line) for line in lines
    ]


def _title(part: Part) -> str:
    name = part.name if not part.is_code else f"{_HELPERS.get(part.kind, part.kind)} {part.name}"
    place = place_of(part)
    return f"{name} ({place})" if place else name


def tree(parts: Iterable[Part]) -> list[str]:
    """A line for each part, indented below what reached it."""
    below: dict[int, list[Part]] = {}
    for part in parts:
        is_root = is_unit(part.kind) and part.unit == part.above
        below.setdefault(-1 if is_root else part.above, []).append(part)
    return list(_lines(below, -1, "  "))


def _lines(below: dict[int, list[Part]], unit: int, indent: str) -> Iterator[str]:
    for part in below.get(unit, ()):
        yield indent + _line(part)
        if is_unit(part.kind):
            yield from _lines(below, part.unit, indent + "  ")


def _line(part: Part) -> str:
    place = place_of(part)
    text = f" = {shown(part.name.rpartition('.')[2], part.value)}" if not part.is_code else ""
    return f"{_TITLES.get(part.kind, part.kind)} {part.name}{f' ({place})' if place else ''}{text}  {part.digest}"


def place_of(part: Part) -> str:
    """`file:line` of a part; empty where it has none."""
    if part.place or not part.home:
        return part.place
    module = sys.modules.get(part.home)
    path = getattr(module, "__file__", None)
    if not isinstance(path, str):
        return ""
    name = part.name.removeprefix(f"{part.home}.")
    places = _places(path, _changed(path))
    line = places.get(name) or places.get(name.rpartition(".")[2])
    return f"{os.path.basename(path)}:{line}" if line else ""


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:  # in an archive, or gone
        return 0


@functools.lru_cache(maxsize=64)
def _places(path: str, _changed: int) -> dict[str, int]:
    """The line of each class and each assigned name of a file, the first one where there are more."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = parse(stream.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    places: dict[str, int] = {}
    for name, line in _named(found, ""):
        places.setdefault(name, line)
    return places


def _named(tree: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield prefix + node.name, node.lineno
            yield from _named(node, f"{prefix}{node.name}.")
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [one for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
            yield from ((prefix + name.id, node.lineno) for name in names)
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from _named(node, prefix)
