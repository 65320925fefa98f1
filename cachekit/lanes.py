"""A function's fast lane: from the marshalled arguments of a call straight to its key, and to its entry in memory.

Building a key costs as much as reading a record, and the next identical call of the process would build the same one.
So the lane remembers it under the arguments' bytes, together with the memory tier's entry as long as there is one.
marshal's encoding (version 2, no references) is injective over trees of plain types, except that every buffer is
written like `bytes`: only calls whose tree was walked and holds no buffer are remembered (`lane_safe`), and a call
with a buffer then finds nothing, because its encoding has a node that no remembered one has.
"""

from __future__ import annotations

from collections.abc import Callable
from marshal import dumps
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from cachekit.model import MISS, Event
from cachekit.plan.gate import CURRENT
from cachekit.stats import INBOX_LIMIT

if TYPE_CHECKING:
    from cachekit.cache import Cache
    from cachekit.model import Key
    from cachekit.targets import Target
    from cachekit.tiers.memory import Entry

LONGEST_ARGUMENTS: Final = 1 << 16
"""Bytes of marshalled arguments up to which a call is remembered; longer ones would push out too many others."""

TIMED: Final = 15
"""A mask: one hit in sixteen is timed, because reading the clock and noting the time would cost the others a tenth."""

current = CURRENT.get
"""`gate.current` without its Python frame: every call pays for it."""


_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
_MOST_NODES: Final = 65_536


def lane_safe(tree: Any) -> bool:
    """Whether `marshal.dumps(tree, 2)` tells this tree from every other: exact dict (str or int keys), list, tuple,
    str, int, float, bool and None only. A tree of more than 65536 containers and mixed items, or a cyclic one, is not.
    """
    nodes, lane = [tree], _PLAIN
    for node in nodes:
        kind = type(node)
        if kind is dict:
            for name, item in node.items():
                if type(name) is not str and type(name) is not int:
                    return False
                if type(item) is not str and type(item) not in lane:
                    nodes.append(item)
        elif kind is list or kind is tuple:
            if not lane.issuperset(map(type, node)):
                nodes.extend(node)
        elif kind not in lane:
            return False
        if len(nodes) > _MOST_NODES:
            return False
    return True


class Shortcut:
    """From a known call to its value: the entry in memory, how its payload is decoded, and what is told of the hit."""

    __slots__ = ("entry", "load", "note")

    def __init__(self, entry: Entry, load: Callable[[bytes], Any], note: Event) -> None:
        self.entry, self.load, self.note = entry, load, note


class Known:
    """A call seen before. `shortcut` is there while the memory tier holds its record."""

    __slots__ = ("key", "shortcut")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.shortcut: Shortcut | None = None


class Lane:
    """One function's known calls. Empty, it costs a truth test."""

    __slots__ = ("__weakref__", "cache", "generation", "hits", "known", "state", "stats", "target", "tidy", "wrapped")

    def __init__(self, target: Target, wrapped: Any) -> None:
        self.target, self.wrapped = target, wrapped
        self.cache: Any = None
        self.known: dict[bytes, Known] = {}
        self.generation: Any = (0,)
        self.hits: Any = ()
        self.stats: Any = None
        self.state: Callable[[], Any] = tuple
        self.tidy: Callable[..., None] = _nothing

    def lead(self, cache: Cache) -> None:
        """Makes the lane lead into `cache`."""
        keyer = self.target.keyer
        self.cache, self.stats, self.generation, self.tidy = cache, cache.stats, cache.ledger.generation, cache.tidy
        self.state = keyer.state if keyer.state() else tuple
        self.hits = cache.stats.quick(self.target.name)

    def time(self, nanoseconds: int) -> None:
        """Tells how long a hit took, and has the hits counted when many wait."""
        self.stats.inbox.append((Event("timing", self.target.name, "memory"), nanoseconds))
        if len(self.hits) > INBOX_LIMIT:
            self.tidy(crowded=True)

    def close(self) -> None:
        self.known = {}


def serve(lane: Lane, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The value of a call whose record memory holds; the Known one where it does not; MISS for a call never seen."""
    if not lane.known or current() is not None:
        return MISS
    hits = lane.hits
    timed = not len(hits) & TIMED
    begin = perf_counter_ns() if timed else 0
    try:
        known = lane.known.get(dumps((args, kwargs, lane.state()), 2))
    except ValueError:
        return MISS
    if known is None:
        return MISS
    shortcut = known.shortcut
    if shortcut is None:
        return known
    entry = shortcut.entry
    if entry.generation != lane.generation[0] or monotonic() >= entry.deadline:
        return known
    entry.used = True
    value = shortcut.load(entry.payload)
    hits.append(shortcut)
    if timed:
        lane.time(perf_counter_ns() - begin)
    return value


def _nothing(*, crowded: bool) -> None:
    return None
