"""The IPFS tier over each engine, a real Kubo and a real directory: two machines with one credential share one of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cachekit.errors import IntegrityError, TierError, TierUnavailable, UsageError
from cachekit.ipfs.breaker import Breaker
from cachekit.ipfs.content.cids import binary_cid, file_cid, raw_cid
from cachekit.ipfs.content.engine import Engine
from cachekit.ipfs.content.unixfs import read_file
from cachekit.ipfs.directory.layout import sharded
from cachekit.ipfs.directory.mounted import Mounted
from cachekit.ipfs.index.rows import cid_of
from cachekit.ipfs.index.shelves import ROOT
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.kubo.transport import KuboTransport
from cachekit.ipfs.outbox.queue import Outbox
from cachekit.ipfs.tier import IpfsTier
from cachekit.ipfs.trust.credential import Credential, WriterKey
from cachekit.model import NANOSECONDS, Key, Mark, Record

MIB = 1 << 20
LONG = 20.0
_CHILD = """
import os, sys, time
from pathlib import Path
from cachekit.model import Key, Record
from cachekit.ipfs.outbox.queue import Outbox
outbox = Outbox(Path(sys.argv[1]) / "outbox.db")
key = Key("team", bytes.fromhex(sys.argv[2]))
outbox.add(key, Record("text", b"survived", time.time_ns()))
print("queued", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from cachekit.ipfs.node import daemon
    from cachekit.ipfs.node import install as nodes

    home = tmp_path_factory.mktemp("kubo")
    yield daemon.start(home, binary=Path(nodes.install(home).path))
    daemon.stop(home)


@pytest.fixture(params=["kubo", "directory"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "kubo":
        engine: Engine = KuboTransport(request.getfixturevalue("node").api)
    else:
        (tmp_path / "store").mkdir()
        engine = Mounted((tmp_path / "store").as_uri())
    yield engine
    engine.close()


@pytest.fixture
def lose(engine: Engine, tmp_path: Path) -> Callable[[str], object]:
    """Takes a block away, as a collection does."""
    from cachekit.ipfs.node.process import rpc

    if engine.kind == "Kubo":
        return lambda cid: rpc(engine.api, "block/rm", {"arg": cid})
    return lambda cid: (tmp_path / "store" / "/".join(sharded("blocks", cid))).unlink()


class Counting:
    """A real engine that also says which calls were made."""

    def __init__(self, transport: Engine) -> None:
        self._transport = transport
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._transport, name)


class Machine:
    """A cache directory, its tier, and what was reported."""

    def __init__(
        self, home: Path, transport: Any, credential: Credential, *, writable: bool = True, config: Path | None = None
    ) -> None:
        home.mkdir(exist_ok=True)
        self.home, self.config, self.credential = home, config or home / "config", credential
        self.transport: Any = Counting(transport)
        self.reports: list[str] = []
        self.heard: list[Mark] = []
        self.table = Table(home / "index.db", credential, self.reports.append, self.heard.extend)
        self.outbox = Outbox(home / "outbox.db", self.reports.append)
        self.breaker = Breaker(transport.version)
        self.tier = IpfsTier(
            self.transport,
            self.table,
            self.outbox,
            self.breaker,
            writable=writable,
            timeout=5.0,
            writer=self.writer,
            report=self.reports.append,
        )

    def writer(self) -> WriterKey:
        return WriterKey.load(self.config, self.credential)

    def space(self, namespace: str = "team") -> str:
        return f"{ROOT}/{self.credential.namespace_id(namespace)}"

    def own(self, namespace: str = "team") -> str:
        return f"{self.space(namespace)}/{self.writer().id}"

    def names(self) -> list[str]:
        return sorted(name for name, _, _ in self.transport.list(self.own(), timeout=LONG) or [])

    def close(self) -> None:
        self.tier.close()
        self.breaker.close()
        self.table.close()
        self.outbox.close()


@pytest.fixture
def machine(tmp_path: Path, engine: Engine) -> Iterator[Callable[..., Machine]]:
    made: list[Machine] = []

    def make(name: str, credential: Credential, **options: Any) -> Machine:
        transport = options.pop("transport", engine)
        made.append(Machine(tmp_path / name, transport, credential, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def pair(machine: Callable[..., Machine]) -> tuple[Machine, Machine]:
    credential = Credential.create()
    return machine("a", credential), machine("b", credential)


def _key(namespace: str = "team") -> Key:
    return Key(namespace, os.urandom(32))


def _got(machine: Machine, key: Key) -> Record:
    """What the tier has, but for the tags by which it ends when its writer is distrusted."""
    found = machine.tier.get(key)
    assert found is not None
    return replace(found, tags=())


def _record(payload: bytes = b"an answer", **changes: Any) -> Record:
    return Record("text", payload, changes.pop("created", None) or time.time_ns(), seconds=1.5, **changes)


def _put(one: Machine, key: Key, record: Record, *, encrypt: bool = True) -> None:
    # Into the queue, not through `put`: the test says when it is sent.
    one.outbox.add(key, record, encrypt=encrypt)
    one.tier.flush(LONG)


def _pinned(engine: Engine, cid: str) -> bool:
    return engine.pinned(cid, timeout=LONG) is not None


def test_what_one_machine_stored_another_gets(pair: tuple[Machine, Machine]) -> None:
    """Same codec, payload and times, through put, flush and get; the codec does not show in the segment."""
    a, b = pair
    key, record = _key(), _record(os.urandom(2048), expires=time.time_ns() + 60 * NANOSECONDS, grace=2.0)
    a.tier.put(key, record)
    a.tier.flush(LONG)
    assert _got(b, key) == record
    assert a.tier.pending() == 0


def test_a_put_is_sent_without_a_flush(pair: tuple[Machine, Machine]) -> None:
    """The background thread empties the queue."""
    a, b = pair
    key, record = _key(), _record()
    a.tier.put(key, record)
    _await(lambda: a.tier.pending() == 0)
    assert _got(b, key) == record


def test_a_payload_of_5_mib_comes_back(pair: tuple[Machine, Machine]) -> None:
    """Above one block it travels as a file, encrypted or not."""
    a, b = pair
    for encrypt in (True, False):
        key, record = _key(), _record(os.urandom(5 * MIB))
        _put(a, key, record, encrypt=encrypt)
        assert _got(b, key) == record


def test_payloads_around_one_block_come_back(pair: tuple[Machine, Machine]) -> None:
    """The step from block to file is no gap."""
    a, b = pair
    for size in (0, MIB - 34, MIB - 33, MIB - 32, MIB - 5, MIB):
        key, record = _key(), _record(os.urandom(size))
        _put(a, key, record)
        assert _got(b, key) == record


def test_equal_content_is_stored_once_and_unreadable(pair: tuple[Machine, Machine], engine: Engine) -> None:
    """Two keys with one value share one CID, and its block does not show the value."""
    a, _ = pair
    first, second, payload = _key(), _key(), b"plain words " * 20
    _put(a, first, _record(payload))
    _put(a, second, _record(payload))
    entries = [a.table.find("team", key.digest) for key in (first, second)]
    cids = {cid_of(entry) for entry in entries if entry}
    assert len(cids) == 1
    assert b"plain words" not in (engine.block_get(cids.pop(), timeout=LONG) or b"")


def test_unencrypted_is_a_publication(pair: tuple[Machine, Machine], engine: Engine) -> None:
    """encrypt=False leaves the payload readable by its CID."""
    a, b = pair
    key = _key()
    _put(a, key, _record(b"for everybody"), encrypt=False)
    assert engine.block_get(raw_cid(b"\x04textfor everybody"), timeout=LONG) == b"\x04textfor everybody"
    found = b.tier.get(key)
    assert found is not None
    assert found.payload == b"for everybody"


def test_a_miss_costs_one_rpc_and_a_known_hit_one(pair: tuple[Machine, Machine]) -> None:
    """An unchanged index is one stat; a key in the table is one block_get."""
    a, b = pair
    key = _key()
    _put(a, key, _record())
    b.tier.get(key)
    b.transport.calls.clear()
    assert b.tier.get(_key()) is None
    assert b.transport.calls == ["stat"]
    b.transport.calls.clear()
    assert b.tier.get(key) is not None
    assert b.transport.calls == ["block_get"]


def test_an_unshareable_key_asks_nobody(pair: tuple[Machine, Machine]) -> None:
    """It is neither looked up nor queued."""
    a, _ = pair
    key = Key("team", os.urandom(32), shareable=False)
    a.tier.put(key, _record())
    assert a.tier.get(key) is None
    assert a.transport.calls == []
    assert a.tier.pending() == 0


def test_a_newer_answer_replaces_an_older_one(pair: tuple[Machine, Machine]) -> None:
    """Whoever wrote it, and in whichever order the two were read."""
    a, b = pair
    key, old, new = _key(), _record(b"old"), _record(b"new")
    _put(b, key, new)
    _put(a, key, old)
    found = [one.tier.get(key) for one in pair]
    assert [one.payload for one in found if one] == [b"new", b"new"]


def test_an_expired_entry_is_a_miss(pair: tuple[Machine, Machine]) -> None:
    """Beyond the grace nothing is given; within it the record comes, expired."""
    a, b = pair
    gone, stale, past = _key(), _key(), time.time_ns() - NANOSECONDS
    _put(a, gone, _record(expires=past))
    _put(a, stale, _record(expires=past, grace=600.0))
    assert b.tier.get(gone) is None
    assert b.tier.get(stale) is not None


def test_a_reader_writes_nothing(machine: Callable[..., Machine]) -> None:
    """A tier that may not write queues nothing, and still reads."""
    credential, key = Credential.create(), _key()
    a = machine("a", credential)
    b = machine("b", credential.reader(), writable=False)
    _put(a, key, _record())
    b.tier.put(_key(), _record())
    assert b.tier.pending() == 0
    assert b.tier.get(key) is not None


def test_too_many_tags_are_not_shared(pair: tuple[Machine, Machine]) -> None:
    """A segment's entry has room for four; a fifth keeps the record here and is counted."""
    a, _ = pair
    a.tier.put(_key(), _record(tags=("1", "2", "3", "4", "5")))
    assert a.tier.pending() == 0
    assert a.reports == ["too_many_tags"]


# -- distrust -----------------------------------------------------------------------------------------


def test_another_secret_sees_misses(machine: Callable[..., Machine]) -> None:
    """Without the secret not even the namespace's directory has a known name."""
    a, b = machine("a", Credential.create()), machine("b", Credential.create())
    key = _key()
    _put(a, key, _record())
    assert b.tier.get(key) is None
    assert b.reports == []


def test_a_tampered_segment_is_refused_once(pair: tuple[Machine, Machine], engine: Engine) -> None:
    """One changed byte: not believed, counted once, and the next good segment is read all the same."""
    a, b = pair
    bad, good = _key(), _key()
    _put(a, bad, _record())
    path = f"{a.own()}/{a.names()[0]}"
    data = bytearray(engine.read(path, limit=MIB, timeout=LONG) or b"")
    data[200] ^= 1
    engine.write(path, bytes(data), timeout=LONG)
    _put(a, good, _record())
    for _ in range(2):
        assert b.tier.get(bad) is None
    assert b.tier.get(good) is not None
    assert b.reports == ["bad_signature"]


def test_a_foreign_owners_segment_is_refused(machine: Callable[..., Machine], engine: Engine) -> None:
    """Knowing the secret is not enough: the writer needs the owner's certificate."""
    credential, key = Credential.create(), _key()
    stranger = Credential(credential.secret, *_owner())
    a, b = machine("a", stranger), machine("b", credential)
    _put(a, key, _record())
    assert b.tier.get(key) is None
    assert b.reports == ["foreign_writer"]


def test_strange_files_are_counted_and_skipped(pair: tuple[Machine, Machine], engine: Engine) -> None:
    """An empty segment, a misplaced copy, a name that is none, a file among the writers: each counts one."""
    a, b = pair
    key = _key()
    _put(a, key, _record())
    data = engine.read(f"{a.own()}/{a.names()[0]}", limit=MIB, timeout=LONG) or b""
    engine.write(f"{a.own()}/{7:016d}", b"", timeout=LONG)
    engine.write(f"{a.own()}/{8:016d}", data, timeout=LONG)
    engine.write(f"{a.own()}/notes.txt", b"x", timeout=LONG)
    engine.write(f"{a.space()}/README", b"x", timeout=LONG)
    assert b.tier.get(key) is not None
    assert b.tier.get(_key()) is None
    assert sorted(b.reports) == ["empty_segment", "misplaced", "unexpected_file", "unexpected_file"]


def test_a_rollback_is_refused_and_the_writer_continues_above_it(pair: tuple[Machine, Machine], engine: Engine) -> None:
    """A tree below the highest sequence seen is counted; the next segment has a higher one and is read."""
    a, b = pair
    old, new, later = _key(), _key(), _key()
    _put(a, old, _record())
    first = engine.read(f"{a.own()}/{a.names()[0]}", limit=MIB, timeout=LONG) or b""
    _put(a, new, _record())
    assert b.tier.get(new) is not None
    highest = int(a.names()[-1])
    engine.remove(a.own(), timeout=LONG)
    engine.write(f"{a.own()}/{1:016d}", first, timeout=LONG)
    assert b.tier.get(_key()) is None
    assert b.reports == ["rollback"]
    _put(a, later, _record())
    assert int(a.names()[-1]) > highest
    assert b.tier.get(later) is not None


def test_a_dangling_cid_is_a_miss_asked_for_once(pair: tuple[Machine, Machine], lose: Callable[[str], object]) -> None:
    """A collected payload is no error, and is forgotten."""
    a, b = pair
    key = _key()
    _put(a, key, _record())
    entry = a.table.find("team", key.digest)
    assert entry is not None
    lose(cid_of(entry))
    assert b.tier.get(key) is None
    b.transport.calls.clear()
    assert b.tier.get(key) is None
    assert "block_get" not in b.transport.calls
    assert b.reports == []


@pytest.mark.parametrize("leaf", [0, 1, 2])
def test_a_payload_with_a_leaf_gone_is_a_miss(
    pair: tuple[Machine, Machine], lose: Callable[[str], object], leaf: int
) -> None:
    """Like one with its root gone: no error, and forgotten, whichever leaf it is."""
    a, b = pair
    key, payload = _key(), os.urandom(2 * MIB + 5)
    _put(a, key, _record(payload), encrypt=False)
    stored = b"\x04text" + payload
    lose(raw_cid(stored[leaf * MIB : (leaf + 1) * MIB]))
    assert b.tier.get(key) is None
    b.transport.calls.clear()
    assert b.tier.get(key) is None
    assert b.transport.calls in ([], ["stat"])
    assert b.reports == []


def test_a_payload_that_was_cut_on_the_way_is_asked_for_in_parts(
    machine: Callable[..., Machine], engine: Engine
) -> None:
    """All of it is there: that its first answer ended early makes it no miss."""

    class Cutting(Counting):
        def cat(self, cid: str, *, size: int, timeout: float, peers: bool = False) -> bytes:
            raise IntegrityError("the answer ended early", reason="truncated")

    credential, key, record = Credential.create(), _key(), _record(os.urandom(2 * MIB))
    a, b = machine("a", credential), machine("b", credential, transport=Cutting(engine))
    _put(a, key, record)
    assert _got(b, key) == record


def test_other_bytes_are_an_integrity_error(machine: Callable[..., Machine], engine: Engine) -> None:
    """What does not have the CID that was asked for is not decoded, and the breaker stays closed."""

    class Lying(Counting):
        def block_get(self, cid: str, *, timeout: float, peers: bool = False) -> bytes:
            return b"something else"

    credential, key = Credential.create(), _key()
    a, b = machine("a", credential), machine("b", credential, transport=Lying(engine))
    _put(a, key, _record())
    with pytest.raises(IntegrityError):
        b.tier.get(key)
    assert b.breaker.allows()


# -- invalidation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["namespace", "tag", "key"])
def test_an_invalidation_reaches_the_other_machine(pair: tuple[Machine, Machine], kind: Any) -> None:
    """Entries created before it end there too, later ones do not; another tag's stay."""
    a, b = pair
    key, other = _key(), _key()
    _put(a, key, _record(tags=("user:1", "x")))
    _put(a, other, _record(tags=("user:2",)))
    assert b.tier.get(key) is not None
    value = {"namespace": "", "tag": "user:1", "key": key.digest.hex()}[kind]
    assert a.tier.mark(Mark("team", kind, value, time.time_ns())) == (2 if kind == "namespace" else 1)
    a.tier.flush(LONG)
    assert b.tier.get(_key()) is None
    assert b.tier.get(key) is None
    assert (b.tier.get(other) is None) == (kind == "namespace")
    assert len(b.heard) == 1
    _put(a, key, _record(tags=("user:1",)))
    assert b.tier.get(key) is not None


def test_drop_says_whether_something_was_there(pair: tuple[Machine, Machine]) -> None:
    """And what waited for sending when it was dropped is never sent."""
    a, b = pair
    key, waiting = _key(), _key()
    _put(a, key, _record())
    a.outbox.add(waiting, _record())
    assert a.tier.drop(key) is True
    assert a.tier.drop(waiting) is False
    a.tier.flush(LONG)
    assert b.tier.get(waiting) is None
    assert a.tier.drop(key) is False


# -- pins and content -----------------------------------------------------------------------------------


def test_a_pin_ends_with_its_last_reference(pair: tuple[Machine, Machine], engine: Engine) -> None:
    """Two keys, two machines, one content: Kubo's pin stays until nobody needs it, at the next flush."""
    a, b = pair
    first, second, payload = _key(), _key(), os.urandom(500)
    _put(a, first, _record(payload, pin=True))
    _put(b, second, _record(payload, pin=True))
    assert a.tier.get(_key()) is None
    cid = a.tier.pins()[0].cid
    assert [pin.cid for pin in a.tier.pins()] == [cid, cid]
    assert a.tier.unpin(first) == 1
    a.tier.flush(LONG)
    assert _pinned(engine, cid)
    assert b.tier.get(_key()) is None
    assert len(b.tier.pins()) == 1
    assert b.tier.unpin(cid) == 1
    b.tier.flush(LONG)
    assert not _pinned(engine, cid)


def test_a_new_answer_takes_over_the_pin(pair: tuple[Machine, Machine], engine: Engine) -> None:
    """One key keeps one payload."""
    a, _ = pair
    key = _key()
    _put(a, key, _record(b"first" * 50, pin=True))
    before = a.tier.pins()[0].cid
    _put(a, key, _record(b"second" * 50, pin=True))
    after = a.tier.pins()[0].cid
    assert not _pinned(engine, before)
    assert _pinned(engine, after)


def fetched(machine: Machine, cid: str) -> bytes:
    return read_file(cid, machine.tier.sources(LONG, peers=False, gateways=None).block, limit=64 * MIB)


@pytest.mark.parametrize("size", [0, 1000, MIB, MIB + 1, 3 * MIB + 5])
def test_stored_bytes_are_fetched(pair: tuple[Machine, Machine], size: int) -> None:
    """By their CID, which is the one Kubo computes."""
    a, b = pair
    data = os.urandom(size)
    cid = a.tier.by_hand.store(data)
    assert cid == file_cid(data)
    assert fetched(b, cid) == data


def test_a_missing_part_is_an_error(pair: tuple[Machine, Machine], lose: Callable[[str], object]) -> None:
    """A file with a lost leaf is never given in part."""
    a, _ = pair
    data = os.urandom(3 * MIB)
    cid = a.tier.by_hand.store(data)
    lose(raw_cid(data[MIB : 2 * MIB]))
    with pytest.raises(TierError) as caught:
        fetched(a, cid)
    assert caught.value.reason == "not_found"


@pytest.mark.parametrize("engine", ["kubo"], indirect=True)
def test_a_file_of_any_chunking_is_fetched(pair: tuple[Machine, Machine], engine: Engine) -> None:
    """What `ipfs add` made elsewhere, in an MFS file here, needs not have our layout."""
    a, _ = pair
    data = os.urandom(700_000)
    path = f"/elsewhere/{os.urandom(4).hex()}"
    engine.write(path, data, timeout=LONG)
    assert fetched(a, engine.stat(path, timeout=LONG) or "") == data


def test_fetch_is_bounded(kubo_api: str, tmp_path: Path) -> None:
    """In bytes, from the settings unless `limit=` says more; and in seconds. What is no size is the caller's mistake."""
    import cachekit

    data = os.urandom(2 * MIB)
    with cachekit.configure(dir=tmp_path / "one", ipfs="rw", ipfs_api=kubo_api, memory_limit=MIB):
        cid = cachekit.store(data, timeout=LONG)
        for options in ({}, {"limit": MIB}):
            with pytest.raises(TierError, match="CACHEKIT_MEMORY_LIMIT") as caught:
                cachekit.fetch(cid, **options)
            assert caught.value.reason == "oversized"
        assert cachekit.fetch(cid, limit=2 * MIB) == data
        for call in (lambda: cachekit.fetch(cid, timeout=0.0), lambda: cachekit.store(b"x", timeout=0.0)):
            with pytest.raises(TierUnavailable):
                call()
        with pytest.raises(UsageError, match="limit"):
            cachekit.fetch(cid, limit=0)


# -- failing ----------------------------------------------------------------------------------------------


def test_an_absent_daemon_is_asked_once(machine: Callable[..., Machine]) -> None:
    """The first get fails and opens the breaker; the next ones are misses without an RPC; puts still queue."""
    absent = KuboTransport("/ip4/127.0.0.1/tcp/1")
    a = machine("a", Credential.create(), transport=absent)
    with pytest.raises(TierUnavailable):
        a.tier.get(_key())
    a.transport.calls.clear()
    assert a.tier.get(_key()) is None
    assert a.transport.calls == []
    assert a.tier.barred == 1
    a.tier.put(_key(), _record())
    assert a.tier.pending() == 1


def test_a_failed_flush_loses_nothing(machine: Callable[..., Machine], engine: Engine) -> None:
    """Entries wait until a daemon is there."""
    credential, key = Credential.create(), _key()
    a = machine("a", credential, transport=KuboTransport("/ip4/127.0.0.1/tcp/1"))
    a.outbox.add(key, _record())
    with pytest.raises(TierError):
        a.tier.flush(2.0)
    assert a.tier.pending() == 1
    again = machine("a", credential)
    assert again.tier.flush(LONG) == 1
    assert again.tier.get(key) is not None


@pytest.mark.parametrize("step", ["import_blocks", "write", "stat", "list"])
def test_a_failure_at_any_step_keeps_the_entry(machine: Callable[..., Machine], engine: Engine, step: str) -> None:
    """Whatever call fails, the next flush brings it, and once only as far as a reader sees."""
    credential, key = Credential.create(), _key()
    a, b = machine("a", credential), machine("b", credential)
    a.outbox.add(key, _record())

    def broken(*_args: Any, **_options: Any) -> None:
        raise TierUnavailable("cut")

    setattr(a.transport, step, broken)
    with pytest.raises(TierUnavailable):
        a.tier.flush(LONG)
    delattr(a.transport, step)
    assert a.tier.flush(LONG) == 1
    assert b.tier.get(key) is not None
    assert b.reports == []


def test_an_answer_that_is_not_kubos_costs_no_entry(machine: Callable[..., Machine], engine: Engine) -> None:
    """A login page in the way of a large payload says nothing about it: it stays queued."""
    a = machine("a", Credential.create())
    a.outbox.add(_key(), _record(os.urandom(2 * MIB)))

    def page(*_args: Any, **_options: Any) -> str:
        raise IntegrityError("a web page", reason="not_kubo")

    a.transport.add = page
    with pytest.raises(IntegrityError):
        a.tier.flush(LONG)
    assert a.tier.pending() == 1


def test_what_a_killed_process_queued_is_sent(machine: Callable[..., Machine], tmp_path: Path) -> None:
    """kill -9 right after add returned: the next process sends it."""
    credential, key, home = Credential.create(), _key(), tmp_path / "a"
    home.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(home), key.digest.hex()],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"queued\n"
        child.send_signal(signal.SIGKILL)
    a, b = machine("a", credential), machine("b", credential)
    assert a.tier.flush(LONG) == 1
    found = b.tier.get(key)
    assert found is not None
    assert found.payload == b"survived"


def test_a_forked_child_sends_by_itself(pair: tuple[Machine, Machine]) -> None:
    """The sending thread does not survive a fork; the child's first put starts another."""
    a, b = pair
    key = _key()
    a.tier.put(_key(), _record())
    _await(lambda: a.tier.pending() == 0)
    pid = os.fork()
    if pid == 0:
        try:
            a.tier.put(key, _record(b"from the child"))
            _await(lambda: a.tier.pending() == 0)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    found = b.tier.get(key)
    assert found is not None
    assert found.payload == b"from the child"


def test_two_directories_with_one_writer_key(machine: Callable[..., Machine], tmp_path: Path) -> None:
    """They take turns in one MFS directory: nothing is lost, and nothing looks like a rollback."""
    credential = Credential.create()
    a = machine("a", credential, config=tmp_path / "config")
    b = machine("b", credential, config=tmp_path / "config")
    keys = {one: [_key() for _ in range(15)] for one in (a, b)}

    def work(one: Machine) -> None:
        for key in keys[one]:
            _put(one, key, _record())

    threads = [threading.Thread(target=work, args=(one,)) for one in (a, b)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one.tier.get(key) for one in (a, b) for key in keys[a] + keys[b])
    assert a.reports + b.reports == []


def test_a_writer_never_has_more_than_64_segments(pair: tuple[Machine, Machine]) -> None:
    """After 100 flushes every entry is still found, by whoever read on the way and by whoever begins."""
    a, b = pair
    keys = [_key() for _ in range(100)]
    for number, key in enumerate(keys):
        _put(a, key, _record())
        assert len(a.names()) <= 64
        if number == 60:
            assert all(b.tier.get(key) for key in keys[:60])
    assert all(b.tier.get(key) for key in keys)
    assert a.reports + b.reports == []


@pytest.mark.parametrize("engine", ["kubo"], indirect=True)
def test_growth_and_speed_of_a_batch(pair: tuple[Machine, Machine], node: Any) -> None:
    """1000 entries of 2 kB cost the repository at most 3 kB each; the rate is printed.

    Kubo counts the 1024 directories of its block store, made once for each node, to whoever comes first: not to these.
    """
    from cachekit.ipfs.node.process import rpc

    a, b = pair
    blocks = [os.urandom(16) for _ in range(8192)]
    a.transport.import_blocks([(binary_cid(raw_cid(block)), block) for block in blocks], timeout=60.0)
    keys = [_key() for _ in range(1000)]
    for key in keys:
        a.outbox.add(key, _record(os.urandom(2048)))
    before = rpc(node.api, "repo/stat", {"size-only": "true"})["RepoSize"]
    started = time.perf_counter()
    a.tier.flush(60.0)
    seconds = time.perf_counter() - started
    growth = (rpc(node.api, "repo/stat", {"size-only": "true"})["RepoSize"] - before) / len(keys)
    print(f"\n{len(keys) / seconds:.0f} entries/s, {growth:.0f} bytes of repository an entry")
    assert growth <= 3000
    assert b.tier.get(keys[0]) is not None
    assert b.tier.get(keys[-1]) is not None


def _owner() -> tuple[bytes, bytes | None]:
    other = Credential.create()
    return other.owner, other.seed


def _await(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
