"""Does JSON keep it? Whether a tree comes back from JSON with the types and values it had.

Told by the types, in one walk, which is most of what storing a value costs: hence the local names and the order of the
questions. What orjson refuses by itself (depth, big integers, lone surrogates, names that are no str) is left to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any, Final

_LEAVES: Final = frozenset({str, int, bool, type(None)})
_FLOATS: Final = frozenset({float})
_LONG: Final = 16
_MANY: Final = 16_384


def is_lossless(value: Any) -> bool:
    """Whether the tree holds exact dict, list, str, int, bool, None and finite float only; it may hold itself."""
    if type(value) is not dict and type(value) is not list:
        return type(value) in _LEAVES or (type(value) is float and isfinite(value))
    nodes, leaves, finite = [value], _LEAVES, isfinite
    for node in nodes:
        if type(node) is list and len(node) >= _LONG and _is_uniform(node):
            continue
        for item in node.values() if type(node) is dict else node:
            kind = type(item)
            if kind in leaves:
                continue
            if kind is dict or kind is list:
                nodes.append(item)
            elif kind is not float or not finite(item):
                return False
        if len(nodes) > _MANY:
            return _is_lossless_at_length(value)
    return True


def _is_lossless_at_length(value: Any) -> bool:
    """The same for a tree of many containers: none is walked twice, so that one that holds itself ends."""
    nodes, seen = [value], {id(value)}
    for node in nodes:
        for item in _inside(node):
            if type(item) is dict or type(item) is list:
                if id(item) not in seen:
                    seen.add(id(item))
                    nodes.append(item)
            elif type(item) not in _LEAVES and not (type(item) is float and isfinite(item)):
                return False
    return True


def _inside(node: Any) -> Iterable[Any]:
    if type(node) is dict:
        items: Iterable[Any] = node.values()
        return items
    return () if len(node) >= _LONG and _is_uniform(node) else node


def _is_uniform(items: list[Any]) -> bool:
    """Whether a list needs no look at each item. Long ones are mostly of one kind: an embedding costs half."""
    kinds = set(map(type, items))
    # A sum is finite only where all items are; one that overflows says nothing.
    return kinds <= _LEAVES or (kinds == _FLOATS and (isfinite(sum(items)) or all(map(isfinite, items))))
