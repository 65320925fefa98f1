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
from relaying import FAULTS, Relay, relaying

from cachekit import TierError, configure, distributed_cache, fetch, flush, persist_artifact, stats, store, sync
from cachekit.cache.default import default

EVERY: Final = os.environ.get("CACHEKIT_TEST_FAULTS") == "all"
FLUSHING: Final = 1.0
"""Seconds that a flush may take, on which the budget of a telling is built."""

CALLS: list[int] = []
TOLD = [""]


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

    budget = FLUSHING + 4.0

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
            flush(FLUSHING)
        except TierError as error:
            self.refused = error.reason


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
    budget = Story.budget + 10.0

    def before(self) -> None:
        tree("model")

    def act(self) -> bool:
        before = len(CALLS)
        found = is_tree(tree("model"), "model")
        self.degraded = len(CALLS) > before
        return found


class Fetch(Story):
    """Bytes by CID, there and back."""

    budget = Story.budget + FLUSHING

    def act(self) -> bool:
        try:
            return fetch(store(b"bytes" * 100_000, pin=True, timeout=FLUSHING), timeout=FLUSHING) == b"bytes" * 100_000
        except TierError as error:
            self.refused = error.reason
            return True


class Sync(Hit):
    """What the others published is taken in before it is asked for, which may take 10 s for each namespace."""

    budget = Story.budget + 10.0

    def act(self) -> bool:
        try:
            sync()
        except TierError as error:
            self.refused = error.reason
        return super().act()


STORIES = {kind.__name__.lower(): kind for kind in (Miss, Hit, Flush, Invalidate, Build, Restore, Fetch, Sync)}


def tell(story: Story, place: Path, api: str, at: int | str, kind: str) -> Relay:
    """One telling, by three machines: another one's `before`, this one's `act` through the relay, a third one's `after`."""
    configure(dir=place / "other", ipfs_api=api, ipfs="rw", namespace=f"{place.name} {time.time_ns()}")
    story.before()
    flush(10)
    configure(dir=place / "this")
    story.mine()
    with relaying(api, at, kind) as relay:
        configure(ipfs_api=relay.api)
        started = time.monotonic()
        assert story.act(), "a wrong value"
        took = time.monotonic() - started
        counted = [
            (tier, why, n) for tier, reasons in stats().as_dict()["errors"].items() for why, n in reasons.items()
        ]
        configure(ipfs_api=api)
    TOLD[:] = [f"{relay.failed}, {took:.2f} s, {counted or 'nothing'} counted, {story.refused or 'nothing'} raised"]
    assert took < story.budget, "too slow"
    reasons = sum(number for _, _, number in counted)
    assert reasons <= 1, "one fault, one reason"
    assert reasons or story.refused or not story.degraded, "worse for it, and not counted"
    flush(10)
    assert default().team.tier.pending() == 0  # type: ignore[union-attr]
    configure(dir=place / "third")
    assert story.after(), "another machine has another value"
    return relay


def chosen(lines: list[str], name: str, kind: str) -> list[int]:
    """The requests to let fail: all of them, or one; then none that is waited for as long as 10 s."""
    numbers = range(1, len(lines) + 1)
    if EVERY:
        return list(numbers)
    quick = [at for at in numbers if kind != "hang" or not (name == "sync" or "/cat?" in lines[at - 1])]
    return random.Random(f"{name} {kind}").sample(quick, min(1, len(quick)))


@pytest.mark.parametrize("name", STORIES)
def test_the_nth_request_fails(name: str, own_cache: Path, kubo_api: str) -> None:
    """Whichever it is, in whatever way: the value is right here and elsewhere, in time, and one reason is counted or raised."""
    lines = tell(STORIES[name](), own_cache / name, kubo_api, 0, "reset").lines
    broken, told = list[str](), 0
    for kind in FAULTS:
        for at in chosen(lines, name, kind):
            told += 1
            try:
                tell(STORIES[name](), own_cache / f"{name} {kind} {at}", kubo_api, at, kind)
            except Exception as error:  # all of them are told together
                broken.append(f"{kind} {at}: {TOLD[-1]}: {type(error).__name__}: {str(error).splitlines()[0]}")
    assert not broken, f"{len(broken)} of {told}:\n" + "\n".join(broken)


@pytest.mark.parametrize("call", ["pin/ls?", "add?", "files/cp?", "files/write?"])
def test_an_answer_that_breaks_off_loses_no_artifact(call: str, own_cache: Path, kubo_api: str) -> None:
    """It stays queued, whichever answer that was, and the other machines get it with the next flush."""
    assert tell(Build(), own_cache, kubo_api, f"/{call}", "cut").failed


@pytest.mark.parametrize("call", ["pin/ls?", "add?"])
def test_a_flush_of_files_is_over_in_time(call: str, own_cache: Path, kubo_api: str) -> None:
    """Also where the daemon hangs while it is asked about the files of an artifact, or takes them."""
    assert tell(Build(), own_cache, kubo_api, f"/{call}", "hang").failed


def test_a_lookup_that_has_no_time_for_the_index_is_counted(own_cache: Path, kubo_api: str) -> None:
    """Also where another thread reads it, and hangs: the call pays, and says why."""
    assert tell(Hit(), own_cache, kubo_api, "/files/read?", "hang").failed
