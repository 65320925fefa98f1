"""What every tier must do, whatever it stands on: one suite, applied to each of them by a class of its own.

A test module derives from `TierConformance` and says with a fixture `place` which tier is meant.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
from neighbour import forked

from cachekit.model import FOREVER, NANOSECONDS, Key, Record


def _at_once() -> None:
    """Most tiers are complete when `put` returns."""


@dataclass(frozen=True)
class Place:
    """A tier, and what makes its writes visible."""

    tier: Any
    settle: Callable[[], object] = _at_once

    def keep(self, key: Key, record: Record) -> None:
        """`put`, and visible on return."""
        self.tier.put(key, record)
        self.settle()


def key(number: int, namespace: str = "n") -> Key:
    return Key(namespace, number.to_bytes(32, "big"), "tests.f")


def record(payload: bytes = b"[1]", **changes: Any) -> Record:
    """A record made now, for an hour."""
    now = time.time_ns()
    return replace(Record("json", payload, now, now + 3600 * NANOSECONDS, seconds=1.5), **changes)


def facts(given: Record | None) -> tuple[Any, ...] | None:
    """What a caller may rely on, from any tier."""
    if given is None:
        return None
    return (given.codec, given.payload, given.created, given.expires, given.grace, round(given.seconds, 3))


class TierConformance:
    """The suite. Keys are of namespace `n` where none is named, records as good as for ever."""

    def test_what_is_put_is_got(self, place: Place) -> None:
        """Codec, payload and times come back."""
        given = record(b'{"a":1}')
        place.keep(key(1), given)
        assert facts(place.tier.get(key(1))) == facts(given)

    def test_what_was_not_put_is_a_miss(self, place: Place) -> None:
        """None, for another digest and for another namespace's."""
        place.keep(key(1), record())
        assert place.tier.get(key(2)) is None
        assert place.tier.get(key(3, "other")) is None

    def test_the_newer_record_wins(self, place: Place) -> None:
        """A second put replaces the first."""
        place.keep(key(1), record(b"[1]"))
        place.keep(key(1), record(b"[2]"))
        assert place.tier.get(key(1)).payload == b"[2]"

    def test_what_is_dropped_is_gone(self, place: Place) -> None:
        """drop says whether something was there."""
        place.keep(key(1), record())
        assert place.tier.drop(key(1)) is True
        assert place.tier.get(key(1)) is None
        assert place.tier.drop(key(3)) is False

    def test_a_drop_spares_the_others(self, place: Place) -> None:
        """Only the key that was named is gone."""
        for number in range(3):
            place.keep(key(number), record(b"[%d]" % number))
        place.tier.drop(key(1))
        place.settle()
        assert [facts(place.tier.get(key(number))) is None for number in range(3)] == [False, True, False]

    def test_what_was_dropped_may_be_put_again(self, place: Place) -> None:
        """An answer made after the drop is a new one, and is served."""
        place.keep(key(1), record(b"[1]"))
        place.tier.drop(key(1))
        place.keep(key(1), record(b"[2]"))
        assert place.tier.get(key(1)).payload == b"[2]"

    @pytest.mark.parametrize("size", [0, 1, 2_000, 200_000, (1 << 20) + 1])
    def test_any_size(self, place: Place, size: int) -> None:
        """From nothing to more than one block."""
        payload = os.urandom(size)
        place.keep(key(size), record(payload, codec="bytes"))
        assert place.tier.get(key(size)).payload == payload

    def test_a_record_for_ever_comes_back_so(self, place: Place) -> None:
        """What has no TTL in one tier has none in any."""
        given = record(expires=FOREVER)
        place.keep(key(1), given)
        assert facts(place.tier.get(key(1))) == facts(given)

    def test_what_is_over_but_in_its_grace_comes_back(self, place: Place) -> None:
        """A tier does not judge freshness within the grace: the plan may still serve what it gives."""
        now = time.time_ns()
        given = record(created=now - 2 * NANOSECONDS, expires=now - NANOSECONDS, grace=3600.0)
        place.keep(key(1), given)
        assert facts(place.tier.get(key(1))) == facts(given)

    def test_many_keys_keep_apart(self, place: Place) -> None:
        """Each key has its own answer, in whatever order they are asked for."""
        for number in range(20):
            place.tier.put(key(number), record(b"[%d]" % number))
        place.settle()
        assert [place.tier.get(key(n)).payload for n in reversed(range(20))] == [
            b"[%d]" % n for n in reversed(range(20))
        ]

    def test_any_thread_may_ask(self, place: Place) -> None:
        """Threads that put and get at once get what they put, and nothing else."""

        def turn(number: int) -> Any:
            place.tier.put(key(number), record(b"[%d]" % number))
            place.settle()
            return place.tier.get(key(number))

        with ThreadPoolExecutor(4) as pool:
            records = list(pool.map(turn, range(16)))
        assert [one and one.payload for one in records] == [b"[%d]" % number for number in range(16)]

    def test_a_forked_child_has_what_the_parent_put(self, place: Place) -> None:
        """Where it has a `renew_after_fork`, a cache calls it in a child; the tier answers there; and the parent's goes on."""

        def found_there() -> bool:
            getattr(place.tier, "renew_after_fork", bool)()
            return bool(place.tier.get(key(1)).payload == b"[1]")

        place.keep(key(1), record(b"[1]"))
        assert forked(found_there)
        place.keep(key(2), record(b"[2]"))
        assert [place.tier.get(key(number)).payload for number in (1, 2)] == [b"[1]", b"[2]"]

    def test_it_says_what_it_is(self, place: Place) -> None:
        """A name, and whether it may hold a thread for long; a cache goes by both."""
        assert place.tier.name in ("memory", "disk", "ipfs")
        assert isinstance(place.tier.blocking, bool)
