"""The memory tier: the suite of all tiers, then what is its own."""

from __future__ import annotations

import pytest
from tiers.conformance import Place, TierConformance, key, record

from cachekit.tiers.memory import OVERHEAD, MemoryTier


@pytest.fixture
def place() -> Place:
    return Place(MemoryTier(1 << 24))


class TestMemory(TierConformance):
    """Memory, as every tier."""


def test_memory_is_bounded_by_bytes() -> None:
    """The limit holds, and what was used is spared."""
    memory = MemoryTier(10 * (OVERHEAD + 1000))
    for number in range(100):
        memory.put(key(number), record(b"x" * 1000))
        memory.get(key(0))
    assert memory.used <= memory.limit
    assert memory.get(key(0)) is not None
    assert memory.get(key(50)) is None


def test_memory_ends_with_the_generation() -> None:
    """Whatever was stored before the counter moved is read from a slower tier."""
    generation = [0]
    memory = MemoryTier(1 << 20, generation)
    memory.put(key(1), record())
    generation[0] = 1
    assert memory.get(key(1)) is None


def test_what_is_larger_than_the_limit_is_not_kept() -> None:
    """It would push out everything else and still not fit; an older answer under its key goes all the same."""
    memory = MemoryTier(10_000)
    memory.put(key(1), record(b"[1]"))
    memory.put(key(2), record(b"[2]"))
    memory.put(key(1), record(b"x" * 20_000))
    assert memory.get(key(1)) is None
    assert memory.get(key(2)) is not None


def test_what_goes_gives_its_room_back() -> None:
    """After drops, replacements and `clear` nothing is charged for what is no longer there."""
    memory = MemoryTier(1 << 20)
    for number in range(10):
        memory.put(key(number), record(b"x" * 1000))
        memory.put(key(number), record(b"y" * 8))
    for number in range(5):
        memory.drop(key(number))
    assert memory.used == 5 * (OVERHEAD + 9)
    memory.clear()
    assert (memory.used, len(memory)) == (0, 0)
