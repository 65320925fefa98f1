"""Bytes that nobody wrote, made of some that somebody wrote: a seed of the random numbers makes the same ones again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

ODD: Final[tuple[bytes, ...]] = (
    *(b"", b"\0", b"\xff", b"\x80", b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xef\xbb\xbf", b"\r", b"\n\n"),
    *(b"NaN", b"-Infinity", b"1e999", b"-1", b"18446744073709551616", b"9" * 5000, b"null", b'{"$":["int","z"]}'),
)
LENGTHS: Final = (0, 1, 0x7F, 0x80, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 62, 1 << 63, (1 << 64) - 1)
LEAVES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 255, 2**31, 2**53, 2**63, 2**64, 10**400, -(10**30), 0.5, -0.0, 1e308),
    *(float("nan"), float("inf"), float("-inf")),
    *("", "\0", "\ud800", "é" * 300, "1e999", "-1", "../..", "$", "[DONE]", "9" * 5000, "aGk", "a" * 70_000),
    *([], {}, [[]], [None], {"": None}, {"$": 1}, {"$": ["tuple", 1]}, {"error": {}}, [{"index": -1}], {"index": True}),
)
_NUMBER: Final = re.compile(rb"-?\d+(?:\.\d+)?")
_BEGIN: Final = re.compile(rb"[\[{]")
_PAIR: Final = re.compile(rb'"[^"]*":[^,{}\[\]]*')
_SHORT: Final = 1 << 13
"""Bytes that expressions are looked for in; their search is quadratic where nothing fits."""


class Mutator:
    """Changes given bytes, or the JSON in them. `others` are spliced in."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def mutated(self, data: bytes, others: Sequence[bytes]) -> bytes:
        for _ in range(self.random.choice((1, 1, 1, 2, 4))):
            way = self.random.choice(_WAYS if len(data) < _SHORT else _PLAIN)
            data = way(self, data, others)
        return data

    def place(self, data: bytes) -> int:
        return self.random.randrange(len(data) + 1)

    def flipped(self, data: bytes, _others: Sequence[bytes]) -> bytes:
        if not data:
            return b"\x01"
        changed = bytearray(data)
        for _ in range(self.random.choice((1, 1, 2, 8))):
            changed[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        return bytes(changed)

    def cut(self, data: bytes, _others: Sequence[bytes]) -> bytes:
        return data[: self.place(data)] if self.random.random() < 0.7 else data[self.place(data) :]

    def doubled(self, data: bytes, _others: Sequence[bytes]) -> bytes:
        at, end = sorted((self.place(data), self.place(data)))
        return data[:end] + data[at:end] * self.random.choice((1, 2, 50 if end - at < 1000 else 1)) + data[end:]

    def removed(self, data: bytes, _others: Sequence[bytes]) -> bytes:
        at = self.place(data)
        return data[:at] + data[at + self.random.choice((1, 2, 4, 8, 100)) :]

    def spliced(self, data: bytes, others: Sequence[bytes]) -> bytes:
        other = self.random.choice(others)
        return data[: self.place(data)] + other[self.place(other) :]

    def inserted(self, data: bytes, _others: Sequence[bytes]) -> bytes:
        at, odd = self.place(data), self.random.choice(ODD)
        return data[:at] + odd + data[at + self.random.choice((0, len(odd))) :]

    def lengthened(self, data: bytes, _others: Sequence[bytes]) -> bytes:
        """With a number where a length, or an instant, may stand."""
        size = self.random.choice((1, 2, 4, 8))
        number = (self.random.choice(LENGTHS) + self.random.randrange(-1, 2)) % (1 << 8 * size)
        at = self.place(data)
        return data[:at] + number.to_bytes(size, self.random.choice(("little", "big"))) + data[at + size :]

    def renumbered(self, data: bytes, _others: Sequence[bytes]) -> bytes:
        found = list(_NUMBER.finditer(data))
        if not found:
            return data + b"0"
        match = self.random.choice(found)
        number = self.random.choice((*ODD[10:16], b"%d" % self.random.choice(LENGTHS), b"0.5", b"0"))
        return data[: match.start()] + number + data[match.end() :]

    def repeated(self, data: bytes, _others: Sequence[bytes]) -> bytes:
        """With one name twice in a JSON object."""
        found = list(_PAIR.finditer(data))
        if not found:
            return data
        match = self.random.choice(found)
        name = match[0].partition(b":")[0]
        return (
            data[: match.end()] + b"," + name + b":" + self.random.choice((b"1", b"null", b"{}")) + data[match.end() :]
        )

    def nested(self, data: bytes, _others: Sequence[bytes]) -> bytes:
        depth, at = self.random.choice((70, 300, 1200, 1200, 6_000)), self.place(data)
        begin, end = self.random.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'{"$":["tuple",[', b"]]}")))
        if self.random.random() < 0.3:
            return begin * depth
        return data[:at] + begin * depth + b"1" + end * depth + data[at + self.random.choice((0, 1)) :]

    def rewritten(self, data: bytes, others: Sequence[bytes]) -> bytes:
        """With another tree where one line has JSON."""
        begin, end = self.random.choice(_trees(data) or [(0, 0)])
        try:
            tree = json.loads(data[begin:end])
        except (ValueError, RecursionError):
            return self.flipped(data, others)
        for _ in range(self.random.choice((1, 1, 2))):
            tree = self.grown(tree)
        try:
            text = json.dumps(tree, separators=(",", ":"), ensure_ascii=self.random.random() < 0.7)
        except (ValueError, RecursionError):  # grown too large to be written
            return data
        return data[:begin] + text.encode("utf-8", "surrogatepass") + data[end:]

    def grown(self, tree: Any) -> Any:
        """Another tree, changed in place below its root."""
        places = _places(tree)
        if not places or self.random.random() < 0.05:
            return self.leaf(tree)
        holder, name = self.random.choice(places)
        way = self.random.randrange(6)
        if way == 0:
            del holder[name]
        elif way == 1:
            holder[name] = [holder[name]]
        elif way == 2:
            other, place = self.random.choice(places)
            holder[name] = json.loads(json.dumps(other[place]))
        elif way == 3 and isinstance(holder, list):
            holder.insert(name, holder[name])
        elif way == 4 and isinstance(holder, dict):
            holder[self.random.choice(("error", "usage", "index", "$", "data", "type", ""))] = self.leaf(tree)
        else:
            holder[name] = self.leaf(tree)
        return tree

    def leaf(self, tree: Any) -> Any:
        leaf = self.random.choice(LEAVES)
        return json.loads(json.dumps(leaf)) if isinstance(leaf, (list, dict)) else leaf


def _trees(data: bytes) -> list[tuple[int, int]]:
    """Where a tree of JSON may stand: from the first bracket of a line to its last."""
    found, at = [], 0
    for line in data.split(b"\n"):
        begin, end = _BEGIN.search(line), max(line.rfind(b"]"), line.rfind(b"}")) + 1
        if begin and begin.start() < end:
            found.append((at + begin.start(), at + end))
        at += len(line) + 1
    return found


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """(holder, name) of everything in a tree."""
    places, holders = [], [tree]
    for holder in holders:
        names = holder if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        places += [(holder, name) for name in names]
        holders += [holder[name] for name in names if isinstance(holder[name], (dict, list))]
    return places


_Way = Callable[[Mutator, bytes, Sequence[bytes]], bytes]
_PLAIN: Final[tuple[_Way, ...]] = (
    *(Mutator.flipped, Mutator.cut, Mutator.removed, Mutator.spliced, Mutator.inserted, Mutator.lengthened),
)
_WAYS: Final[tuple[_Way, ...]] = (
    *(*_PLAIN, *_PLAIN[-1:], Mutator.doubled, Mutator.renumbered, Mutator.repeated, Mutator.nested),
    *(Mutator.rewritten,) * 6,
)
