"""Stories that ask Kubo, told again and again, each time with another request failing: the value is right, a reason counted.

`CACHEKIT_TEST_FAULTS=all` fails every request in every way; without it a sample of them.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any, Final

import pytest
from relaying import FAULTS, relaying

from cachekit import TierError, configure, distributed_cache, fetch, flush, persist_artifact, stats, store, sync
from cachekit.cache.default import default

EVERY: Final = os.environ.get("CACHEKIT_TEST_FAULTS") == "all"
SAMPLE: Final = 6
BUDGET: Final = 8.0
FILES_BUDGET: Final = 15.0
"""Seconds for one telling: with an artifact's files 10 more, in which nothing moves."""

CALLS: list[int] = []


@distributed_cache(version="1", ignore="factor")
def value(x: int, factor: int) -> list[Any]:
    CALLS.append(x)
    return [x * factor, "v" * 4_000]


@persist_artifact(version="1", scratch="work")
def tree(name: str, work: Any = None) -> Path:
    CALLS.append(0)
    for number in "01":
        (work / name / number).mkdir(parents=True)
        (work / name / number / "part").write_bytes(f"{name}{number}".encode() * 1000)
    return Path(work / name)


def is_tree(found: object, name: str) -> bool:
    assert isinstance(found, Path)
    parts = {str(part.relative_to(found)): part.read_bytes() for part in found.glob("*/*")}
    return parts == {f"{number}/part": f"{name}{number}".encode() * 1000 for number in "01"}


class Story:
    """`act` is done through the relay; `before` and `after` in peace, by another machine or in another process."""

    def __init__(self) -> None:
        self.refused = ""
        self.degraded = False

    def before(self) -> None:
        """By another machine."""

    def mine(self) -> None:
        """By this machine, in peace."""

    def act(self) -> bool:
        """Whether what came was right."""
        return value(3, 1)[0] == 3

    def after(self) -> bool:
        """By another machine, once everything was sent."""
        return True

    def flushed(self) -> None:
        try:
            flush(3)
        except TierError as error:
            self.refused = error.reason

    def hits(self, found: object, *, right: object) -> bool:
        return found == right


class Miss(Story):
    """Nobody has it."""


class Hit(Story):
    """Another machine has it; who cannot ask pays for it."""

    def before(self) -> None:
        value(3, 1)

    def act(self) -> bool:
        found = value(3, 2)[0]
        self.degraded = found == 6
        return found in (3, 6)


class Flush(Story):
    def act(self) -> bool:
        found = value(3, 1)[0]
        self.flushed()
        return found == 3

    def after(self) -> bool:
        return value(3, 2)[0] == 3


class Invalidate(Story):
    def mine(self) -> None:
        value(3, 1)
        flush(10)

    def act(self) -> bool:
        value.invalidate(3, 1)
        self.flushed()
        return value(3, 2)[0] == 6

    def after(self) -> bool:
        return value(3, 4)[0] in (6, 12)


class Build(Story):
    def act(self) -> bool:
        found = is_tree(tree("model"), "model")
        self.flushed()
        return found

    def after(self) -> bool:
        before = len(CALLS)
        return is_tree(tree("model"), "model") and len(CALLS) == before


class Restore(Story):
    def before(self) -> None:
        tree("model")

    def act(self) -> bool:
        before = len(CALLS)
        found = is_tree(tree("model"), "model")
        self.degraded = len(CALLS) > before
        return found


class Fetch(Story):
    """Bytes by CID, there and back."""

    def act(self) -> bool:
        try:
            return fetch(store(b"bytes" * 100_000, pin=True, timeout=3), timeout=3) == b"bytes" * 100_000
        except TierError as error:
            self.refused = error.reason
            return True


class Sync(Hit):
    """What the others published is taken in before it is asked for."""

    def act(self) -> bool:
        try:
            sync()
        except TierError as error:
            self.refused = error.reason
        return super().act()


STORIES = {kind.__name__.lower(): kind for kind in (Miss, Hit, Flush, Invalidate, Build, Restore, Fetch, Sync)}


def tell(story: Story, place: Path, api: str, at: int, kind: str) -> tuple[int, str, str]:
    """One telling: how many requests there were, which one failed, and what was counted."""
    budget = FILES_BUDGET if isinstance(story, (Build, Restore)) else BUDGET
    namespace = f"{place.name}-{random.randrange(10**9)}"
    configure(dir=place / "other", ipfs_api=api, ipfs="rw", namespace=namespace)
    story.before()
    flush(10)
    configure(dir=place / "this")
    story.mine()
    with relaying(api, at, kind) as (relay, server):
        configure(ipfs_api=server.api)
        started, before = time.monotonic(), len(CALLS)
        assert story.act(), "a wrong value"
        took = time.monotonic() - started
        counted = {
            f"{tier}: {reason}": number
            for tier, reasons in stats().as_dict()["errors"].items()
            for reason, number in reasons.items()
        }
        assert took < budget, f"{took:.1f} s"
        configure(ipfs_api=api)
    flush(10)
    assert default().team.tier.pending() == 0  # type: ignore[union-attr]
    configure(dir=place / "third")
    assert story.after(), "another machine has another value"
    told = f"refused={story.refused!r} degraded={story.degraded} counted={counted} {took:.2f} s"
    return relay.seen, relay.failed, told
