"""The short ways to a hit: a call seen before, and a record near by.

A function's fast lane leads from the marshalled arguments of a call straight to its key, and to its entry in memory.
Building a key costs as much as reading a record, and the next identical call of the process would build the same one.
So the lane remembers it under the arguments' bytes, together with the memory tier's entry as long as there is one.
marshal's encoding (version 2, no references) is injective over trees of plain types, except that every buffer is
written like `bytes`: only calls whose tree was walked and holds no buffer are remembered (`lane_safe`), and a call
with a buffer then finds nothing, because its encoding has a node that no remembered one has.

The other way is `at_hand`: a fresh record in memory or on disk is served before a plan is made. Most calls of a warm
cache end there, and a plan with its steps would cost them as much again as the lookup (docs/performance.md). Nothing is
decided there: whatever is not a plain hit (nothing found, stale, undecodable, a tier that fails, a mode other than `on`)
is left to the plan, which looks again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from enum import Enum
from marshal import dumps
from time import monotonic, perf_counter, perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Final

from cachekit.cache.counters import INBOX_LIMIT
from cachekit.errors import UNREADABLE, IntegrityError, TierError
from cachekit.model import FOREVER, MISS, NOTHING_SAVED, Event, Key, Record, Reply
from cachekit.plan.gate import CURRENT

if TYPE_CHECKING:
    from cachekit.cache.cache import Cache
    from cachekit.calls.prepare import Prepared
    from cachekit.calls.target import Target
    from cachekit.model import Key
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
    """One function's known calls. Empty, it costs a truth test. `looked` is the digest that nothing near had just now, and the
    ledger's `last_store` before that.
    """

    __slots__ = (
        *(
            "__weakref__",
            "cache",
            "generation",
            "hits",
            "known",
            "looked",
            "state",
            "stats",
            "target",
            "tidy",
            "wrapped",
        ),
    )

    def __init__(self, target: Target, wrapped: Any) -> None:
        self.target, self.wrapped = target, wrapped
        self.cache: Any = None
        self.known: dict[bytes, Known] = {}
        self.looked: tuple[bytes, int] | None = None
        self.generation: Any = (0,)
        self.hits: Any = ()
        self.stats: Any = None
        self.state: Callable[[], Any] = tuple
        self.tidy: Callable[..., None] = _nothing

    def lead(self, cache: Cache) -> None:
        """Makes the lane lead into `cache`."""
        keyer = self.target.keyer
        self.cache, self.stats, self.generation, self.tidy = cache, cache.stats, cache.ledger.generation, cache.tidy
        self.state = keyer.quick() if keyer.state() else tuple
        self.hits = cache.stats.quick(self.target.name)

    def time(self, nanoseconds: int) -> None:
        """Tells how long a hit took, and has the hits counted when many wait."""
        if self.state is not tuple:
            self.state = self.target.keyer.quick()
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


class Nearby(Enum):
    """What was seen where no value was served."""

    NOTHING = "no near tier has a record"
    UNSURE = "something that a plan must decide"


_event = tuple.__new__
"""`Event(...)` without the Python frame of a NamedTuple's `__new__`."""


def at_hand(cache: Cache, target: Target, key: Key, *, streamed: bool = False) -> Any:
    """The value of a fresh record in a near tier, filled back into memory; else a Nearby.

    `streamed`: the caller wants a Reply as a stream, which the event says where it never was one.
    """
    begin = perf_counter()
    for name, tier in cache.near_tiers:
        try:
            record = tier.get(key)
            if record is None:
                continue
            expires = record.expires
            if (expires != FOREVER and time_ns() >= expires) or cache.ledger.covers(key, record):
                return Nearby.UNSURE
            payload = record.payload
            value = target.codec.loader(record.codec)(payload)
            if cache.memory is not None and name != "memory":
                _fill(cache, key, record)
        except IntegrityError as error:
            # Told here, because the tier dropped what did not verify: the plan will not meet it again.
            cache.tell(Event("error", key.function, name, error.reason, error=error))
            return Nearby.UNSURE
        except (TierError, sqlite3.Error, OSError, *UNREADABLE):
            return Nearby.UNSURE  # the last: a payload that the codec refuses
        took, saving, made = perf_counter() - begin, NOTHING_SAVED, False
        if type(value) is Reply:
            saving, made = value.saving, streamed and value.kind == "plain"
        fields = ("hit", key.function, name, "", took, len(payload), record.seconds, None, saving, made)
        cache.tell(_event(Event, fields))
        return value
    return Nearby.NOTHING


def _fill(cache: Cache, key: Key, record: Record) -> None:
    """Into memory, and out again if an invalidation came between the reading and the writing."""
    assert cache.memory is not None
    cache.memory.put(key, record)
    if cache.ledger.covers(key, record):
        cache.memory.drop(key)


def shorten(cache: Cache, target: Target, known: Known) -> None:
    """Gives the next identical call a shortcut, where memory holds the answer."""
    memory = cache.memory
    entry = None if memory is None else memory.entry(known.key)
    if memory is None or entry is None:
        return
    record, load = entry.record, target.codec.loader(entry.record.codec)
    saving = load(record.payload).saving if target.policy.adapter is not None else NOTHING_SAVED
    note = Event("hit", target.name, "memory", size=len(record.payload), saved=record.seconds, saving=saving)
    memory.follow(entry, known, Shortcut(entry, load, note))


def arguments_of(prepared: Prepared, args: Any, kwargs: Any) -> bytes | None:
    """What the fast lane would look up for this call. Taken before the origin runs: it may change its arguments."""
    keyer = prepared.target.keyer
    if prepared.mode != "on" or prepared.cache.listeners or current() is not None:
        return None
    if not keyer.fast:
        return None
    call: Any = (args, kwargs, keyer.state())
    # Arguments that all have a JSON were walked for it.
    walked = prepared.said is not None and not prepared.target.policy.ignore
    if not lane_safe(call[-1] if walked else call):
        return None
    try:
        arguments = dumps(call, 2)
    except ValueError:  # a tree deeper than marshal goes
        return None
    return arguments if len(arguments) <= LONGEST_ARGUMENTS else None


def remember(cache: Cache, lane: Lane, arguments: bytes | None, key: Key) -> None:
    """Lets the next identical call pass by the key, and the memory tier's lookup if it can."""
    if arguments is None:
        return
    if not lane.known:
        lane.lead(cache)
    known = Known(key)
    shorten(cache, lane.target, known)
    cache.lanes.remember(lane, arguments, known)
