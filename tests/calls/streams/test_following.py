"""One stream, many readers, of threads and of tasks: who is ahead pulls, nobody loses a piece, and it ends once."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachekit import MISS, distributed_cache
from cachekit.calls.streams.following import AsyncFollowed, Followed
from cachekit.calls.streams.log import Abandoned, Pieces
from cachekit.errors import TierUnavailable
from cachekit.plan.flight import UnderWay

END = object()
"""What a world's `next` gives where a reader is at its end."""


class Interrupt(BaseException):
    """Like Ctrl-C, without what Ctrl-C does to an event loop."""


class Source:
    """Gives what it was given, one after the other, exceptions by raising; an iterator of both kinds."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.pulls = 0
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.pulls += 1
        if not self.outcomes:
            raise StopIteration
        outcome = self.outcomes.pop(0)
        if callable(outcome):
            outcome = outcome()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def close(self) -> None:
        self.closed += 1

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        try:
            return self.__next__()
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        self.close()


def as_it_is(given: Any) -> Any:
    return given


def plain(source: Any, **kind: Any) -> Pieces:
    """Pieces are what the source gives, for everybody."""
    return Pieces(lambda: source, lambda value, _instant: value, as_it_is, list)._replace(**kind)


class Threads:
    """A stream read by threads."""

    def __init__(self) -> None:
        self.endings: list[tuple[list[Any], Any]] = []

    def follow(self, source: Source, **kind: Any) -> Any:
        return Followed(plain(source, **kind), as_it_is, lambda log, _, error: self.endings.append((list(log), error)))

    def opening(self, head: Any) -> Callable[[], Any]:
        """What opens a stream and gives its head."""
        return lambda: head

    def begin(self, stream: Any) -> Any:
        return stream.begin()

    def next(self, reader: Iterator[Any]) -> Any:
        return next(reader, END)

    def rest(self, reader: Iterator[Any]) -> list[Any]:
        return list(reader)

    def leave(self, reader: Any) -> None:
        reader.close()

    def close(self) -> None:
        """Nothing is open."""


class Tasks:
    """A stream read on an event loop."""

    def __init__(self) -> None:
        self.endings: list[tuple[list[Any], Any]] = []
        self._loop = asyncio.new_event_loop()

    def follow(self, source: Source, **kind: Any) -> Any:
        async def ended(log: list[Any], _clock: object, error: BaseException | None) -> None:
            self.endings.append((list(log), error))

        return AsyncFollowed(plain(source, **kind), as_it_is, ended)

    def opening(self, head: Any) -> Callable[[], Any]:
        async def opened() -> Any:
            return head

        return opened

    def begin(self, stream: Any) -> Any:
        return self._loop.run_until_complete(stream.begin())

    def next(self, reader: AsyncIterator[Any]) -> Any:
        async def following() -> Any:
            return await anext(reader, END)

        return self._loop.run_until_complete(following())

    def rest(self, reader: AsyncIterator[Any]) -> list[Any]:
        async def collected() -> list[Any]:
            return [piece async for piece in reader]

        return self._loop.run_until_complete(collected())

    def leave(self, reader: Any) -> None:
        self._loop.run_until_complete(reader.aclose())

    def close(self) -> None:
        left = asyncio.all_tasks(self._loop)
        self._loop.close()
        assert not left, "no task may be left behind"


World = Threads | Tasks


@pytest.fixture(params=[Threads, Tasks])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    chosen = request.param()
    yield chosen
    chosen.close()


def readers(stream: Any, number: int) -> list[Any]:
    """So many seats in the stream."""
    seated = []
    for _ in range(number):
        assert stream.join()
        seated.append(stream.read(as_it_is))
    return seated


# -- in both worlds -------------------------------------------------------------------------------------------


def test_every_reader_gets_every_piece_of_one_run(world: World) -> None:
    """In the order of the source and from the first, whoever is ahead; the source is asked once for each."""
    source = Source(1, 2, 3, 4)
    stream = world.follow(source)
    first, second, third = readers(stream, 3)
    assert [world.next(first), world.next(first), world.next(second)] == [1, 2, 1]
    assert world.rest(third) == [1, 2, 3, 4]
    assert world.rest(first) == [3, 4]
    assert world.rest(second) == [2, 3, 4]
    assert source.pulls == 5
    assert world.endings == [([1, 2, 3, 4], None)]


def test_a_late_reader_begins_at_the_first_piece(world: World) -> None:
    """Who joins when others are far ahead misses nothing."""
    stream = world.follow(Source(1, 2, 3))
    (first,) = readers(stream, 1)
    assert [world.next(first), world.next(first)] == [1, 2]
    (late,) = readers(stream, 1)
    assert world.rest(late) == [1, 2, 3]
    assert world.rest(first) == [3]


def test_a_slow_reader_holds_nobody_up(world: World) -> None:
    """The others are through, the stream has ended and is kept, and what the slow one has not read is still there."""
    source = Source(1, 2, 3)
    stream = world.follow(source)
    fast, slow = readers(stream, 2)
    assert world.next(slow) == 1
    assert world.rest(fast) == [1, 2, 3]
    assert world.endings == [([1, 2, 3], None)]
    assert world.rest(slow) == [2, 3]
    assert (source.pulls, len(world.endings)) == (4, 1)


def test_a_reader_that_leaves_takes_nothing_along(world: World) -> None:
    """Whoever pulled so far may go: the source stays open, the others read on, and the stream ends whole."""
    source = Source(1, 2, 3)
    stream = world.follow(source)
    leaving, staying = readers(stream, 2)
    assert [world.next(leaving), world.next(leaving)] == [1, 2]
    world.leave(leaving)
    assert source.closed == 0
    assert world.rest(staying) == [1, 2, 3]
    assert world.endings == [([1, 2, 3], None)]


def test_the_last_to_leave_closes_the_source(world: World) -> None:
    """Nobody reads on: the source is closed, once, and the stream has ended as abandoned with what there was."""
    source = Source(1, 2, 3)
    stream = world.follow(source)
    first, second = readers(stream, 2)
    assert [world.next(first), world.next(first), world.next(second)] == [1, 2, 1]
    world.leave(first)
    world.leave(second)
    ((pieces, error),) = world.endings
    assert (pieces, type(error), source.closed) == ([1, 2], Abandoned, 1)


def test_leaving_after_the_end_changes_nothing(world: World) -> None:
    """A stream that came to its end stays whole, though a reader goes before it has read all of it."""
    stream = world.follow(Source(1, 2))
    fast, slow = readers(stream, 2)
    assert world.next(slow) == 1
    assert world.rest(fast) == [1, 2]
    world.leave(slow)
    assert world.endings == [([1, 2], None)]


def test_a_source_that_fails_fails_every_reader(world: World) -> None:
    """After the pieces before it, with the very exception, those too who come to it later; the end is told of it, once."""
    error = LookupError("gone")
    source = Source(1, error)
    stream = world.follow(source)
    first, second = readers(stream, 2)
    for reader in (first, second):
        assert world.next(reader) == 1
        with pytest.raises(LookupError) as caught:
            world.next(reader)
        assert caught.value is error
    assert world.endings == [([1], error)]
    assert source.pulls == 2


def test_an_interrupted_pull_is_the_pullers(world: World) -> None:
    """It gets the interrupt; who had pieces is told so in words of a public class, who had none may begin elsewhere."""
    stream = world.follow(Source(1, 2, Interrupt()))
    puller, other, late = readers(stream, 3)
    assert [world.next(puller), world.next(other), world.next(puller)] == [1, 1, 2]
    with pytest.raises(Interrupt):
        world.next(puller)
    assert world.next(other) == 2
    with pytest.raises(TierUnavailable, match="ask again"):
        world.next(other)
    with pytest.raises(Abandoned):
        world.next(late)
    ((pieces, error),) = world.endings
    assert (pieces, type(error)) == ([1, 2], Abandoned)


def test_an_empty_stream_ends_too(world: World) -> None:
    """No piece for anybody, and an end."""
    stream = world.follow(Source())
    first, second = readers(stream, 2)
    assert (world.rest(first), world.rest(second)) == ([], [])
    assert world.endings == [([], None)]


def test_a_stream_that_is_over_has_no_seat(world: World) -> None:
    """Ended or abandoned: who comes now must begin another one."""
    ended, abandoned = world.follow(Source(1)), world.follow(Source(1))
    (reader,) = readers(ended, 1)
    world.rest(reader)
    (reader,) = readers(abandoned, 1)
    assert world.next(reader) == 1
    world.leave(reader)
    assert (ended.join(), abandoned.join()) == (False, False)


def test_a_stream_that_is_too_long_is_not_held(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lone reader gets every piece; only the last is held, nobody can join, and what is told at the end says so."""
    monkeypatch.setattr("cachekit.calls.streams.log.LONGEST", 3)
    stream = world.follow(Source(*"abcdef"), size=len)
    (reader,) = readers(stream, 1)
    assert [world.next(reader) for _ in range(3)] == ["a", "b", "c"]
    assert not stream.too_long
    assert world.next(reader) == "d"
    assert stream.too_long
    assert not stream.join()
    assert world.rest(reader) == ["e", "f"]
    assert world.endings[0][0].count(None) == 5


def test_a_stream_with_company_is_held_however_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is behind still gets every piece."""
    monkeypatch.setattr("cachekit.calls.streams.log.LONGEST", 3)
    stream = world.follow(Source(*"abcdef"), size=len)
    fast, slow = readers(stream, 2)
    assert world.rest(fast) == list("abcdef")
    assert world.rest(slow) == list("abcdef")
    assert not stream.too_long


def test_a_source_has_no_seat_in_its_own_stream(world: World) -> None:
    """What is called while a piece is made would wait for itself; once it is made there are seats again."""
    seats = []
    stream = world.follow(Source(1, lambda: seats.append(stream.join()) or 2, 3))
    (reader,) = readers(stream, 1)
    assert [world.next(reader), world.next(reader)] == [1, 2]
    assert seats == [False]
    (late,) = readers(stream, 1)
    assert (world.rest(late), world.rest(reader)) == ([1, 2, 3], [3])


def test_a_stream_begins_with_its_first_piece(world: World) -> None:
    """Whoever begins has it, or knows that there is none, before the others are asked for; late ones likewise."""
    source = Source(1, 2)
    stream, empty = world.follow(source), world.follow(Source())
    for seated in (stream, stream, empty):
        assert seated.join()
    early = world.begin(stream)
    assert (early.first, source.pulls) == (1, 1)
    late = world.begin(stream)
    assert (world.rest(early.others), late.first, world.rest(late.others)) == ([2], 1, [2])
    nothing = world.begin(empty)
    assert (nothing.first, world.rest(nothing.others)) == (MISS, [])


def test_a_stream_that_fails_at_once_does_not_begin(world: World) -> None:
    """The source's exception is raised to everybody who wanted to begin."""
    stream = world.follow(Source(LookupError("gone")))
    assert (stream.join(), stream.join()) == (True, True)
    for _ in range(2):
        with pytest.raises(LookupError):
            world.begin(stream)


def test_who_comes_to_an_interrupted_beginning_may_begin_again(world: World) -> None:
    """It is the puller's interrupt; the others learn that there is no stream, and no exception."""
    stream = world.follow(Source(Interrupt()))
    assert (stream.join(), stream.join()) == (True, True)
    with pytest.raises(Interrupt):
        world.begin(stream)
    assert world.begin(stream) is None


def test_each_reader_gets_its_own_of_a_piece(world: World) -> None:
    """Pieces are noted once, with growing instants, and given to each reader anew; the end is told of them as noted."""
    stream = world.follow(Source("a", "b"), note=lambda value, instant: (value, instant), give=lambda noted: [noted[0]])
    assert (stream.join(), stream.join()) == (True, True)
    first, second = world.begin(stream), world.begin(stream)
    assert first.first == second.first == ["a"]
    assert first.first is not second.first
    assert world.rest(first.others) == world.rest(second.others) == [["b"]]
    (((_, early), (_, late)), error) = world.endings[0]
    assert 0 <= early <= late
    assert error is None


@pytest.mark.parametrize("further", [0, 1])
def test_what_was_opened_is_closed(world: World, further: int) -> None:
    """A stream that is opened first has a head before its pieces; who leaves after the head alone closes it all the same."""
    source = Source(1, 2, 3)
    stream = world.follow(source, open=world.opening("head"), read=lambda head: source if head == "head" else None)
    assert stream.join()
    begun = world.begin(stream)
    assert (begun.first, source.pulls) == ("head", 0)
    assert [world.next(begun.others) for _ in range(further)] == [1, 2, 3][:further]
    world.leave(begun.others)
    ((pieces, error),) = world.endings
    assert (pieces, type(error), source.closed) == (["head", 1][: 1 + further], Abandoned, 1)


# -- threads --------------------------------------------------------------------------------------------------


def test_one_thread_pulls_at_a_time() -> None:
    """However many read, the source is never entered twice, and each reader has all of it."""
    inside, most = 0, 0

    def piece(number: int) -> Callable[[], int]:
        def made() -> int:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            threading.Event().wait(0.001)  # long enough for another thread to come in, if it could
            inside -= 1
            return number

        return made

    world, source = Threads(), Source(*map(piece, range(50)))
    stream, start = world.follow(source), threading.Barrier(8)
    seated = readers(stream, 8)

    def read(reader: Iterator[Any]) -> list[Any]:
        start.wait(30)
        return list(reader)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, seated)) == [list(range(50))] * 8
    assert (most, source.pulls) == (1, 51)
    assert world.endings == [(list(range(50)), None)]


def test_who_is_behind_reads_while_another_waits_for_the_source() -> None:
    """A source that takes its time holds those only who want its next piece."""
    asked, release, world = threading.Event(), threading.Event(), Threads()

    def slow() -> int:
        asked.set()
        assert release.wait(30)
        return 3

    stream = world.follow(Source(1, 2, slow))
    ahead, behind = readers(stream, 2)
    assert [next(ahead), next(ahead)] == [1, 2]
    with ThreadPoolExecutor(2) as pool:
        third = pool.submit(next, ahead)
        assert asked.wait(30)
        assert [next(behind), next(behind)] == [1, 2]
        also_third = pool.submit(next, behind)
        assert not third.done()
        release.set()
        assert (third.result(30), also_third.result(30)) == (3, 3)


# -- tasks ----------------------------------------------------------------------------------------------------


class Gated:
    """An async source that gives 0, 1, 2, … as it is let, and never ends."""

    def __init__(self) -> None:
        self.gate, self.asked = asyncio.Semaphore(0), asyncio.Event()
        self.given, self.closed = 0, 0

    async def pieces(self) -> AsyncIterator[int]:
        try:
            while True:
                self.asked.set()
                await self.gate.acquire()
                self.given += 1
                yield self.given - 1
        finally:
            self.closed += 1


class Stream:
    """A gated stream on this loop, and how it ended."""

    def __init__(self) -> None:
        self.source, self.endings = Gated(), list[tuple[list[int], Any]]()
        self.stream: Any = AsyncFollowed(plain(self.source.pieces()), as_it_is, self._ended)

    async def _ended(self, log: list[int], _clock: object, error: BaseException | None) -> None:
        self.endings.append((list(log), error))

    def read(self, pieces: int) -> asyncio.Task[list[int]]:
        """A task that wants so many pieces."""
        assert self.stream.join()
        return asyncio.create_task(self._first(self.stream.read(as_it_is), pieces))

    async def _first(self, reader: Any, pieces: int) -> list[int]:
        found = []
        try:
            async for piece in reader:
                found.append(piece)
                if len(found) == pieces:
                    break
        finally:
            await reader.aclose()
        return found


async def settled() -> None:
    """Lets every task come to where it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_cancelled_lone_puller_ends_the_stream() -> None:
    """Nobody else is there: the source is closed, the stream abandoned, and no task left."""

    async def main() -> None:
        followed = Stream()
        alone = followed.read(2)
        followed.source.gate.release()
        await settled()
        alone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await alone
        ((pieces, error),) = followed.endings
        assert (pieces, type(error), followed.source.closed) == ([0], Abandoned, 1)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("cancelled", [0, 1], ids=["the first", "the second"])
def test_in_company_who_is_cancelled_takes_nothing_along(cancelled: int, before: int) -> None:
    """Puller or not, at the first piece or later: what all were waiting for reaches the others, of one run."""

    async def main() -> None:
        followed = Stream()
        tasks = [followed.read(3), followed.read(3)]
        await settled()
        for _ in range(before):
            followed.source.gate.release()
            await settled()
        leaving, staying = tasks[cancelled], tasks[1 - cancelled]
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        for _ in range(3 - before):
            followed.source.gate.release()
        assert await staying == [0, 1, 2]
        assert followed.source.given == 3
        await settled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_who_joins_a_lone_pull_waits_for_it() -> None:
    """Also where there are pieces already: nothing is delivered before it is known that the puller goes on."""

    async def main() -> None:
        followed = Stream()
        alone = followed.read(3)
        followed.source.gate.release()
        await settled()
        late = followed.read(1)
        await settled()
        assert not late.done()
        followed.source.gate.release()
        assert await late == [0]
        alone.cancel()
        await asyncio.wait([alone])

    asyncio.run(main())


def test_a_cancelled_follower_takes_nothing_along() -> None:
    """Who waits for another's pull may be cancelled; the puller and its piece are none the worse."""

    async def main() -> None:
        followed = Stream()
        puller = followed.read(2)
        await followed.source.asked.wait()
        follower = followed.read(2)
        await settled()
        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower
        followed.source.gate.release()
        followed.source.gate.release()
        assert await puller == [0, 1]

    asyncio.run(main())


def test_when_everybody_is_cancelled_the_source_is_closed() -> None:
    """Once, and the pull that was under way for all of them ends with it."""

    async def main() -> None:
        followed = Stream()
        tasks = [followed.read(3) for _ in range(3)]
        await settled()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        ((pieces, error),) = followed.endings
        assert (pieces, type(error), followed.source.closed) == ([], Abandoned, 1)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_who_joined_a_lone_pull_that_is_cancelled_has_seen_nothing() -> None:
    """It waits for that piece, and is told before it has any that the stream is over: it can begin again elsewhere."""

    async def main() -> None:
        followed = Stream()
        alone = followed.read(1)
        await followed.source.asked.wait()
        late = followed.read(1)
        await settled()
        assert not late.done()
        alone.cancel()
        with pytest.raises(Abandoned):
            await late

    asyncio.run(main())


RUNS: list[int] = []


def test_a_call_whose_puller_was_cancelled_begins_again() -> None:
    """Through the decorator: the second reader of a stream that its only puller left gets all of it, from another run."""
    RUNS.clear()
    begun = asyncio.Event()

    @distributed_cache(ignore=("begun",), version="1")
    async def numbers(begun: asyncio.Event) -> AsyncIterator[int]:
        RUNS.append(1)
        if len(RUNS) == 1:
            begun.set()
            await asyncio.Event().wait()
        yield 1
        yield 2

    async def collected() -> list[int]:
        return [number async for number in numbers(begun)]

    async def main() -> None:
        first = asyncio.create_task(collected())
        await begun.wait()
        second = asyncio.create_task(collected())
        await settled()
        assert len(RUNS) == 1
        first.cancel()
        assert await second == [1, 2]
        assert await numbers.peek(begun) == [1, 2]

    asyncio.run(main())
    assert len(RUNS) == 2


def test_a_reader_that_stops_gives_its_seat_back() -> None:
    """Through the decorator, both kinds: with the last reader's `break` the stream is over, and nothing was stored."""
    closed = []

    @distributed_cache
    def numbers() -> Iterator[int]:
        try:
            yield from range(3)
        finally:
            closed.append("plain")

    @distributed_cache
    async def anumbers() -> AsyncIterator[int]:
        try:
            for number in range(3):
                yield number
        finally:
            closed.append("async")

    async def first_only() -> None:
        stream = anumbers()
        assert await anext(stream) == 0
        await stream.aclose()  # type: ignore[attr-defined]
        assert await anumbers.peek() is MISS

    stream = numbers()
    assert next(stream) == 0
    stream.close()  # type: ignore[attr-defined]
    asyncio.run(first_only())
    assert closed == ["plain", "async"]
    assert numbers.peek() is MISS


# -- which stream ---------------------------------------------------------------------------------------------


@pytest.fixture
def begin(world: World) -> Callable[..., Any]:
    """Finds the stream of a key and a loop, or begins one."""
    running: UnderWay[Any] = UnderWay()

    def join(digest: bytes = b"k", loop: int = 0, *outcomes: Any) -> Any:
        return running.join(digest, loop, lambda: world.follow(Source(*outcomes or (1, 2))))

    join.running = running  # type: ignore[attr-defined]
    return join


def test_who_comes_while_it_runs_joins_it(world: World, begin: Any) -> None:
    """One stream for one key of one loop; another key's, and another loop's, is another."""
    first = begin()
    assert begin() is first
    assert begin(b"o") is not first
    assert begin(b"k", 1) is not first


def test_who_comes_after_the_end_begins_another(world: World, begin: Any) -> None:
    """Whether it was taken off the list, or has only just ended."""
    listed = begin()
    world.rest(listed.read(as_it_is))
    assert begin(b"k") is not listed
    taken_off = begin(b"o")
    begin.running.leave(taken_off)
    assert begin(b"o") is not taken_off


def test_everybody_who_joins_has_a_seat(world: World, begin: Any) -> None:
    """Also the one who began it: while one of two reads on the stream is not abandoned."""
    stream = begin()
    assert begin() is stream
    first, second = stream.read(as_it_is), stream.read(as_it_is)
    assert (world.next(first), world.next(second)) == (1, 1)
    world.leave(first)
    assert world.endings == []
    assert world.rest(second) == [2]


def test_a_stream_begun_inside_another_takes_no_place(world: World, begin: Any) -> None:
    """A source that asks for its own key gets a stream of its own, and whoever comes next joins the outer one."""
    inner = []
    outer = begin(b"k", 0, lambda: inner.append(begin()) or 1, 2)
    reader = outer.read(as_it_is)
    assert world.next(reader) == 1
    assert inner[0] is not outer
    assert begin() is outer


def test_the_parents_streams_go_on_in_the_parent(begin: Any) -> None:
    """A forked child begins its own."""
    parents = begin()
    begin.running.renew_after_fork()
    assert contextvars.copy_context().run(begin) is not parents
