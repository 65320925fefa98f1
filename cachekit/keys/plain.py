"""Plain trees: JSON's own types and no secrets. Their canonical bytes are their sorted JSON text.

Almost every call is one, so this is written for speed; whatever is not plain goes to `canonical`.
"""

from __future__ import annotations

import math
from typing import Any, Final

import orjson

from cachekit.keys.secrets import is_secret_name

# Passthrough makes orjson refuse what it would otherwise flatten into somebody else's text.
_OPTIONS: Final = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
from_json: Final = orjson.loads
"""The value of a JSON text. Raises ValueError."""
to_json: Final = orjson.dumps
"""JSON text of a plain tree. Raises TypeError."""
LEAVES: Final = frozenset({str, int, float, bool, type(None)})
"""Types whose values hold no others, in JSON."""
_SURE: Final = LEAVES - {float}  # orjson writes null for NaN and infinity
_MANY: Final = 65_536
_NAMES_LIMIT: Final = 65_536
_harmless: set[str] = set()


def plain(value: Any) -> bytes | None:
    """JSON text of a tree of exactly dict (str keys), list, str, int (64 bit), finite float, bool, None; else None."""
    # The walk comes first: orjson 3.13 has no depth limit for tuples in tuples, and overruns its buffer.
    if not _is_plain(value):
        return None
    try:
        return orjson.dumps(value, None, _OPTIONS)
    except TypeError:
        return None


def ordered(tree: Any, data: bytes) -> bytes:
    """The bytes that `plain` gave, and behind them the order of the names where it is not the alphabet's."""
    written = orjson.dumps(tree, None, _OPTIONS & ~orjson.OPT_SORT_KEYS) if b"{" in data else data
    return data if written == data else data + b"\0" + written


def _is_plain(value: Any) -> bool:
    # Written for speed: local names, the commonest type first. orjson refuses a dict's name that only equals a str.
    nodes, harmless, leaves = [value], _harmless, LEAVES
    walked: set[int] | None = None
    for node in nodes:
        if len(nodes) > _MANY:  # or it holds itself: from here on each is walked once
            walked = walked or set()
            if id(node) in walked:
                continue
            walked.add(id(node))
        if type(node) is dict:
            for name, item in node.items():
                if name not in harmless and not _learn(name):
                    return False
                if type(item) is not str and type(item) not in _SURE:
                    nodes.append(item)
        elif type(node) is list:
            kinds = set(map(type, node))
            if not kinds <= leaves:
                nodes.extend(node)
            elif float in kinds and not all(math.isfinite(item) for item in node if type(item) is float):
                return False
        elif type(node) is float:
            if not math.isfinite(node):
                return False
        elif type(node) not in leaves:
            return False
    return True


def _learn(name: Any) -> bool:
    """Whether `name` is text that names no secret; it is remembered, because judging it costs more than the walk."""
    if type(name) is not str or is_secret_name(name):
        return False
    if len(_harmless) > _NAMES_LIMIT:
        _harmless.clear()
    _harmless.add(name)
    return True
