"""Six stories, told again and again, each time with another operation failing: the value is right, and a reason is counted.

`CACHEKIT_TEST_FAULTS=all` fails every operation; without it a sample of them.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any, Final

import pytest
from injecting import Fault, failing_files, failing_statements

from cachekit import UsageError, configure, distributed_cache, flush, persist_artifact, stats

EVERY: Final = os.environ.get("CACHEKIT_TEST_FAULTS") == "all"
SAMPLE: Final = 24
BUDGET: Final = 8.0
"""Seconds for one telling: a store that waits for a lock takes a fraction of one."""

CALLS: list[int] = []
FAULTS: list[Fault] = []


@distributed_cache(version="1", ignore="factor")
def value(x: int, factor: int) -> list[Any]:
    CALLS.append(x)
    return [x * factor, "v" * 40_000]


@persist_artifact(version="1", scratch="work")
def tree(name: str, work: Any = None) -> Path:
    CALLS.append(0)
    with FAULTS[-1].peace():
        for number in "01":
            (work / name / number).mkdir(parents=True)
            (work / name / number / "part").write_bytes(name.encode() * 1000)
    return Path(work / name)


class Story:
    """`act` is done with the fault, and what it returns is looked at; `before` and `after`, in a cache opened anew, in peace."""

    refused = False

    def before(self) -> None:
        """What stands in the directory already."""

    def act(self) -> object:
        return value(3, 1)[0]

    def is_right(self, found: object) -> bool:
        return found == 3

    def after(self) -> object:
        return self.act()


class Store(Story):
    pass


class Hit(Story):
    def before(self) -> None:
        self.act()


class Invalidate(Story):
    """An invalidation that returns holds; one that cannot be written says so."""

    def before(self) -> None:
        value(3, 1)

    def act(self) -> object:
        try:
            value.invalidate(3, 1)
        except UsageError:
            self.refused = True
        return self.after()

    def is_right(self, found: object) -> bool:
        return found == 6 or (self.refused and found == 3)

    def after(self) -> object:
        return value(3, 2)[0]


class Flush(Story):
    def act(self) -> object:
        found = value(3, 1)[0]
        flush(5)
        return found


class Build(Story):
    def act(self) -> object:
        return tree("model")

    def is_right(self, found: object) -> bool:
        assert isinstance(found, Path)
        return {one.name: (one / "part").read_bytes() for one in found.iterdir()} == dict.fromkeys(
            "01", b"model" * 1000
        )


class Restore(Build):
    def before(self) -> None:
        self.act()


STORIES = {kind.__name__.lower(): kind for kind in (Store, Hit, Invalidate, Flush, Build, Restore)}
KINDS = {
    "files": (failing_files, errno.EIO),
    "full": (failing_files, errno.ENOSPC),
    "descriptors": (failing_files, errno.EMFILE),
    "statements": (failing_statements, 0),
}


def tell(story: Story, place: Path, at: int, kind: str) -> Fault:
    """One telling: what was to fail, and did if there are so many operations."""
    failing, number = KINDS[kind]
    fault = Fault(place, at, number)
    FAULTS[:] = [fault]
    configure(dir=place)
    story.before()
    configure(memory_limit="1MB")
    started = time.monotonic()
    with failing(fault):
        found = story.act()
    assert time.monotonic() - started < BUDGET, f"{time.monotonic() - started:.1f} s"
    assert story.is_right(found), f"{found!r} is wrong"
    counted = stats().as_dict()
    configure(memory_limit="2MB")
    calls = len(CALLS)
    assert story.is_right(found := story.after()), f"{found!r} is wrong, afterwards"
    told = counted["errors"] or counted["bypasses"] or counted["skipped"] or story.refused
    assert not fault.failed or told or len(CALLS) == calls, "not counted, and not stored"
    return fault


def numbers(count: int) -> range:
    return range(1, count + 1, 1 if EVERY else max(1, count // SAMPLE))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STORIES)
def test_the_nth_operation_fails(name: str, kind: str, own_cache: Path) -> None:
    """Whichever it is: nothing is raised, the value is right, then and in the next cache, and it is counted or costs nothing."""
    count = tell(STORIES[name](), own_cache / "0", 0, kind).seen
    assert count
    broken: list[str] = []
    for at in numbers(count):
        try:
            tell(STORIES[name](), own_cache / str(at), at, kind)
        except Exception as error:  # all of them are told together
            broken.append(f"{at} of {count}: {FAULTS[-1].failed}: {type(error).__name__}: {str(error).splitlines()[0]}")
    assert not broken, "\n".join(broken)
