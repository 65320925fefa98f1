"""The durable queue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cachekit.errors import TierError, TierFull, TierUnavailable
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.outbox.queue import MAX_PAYLOAD_BYTES, Outbox
from cachekit.model import Key, Mark, Record


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox.db")


def _add(outbox: Outbox, payload: bytes = b"x") -> None:
    outbox.add(Key("team", os.urandom(32)), Record("text", payload, time.time_ns()))


def test_an_item_comes_back_whole(outbox: Outbox) -> None:
    """Every field that the segment and the payload need, and the marks in their place in the queue."""
    key = Key("team", os.urandom(32))
    outbox.add(key, Record("json", b"\0bytes", 5, 9, 1.5, 2.5, ("a", "b\x1f"), pin=True), encrypt=False)
    outbox.add_mark(Mark("team", "tag", "a", 7))
    entry, mark = outbox.batch()
    assert entry[1:] == ("entry", "team", key.digest, "json", b"\0bytes", 5, 9, 1.5, 2.5, '["a", "b\\u001f"]', 1, 0)
    assert entry.tag_list == ["a", "b\x1f"]
    assert (mark.kind, mark.namespace, mark.text, mark.created) == ("tag", "team", "a", 7)


def test_an_altered_item_holds_nothing_up(tmp_path: Path) -> None:
    """SQLite does not see a bit that changed in its file: such an item is taken off and reported, the others are sent."""
    told: list[str] = []
    outbox = Outbox(tmp_path / "outbox.db", told.append)
    for payload in (b"1", b"2", b"3"):
        _add(outbox, payload)
    outbox.add_mark(Mark("team", "tag", "café", 7))
    outbox._database.rows("UPDATE queue SET tags = '[1' WHERE id = 1")
    outbox._database.rows("UPDATE queue SET payload = 'text' WHERE id = 3")
    assert [item.payload or item.text for item in outbox.batch(1)] == [b"2"]
    assert [item.payload or item.text for item in outbox.batch()] == [b"2", "café"]
    assert told == ["altered_item", "altered_item"]


def test_a_batch_is_the_oldest_and_stays_until_done(outbox: Outbox) -> None:
    """In order; taking it off is a step of its own."""
    for number in range(5):
        _add(outbox, bytes([number]))
    first = outbox.batch(2)
    assert [item.payload for item in first] == [b"\0", b"\1"]
    assert outbox.batch(2) == first
    outbox.done([item.id for item in first])
    assert outbox.pending() == 3
    assert outbox.batch(1)[0].payload == b"\2"


def test_what_comes_later_waits_for_the_next_time(outbox: Outbox) -> None:
    """A batch ends with the number that was the last when the sending began."""
    assert outbox.last() == 0
    _add(outbox, b"0")
    last = outbox.last()
    _add(outbox, b"1")
    assert [item.payload for item in outbox.batch(last=last)] == [b"0"]
    outbox.done([last])
    assert outbox.batch(last=last) == []
    assert outbox.pending() == 1


def test_a_batch_is_bounded_by_bytes(outbox: Outbox) -> None:
    """Large payloads do not all come into memory at once."""
    for _ in range(6):
        _add(outbox, bytes(10 << 20))
    assert len(outbox.batch()) == 4


def test_an_enormous_payload_is_refused(outbox: Outbox) -> None:
    """With the error of a tier that has no room."""

    class Huge(bytes):
        def __len__(self) -> int:
            return MAX_PAYLOAD_BYTES + 1

    with pytest.raises(TierFull):
        _add(outbox, Huge())


def test_nothing_is_lost_by_kill_9(tmp_path: Path) -> None:
    """What was acknowledged before the kill is there for the next process."""
    code = (
        "import sys, itertools; from pathlib import Path\n"
        "from cachekit.model import *; from cachekit.ipfs.outbox.queue import Outbox\n"
        "box = Outbox(Path(sys.argv[1]))\n"
        "for n in itertools.count(1):\n"
        "    box.add(Key('team', bytes(32)), Record('text', b'x' * 2000, n)); print(n, flush=True)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    path = tmp_path / "outbox.db"
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True, env=environ)
    with child:
        assert child.stdout is not None
        for _ in range(200):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split("\n")
    acknowledged = 200 + len([line for line in rest if line]) - 1
    assert Outbox(path).pending() >= acknowledged


def test_threads_and_children_share_it(outbox: Outbox) -> None:
    """Each uses a connection of its own; every item arrives."""
    _add(outbox)
    threads = [threading.Thread(target=lambda: [_add(outbox) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pid = os.fork()
    if pid == 0:
        try:
            _add(outbox)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert outbox.pending() == 202


def test_one_sends_at_a_time(outbox: Outbox) -> None:
    """The second waits until its deadline and no longer."""
    with outbox.exclusive(Deadline(5)), pytest.raises(TierUnavailable) as caught:
        with outbox.exclusive(Deadline(0.05)):
            pass
    assert caught.value.reason == "locked"
    with outbox.exclusive(Deadline(0)):
        pass


def test_a_corrupt_file_is_set_aside(tmp_path: Path) -> None:
    """The queue begins anew, the old bytes are kept for a look, and it is reported."""
    path, reports = tmp_path / "outbox.db", list[str]()
    path.write_bytes(b"not a database at all, " * 100)
    outbox = Outbox(path, reports.append)
    _add(outbox)
    assert outbox.pending() == 1
    assert reports == ["corrupt_outbox"]
    (aside,) = tmp_path.glob("outbox.db.corrupt-*")
    assert aside.read_bytes().startswith(b"not a database")


def test_adding_is_one_cheap_insert(outbox: Outbox) -> None:
    """The cost is printed; the bound only says that no sync of the disk is in it."""
    _add(outbox)
    started = time.perf_counter()
    for _ in range(500):
        _add(outbox, bytes(2048))
    print(f"\nadd of 2 kB: {(time.perf_counter() - started) / 500 * 1e6:.0f} us")
    assert outbox.pending() == 501


def test_a_missing_directory_is_a_tier_error(tmp_path: Path) -> None:
    """Of the queue and of its lock: a cache that lost its directory must not break the call."""
    outbox = Outbox(tmp_path / "gone" / "outbox.db")
    with pytest.raises(TierError):
        _add(outbox)
    with pytest.raises(TierError), outbox.exclusive(Deadline(0)):
        pass
