"""Six stories, each in a child that is killed at a random instant; another child then looks at what it left.

A program of its own (`main`), warm and with nothing open, so that a child costs a fork and no start of Python.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import math
import mmap
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Final
from unittest import mock

from injecting import Fault, failing_files, failing_statements

from cachekit import configure, distributed_cache, flush, gc, persist_artifact, restore, stats, unpin
from cachekit.artifacts.store import ArtifactStore
from cachekit.cache import operations
from cachekit.cache.default import default
from cachekit.cli.doctor import examine
from cachekit.ipfs.content.pins import ROOT

SECONDS: Final = 20.0
"""For one child: none takes one, unless it hangs."""
BUDGET: Final = 5.0
"""For a call after a kill: nobody waits for the dead."""
LATER: Final = 25 * 3600 * 10**9
"""Nanoseconds until what a dead process left may go."""
COLLECTING: Final = 8
"""Kills between two collections."""
KEPT: Final = (
    *("CACHEDIR.TAG", ".gitignore", "cachekit-format", "generation", "leases", "outbox.lock"),
    *(f"{name}.db{end}" for name in ("cache", "ledger", "index", "outbox") for end in ("", "-wal", "-shm")),
    *("artifacts", "digests", "notes"),
)

PLACE: Final = Path(os.environ.get("CACHEKIT_DIR", "."))
CALLS: list[str] = []
OTHERS: set[str] = set()
"""What others had the daemon keep before we came."""


@distributed_cache(version="1", ignore="factor")
def value(name: str, factor: int) -> list[Any]:
    CALLS.append(name)
    return [factor, name * (40_000 if name.endswith("0") else 900)]


@distributed_cache(version="1", ignore="factor", pin=True)
def pinned(name: str, factor: int) -> list[Any]:
    CALLS.append(name)
    return [factor, name * 90]


@persist_artifact(version="1", scratch="work")
def tree(name: str, size: int, work: Any = None) -> Path:
    CALLS.append(name)
    for number in range(3):
        (work / name / str(number)).mkdir(parents=True)
        (work / name / str(number) / "part").write_bytes(content(name, number, size))
    (work / name / "0" / "part").chmod(0o755)
    return Path(work / name)


def content(name: str, number: int, size: int) -> bytes:
    return f"{name} {number} ".encode() * (size // len(name))


def is_whole(place: Path, name: str, size: int) -> bool:
    parts = {str(part.relative_to(place)): part.read_bytes() for part in place.glob("*/*")}
    return parts == {f"{number}/part": content(name, number, size) for number in range(3)}


class Story:
    """`act` is killed in the midst of its n-th time; `check` knows how many were done."""

    ipfs = False

    def __init__(self, turn: int) -> None:
        self.turn = turn
        self.place = PLACE / f"{turn // COLLECTING}"

    def name(self, n: int) -> str:
        return f"{self.turn}-{n}0" if n % 2 else f"{self.turn}-{n}1"

    def names(self, done: int) -> dict[str, bool]:
        """What to look at, and whether it was done. Every other time nobody ever asks again for what was killed."""
        again = {self.name(done): False} if self.turn % 2 else {}
        return {**{self.name(n): True for n in range(done)}, **again, f"{self.turn}-next": False}

    def at(self, place: Path) -> None:
        """From now on in `place`, in a cache that is opened anew."""
        os.environ["CACHEKIT_DIR"] = str(place)
        configure()

    def before(self) -> None:
        """In peace."""

    def act(self, n: int) -> None:
        value(self.name(n), 1)

    def check(self, done: int) -> None:
        """In another process."""
        self.are_kept(value, self.names(done))

    def are_kept(self, function: Any, names: dict[str, bool]) -> None:
        """What was paid for is not paid for again; the values are some that were computed, and the next calls hit."""
        found = dict[str, Any]()
        for name, paid in names.items():
            started = time.monotonic()
            found[name] = function(name, 2)
            assert time.monotonic() - started < BUDGET, f"{time.monotonic() - started:.1f} s"
            factor, text = found[name]
            assert factor in ((1,) if paid else (1, 2)), f"{name}: {factor}"
            assert text == name * (len(text) // len(name)), "another value"
        self.at(Path(os.environ["CACHEKIT_DIR"]))
        before = len(CALLS)
        assert {name: function(name, 3) for name in names} == found, "other values the next time"
        assert len(CALLS) == before, "not hits the next time"


class Store(Story):
    pass


class Hit(Story):
    def before(self) -> None:
        value(self.name(0), 1)
        value(self.name(1), 1)

    def act(self, n: int) -> None:
        self.at(self.place)
        value(self.name(n % 2), 5)

    def check(self, _done: int) -> None:
        self.are_kept(value, {self.name(0): True, self.name(1): True})


class Invalidate(Story):
    """What is invalidated is never told again, from the moment that `invalidate` returned."""

    def act(self, n: int) -> None:
        value(self.name(0), n)
        value.invalidate(self.name(0), 0)

    def check(self, done: int) -> None:
        found = value(self.name(0), -1)[0]
        assert found in (-1, done), f"{found}, where {done} were invalidated"
        value.invalidate(self.name(0), 0)
        assert value(self.name(0), -2)[0] == -2


class Flush(Story):
    """What was flushed is the team's; what was not is with the next flush, and nothing is pinned that nobody refers to."""

    ipfs = True

    def act(self, n: int) -> None:
        pinned(self.name(n), 1)
        flush(5)

    def check(self, done: int) -> None:
        flush(10)
        assert default().team.tier.pending() == 0  # type: ignore[union-attr]
        self.at(PLACE / "other")
        self.are_kept(pinned, self.names(done))
        for name in {**self.names(done), self.name(done): False}:
            unpin(pinned.key_for(name, 0))
        flush(10)
        assert operations.pins() == []
        assert not (left := held() - OTHERS), f"held in the daemon: {left}"


class Build(Story):
    size = 30_000

    def act(self, n: int) -> None:
        tree(self.name(n), self.size)

    def check(self, done: int) -> None:
        for standing in (self.place / "artifacts" / "trees").glob("??/*/*"):
            assert is_whole(standing, standing.name, self.size), f"half of {standing.name}"
        self.are_there(self.names(done))

    def are_there(self, names: dict[str, bool]) -> None:
        for name, paid in names.items():
            started, before = time.monotonic(), len(CALLS)
            assert is_whole(tree(name, self.size), name, self.size)
            assert time.monotonic() - started < BUDGET, f"{time.monotonic() - started:.1f} s"
            assert not paid or len(CALLS) == before, "built again"
        self.at(Path(os.environ["CACHEKIT_DIR"]))
        before = len(CALLS)
        assert all(is_whole(tree(name, self.size), name, self.size) for name in names)
        assert len(CALLS) == before, "not hits the next time"


class Restore(Build):
    """From the daemon, and to a place of the user's, which holds all of it, or what it held, or nothing."""

    ipfs = True
    size = 1_000_000

    def before(self) -> None:
        if not (PLACE / "other").exists():
            self.at(PLACE / "other")
            tree("model", self.size)
            flush(30)
            self.at(self.place)

    def act(self, n: int) -> None:
        key = tree.key_for("model", self.size)
        store = default().artifacts
        assert isinstance(store, ArtifactStore)
        for manifest, _ in list(store.entries()):
            store.remove(manifest.digest)
        default().disk.drop(key)  # type: ignore[union-attr]
        default().memory.clear()  # type: ignore[union-attr]
        restore(key, PLACE / "out" / "model")
        with Death.latest.peace():
            shutil.rmtree(PLACE / "out" / "moved", ignore_errors=True)
            (PLACE / "out" / "model").rename(PLACE / "out" / "moved")
            (PLACE / "out" / "model").mkdir()
            (PLACE / "out" / "model" / "mine").write_text("")

    def check(self, _done: int) -> None:
        output = PLACE / "out" / "model"
        mine = [path.name for path in output.glob("*")] in ([], ["mine"])
        assert mine or is_whole(output, "model", self.size), "half of it"
        self.are_there({"model": True} if self.turn % 2 else {})
        restore(tree.key_for("model", self.size), output)
        assert is_whole(output, "model", self.size)
        with mock.patch("time.time_ns", lambda now=time.time_ns: now() + LATER):
            restore(tree.key_for("model", self.size), PLACE / "out" / "again")
        aside = [path for path in (PLACE / "out").iterdir() if path.name not in ("model", "again", "moved")]
        assert all([*path.iterdir()] == [path / "mine"] for path in aside), f"nobody ever sweeps {aside}"
        shutil.rmtree(PLACE / "out")
        self.are_kept(value, {"0": False})


KINDS = {kind.__name__.lower(): kind for kind in (Store, Hit, Invalidate, Flush, Build, Restore)}


def looked_after(story: Story, done: int) -> dict[str, Any]:
    """All that has to be so after a kill; what was counted meanwhile."""
    story.at(story.place)
    story.check(done)
    counted = stats().as_dict()
    story.at(story.place)
    failed = [finding for finding in examine(os.environ, default) if finding.state == "failed"]
    assert all(finding.remedy for finding in failed), failed
    left = {"leftovers": 0}
    if (story.turn + 1) % COLLECTING == 0:
        with mock.patch("time.time_ns", lambda now=time.time_ns: now() + LATER):
            left = gc()
        assert not (more := sorted(strays(story.place))), f"left after gc: {more[:9]}"
    return {
        "errors": {tier: list(reasons) for tier, reasons in counted["errors"].items() if reasons},
        "left": left["leftovers"],
        "doctor": [finding.text for finding in failed],
    }


def held() -> set[str]:
    """What the daemon keeps for those who use cachekit."""
    transport = operations.ipfs().transport
    shelves = transport.names(ROOT, timeout=5)
    links = {f"link {name}" for shelf in shelves for name in transport.names(f"{ROOT}/{shelf}", timeout=5)}
    pinned = transport.ask("pin/ls", {"type": "recursive", "names": "true"}, 5)["Keys"]
    return links | {f"pin {cid}" for cid, pin in pinned.items() if pin.get("Name", "").startswith("cachekit/")}


def strays(place: Path) -> Iterator[str]:
    """What lies in a cache directory and belongs to nothing."""
    with contextlib.closing(sqlite3.connect(place / "cache.db")) as connection:
        named = {name for (name,) in connection.execute("SELECT filename FROM Cache WHERE filename IS NOT NULL")}
    for path in place.iterdir():
        if path.name not in KEPT and len(path.name) != 2:
            yield path.name
    yield from {str(path.relative_to(place)) for path in place.glob("??/*/*")} ^ named
    for inside in ("digests/tmp", "notes/tmp", "artifacts/tmp", "artifacts/scratch", "artifacts/partial"):
        yield from (str(path.relative_to(place)) for path in (place / inside).glob("*"))
    artifacts = place / "artifacts"
    there = {path.parent.name for path in artifacts.glob("trees/??/*/*")}
    described = {path.name.split("-")[0] for path in artifacts.glob("notes/??/*")}
    yield from (f"note or tree {name}" for name in there ^ described)
    yield from (f"empty {path.name}" for path in artifacts.glob("trees/??/*") if not any(path.iterdir()))
    used = {file.sha256 for manifest, _ in ArtifactStore(artifacts).entries() for file in manifest.regular}
    yield from (f"blob {path.name}" for path in artifacts.glob("blobs/??/*") if path.name not in used)


class Child:
    """A forked process that does `work`, and tells what that returned or raised."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.read, write = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                faulthandler.dump_traceback_later(SECONDS, exit=True)
                os.write(write, json.dumps({"told": work()}).encode())
            except BaseException:  # told to the parent
                os.write(write, json.dumps({"raised": traceback.format_exc()[-2500:]}).encode())
            finally:
                os._exit(0)
        os.close(write)

    def ended(self) -> tuple[int, Any]:
        """The signal that ended it, 0 for none, and what it told."""
        with os.fdopen(self.read) as stream:
            text = stream.read()
        signalled = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        told = json.loads(text) if text else {}
        assert "raised" not in told, told["raised"]
        return -signalled, told.get("told")


class Death(Fault):
    """The process is killed before its n-th operation on files or SQLite."""

    latest: Death

    def pass_by(self, what: str, error: Callable[[], Exception]) -> None:
        self.seen += not self.resting
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def acting(story: Story, progress: mmap.mmap, operation: int = 0, acts: float = math.inf) -> int:
    """The story again and again; how many operations that were. Killed before number `operation`, unless that is 0."""
    death = Death.latest = Death(PLACE, operation)
    story.at(story.place)
    story.before()
    with contextlib.ExitStack() as stack:
        if operation or acts == 1:
            stack.enter_context(failing_files(death))
            stack.enter_context(failing_statements(death))
            story.at(story.place)
        progress[4] = 1
        for n in takewhile(lambda n: n < acts, count()):
            story.act(n)
            progress[:4] = (n + 1).to_bytes(4, "big")
    return death.seen


def one(kind: type[Story], turn: int, delay: float, operation: int = 0) -> tuple[int, dict[str, Any]]:
    """One kill, `delay` seconds after `before` or before an operation: the acts that were done, and what was counted then."""
    progress = mmap.mmap(-1, 8)
    victim = Child(lambda: acting(kind(turn), progress, operation))
    end = time.monotonic() + SECONDS
    while not (operation or progress[4]) and time.monotonic() < end:
        time.sleep(0.0002)
    if not operation:
        time.sleep(delay)
        os.kill(victim.pid, signal.SIGKILL)
    assert victim.ended()[0] == signal.SIGKILL
    done = int.from_bytes(progress[:4], "big")
    told = Child(lambda: looked_after(kind(turn), done)).ended()[1]
    assert told is not None, "the other process hangs: see stderr"
    return done, told


def warmed(kind: type[Story]) -> float:
    """Has this process import what such a child does; how long the first act takes then."""

    def first(turn: int) -> tuple[float, list[str]]:
        story = kind(turn)
        story.at(story.place)
        story.before()
        started = time.monotonic()
        story.act(0)
        seconds = time.monotonic() - started
        looked_after(story, 1)
        return seconds, sorted(sys.modules)

    Death.latest = Death(PLACE, 0)
    for name in Child(lambda: first(10**6)).ended()[1][1]:
        with contextlib.suppress(ImportError):
            __import__(name)
    seconds: float = Child(lambda: first(10**6 + 1)).ended()[1][0]
    shutil.rmtree(PLACE)
    return seconds


def main(name: str, kills: int, seed: int, operations: int = 0) -> None:
    """So many kills at random instants, then so many before an operation, of all that the first act has.

    Prints one line of JSON: what went wrong, and the figures.
    """
    kind, chance, started = KINDS[name], random.Random(f"{name} {seed}"), time.monotonic()
    if kind.ipfs:
        OTHERS.update(Child(lambda: sorted(held())).ended()[1])
    usual = warmed(kind)
    many = Child(lambda: acting(kind(10**6), mmap.mmap(-1, 8), acts=1)).ended()[1]
    ways = [(chance.random() * 2.5 * usual, 0) for _ in range(kills)]
    ways += [(0.0, at) for at in sorted(chance.sample(range(1, many + 1), min(many, operations)))]
    broken, counted, figures = list[str](), Counter[str](), Counter[str]()
    for turn, (delay, at) in enumerate(ways):
        try:
            done, told = one(kind, turn, delay, at)
        except AssertionError as error:
            broken.append(f"kill {turn}, after {delay * 1e3:.2f} ms or at operation {at} of {many}: {error}")
            continue
        figures.update(acts=done, left=told["left"])
        counted.update(f"{tier}: {reason}" for tier, reasons in told["errors"].items() for reason in reasons)
        counted.update(f"doctor: {text}" for text in told["doctor"])
    figures.update(
        kills=len(ways), operations=many, act_ms=round(usual * 1e3), seconds=round(time.monotonic() - started)
    )
    print(json.dumps({"broken": broken, "counted": counted, "figures": figures}))
