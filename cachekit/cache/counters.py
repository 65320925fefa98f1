"""What happened, counted: `Stats` is a listener like any other, and the only place that counts.

Counters are flat names per function (`hits.disk`, `latency.disk.57`), because sums of flat counters can be added
between processes; `as_dict` gives them the documented shape. An event is put into `inbox` as it is and counted
later, in bulk: counting at once would cost a memory hit as much as the lookup. A Snapshot is the counters at one
moment, in the documented shape: sums, shares, and quantiles out of buckets.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cachekit.files import forks
from cachekit.model import NOTHING_SAVED, Event, Saving

if TYPE_CHECKING:
    from cachekit.calls.lanes import Shortcut

TIERS: Final = ("memory", "disk", "ipfs")
QUANTILES: Final = (0.5, 0.9, 0.99)
Counters = dict[str, float]


def bucket(nanoseconds: int) -> int:
    """A latency's bucket: four to the octave of nanoseconds, so that a quantile is at most 19 % off."""
    octave = nanoseconds.bit_length()
    return octave * 4 + ((nanoseconds >> (octave - 3)) & 3) if octave > 2 else 12


def _middle(number: int) -> float:
    octave, quarter = divmod(number, 4)
    return (1 << (octave - 1)) * (1 + (quarter + 0.5) / 4) / 1e9


def add(books: Iterable[Mapping[str, float]]) -> Counters:
    """The sum of counters by name."""
    total: Counters = {}
    for counters in books:
        for name, amount in counters.items():
            total[name] = total.get(name, 0) + amount
    return total


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters at one moment; `as_dict` is the documented shape."""

    counters: Mapping[str, float]

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """What a notebook shows: a line for each thing that was counted."""
        told = {name: value for name, value in self.as_dict().items() if value and name != "latency"}
        printer.text("\n".join(f"{name:<13} {_plain(value)}" for name, value in told.items()) or "nothing was counted")

    @property
    def hit_rate(self) -> float:
        """Answers given without the origin, as a share of all that could have been; 0.0 before the first."""
        served = sum(self._group("hits").values()) + self._number("coalesced") + self._number("stale")
        return served / (served + self._number("misses")) if served else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Durations in seconds, sizes in bytes, latencies as {tier: {p50, p90, p99}} in seconds."""
        return {
            "calls": self._number("calls"),
            "hits": {tier: self._number(f"hits.{tier}") for tier in TIERS},
            "misses": self._number("misses"),
            "stores": self._number("stores"),
            "coalesced": self._number("coalesced"),
            "stale": self._number("stale"),
            "bypasses": self._group("bypasses"),
            "errors": self._errors(),
            "skipped": self._group("skipped"),
            "bytes": {
                tier: {way: self._number(f"bytes.{tier}.{way}") for way in ("read", "written")} for tier in TIERS
            },
            "seconds": {name: float(self.counters.get(f"seconds.{name}", 0.0)) for name in ("origin", "saved")},
            "tokens_saved": {way: self._number(f"tokens_saved.{way}") for way in ("input", "output")},
            "cost_saved": float(self.counters.get("cost_saved", 0.0)),
            "hit_rate": self.hit_rate,
            "latency": {tier: quantiles for tier in TIERS if (quantiles := self._quantiles(tier))},
        }

    def _number(self, name: str) -> int:
        return int(self.counters.get(name, 0))

    def _group(self, prefix: str) -> dict[str, int]:
        cut = len(prefix) + 1
        return {name[cut:]: int(n) for name, n in self.counters.items() if name.startswith(f"{prefix}.")}

    def _errors(self) -> dict[str, dict[str, int]]:
        tiers: dict[str, dict[str, int]] = {}
        for name, amount in self._group("errors").items():
            tier, _, reason = name.partition(".")
            tiers.setdefault(tier, {})[reason] = amount
        return tiers

    def _quantiles(self, tier: str) -> dict[str, float]:
        counts = sorted((int(name), n) for name, n in self._group(f"latency.{tier}").items())
        total = sum(n for _, n in counts)
        return {f"p{round(share * 100)}": _quantile(counts, share * total) for share in QUANTILES} if total else {}


def _quantile(counts: list[tuple[int, int]], rank: float) -> float:
    seen = 0
    for number, amount in counts:
        seen += amount
        if seen >= rank:
            return _middle(number)
    return 0.0


INBOX_LIMIT: Final = 4096
"""Events that may wait to be counted before somebody is sent to count them; at twice as many the next one is held up."""

_SERVED: Final = frozenset({"miss", "coalesced"})
_NAMES: Final = {"miss": "misses", "store": "stores"}


class Stats:
    """Counts events by function."""

    def __init__(self) -> None:
        self.inbox: deque[tuple[Event, int]] = deque()
        self._quick: dict[str, deque[Shortcut]] = {}
        self._lock = threading.Lock()
        self._counters: dict[str, Counters] = {}
        self._unsaved: dict[str, Counters] = {}
        forks.enrol(self)

    def __call__(self, event: Event) -> None:
        if event.error is not None:
            # Counted now: an exception that waited here would keep its frames and their values alive.
            with self._lock:
                self._count(event.function, _increments(event, 0))
            return
        if len(self.inbox) > 2 * INBOX_LIMIT:
            self.drain()
        self.inbox.append((event, int(event.seconds * 1e9)))

    def quick(self, function: str) -> deque[Shortcut]:
        """Where the function's fast lane puts a shortcut for each hit; those it timed go into `inbox` as `timing`."""
        return self._quick.setdefault(function, deque())

    def drain(self) -> None:
        """Counts what waits: hits in sums, because there are many of them, the rest one by one."""
        with self._lock:
            sums: dict[tuple[str, str], _Hits] = {}
            for quick in list(self._quick.values()):
                for noted, calls in Counter(_taken(quick)).items():
                    note = noted.note
                    sums.setdefault((note.function, note.tier), _Hits()).add(calls, note.size, note.saved, note.saving)
            for event, nanoseconds in _taken(self.inbox):
                what, function, tier, _, _, size, saved, _, saving, _ = event
                if what == "hit":
                    hits = sums.setdefault((function, tier), _Hits())
                    hits.add(1, size, saved, saving)
                    hits.time(nanoseconds)
                elif what == "timing":
                    sums.setdefault((function, tier), _Hits()).time(nanoseconds)
                else:
                    self._count(function, _increments(event, nanoseconds))
            for (function, tier), hits in sums.items():
                self._count(function, hits.increments(tier))

    def snapshot(self, function: str | None = None) -> Snapshot:
        """What was counted in this process since it started, or since `reset`."""
        self.drain()
        with self._lock:
            chosen = self._counters.values() if function is None else [self._counters.get(function, {})]
            return Snapshot(add(chosen))

    def functions(self) -> dict[str, Snapshot]:
        self.drain()
        with self._lock:
            return {name: Snapshot(dict(counters)) for name, counters in self._counters.items()}

    def take_unsaved(self) -> dict[str, Counters]:
        """What was counted since the last time this was asked, to be added to the machine's totals."""
        self.drain()
        with self._lock:
            unsaved, self._unsaved = self._unsaved, {}
            return unsaved

    def reset(self) -> None:
        self.drain()
        with self._lock:
            self._counters = {}

    def renew_after_fork(self) -> None:
        """The parent counts what it counted; a child starts at zero, with a lock of its own."""
        self._lock = threading.Lock()
        self._counters, self._unsaved = {}, {}
        self.inbox.clear()
        for quick in self._quick.values():
            quick.clear()

    def _count(self, function: str, increments: Iterable[tuple[str, float]]) -> None:
        counters, unsaved = self._counters.setdefault(function, {}), self._unsaved.setdefault(function, {})
        for counter, amount in increments:
            counters[counter] = counters.get(counter, 0) + amount
            unsaved[counter] = unsaved.get(counter, 0) + amount


T = TypeVar("T")


def _taken(waiting: deque[T]) -> Iterator[T]:
    while True:
        try:
            yield waiting.popleft()
        except IndexError:
            return


class _Hits:
    """Hits of one function in one tier, summed. Not every one is timed: the times of those that are stand for all."""

    __slots__ = ("buckets", "calls", "input", "money", "output", "saved", "size")

    def __init__(self) -> None:
        self.calls, self.size, self.saved, self.input, self.output, self.money = 0, 0, 0.0, 0, 0, 0.0
        self.buckets: dict[int, int] = {}

    def add(self, calls: int, size: int, saved: float, saving: Saving) -> None:
        self.calls += calls
        self.size += calls * size
        self.saved += calls * saved
        if saving is not NOTHING_SAVED:
            self.input += calls * saving.input
            self.output += calls * saving.output
            self.money += calls * saving.cost

    def time(self, nanoseconds: int) -> None:
        number = bucket(nanoseconds)
        self.buckets[number] = self.buckets.get(number, 0) + 1

    def increments(self, tier: str) -> Iterable[tuple[str, float]]:
        yield "calls", self.calls
        yield f"hits.{tier}", self.calls
        yield f"bytes.{tier}.read", self.size
        timed = sum(self.buckets.values())
        for number, calls in self.buckets.items():
            yield f"latency.{tier}.{number}", calls * (self.calls or timed) / timed
        if self.saved:
            yield "seconds.saved", self.saved
        yield from _savings(Saving(self.input, self.output, self.money))


def _increments(event: Event, nanoseconds: float) -> Iterable[tuple[str, float]]:
    what = event.what
    if what in _SERVED or (what in ("bypass", "stale") and event.reason != "origin_failed" and not event.tier):
        yield "calls", 1
    if what == "write":
        yield f"bytes.{event.tier}.written", event.size
    elif what == "error":
        yield f"errors.{event.tier}.{event.reason}", 1
    elif what in ("bypass", "skipped"):
        yield f"{'bypasses' if what == 'bypass' else 'skipped'}.{event.reason}", 1
    elif what == "origin":
        yield "seconds.origin", nanoseconds / 1e9
    else:
        yield _NAMES.get(what, what), 1
    if what == "coalesced" and event.tier:
        yield f"bytes.{event.tier}.read", event.size
    if what in ("coalesced", "stale"):
        if event.saved:
            yield "seconds.saved", event.saved
        yield from _savings(event.saving)


def _savings(saving: Saving) -> Iterable[tuple[str, float]]:
    if saving.input or saving.output:
        yield "tokens_saved.input", saving.input
        yield "tokens_saved.output", saving.output
    if saving.cost:
        yield "cost_saved", saving.cost


def _plain(value: Any) -> str:
    """A number, or the parts of a group that are not zero."""
    if not isinstance(value, dict):
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    return ", ".join(f"{name} {_plain(one)}" for name, one in value.items() if one)
