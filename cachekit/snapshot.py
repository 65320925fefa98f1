"""Counters at one moment, in the documented shape: sums, shares, and quantiles out of buckets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

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
            "latency": {tier: found for tier in TIERS if (found := self._quantiles(tier))},
        }

    def _number(self, name: str) -> int:
        return int(self.counters.get(name, 0))

    def _group(self, prefix: str) -> dict[str, int]:
        cut = len(prefix) + 1
        return {name[cut:]: int(n) for name, n in self.counters.items() if name.startswith(f"{prefix}.")}

    def _errors(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for name, amount in self._group("errors").items():
            tier, _, reason = name.partition(".")
            found.setdefault(tier, {})[reason] = amount
        return found

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
