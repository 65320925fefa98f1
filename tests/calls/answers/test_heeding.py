"""A server that said "later" is left alone until then, by every call of its endpoint, on threads and on event loops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cachekit.calls.answers.asking import heeding
from cachekit.calls.prepare import driven


class Limited(Exception):
    """A 429 as SDKs raise it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.response = SimpleNamespace(status_code=429, headers={"Retry-After": str(seconds)})


class Caller:
    """Asks an origin, a plain function for both kinds, with regard to its endpoint."""

    def __init__(self, *, is_async: bool) -> None:
        self.is_async = is_async

    def flow(self, origin: Callable[[], Any], scope: str) -> Any:
        async def awaited() -> Any:
            return origin()

        return driven(heeding(awaited if self.is_async else origin, scope), is_async=self.is_async)

    def __call__(self, origin: Callable[[], Any], scope: str = "here") -> Any:
        async def main() -> Any:
            return await self.flow(origin, scope)

        return asyncio.run(main()) if self.is_async else self.flow(origin, scope)


@pytest.fixture(params=["function", "coroutine function"])
def ask(request: pytest.FixtureRequest) -> Caller:
    return Caller(is_async=request.param == "coroutine function")


def refused(ask: Caller, seconds: float, scope: str = "here") -> None:
    """A call whose server says that it wants to be left alone for so many seconds."""

    def origin() -> None:
        raise Limited(seconds)

    with pytest.raises(Limited):
        ask(origin, scope)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """How long was waited each time; the clock passes without it."""
    clock, seconds = [100.0], list[Any]()

    def passed(delay: float) -> None:
        seconds.append(delay)
        clock[0] += delay

    async def apassed(delay: float) -> None:
        passed(delay)

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", passed)
    monkeypatch.setattr(asyncio, "sleep", apassed)
    return seconds


def test_the_next_call_waits(ask: Caller) -> None:
    """In real time: the refusal is the caller's, and the next call is not made before the server's word is over."""
    begin = time.monotonic()
    refused(ask, 0.05)
    assert ask(time.monotonic) - begin >= 0.05


def test_no_longer_than_asked_for(ask: Caller, waits: list[Any]) -> None:
    """One wait of what was asked for, and none for the call after that."""
    refused(ask, 7)
    assert (ask(lambda: 1), ask(lambda: 2)) == (1, 2)
    assert waits == [7.0]


def test_another_endpoint_does_not_wait(ask: Caller, waits: list[Any]) -> None:
    """A rate limit is the endpoint's and the tenant's."""
    refused(ask, 7)
    assert ask(lambda: 1, "there") == 1
    assert waits == []


def test_a_refusal_behind_the_wait_is_waited_for_too(ask: Caller, waits: list[Any]) -> None:
    """The server says "later" once more: that word counts for the next call, and neither is swallowed."""
    refused(ask, 7)
    refused(ask, 3)
    assert ask(lambda: 1) == 1
    assert waits == [7.0, 3.0]


@pytest.mark.parametrize("error", [LookupError("mine"), OSError("down")], ids=repr)
def test_another_failure_holds_nobody_back(ask: Caller, waits: list[Any], error: Exception) -> None:
    """The very exception is the caller's, and the next call is made at once."""

    def origin() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        ask(origin)
    assert caught.value is error
    assert ask(lambda: 1) == 1
    assert waits == []
