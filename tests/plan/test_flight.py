"""One works and the others wait: among the threads and tasks of a process, and among the processes of a machine."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from neighbour import Neighbour, forked
from stopping import stop

from cachekit.model import Record
from cachekit.plan.flight import Flights
from cachekit.plan.leases import Leases
from cachekit.plan.steps import ALONE, BUSY, LEAD

DIGEST, OTHER = b"k" * 32, b"o" * 32
LANDED, LATER = Record("json", b"1", 1), Record("json", b"2", 2)


class Interrupt(BaseException):
    """Like Ctrl-C, without what Ctrl-C does to pytest."""


class Leader:
    """A call that leads a flight, in a context of its own."""

    def __init__(self, flights: Flights, digest: bytes = DIGEST) -> None:
        self._flights, self._digest = flights, digest
        self.context = contextvars.Context()
        assert self.context.run(flights.join, digest) is LEAD

    def share(self, record: Record | None) -> None:
        self.context.run(self._flights.share, self._digest, record)

    def leave(self, error: BaseException | None = None) -> None:
        self.context.run(self._flights.leave, self._digest, error)


class Threads:
    """Those who join from threads."""

    def __init__(self, flights: Flights) -> None:
        self._flights = flights

    def join(self, digest: bytes = DIGEST, *, wait: bool = True) -> Future[Any]:
        """What becomes of a call that joins; returns when it is known or the call waits for it."""
        future: Future[Any] = Future()

        def join() -> None:
            try:
                future.set_result(contextvars.Context().run(self._flights.join, digest, wait=wait))
            except BaseException as error:  # whatever the leader left behind: the test looks at it
                future.set_exception(error)

        thread = threading.Thread(target=join, daemon=True)
        thread.start()
        while not future.done() and not _waits(thread.ident):
            time.sleep(0.001)
        return future

    def close(self) -> None:
        """Nothing is left open."""


def _waits(thread: int | None) -> bool:
    frame = sys._current_frames().get(thread or 0)
    return frame is not None and frame.f_code is threading.Condition.wait.__code__


class Tasks:
    """Those who join from tasks of one event loop."""

    def __init__(self, flights: Flights) -> None:
        self._flights = flights
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def join(self, digest: bytes = DIGEST, *, wait: bool = True) -> Future[Any]:
        """As for threads."""
        future = self._begin(self._flights.ajoin(digest, wait=wait))
        self._begin(asyncio.sleep(0)).result(30)  # a loop is fair: what began before has come to its first wait
        return future

    def _begin(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        return contextvars.Context().run(asyncio.run_coroutine_threadsafe, coroutine, self._loop)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def flights() -> Flights:
    return Flights()


@pytest.fixture(params=[Threads, Tasks])
def others(request: pytest.FixtureRequest, flights: Flights) -> Iterator[Threads | Tasks]:
    crowd = request.param(flights)
    yield crowd
    for digest in (DIGEST, OTHER):  # a test that failed must not leave anybody waiting
        flights.share(digest, None)
    crowd.close()


# -- within a process -----------------------------------------------------------------------------------------


def test_one_leads_and_the_others_get_its_record(flights: Flights, others: Any) -> None:
    """Whoever joins behind the leader waits, and gets the very record."""
    leader = Leader(flights)
    followers = [others.join() for _ in range(5)]
    assert not any(follower.done() for follower in followers)
    leader.share(LANDED)
    assert all(follower.result(30) is LANDED for follower in followers)


def test_the_first_to_come_leads(others: Any) -> None:
    """Without a flight under way a call leads, and does not wait."""
    assert others.join().result(30) is LEAD


def test_landed_is_not_over(flights: Flights, others: Any) -> None:
    """Who joins after the record was shared and before the leader has left gets it too; afterwards a call leads anew."""
    leader = Leader(flights)
    leader.share(LANDED)
    assert others.join().result(30) is LANDED
    leader.leave()
    assert others.join().result(30) is LEAD


def test_a_value_that_cannot_be_shared_sends_everybody_to_the_origin(flights: Flights, others: Any) -> None:
    """Nothing shared means that each goes alone, at once and side by side, none leading the others again."""
    leader = Leader(flights)
    followers = [others.join() for _ in range(3)]
    leader.share(None)
    assert [follower.result(30) for follower in followers] == [ALONE] * 3


def test_a_leader_that_fails_fails_everybody(flights: Flights, others: Any) -> None:
    """Its exception is raised by each of those who wait, and by nobody who comes later."""
    leader, error = Leader(flights), LookupError("mine")
    followers = [others.join() for _ in range(3)]
    leader.leave(error)
    assert [follower.exception(30) for follower in followers] == [error] * 3
    assert others.join().result(30) is LEAD


def test_what_goes_wrong_after_the_landing_is_the_leaders_alone(flights: Flights, others: Any) -> None:
    """A record that was shared stays shared, though its maker then fails to store it."""
    leader = Leader(flights)
    follower = others.join()
    leader.share(LANDED)
    leader.leave(LookupError("mine"))
    assert follower.result(30) is LANDED


@pytest.mark.parametrize("ending", [asyncio.CancelledError(), Interrupt(), GeneratorExit(), None], ids=repr)
def test_a_leader_that_leaves_hands_over(flights: Flights, others: Any, ending: BaseException | None) -> None:
    """Cancelled, interrupted, or gone without a word: one of those who wait leads next, the rest wait for that one."""
    leader = Leader(flights)
    followers = {others.join() for _ in range(4)}
    leader.leave(ending)
    done, _ = wait(followers, 30, FIRST_COMPLETED)
    assert [follower.result() for follower in done] == [LEAD]
    flights.share(DIGEST, LATER)
    assert [follower.result(30) for follower in followers - done] == [LATER] * 3


def test_nobody_waits_for_another_key(flights: Flights, others: Any) -> None:
    """Each key has a flight of its own, and lands only that."""
    first, second = Leader(flights), Leader(flights, OTHER)
    follower, other = others.join(), others.join(OTHER)
    second.share(LATER)
    assert other.result(30) is LATER
    assert not follower.done()
    first.share(LANDED)
    assert follower.result(30) is LANDED


def test_who_will_not_wait_is_told_so(flights: Flights, others: Any) -> None:
    """BUSY at once, and the flight is none the wiser: the leader's end makes way as ever."""
    leader = Leader(flights)
    assert others.join(wait=False).result(30) is BUSY
    leader.leave()
    assert others.join(wait=False).result(30) is LEAD


def test_a_call_never_waits_for_itself(flights: Flights) -> None:
    """From inside its own flight a call goes alone, also from a thread or task that was started there with its context."""
    leader = Leader(flights)
    assert leader.context.run(flights.join, DIGEST) is ALONE
    started_there = leader.context.copy()
    assert started_there.run(flights.join, DIGEST) is ALONE
    assert started_there.run(asyncio.run, flights.ajoin(DIGEST)) is ALONE
    assert leader.context.run(flights.join, OTHER) is LEAD
    leader.leave()
    assert leader.context.run(flights.join, DIGEST) is LEAD


def test_a_cancelled_follower_takes_nothing_from_the_others(flights: Flights) -> None:
    """One task is cancelled while it waits; the leader lands all the same, and the others get the record."""
    tasks, leader = Tasks(flights), Leader(flights)
    cancelled, *followers = [tasks.join() for _ in range(3)]
    cancelled.cancel()
    assert tasks.join(wait=False).result(30) is BUSY
    leader.share(LANDED)
    assert [follower.result(30) for follower in followers] == [LANDED] * 2
    tasks.close()


def test_a_forked_child_does_not_wait_for_its_parent(flights: Flights) -> None:
    """A flight that a thread of the parent leads has no leader in the child: there the call leads, and the parent goes on."""
    leader = Leader(flights)
    assert forked(lambda: contextvars.Context().run(flights.join, DIGEST, wait=False) is LEAD)
    leader.share(LANDED)
    assert contextvars.Context().run(flights.join, DIGEST) is LANDED


# -- between processes ----------------------------------------------------------------------------------------

NEIGHBOUR = """
import sys
from pathlib import Path
from cachekit.plan.leases import Leases
leases = Leases(Path(sys.argv[1]))
for line in sys.stdin:
    what, digest = line.split()
    print(getattr(leases, what)(bytes.fromhex(digest)), flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leases"


@pytest.fixture
def leases(path: Path) -> Leases:
    return Leases(path)


@pytest.fixture
def neighbour(path: Path) -> Iterator[Neighbour]:
    with Neighbour(NEIGHBOUR, path) as process:
        yield process


def gets(process: Neighbour, digest: bytes = DIGEST) -> bool:
    return process.ask("acquire", digest.hex()) == "True"


def test_one_process_holds_the_lease(leases: Leases, neighbour: Neighbour) -> None:
    """The other is refused without waiting, and gets it when it was given back; then the roles are changed."""
    assert leases.acquire(DIGEST) is True
    assert not gets(neighbour)
    leases.release(DIGEST)
    assert gets(neighbour)
    assert leases.acquire(DIGEST) is False
    neighbour.ask("release", DIGEST.hex())
    assert leases.acquire(DIGEST) is True


def test_other_keys_are_free(leases: Leases, neighbour: Neighbour) -> None:
    """A lease is one key's: held and given back without regard to any other."""
    assert leases.acquire(DIGEST)
    assert leases.acquire(OTHER)
    leases.release(OTHER)
    assert gets(neighbour, OTHER)
    assert not gets(neighbour)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_holder_holds_nothing(leases: Leases, neighbour: Neighbour, end: signal.Signals) -> None:
    """Whatever killed it, kill -9 too: the lease is free in that instant, with nothing left behind to clear away."""
    assert gets(neighbour)
    assert leases.acquire(DIGEST) is False
    os.kill(neighbour.process.pid, end)
    neighbour.process.wait()
    assert leases.acquire(DIGEST) is True


def test_a_stopped_holder_holds_on(leases: Leases, neighbour: Neighbour) -> None:
    """A lease does not run out: who is merely slow, or stopped for a while, is still at work."""
    assert gets(neighbour)
    stop(neighbour.process.pid)
    assert leases.acquire(DIGEST) is False
    os.kill(neighbour.process.pid, signal.SIGCONT)


def test_a_forked_child_does_not_inherit_the_lease(leases: Leases, neighbour: Neighbour) -> None:
    """It is refused what its parent holds, and its end, though it had the open file, takes nothing from the parent."""
    assert leases.acquire(DIGEST)
    assert forked(lambda: leases.acquire(DIGEST) is False)
    assert forked(lambda: leases.release(DIGEST) is None)
    assert not gets(neighbour)


def test_two_keys_at_one_place_wait_for_each_other(leases: Leases, neighbour: Neighbour) -> None:
    """Keys that differ only behind what the place is computed from: a needless wait, and free again like any other."""
    twin = DIGEST[:-1] + b"x"
    assert leases.acquire(DIGEST)
    assert not gets(neighbour, twin)
    leases.release(DIGEST)
    assert gets(neighbour, twin)


@pytest.mark.parametrize("digest", [b"\x00" * 32, b"\xff" * 32], ids=["lowest", "highest"])
def test_every_digest_has_a_place(leases: Leases, neighbour: Neighbour, digest: bytes) -> None:
    """The lowest and the highest key can be leased as well, and are excluded as well."""
    assert leases.acquire(digest)
    assert not gets(neighbour, digest)


def test_threads_are_not_excluded(leases: Leases) -> None:
    """A lease is the process's: a second taker of this process is let in, because flights keep threads apart."""
    assert leases.acquire(DIGEST)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(leases.acquire, DIGEST).result(30) is True


def test_two_caches_on_one_directory_keep_each_others_leases(path: Path, neighbour: Neighbour) -> None:
    """What one `Leases` gives back or is done with ends none that another of this process holds."""
    first, second = Leases(path), Leases(path)
    assert first.acquire(DIGEST)
    assert second.acquire(OTHER)
    second.release(OTHER)
    del second
    assert not gets(neighbour)


@pytest.mark.parametrize("spoil", ["no directory", "a directory in its place", "a link in its place"])
def test_without_a_lock_file_everybody_leads(path: Path, tmp_path: Path, spoil: str) -> None:
    """A lease only saves work: where none is to be had a call goes on without, and giving back what it has not is no error."""
    spoilt = path
    if spoil == "no directory":
        spoilt = tmp_path / "gone" / "leases"
    elif spoil == "a directory in its place":
        spoilt.mkdir()
    else:
        spoilt.symlink_to(tmp_path / "elsewhere")
    leases = Leases(spoilt)
    assert leases.acquire(DIGEST) is True
    leases.release(DIGEST)
    assert not (tmp_path / "elsewhere").exists(), "a link is not followed"


def test_a_lock_file_that_cannot_be_opened_holds_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the lock file can neither be made nor opened everybody leads. (A stand-in refuses: root may open anything.)"""

    def refuse(_path: Path) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cachekit.plan.leases._open", refuse)
    assert Leases(tmp_path / "leases").acquire(b"x" * 32)
