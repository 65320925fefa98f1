"""Retries of an origin, for functions and coroutine functions; and a server that asked to be left alone is."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from cachekit.model import Retry
from cachekit.plan import retrying
from cachekit.plan.drive import arun, run
from cachekit.plan.retrying import LONGEST_WAIT, Cooldowns, retry_after

NOW = 1_700_000_000.0


class Asker:
    """`call`, or `acall` on a loop of its own. An origin is a plain function for both."""

    def __init__(self, *, on_a_loop: bool) -> None:
        self.on_a_loop = on_a_loop

    def __call__(self, retry: Retry, origin: Callable[[], Any]) -> Any:
        if not self.on_a_loop:
            return retrying.call(retry, origin)

        async def awaited() -> Any:
            return origin()

        return asyncio.run(retrying.call(retry, awaited, is_async=True))


@pytest.fixture(params=["call", "acall"])
def ask(request: pytest.FixtureRequest) -> Asker:
    return Asker(on_a_loop=request.param == "acall")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited each time; nothing is."""
    seconds: list[float] = []

    async def slept(delay: float) -> None:
        seconds.append(delay)

    monkeypatch.setattr(time, "sleep", seconds.append)
    monkeypatch.setattr(asyncio, "sleep", slept)
    return seconds


class Scripted:
    """An origin that raises what it is given, one after the other, and returns the last."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


class Limited(Exception):
    """A 429 as SDKs raise it, with a response and its headers."""

    def __init__(self, headers: Any, status: int = 429) -> None:
        super().__init__(headers)
        self.response = SimpleNamespace(headers=headers, status_code=status)


# -- what is repeated -----------------------------------------------------------------------------------------


def test_what_is_named_is_repeated_until_it_succeeds(ask: Asker, waits: list[float]) -> None:
    """The value of the first attempt that has one; a subclass of what is named counts as named."""
    origin = Scripted(OSError("no"), ConnectionResetError("no"), 7)
    assert ask(Retry(on=OSError, attempts=5), origin) == 7
    assert (origin.calls, len(waits)) == (3, 2)


@pytest.mark.parametrize("value", [None, False, [], OSError], ids=repr)
def test_a_value_is_never_repeated(ask: Asker, waits: list[float], value: Any) -> None:
    """What is returned is the answer, however empty; an exception that is returned is a value too."""
    origin = Scripted(value)
    assert ask(Retry(on=Exception, attempts=5), origin) is value
    assert (origin.calls, waits) == (1, [])


def test_what_is_not_named_passes_at_once(ask: Asker, waits: list[float]) -> None:
    """One attempt, no waiting, and the very exception."""
    origin = Scripted(error := KeyError("mine"))
    with pytest.raises(KeyError) as caught:
        ask(Retry(on=(OSError, ValueError), attempts=5), origin)
    assert caught.value is error
    assert (origin.calls, waits) == (1, [])


def test_another_exception_ends_the_repeating(ask: Asker, waits: list[float]) -> None:
    """It is looked at anew after each attempt."""
    origin = Scripted(OSError("no"), error := KeyError("mine"))
    with pytest.raises(KeyError) as caught:
        ask(Retry(on=OSError, attempts=5), origin)
    assert caught.value is error
    assert origin.calls == 2


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_attempts_count_the_first_call(ask: Asker, waits: list[float], attempts: int) -> None:
    """So many calls and not one more; the last exception passes as it was raised."""
    errors = [OSError(number) for number in range(attempts)]
    origin = Scripted(*errors)
    with pytest.raises(OSError) as caught:
        ask(Retry(on=OSError, attempts=attempts), origin)
    assert caught.value is errors[-1]
    assert (origin.calls, len(waits)) == (attempts, attempts - 1)


def test_the_last_traceback_leads_to_the_origin(ask: Asker, waits: list[float]) -> None:
    """The user's exception is no cause of one of ours, and its last line is the origin's."""

    def origin() -> None:
        raise OSError("down")

    with pytest.raises(OSError) as caught:
        ask(Retry(on=OSError, attempts=2), origin)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "origin"
    assert caught.value.__cause__ is None


def test_an_interrupt_is_not_repeated(ask: Asker, waits: list[float]) -> None:
    """Who says Exception does not mean those who want to leave."""

    class Interrupt(BaseException):
        pass

    origin = Scripted(Interrupt(), 7)
    with pytest.raises(Interrupt):
        ask(Retry(on=Exception, attempts=5), origin)
    assert origin.calls == 1


def test_who_is_cancelled_while_waiting_does_not_ask_again() -> None:
    """A task that waits for its next attempt ends at once when it is cancelled."""
    origin = Scripted(Limited({"Retry-After": "3600"}), 7)

    async def awaited() -> Any:
        return origin()

    async def main() -> None:
        task = asyncio.create_task(retrying.call(Retry(on=Limited, max_wait=3600.0), awaited, is_async=True))
        while not origin.calls:
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert origin.calls == 1


# -- how long is waited ---------------------------------------------------------------------------------------


def test_the_servers_word_is_waited_for(ask: Asker, waits: list[float]) -> None:
    """Each time what that exception says, up to `max_wait`."""
    origin = Scripted(Limited({"Retry-After": "2"}), Limited({"Retry-After": "0.5"}), Limited({"Retry-After": "99"}), 7)
    assert ask(Retry(on=Limited, attempts=4, max_wait=5.0), origin) == 7
    assert waits == [2.0, 0.5, 5.0]


def test_without_a_word_the_pauses_are_bounded(ask: Asker, waits: list[float]) -> None:
    """Pauses of our own are never longer than `max_wait`, and they are not all alike: callers must not march in step."""
    attempts = 30
    with contextlib.suppress(OSError):
        ask(Retry(on=OSError, attempts=attempts, max_wait=1.0), Scripted(*[OSError("no")] * attempts))
    assert len(waits) == attempts - 1
    assert all(0 <= seconds <= 1.0 for seconds in waits)
    assert len(set(waits)) > 2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "7"}, 7.0),
        ({"Retry-After": " 7.5 "}, 7.5),
        ({"Retry-After": "-7"}, 0.0),
        ({"Retry-After": email.utils.format_datetime(datetime.fromtimestamp(NOW + 30, timezone.utc))}, 30.0),
        ({"Retry-After": email.utils.format_datetime(datetime.fromtimestamp(NOW - 30, timezone.utc))}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": b"7"}, None),
        ({}, None),
        (None, None),
        ("Retry-After: 7", None),
    ],
    ids=repr,
)
def test_what_a_response_asks_for(headers: Any, seconds: float | None) -> None:
    """Seconds or a date, in either spelling; a past date means now, and what nobody understands means nothing."""
    assert retry_after(Limited(headers), NOW) == seconds


def test_where_the_word_may_stand() -> None:
    """In `retry_after` of the exception itself before all, in its response's headers, or in its own."""
    error = Limited({"Retry-After": "7"})
    assert retry_after(error, NOW) == 7.0
    error.retry_after = 3  # type: ignore[attr-defined]
    assert retry_after(error, NOW) == 3.0
    bare = OSError("no")
    assert retry_after(bare, NOW) is None
    bare.headers = {"Retry-After": "9"}  # type: ignore[attr-defined]
    assert retry_after(bare, NOW) == 9.0


# -- a server that said "later" -------------------------------------------------------------------------------


def no_pool() -> Any:
    raise AssertionError("nothing here blocks")


class Waiter:
    """`wait`, or `await_` on a loop of its own."""

    def __init__(self, *, on_a_loop: bool) -> None:
        self.on_a_loop = on_a_loop

    def __call__(self, cooldowns: Cooldowns, scope: str) -> None:
        if self.on_a_loop:
            asyncio.run(arun(cooldowns.waiting(scope), no_pool))
        else:
            run(cooldowns.waiting(scope))


@pytest.fixture(params=["wait", "await_"])
def waited(request: pytest.FixtureRequest) -> Waiter:
    return Waiter(on_a_loop=request.param == "await_")


@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_busy_server_is_left_alone_until_then(waited: Waiter, status: int) -> None:
    """Nobody of that scope calls before what the server said is over, and another scope's calls go on at once."""
    cooldowns, begin = Cooldowns(), time.monotonic()
    cooldowns.heed("here", Limited({"Retry-After": "0.05"}, status))
    assert cooldowns.left("there") == 0.0
    waited(cooldowns, "here")
    assert time.monotonic() - begin >= 0.05
    assert cooldowns.left("here") == 0.0


def test_what_is_left_grows_less() -> None:
    """So much of what was asked for is left as has not passed yet."""
    cooldowns = Cooldowns()
    cooldowns.heed("here", Limited({"Retry-After": "30"}))
    first = cooldowns.left("here")
    while (second := cooldowns.left("here")) == first:
        pass
    assert 0 < second < first <= 30


def test_every_thread_is_held_back(waited: Waiter) -> None:
    """What one call was told holds for those of all others."""
    cooldowns, begin = Cooldowns(), time.monotonic()
    told = threading.Thread(target=cooldowns.heed, args=("here", Limited({"Retry-After": "0.05"})))
    told.start()
    told.join()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: waited(cooldowns, "here"), range(4)))
    assert time.monotonic() - begin >= 0.05


def test_who_waits_hears_of_a_longer_wait(waited: Waiter, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """A second refusal while one waits: that time is waited for too, before anything is called."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    cooldowns = Cooldowns()
    cooldowns.heed("here", Limited({"Retry-After": "2"}))

    def passing(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds
        if len(waits) == 1:
            cooldowns.heed("here", Limited({"Retry-After": "3"}))

    async def apassing(seconds: float) -> None:
        passing(seconds)

    with monkeypatch.context() as patched:
        patched.setattr(time, "sleep", passing)
        patched.setattr(asyncio, "sleep", apassing)
        waited(cooldowns, "here")
    assert waits == [2.0, 3.0]


def test_the_longest_word_counts() -> None:
    """A shorter one that comes later takes nothing back."""
    cooldowns = Cooldowns()
    cooldowns.heed("here", Limited({"Retry-After": "30"}))
    cooldowns.heed("here", Limited({"Retry-After": "1"}))
    assert 1 < cooldowns.left("here") <= 30


def test_a_call_is_not_held_back_for_minutes() -> None:
    """Where the server asks for longer than LONGEST_WAIT the call is made: the SDK's refusal says more than silence."""
    cooldowns = Cooldowns()
    cooldowns.heed("here", Limited({"Retry-After": str(LONGEST_WAIT + 30)}))
    assert cooldowns.left("here") == 0.0


@pytest.mark.parametrize("error", [Limited({"Retry-After": "30"}, 400), Limited({}, 429), OSError("down")], ids=repr)
def test_nobody_is_held_back_for_anything_else(error: Exception) -> None:
    """Another status, no word of when, or no server at all: nothing is noted."""
    cooldowns = Cooldowns()
    cooldowns.heed("here", error)
    assert cooldowns.left("here") == 0.0


def test_a_status_may_stand_at_the_exception() -> None:
    """As SDKs have it that give no response along."""
    error = OSError("busy")
    error.status_code, error.headers = 503, {"Retry-After": "30"}  # type: ignore[attr-defined]
    cooldowns = Cooldowns()
    cooldowns.heed("here", error)
    assert 0 < cooldowns.left("here") <= 30


def test_waiting_does_not_hold_the_loop() -> None:
    """While one task is held back another one goes on."""
    cooldowns, order = Cooldowns(), list[str]()
    cooldowns.heed("here", Limited({"Retry-After": "0.05"}))

    async def held() -> None:
        await arun(cooldowns.waiting("here"), no_pool)
        order.append("held")

    async def free() -> None:
        await arun(cooldowns.waiting("there"), no_pool)
        order.append("free")

    async def main() -> None:
        await asyncio.gather(held(), free())

    asyncio.run(main())
    assert order == ["free", "held"]


@pytest.mark.parametrize("seconds", [-5, float("nan")])
def test_a_senseless_word_is_no_error_of_its_own(seconds: float) -> None:
    """An exception that says to wait for less than nothing is retried as one that says nothing; the last one passes."""

    class Senseless(Exception):
        retry_after = seconds

    def origin() -> None:
        raise Senseless

    with pytest.raises(Senseless):
        retrying.call(Retry(on=Senseless, attempts=2, max_wait=0.01), origin)
