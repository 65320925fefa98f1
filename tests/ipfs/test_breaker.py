"""The circuit breaker."""

from __future__ import annotations

import gc
import os
import threading
import time
import timeit
import weakref
from collections.abc import Callable, Iterator

import pytest

from cachekit.errors import IntegrityError, TierUnavailable
from cachekit.files import forks
from cachekit.ipfs.breaker import DELAYS, Breaker

_SOON = (0.01,)
_NEVER = (3600.0,)
_PATIENCE = 20.0


class Daemon:
    """What a probe sees: counts its calls, and answers once told to."""

    def __init__(self) -> None:
        self.up = False
        self.probes: list[str] = []
        self.probed = threading.Event()

    def __call__(self) -> None:
        self.probes.append(threading.current_thread().name)
        self.probed.set()
        if not self.up:
            raise TierUnavailable("still down", reason="refused")


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def make(daemon: Daemon) -> Iterator[Callable[..., Breaker]]:
    made: list[Breaker] = []

    def make(delays: tuple[float, ...] = _SOON) -> Breaker:
        made.append(Breaker(daemon, delays=delays))
        return made[-1]

    yield make
    for breaker in made:
        breaker.close()


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.002)


def _probing() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "cachekit-probe"]


def test_a_new_breaker_lets_calls_through_and_starts_no_thread(make: Callable[..., Breaker]) -> None:
    """Closed at first, with no reason, and free of cost."""
    breaker = make()
    assert breaker.allows()
    assert breaker.reason == ""
    assert not _probing()


@pytest.mark.parametrize("error", [TierUnavailable("x", reason="timeout"), IntegrityError("x", reason="not_kubo")])
def test_one_failure_opens_it_and_names_the_reason(make: Callable[..., Breaker], error: TierUnavailable) -> None:
    """One call pays for the discovery, whatever kind of failure it was."""
    breaker = make(_NEVER)
    breaker.failed(error)
    assert not breaker.allows()
    assert breaker.reason == error.reason


def test_only_its_own_thread_probes(make: Callable[..., Breaker], daemon: Daemon) -> None:
    """Asking `allows()` never probes; the thread `cachekit-probe` does."""
    breaker = make()
    breaker.failed(TierUnavailable("x"))
    assert daemon.probed.wait(_PATIENCE)
    assert not any(breaker.allows() for _ in range(1000))
    assert set(daemon.probes) == {"cachekit-probe"}


def test_a_probe_that_succeeds_closes_it_and_ends_the_thread(make: Callable[..., Breaker], daemon: Daemon) -> None:
    """Back to normal without any caller's help, and no thread left."""
    breaker = make()
    breaker.failed(TierUnavailable("x"))
    daemon.up = True
    _until(breaker.allows)
    assert breaker.reason == ""
    _until(lambda: not _probing())


def test_a_probe_that_fails_oddly_does_not_end_the_probing(daemon: Daemon) -> None:
    """An exception nobody foresaw is a failed probe, and becomes the reason."""
    calls = threading.Semaphore(0)

    def odd() -> None:
        calls.release()
        raise RuntimeError

    breaker = Breaker(odd, delays=_SOON)
    breaker.failed(TierUnavailable("x"))
    assert all(calls.acquire(timeout=_PATIENCE) for _ in range(3))
    assert breaker.reason == "RuntimeError"
    breaker.close()
    _until(lambda: not _probing())


def test_success_of_a_late_call_closes_it(make: Callable[..., Breaker]) -> None:
    """A call that was under way when it opened, and succeeded, is as good as a probe."""
    breaker = make(_NEVER)
    breaker.failed(TierUnavailable("x"))
    breaker.succeeded()
    assert breaker.allows()
    _until(lambda: not _probing())


def test_many_failures_have_one_thread(make: Callable[..., Breaker]) -> None:
    """Calls that fail together start one probing thread among them."""
    breaker = make(_NEVER)
    threads = [threading.Thread(target=breaker.failed, args=(TierUnavailable("x"),)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_probing()) == 1


def test_close_ends_the_thread(make: Callable[..., Breaker]) -> None:
    """After `close()` nothing probes any more, not even after another failure."""
    breaker = make(_NEVER)
    breaker.failed(TierUnavailable("x"))
    breaker.close()
    _until(lambda: not _probing())
    breaker.failed(TierUnavailable("x"))
    assert not _probing()


def test_an_open_breaker_that_nobody_uses_is_collected(daemon: Daemon) -> None:
    """The thread does not keep it alive, and ends after it."""
    breaker = Breaker(daemon, delays=_SOON)
    breaker.failed(TierUnavailable("x"))
    gone = weakref.ref(breaker)
    del breaker
    _until(lambda: gc.collect() >= 0 and gone() is None)
    _until(lambda: not _probing())


def test_asking_costs_next_to_nothing(make: Callable[..., Breaker]) -> None:
    """Open or closed, `allows()` costs no more than a few empty calls of a function."""

    def empty() -> bool:
        return True

    breaker = make(_NEVER)
    base = min(timeit.repeat(empty, number=20_000, repeat=5))
    closed = min(timeit.repeat(breaker.allows, number=20_000, repeat=5))
    breaker.failed(TierUnavailable("x"))
    opened = min(timeit.repeat(breaker.allows, number=20_000, repeat=5))
    assert max(closed, opened) < 10 * base


def test_a_return_is_noticed_within_five_seconds() -> None:
    """However long the daemon was away: the last delay at its longest, and a probe that hung just before."""
    assert DELAYS[0] == 1
    assert max(DELAYS) * 1.2 + 2.0 <= 5.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_keeps_the_verdict_and_probes_for_itself(make: Callable[..., Breaker], daemon: Daemon) -> None:
    """The thread does not survive a fork, and its lock may be held: the child still comes back by itself."""

    class Owner:
        """What a cache is to its breaker."""

        def renew_after_fork(self) -> None:
            breaker.renew_after_fork()

        def close(self, _bound: float = 0.0) -> None:
            breaker.close()

    breaker, owner = make((0.05,)), Owner()
    forks.enrol(owner)
    forks.watch()
    breaker.failed(TierUnavailable("x"))
    with breaker._prober._run.lock:  # as if another thread were just changing it
        child = os.fork()
        if child == 0:
            daemon.up = True
            verdict = breaker.allows()
            end = time.monotonic() + _PATIENCE
            while not breaker.allows() and time.monotonic() < end:
                threading.Event().wait(0.002)
            os._exit(0 if not verdict and breaker.allows() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not breaker.allows()
