"""A plan performed, on a thread and on an event loop: what goes into it, what never does, and how it ends.

The plans are written here, a few steps each; the cache that they are performed with is a real one.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from neighbour import Neighbour

from cachekit import add_listener
from cachekit.cache.cache import Cache
from cachekit.cache.default import default
from cachekit.errors import TierError, TierUnavailable
from cachekit.model import NANOSECONDS, Event, Key, Mark, Record
from cachekit.plan.drive import arun, run
from cachekit.plan.errand import Errand
from cachekit.plan.steps import (
    BUSY,
    LEAD,
    Begin,
    CallOrigin,
    Do,
    Failed,
    Join,
    Lease,
    Pause,
    Read,
    Returned,
    Revalidate,
    Share,
    Steps,
    Tell,
    Write,
)

KEY = Key("test", b"k" * 32, "tests.f")
LEASES = """
import sys
from pathlib import Path
from cachekit.plan.leases import Leases
leases = Leases(Path(sys.argv[1]))
for line in sys.stdin:
    print(leases.acquire(bytes.fromhex(line)), flush=True)
"""


def record(payload: bytes = b"1") -> Record:
    now = time.time_ns()
    return Record("json", payload, now, now + 3600 * NANOSECONDS, seconds=2.0)


def begun(errand: Errand | None, steps: Steps) -> Steps:
    """The steps as those of an errand."""
    yield Begin(errand)
    return (yield from steps)


class Performer:
    """`run`, or `arun` on a loop and with a pool of its own. An origin is a plain function for both."""

    def __init__(self, *, on_a_loop: bool) -> None:
        self.on_a_loop = on_a_loop

    def __call__(self, steps: Steps, errand: Errand, origin: Callable[[], Any] = lambda: None) -> Any:
        """A plan with its errand."""
        errand.origin = self.called(origin)
        return self.flow(begun(errand, steps))

    def flow(self, steps: Steps) -> Any:
        """Steps as they are: who begins an errand in them is their own business."""
        if not self.on_a_loop:
            return run(steps)
        with ThreadPoolExecutor(2) as pool:
            return asyncio.run(arun(steps, lambda: pool))

    def called(self, origin: Callable[[], Any]) -> Callable[[], Any]:
        """An origin of the kind that is performed here."""

        async def awaited() -> Any:
            return origin()

        return awaited if self.on_a_loop else origin


@pytest.fixture(params=["run", "arun"])
def perform(request: pytest.FixtureRequest) -> Performer:
    return Performer(on_a_loop=request.param == "arun")


def _unasked() -> Any:
    raise AssertionError("nobody said what the origin is")


class Watched(Errand):
    """A real errand that also notes how it was ended, and how often."""

    def __init__(self, cache: Cache, key: Key, **how: Any) -> None:
        super().__init__(cache, key, _unasked, **how)
        self.endings: list[BaseException | None] = []

    def end(self, error: BaseException | None) -> None:
        self.endings.append(error)
        super().end(error)


@pytest.fixture
def cache() -> Cache:
    return default()


@pytest.fixture
def errand(cache: Cache) -> Watched:
    return Watched(cache, KEY)


@pytest.fixture
def heard() -> Iterator[list[Event]]:
    events: list[Event] = []
    remove = add_listener(events.append)
    yield events
    remove()


class Failing:
    """A tier whose every `get` raises; `blocking` like one that is far away."""

    name, blocking = "ipfs", True

    def __init__(self, error: Exception) -> None:
        self.error = error

    def get(self, _key: Key) -> Record | None:
        raise self.error

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def failing(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Puts a tier that raises in the place of IPFS."""
    return lambda error: monkeypatch.setattr(cache, "tiers", {**cache.tiers, "ipfs": Failing(error)})


class Interrupt(BaseException):
    """Like Ctrl-C, without what Ctrl-C does to an event loop."""


def _raising(error: BaseException) -> Callable[[], None]:
    def origin() -> None:
        raise error

    return origin


PLACE: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="nowhere")


# -- into the plan --------------------------------------------------------------------------------------------


def test_answers_come_in_the_order_of_the_steps(perform: Performer, errand: Watched) -> None:
    """Each step is answered where it was asked, and what the plan returns is returned."""
    kept = record()

    def steps() -> Steps:
        first = yield Read("memory")
        written = yield Write("memory", kept)
        second = yield Read("memory")
        far = yield Read("disk")
        yield Write("disk", kept)
        third = yield Read("disk")
        standing = yield Join()
        leased = yield Lease()
        paused = yield Pause(0.0)
        outcome = yield CallOrigin()
        return [first, written, second, far, third, standing, leased, paused, outcome.value]

    assert perform(steps(), errand, lambda: 7) == [None, None, kept, None, kept, LEAD, True, None, 7]


def test_the_origin_is_timed(perform: Performer, errand: Watched) -> None:
    """`Returned.seconds` is what the origin took: not less, and not what the rest of the plan takes."""
    inside: list[float] = []

    def origin() -> int:
        begin = time.perf_counter()
        time.sleep(0.02)
        inside.append(time.perf_counter() - begin)
        return 1

    def steps() -> Steps:
        yield Pause(0.02)
        outcome = yield CallOrigin()
        return outcome

    begin = time.perf_counter()
    outcome = perform(steps(), errand, origin)
    assert type(outcome) is Returned
    assert inside[0] <= outcome.seconds <= time.perf_counter() - begin - 0.02


def test_a_pause_is_waited_for(perform: Performer, errand: Watched) -> None:
    """The plan goes on when the pause is over, not before."""

    def steps() -> Steps:
        begin = time.monotonic()
        yield Pause(0.03)
        return time.monotonic() - begin

    assert perform(steps(), errand) >= 0.03


def test_a_tier_error_is_thrown_into_the_plan(
    perform: Performer, errand: Watched, failing: Callable[[Exception], None]
) -> None:
    """The very error, at the step that failed; the plan goes on, and the next step is answered as ever."""
    failing(error := TierUnavailable("away"))

    def steps() -> Steps:
        yield Write("memory", kept)
        try:
            yield Read("ipfs")
        except TierError as raised:
            return raised, (yield Read("memory"))

    kept = record()
    assert perform(steps(), errand) == (error, kept)
    assert errand.endings == [None]


def test_a_tier_error_that_the_plan_lets_pass_is_the_callers(
    perform: Performer, errand: Watched, failing: Callable[[Exception], None]
) -> None:
    """What a plan does not step over is raised."""
    failing(error := TierUnavailable("away"))

    def steps() -> Steps:
        yield Read("ipfs")

    with pytest.raises(TierUnavailable) as caught:
        perform(steps(), errand)
    assert caught.value is error
    assert errand.endings == [error]


def test_nothing_else_is_thrown_into_the_plan(
    perform: Performer, errand: Watched, failing: Callable[[Exception], None]
) -> None:
    """A tier's mistake is no TierError: it passes the plan by, however much that catches, and reaches the caller."""
    failing(error := ZeroDivisionError("a mistake"))
    seen: list[Exception] = []

    def steps() -> Steps:
        try:
            yield Read("ipfs")
        except Exception as raised:
            seen.append(raised)

    with pytest.raises(ZeroDivisionError) as caught:
        perform(steps(), errand)
    assert caught.value is error
    assert seen == []


# -- past the plan --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("mine"), TierUnavailable("of another cache"), Interrupt()], ids=repr)
def test_the_origins_exception_passes_untouched(perform: Performer, errand: Watched, error: BaseException) -> None:
    """The same object, a TierError too: the plan does not see it, and the errand ends with it."""
    seen: list[BaseException] = []

    def origin() -> None:
        raise error

    def steps() -> Steps:
        try:
            yield CallOrigin()
        except Exception as raised:
            seen.append(raised)

    with pytest.raises(type(error)) as caught:
        perform(steps(), errand, origin)
    assert caught.value is error
    assert (seen, errand.endings) == ([], [error])


def test_the_traceback_leads_to_the_origin(perform: Performer, errand: Watched) -> None:
    """Its last line is the origin's, and no plan stands in it or behind it as a cause."""

    def origin() -> None:
        raise LookupError("mine")

    def steps() -> Steps:
        yield CallOrigin()

    with pytest.raises(LookupError) as caught:
        perform(steps(), errand, origin)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-1] == "origin"
    assert not {"steps", "begun"} & set(names)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize("fallback", [False, True])
def test_a_stop_iteration_does_not_end_the_plan(perform: Performer, errand: Watched, fallback: bool) -> None:
    """An origin that raises what ends generators is taken for one that failed, not for a plan that returned."""
    kind = StopAsyncIteration if perform.on_a_loop else StopIteration  # Python forbids the other in a coroutine

    def origin() -> None:
        raise kind("mine")

    def steps() -> Steps:
        return (yield CallOrigin(fallback=Exception if fallback else ()))

    if fallback:
        outcome = perform(steps(), errand, origin)
        assert (type(outcome), type(outcome.error), outcome.error.args) == (Failed, kind, ("mine",))
        return
    with pytest.raises(kind, match="mine"):
        perform(steps(), errand, origin)
    assert [type(ending) for ending in errand.endings] == [kind]


def test_a_fallback_hears_of_the_failure(perform: Performer, errand: Watched) -> None:
    """Where the plan has something old to serve it is told the origin's exception, and goes on."""
    error = OSError("down")

    def origin() -> None:
        raise error

    def steps() -> Steps:
        outcome = yield CallOrigin(fallback=Exception)
        return outcome, (yield Read("memory"))

    assert perform(steps(), errand, origin) == (Failed(error), None)
    assert errand.endings == [None]


def test_no_fallback_from_an_interrupt(perform: Performer, errand: Watched) -> None:
    """Who interrupts the origin wants to leave, not something old."""

    def origin() -> None:
        raise Interrupt

    def steps() -> Steps:
        yield CallOrigin(fallback=Exception)

    with pytest.raises(Interrupt):
        perform(steps(), errand, origin)


# -- the end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["returns", "plan raises", "origin raises", "interrupt", "tier error", "mistake"])
def test_however_it_ends_it_ends_once(
    ending: str,
    perform: Performer,
    errand: Watched,
    cache: Cache,
    failing: Callable[[Exception], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plan is closed, then the errand ended with what was raised: the flight is over, and the cache tidied once."""
    order: list[str] = []
    monkeypatch.setattr(cache, "tidy", lambda **_: order.append("tidied"))
    failing(TierError("away") if ending == "tier error" else RuntimeError("mistake"))
    origins = {"origin raises": _raising(KeyError("origin")), "interrupt": _raising(Interrupt())}

    def steps() -> Steps:
        try:
            yield Join()
            yield Lease()
            if ending == "plan raises":
                raise LookupError("plan")
            if ending in ("tier error", "mistake"):
                yield Read("ipfs")
            yield CallOrigin()
        finally:
            order.append("closed")

    raised = None
    try:
        perform(steps(), errand, origins.get(ending, lambda: 1))
    except BaseException as error:  # whichever it is, the errand must have been told of the same
        raised = error
    assert (raised is None) == (ending == "returns")
    assert errand.endings == [raised]
    assert order == ["closed", "tidied"]
    assert contextvars.Context().run(cache.flights.join, KEY.digest, wait=False) is LEAD


def test_the_lease_is_held_until_the_end(perform: Performer, errand: Watched, own_cache: Path) -> None:
    """Another process is refused while the origin works, and gets the lease when the call is over."""
    with Neighbour(LEASES, own_cache / "leases") as neighbour:

        def steps() -> Steps:
            leased = yield Lease()
            outcome = yield CallOrigin()
            return leased, outcome.value

        assert perform(steps(), errand, lambda: neighbour.ask(KEY.digest.hex())) == (True, "False")
        assert neighbour.ask(KEY.digest.hex()) == "True"


def test_a_call_that_took_no_lease_frees_none(
    perform: Performer, errand: Watched, cache: Cache, own_cache: Path
) -> None:
    """The lease that another call of this process works under is still held when a mere look at the key has ended."""
    assert cache.leases.acquire(KEY.digest)

    def steps() -> Steps:
        yield Read("disk")

    perform(steps(), errand)
    with Neighbour(LEASES, own_cache / "leases") as neighbour:
        assert neighbour.ask(KEY.digest.hex()) == "False"
    cache.leases.release(KEY.digest)


# -- flows ----------------------------------------------------------------------------------------------------


def test_work_beside_the_plan_is_answered(perform: Performer, errand: Watched) -> None:
    """`Do` gives what the work returns, with the caller's context variables; on a loop it is done on another thread."""
    PLACE.set("here")

    def steps() -> Steps:
        return (yield Do(lambda: (threading.get_ident(), PLACE.get()))), (yield Read("memory"))

    (thread, place), read = perform(steps(), errand)
    assert (place, read) == ("here", None)
    assert (thread != threading.get_ident()) == perform.on_a_loop


@pytest.mark.parametrize("error", [ValueError("mine"), TierUnavailable("mine")], ids=repr)
def test_work_that_fails_passes_the_plan_by(perform: Performer, errand: Watched, error: Exception) -> None:
    """Like an origin's: the very exception, not seen by the plan, and the errand ends with it."""
    seen: list[Exception] = []

    def steps() -> Steps:
        try:
            yield Do(_raising(error))
        except Exception as raised:
            seen.append(raised)

    with pytest.raises(type(error)) as caught:
        perform(steps(), errand)
    assert caught.value is error
    assert (seen, errand.endings) == ([], [error])


def test_a_step_may_name_another_origin(perform: Performer, errand: Watched) -> None:
    """It is called in the place of the errand's, and times and failures are answered likewise."""

    def steps() -> Steps:
        first = yield CallOrigin(origin=perform.called(lambda: 8))
        second = yield CallOrigin()
        third = yield CallOrigin(fallback=LookupError, origin=perform.called(_raising(LookupError("mine"))))
        return first.value, second.value, type(third.error)

    assert perform(steps(), errand, lambda: 7) == (8, 7, LookupError)


def test_a_flow_needs_no_errand(perform: Performer) -> None:
    """Work and origins that a step names are performed without a plan under way."""

    def steps() -> Steps:
        return (yield Do(lambda: 1)), (yield CallOrigin(origin=perform.called(lambda: 2))).value

    assert perform.flow(steps()) == (1, 2)


def test_one_errand_ends_where_the_next_begins(perform: Performer, cache: Cache) -> None:
    """The first has ended well, with its flight over, before the second's steps; only the last hears how it all ended."""
    first, second, error = Watched(cache, KEY), Watched(cache, KEY), LookupError("mine")
    second.origin = perform.called(_raising(error))

    def steps() -> Steps:
        yield Begin(first)
        standings = [(yield Join())]
        yield Begin(second)
        standings.append((yield Join()))
        assert (standings, first.endings) == ([LEAD, LEAD], [None])
        yield CallOrigin()

    with pytest.raises(LookupError):
        perform.flow(steps())
    assert (first.endings, second.endings) == ([None], [error])


def test_an_errand_can_end_before_the_flow(perform: Performer, errand: Watched) -> None:
    """`Begin(None)`: what fails afterwards is not the plan's, whose errand has ended well, and once."""

    def steps() -> Steps:
        yield Begin(errand)
        yield Join()
        yield Begin(None)
        assert errand.endings == [None]
        yield Do(_raising(LookupError("mine")))

    with pytest.raises(LookupError):
        perform.flow(steps())
    assert errand.endings == [None]


# -- the errand's own -----------------------------------------------------------------------------------------


def test_a_follower_gets_what_the_leader_shares(perform: Performer, cache: Cache) -> None:
    """Two calls of one key: the record goes from the one to the other while the leader is still at work."""
    shared, led = record(), threading.Event()

    def leader() -> Steps:
        yield Join()
        yield Share(shared)
        led.set()
        return (yield CallOrigin()).value

    def follower() -> Steps:
        return (yield Join())

    with ThreadPoolExecutor(2) as pool:

        def origin() -> Any:
            return pool.submit(perform, follower(), Watched(cache, KEY)).result(30)

        assert pool.submit(perform, leader(), Watched(cache, KEY), origin).result(30) is shared
    assert led.is_set()


def test_only_the_leader_shares(perform: Performer, errand: Watched, cache: Cache) -> None:
    """A call that got no lead lands nobody's flight, neither by what it shares nor by its end."""

    def steps() -> Steps:
        standing = yield Join(wait=False)
        yield Share(record())
        return standing

    flights, elsewhere = cache.flights, contextvars.Context()
    assert elsewhere.run(flights.join, KEY.digest) is LEAD
    assert perform(steps(), errand) is BUSY
    assert contextvars.Context().run(flights.join, KEY.digest, wait=False) is BUSY
    flights.share(KEY.digest, landed := record(b"2"))
    assert contextvars.Context().run(flights.join, KEY.digest) is landed


def test_hits_are_told_with_their_time(perform: Performer, errand: Watched, heard: list[Event]) -> None:
    """A hit's event has the seconds since the errand began; other events keep what the plan said."""

    def steps() -> Steps:
        yield Tell(Event("origin", "tests.f", seconds=5.0))
        yield Tell(Event("hit", "tests.f", "disk"))

    perform(steps(), errand)
    assert [(event.what, event.tier) for event in heard] == [("origin", ""), ("hit", "disk")]
    assert heard[0].seconds == 5.0
    assert heard[1].seconds > 0


def test_a_quiet_errand_tells_what_went_wrong_only(perform: Performer, cache: Cache, heard: list[Event]) -> None:
    """Who only looks is no call to be counted; a failed tier is told all the same."""

    def steps() -> Steps:
        for what in ("hit", "miss", "error", "skipped", "stale"):
            yield Tell(Event(what, "tests.f", "disk", "why"))

    perform(steps(), Watched(cache, KEY, quiet=True))
    assert [event.what for event in heard if event.tier == "disk"] == ["error", "skipped"]


@pytest.mark.parametrize(("tier", "announce", "moves"), [("disk", True, 1), ("disk", False, 0), ("memory", True, 0)])
def test_a_store_is_announced(perform: Performer, cache: Cache, tier: str, announce: bool, moves: int) -> None:
    """The generation moves, so that every process reads the disk again, where the caller wants that and it is on disk."""

    def steps() -> Steps:
        yield Write(tier, record())

    before = cache.ledger.generation[0]
    perform(steps(), Watched(cache, KEY, announce=announce))
    assert cache.ledger.generation[0] - before == moves


def test_what_was_invalidated_meanwhile_does_not_stay_in_memory(
    perform: Performer, errand: Watched, cache: Cache
) -> None:
    """A record older than a mark is dropped again, because a hit in memory would not ask for marks any more."""
    old = record()

    def steps() -> Steps:
        yield CallOrigin()
        yield Write("memory", old)
        return (yield Read("memory"))

    def invalidating() -> None:
        cache.ledger.mark([Mark("test", "key", KEY.digest.hex(), time.time_ns())])

    assert perform(steps(), errand, invalidating) is None
    assert cache.tiers["memory"].get(KEY) is None


def test_an_invalidated_record_is_no_answer(perform: Performer, errand: Watched, cache: Cache) -> None:
    """What the disk still has but a mark covers is read as a miss."""
    cache.tiers["disk"].put(KEY, record())
    cache.ledger.mark([Mark("test", "namespace", "", time.time_ns())])

    def steps() -> Steps:
        return (yield Read("disk"))

    assert perform(steps(), errand) is None


def test_without_the_ledger_no_record_is_believed(
    perform: Performer, errand: Watched, cache: Cache, own_cache: Path
) -> None:
    """Where the marks cannot be read the plan is thrown a TierError `ledger`: nobody can say what was invalidated."""
    cache.tiers["disk"].put(KEY, record())
    cache.ledger.mark([])
    cache.ledger.close()
    for left in own_cache.glob("ledger.db*"):
        left.unlink()
    (own_cache / "ledger.db").mkdir()

    def steps() -> Steps:
        try:
            yield Read("disk")
        except TierError as error:
            return error.reason

    assert perform(steps(), errand) == "ledger"


def test_a_refresh_is_started_where_there_is_a_way(perform: Performer, cache: Cache) -> None:
    """`Revalidate` starts what the caller gave for it, once a step, and does nothing where nothing was given."""
    started: list[int] = []

    def steps() -> Steps:
        return (yield Revalidate())

    perform(steps(), Watched(cache, KEY, revalidate=lambda _: started.append(1)))
    perform(steps(), Watched(cache, KEY))
    assert started == [1]


# -- on an event loop -----------------------------------------------------------------------------------------


class Waiting:
    """A tier that answers when it is let, and notes who asked it."""

    name, blocking = "ipfs", True

    def __init__(self) -> None:
        self.asked, self.release, self.answered = threading.Event(), threading.Event(), threading.Event()
        self.thread, self.place = 0, ""

    def get(self, _key: Key) -> Record | None:
        self.thread, self.place = threading.get_ident(), PLACE.get()
        self.asked.set()
        assert self.release.wait(30), "the loop did not go on"
        self.answered.set()
        return None

    def close(self) -> None:
        self.release.set()


@pytest.fixture
def waiting(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    tier = Waiting()
    monkeypatch.setattr(cache, "tiers", {**cache.tiers, "ipfs": tier})
    yield tier
    tier.release.set()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_a_blocking_tier_does_not_hold_the_loop(errand: Watched, waiting: Waiting) -> None:
    """While it is asked other tasks go on; it is asked on the pool, with the caller's context variables."""

    def steps() -> Steps:
        yield Read("memory")
        yield Read("ipfs")

    async def main() -> None:
        PLACE.set("here")
        with ThreadPoolExecutor(1) as pool:
            task = asyncio.create_task(arun(begun(errand, steps()), lambda: pool))
            await until(waiting.asked.is_set)
            waiting.release.set()
            await task

    asyncio.run(main())
    assert waiting.thread != threading.get_ident()
    assert waiting.place == "here"


def test_a_near_tier_is_read_on_the_loop(errand: Watched) -> None:
    """A local read costs less than handing it over: without a write or a far tier no pool is ever asked for."""

    def steps() -> Steps:
        yield Read("memory")
        yield Read("disk")
        yield Write("memory", record())
        return (yield Read("memory"))

    def no_pool() -> ThreadPoolExecutor:
        raise AssertionError("the pool was asked for")

    assert asyncio.run(arun(begun(errand, steps()), no_pool)) is not None


@pytest.mark.parametrize("where", ["origin", "tier", "pause", "join"])
def test_a_cancelled_call_ends_at_once(where: str, errand: Watched, cache: Cache, waiting: Waiting) -> None:
    """In the origin, in a tier that hangs, in a pause, behind a leader: the plan is closed and the errand ended, once."""
    asked, closed = asyncio.Event(), list[str]()
    step = {"origin": CallOrigin(), "tier": Read("ipfs"), "pause": Pause(3600.0), "join": Join()}[where]

    def steps() -> Steps:
        try:
            asked.set()
            yield step
        finally:
            closed.append(where)

    async def origin() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        errand.origin = origin
        if where == "join":
            assert contextvars.Context().run(cache.flights.join, KEY.digest) is LEAD
        with ThreadPoolExecutor(1) as pool:
            task = asyncio.create_task(arun(begun(errand, steps()), lambda: pool))
            await asked.wait()
            if where == "tier":
                await until(waiting.asked.is_set)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not waiting.answered.is_set()
            waiting.release.set()

    asyncio.run(main())
    assert closed == [where]
    assert [type(ending) for ending in errand.endings] == [asyncio.CancelledError]
    left = contextvars.Context().run(cache.flights.join, KEY.digest, wait=False)
    assert left is (BUSY if where == "join" else LEAD), "a follower's end is not the leader's"


@pytest.mark.parametrize("held", [True, False])
def test_work_that_is_held_is_waited_for(held: bool) -> None:
    """A caller who is cancelled waits for work that uses what goes with the call, and for no other."""
    started, release, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        assert release.wait(30)
        done.set()

    def steps() -> Steps:
        yield Do(work, held=held)

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            task = asyncio.create_task(arun(steps(), lambda: pool))
            await until(started.is_set)
            task.cancel()
            for _ in range(10):
                await asyncio.sleep(0)
            assert task.done() == (not held)
            release.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert done.is_set() or not held

    asyncio.run(main())


def test_a_cancelled_leader_hands_over(errand: Watched, cache: Cache) -> None:
    """Who waits behind a call that is cancelled is not cancelled with it, but leads next."""
    working = asyncio.Event()

    def leader() -> Steps:
        yield Join()
        yield CallOrigin()

    def follower() -> Steps:
        standing = yield Join()
        return standing, (yield CallOrigin()).value

    async def endless() -> None:
        working.set()
        await asyncio.Event().wait()

    async def origin() -> int:
        return 7

    second_errand = Watched(cache, KEY)
    errand.origin, second_errand.origin = endless, origin

    async def main() -> Any:
        with ThreadPoolExecutor(1) as pool:
            first = asyncio.create_task(arun(begun(errand, leader()), lambda: pool))
            await working.wait()
            second = asyncio.create_task(arun(begun(second_errand, follower()), lambda: pool))
            await asyncio.sleep(0)  # a task runs up to its first wait: it has joined
            first.cancel()
            return await second

    assert asyncio.run(main()) == (LEAD, 7)
