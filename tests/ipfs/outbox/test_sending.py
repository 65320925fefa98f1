"""What the daemon keeps for us, and for how long: while it collects, when a pin's time is over, and what `gc` frees."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit import configure, distributed_cache, persist_artifact
from cachekit.cache.default import default
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.pins import ROOT as PINS
from cachekit.ipfs.index import publishing
from cachekit.ipfs.kubo.transport import KuboTransport
from cachekit.ipfs.sharing import writer_of
from cachekit.model import NANOSECONDS, Key, Record

LONG = 30.0
MIB = 1 << 20


@distributed_cache(version="1")
def passing(x: int, size: int = 1000) -> bytes:
    return os.urandom(size)


@distributed_cache(version="1", pin=True)
def lasting(x: int, size: int = 1000) -> bytes:
    return os.urandom(size)


@distributed_cache(version="1", pin="30d", ttl=None)
def monthly(x: int) -> bytes:
    return os.urandom(1000)


@persist_artifact(version="1", scratch="work")
def built(text: str, work: Any = None) -> Path:
    (Path(work) / "made").write_text(text * 100_000)
    return Path(work)


class Node:
    """The daemon as its owner sees it."""

    def __init__(self, api: str) -> None:
        self.transport = KuboTransport(api)

    def ask(self, call: str, **options: str) -> bytes:
        return self.transport._bytes(call, options, LONG, 1 << 24)

    def collect(self) -> None:
        self.ask("repo/gc", silent="true")

    def has(self, cid: str) -> bool:
        return self.transport.block_get(cid, timeout=LONG) is not None

    @contextmanager
    def collecting(self) -> Iterator[list[int]]:
        """One collection behind the other, from the first on, on a thread of their own; how many there were."""
        over, first, count = threading.Event(), threading.Event(), [0]

        def collect() -> None:
            while not over.is_set():
                self.collect()
                count[0] += 1
                first.set()

        thread = threading.Thread(target=collect, name="collecting")
        thread.start()
        try:
            assert first.wait(LONG)
            yield count
        finally:
            over.set()
            thread.join()


@pytest.fixture
def node(kubo_api: str) -> Node:
    return Node(kubo_api)


@pytest.fixture
def on(kubo_api: str, tmp_path: Path) -> Callable[..., Any]:
    """The settings of another cache directory at the daemon."""

    def configured(name: str, **more: Any) -> Any:
        common = {"ipfs": "rw", "ipfs_api": kubo_api, "ipfs_timeout": 10.0, "namespace": tmp_path.name[-20:]}
        return configure(dir=tmp_path / name, **{**common, **more})

    configured("one")
    return configured


# -- collections ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 2 * MIB])
def test_everything_is_published_while_collections_follow_each_other(
    node: Node, on: Callable[..., Any], size: int
) -> None:
    """Within the timeout; what is pinned stands, for others too, and nothing that anybody reads is wrong."""
    with node.collecting() as count:
        before = count[0]
        wanted = {x: lasting(x, size) for x in range(20 if size < MIB else 3)}
        unpinned = passing(1, size)
        tree = built("a").joinpath("made").read_text()
        cachekit.flush(LONG)
        assert count[0] > before
    assert default().team.tier.pending() == 0  # type: ignore[union-attr]
    node.collect()
    on("two")
    for x, value in wanted.items():
        assert lasting.peek(x, size) == value
    assert (built.peek("a") / "made").read_text() == tree
    assert passing.peek(1, size) in (cachekit.MISS, unpinned)


def test_a_collection_takes_what_is_not_pinned(node: Node, on: Callable[..., Any]) -> None:
    """It is a miss then; what is pinned survives."""
    value = lasting(1)
    passing(1)
    cachekit.flush(LONG)
    node.collect()
    on("two")
    assert passing.peek(1) is cachekit.MISS
    assert lasting.peek(1) == value


def test_bytes_stored_by_hand_stand_while_collections_follow_each_other(node: Node, on: Callable[..., Any]) -> None:
    """`store(pin=True)` stores and pins in one call."""
    with node.collecting():
        cids = {cachekit.store(data, pin=True): data for data in (os.urandom(1000), os.urandom(2 * MIB))}
    node.collect()
    assert {cid: cachekit.fetch(cid) for cid in cids} == cids


# -- references ----------------------------------------------------------------------------------------------


def test_one_content_of_two_namespaces_is_kept_for_the_second(node: Node, on: Callable[..., Any]) -> None:
    """Both pin one CID, because it is published as it is; unpinned in one, it stays, and goes with the other."""
    payload = os.urandom(1000)
    keys = [Key(f"{name}-{os.urandom(4).hex()}", os.urandom(32)) for name in ("one", "two")]
    tier = default().ready().team.tier  # type: ignore[union-attr]
    for key in keys:
        tier.put(key, Record("bytes", payload, time.time_ns(), pin=True), encrypt=False)
    cachekit.flush(LONG)
    (cid,) = {pin["cid"] for pin in cachekit.pins()}
    assert len(cachekit.pins()) == 2
    for key, kept in zip(keys, (True, False), strict=True):
        assert cachekit.unpin(key)
        cachekit.flush(LONG)
        node.collect()
        assert node.has(cid) == kept


# -- pins that end -------------------------------------------------------------------------------------------


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves this machine's clock on, by days."""
    real = time.time_ns

    def moved(days: float) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: real() + int(days * 86400 * NANOSECONDS))

    return moved


def test_a_pin_ends_when_its_time_is_over(node: Node, on: Callable[..., Any], later: Callable[[float], None]) -> None:
    """Let go of at the next flush; the entry goes on, as one that may be collected."""
    monthly(1)
    cachekit.flush(LONG)
    (pin,) = cachekit.pins()
    later(29)
    cachekit.flush(LONG)
    node.collect()
    assert node.has(pin["cid"])
    later(31)
    cachekit.flush(LONG)
    assert cachekit.pins() == []
    node.collect()
    assert not node.has(pin["cid"])


def test_a_pin_that_waits_is_unpinned_too(node: Node, on: Callable[..., Any]) -> None:
    """Before it was sent, whatever its time."""
    with default().ready().team.outbox.exclusive(Deadline(LONG)):  # type: ignore[union-attr]
        monthly(1)
        assert cachekit.unpin(monthly.key_for(1))
    cachekit.flush(LONG)
    assert cachekit.pins() == []


def test_any_member_lets_go_of_it(node: Node, on: Callable[..., Any], later: Callable[[float], None]) -> None:
    """The machine that pinned it never came back: another one's `gc` does, which knows it from the index alone."""
    monthly(1)
    cachekit.flush(LONG)
    (pin,) = cachekit.pins()
    on("two", ipfs="ro")
    cachekit.sync()
    assert "ipfs_pins" not in cachekit.gc()
    later(31)
    assert cachekit.gc()["ipfs_pins"] == 1
    assert not [name for name in node.transport.names(f"{PINS}/{pin['cid'][-2:]}", timeout=LONG) if pin["cid"] in name]
    node.collect()
    assert not node.has(pin["cid"])


def test_merged_segments_say_when_a_pin_ends(
    on: Callable[..., Any], later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who joins after the merging knows it as well; the end goes when its entry does."""
    monkeypatch.setattr(publishing, "COMPACT_AT", 2)
    monthly(1)
    for x in range(3):
        passing(x)
        cachekit.flush(LONG)
    on("two", ipfs="ro")
    cachekit.sync()
    later(31)
    assert cachekit.gc()["ipfs_pins"] == 1
    on("one")
    cachekit.invalidate(key=monthly.key_for(1))
    cachekit.flush(LONG)
    assert "ipfs_lines" not in cachekit.gc()


def test_a_later_pin_of_the_key_is_another_one(on: Callable[..., Any], later: Callable[[float], None]) -> None:
    """Computed again after 20 days it stays until the 50th, whatever the first one said."""
    monthly(1)
    cachekit.flush(LONG)
    later(20)
    monthly.refresh(1)
    cachekit.flush(LONG)
    later(31)
    cachekit.gc()
    assert len(cachekit.pins()) == 1
    later(51)
    cachekit.gc()
    assert cachekit.pins() == []


def test_who_fills_his_disk_from_the_team_keeps_it_until_then(on: Callable[..., Any]) -> None:
    """The record on another machine's disk ends its exemption at the same instant."""
    monthly(1)
    cachekit.flush(LONG)
    key = monthly.key_for(1)
    until = default().disk.get(key).pin  # type: ignore[union-attr]
    on("two")
    assert monthly.peek(1) is not cachekit.MISS
    assert default().disk.get(key).pin == until > time.time_ns()  # type: ignore[union-attr]


# -- what gc frees -------------------------------------------------------------------------------------------


def _entry(age: float, ttl: float, **more: Any) -> Record:
    created = time.time_ns() - int(age * NANOSECONDS)
    return Record("bytes", os.urandom(100), created, created + int(ttl * NANOSECONDS), **more)


def test_gc_says_what_it_freed(on: Callable[..., Any], later: Callable[[float], None]) -> None:
    """Bytes and entries here, rows of the index, and what is let go of in IPFS."""
    with configure(ttl="1h"):
        values = [passing(x, 50_000) for x in range(5)]
        lasting(1)
    with configure(ttl="none"):
        passing(100)
    cachekit.flush(LONG)
    cachekit.unpin(lasting.key_for(1))
    later(1)
    freed = cachekit.gc()
    assert freed["dropped"] == 6
    assert freed["disk_bytes"] > sum(map(len, values)) / 2
    assert (freed["index_rows"], freed["ipfs_pins"]) == (6, 1)
    assert freed["ipfs_lines"] == 6
    assert "ipfs_lines" not in cachekit.gc()
    on("two")
    assert passing.peek(100) is not cachekit.MISS


def test_without_a_daemon_gc_does_the_rest(on: Callable[..., Any]) -> None:
    """Its absence is counted, and no reason to keep what is on this disk."""
    on("two", ipfs_api="/ip4/127.0.0.1/tcp/9")
    with configure(ttl=0):
        passing(1)
    assert cachekit.gc()["dropped"] == 1


def test_a_writer_has_few_segments_whenever_flush_returns(
    on: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often: at most 64, and every entry is found by another machine."""
    monkeypatch.setattr(publishing, "COMPACT_AT", 8)
    team = default().ready().team
    assert team is not None
    key = [Key("often", os.urandom(32)) for _ in range(40)]
    for one in key:
        team.tier.put(one, _entry(0, 60))
        cachekit.flush(LONG)
        place = f"{publishing.path_of(team.table, 'often')}/{writer_of(team.credential).id}"
        assert len(team.transport.names(place, timeout=LONG)) <= 8
    on("two")
    tier = default().ready().team.tier  # type: ignore[union-attr]
    assert all(tier.get(one) for one in key)


def test_who_forgot_how_far_it_was_goes_on_above(
    on: Callable[..., Any], later: Callable[[float], None], tmp_path: Path
) -> None:
    """All that a writer published is dead and taken out; with its index gone it does not begin again at 1."""
    for x in range(3):
        passing(x)
        cachekit.flush(LONG)
    on("two")
    cachekit.sync()
    on("one")
    later(40)
    assert cachekit.gc()["ipfs_segments"] == 2
    on("three")
    value = passing(1)
    cachekit.flush(LONG)
    on("two")
    assert passing.peek(1) == value


# -- how it is said ------------------------------------------------------------------------------------------


def test_a_duration_is_normalised_once() -> None:
    """Text, seconds and timedelta; nothing is never, and what is no time is the caller's mistake."""
    from datetime import timedelta

    from cachekit.calls.policy import policy_of
    from cachekit.errors import UsageError

    said = ["30d", timedelta(days=30), 30 * 86400, True, False, 0]
    assert [policy_of(pin=pin).pin for pin in said] == [30 * 86400.0] * 3 + [True, False, False]
    assert [policy_of(pin=pin).pin is True for pin in ("1s", 1, True)] == [False, False, True]
    for wrong in (None, "forever", "soon", -1, [1]):
        with pytest.raises(UsageError, match="pin="):
            policy_of(pin=wrong)


def test_a_record_says_until_when(tmp_path: Path) -> None:
    """On disk as in memory; one that ended is evicted as any other, one that goes on is not."""
    from cachekit.tiers.disk import DiskTier

    tier = DiskTier(tmp_path / "disk", 1)
    (tmp_path / "disk").mkdir()
    now = time.time_ns()
    kept = {Key("n", os.urandom(32)): pin for pin in (True, now + 60 * NANOSECONDS)}
    gone = {Key("n", os.urandom(32)): pin for pin in (False, now - NANOSECONDS)}
    for key, pin in {**kept, **gone}.items():
        record = replace(_entry(0, 60), pin=pin)
        tier.put(key, record)
        assert tier.get(key) == record
    assert sorted(header.pin for _, header in tier.entries()) == sorted([*kept.values(), *gone.values()])
    tier.cull()
    assert {digest for digest, _ in tier.entries()} == {key.digest for key in kept}
    tier.close()
