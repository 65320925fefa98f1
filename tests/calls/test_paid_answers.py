"""Nothing that is raised while an answer is looked at reaches who paid for it; and warnings stand where the call is."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from calls.both_ways import answered

from cachekit import Adapter, Reply, distributed_cache, persist_artifact, stats
from cachekit_adapters import groq


class Thorny:
    """Whatever it is asked, it raises."""

    def __init__(self, error: Exception) -> None:
        object.__setattr__(self, "error", error)

    def __getattribute__(self, name: str) -> Any:
        raise object.__getattribute__(self, "error")


class Keys(dict):  # type: ignore[type-arg]
    def __init__(self, error: Exception) -> None:
        super().__init__(a=1)
        self.error = error

    def items(self) -> Any:
        raise self.error

    def __iter__(self) -> Any:
        raise self.error

    keys = values = __iter__


ERRORS = [RecursionError(), OverflowError(), KeyError(1), ValueError(), AttributeError(), OSError(), LookupError()]


def adapter(**broken: Callable[..., Any]) -> Adapter:
    said: dict[str, Any] = {
        "name": "test",
        "capture": lambda answer: Reply("plain", str(answer).encode()),
        "restore": lambda reply, *_: int(reply.body),
        "judge": lambda _reply: "",
    }
    return Adapter(**{**said, **broken})


def raiser(error: Exception) -> Callable[..., Any]:
    def broken(*_: Any) -> Any:
        raise error

    return broken


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("part", ["capture", "judge", "streams"])
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_adapter_that_raises_costs_no_answer(part: str, error: Exception) -> None:
    """Warnings are errors here, and even they do not stand in the way."""

    @distributed_cache(adapter=adapter(**{part: raiser(error)}), version="1")
    def ask(x: int) -> int:
        return x

    assert (ask(1), ask(1)) == (1, 1)
    assert stats(ask).as_dict()["skipped"] == {"raised": 2}


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_value_that_raises_is_returned(error: Exception) -> None:
    """Not stored, counted, and said once."""
    values = [Thorny(error), Keys(error)]

    @distributed_cache(version="1", ignore="values")
    def f(x: int) -> Any:
        return values[x]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert f(0) is values[0]
        assert f(1) is values[1]
    assert sum(stats(f).as_dict()["skipped"].values()) == 2


def test_a_piece_that_raises_is_given_on() -> None:
    """Of a generator's values the one that cannot be looked at is given on like the others."""
    thorn = Thorny(KeyError(1))

    @distributed_cache(version="1")
    def pieces() -> Iterator[Any]:
        yield 1
        yield thorn
        yield 2

    with pytest.warns(UserWarning):
        found = list(pieces())
    assert (found[0], found[1] is thorn, found[2]) == (1, True, 2)


def test_a_warning_behind_an_answer_raises_nothing() -> None:
    """Under warnings as errors too: the answer is paid for."""

    @distributed_cache(version="1")
    def f(x: int) -> Any:
        return object()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert type(f(1)) is object


class Owner:
    @distributed_cache
    def method(self, lock: Any) -> int:
        return 1

    def __cachekit_key__(self) -> int:
        return 1


@distributed_cache
def function(lock: Any) -> int:
    return 1


@distributed_cache
async def coroutine(lock: Any) -> int:
    return 1


@distributed_cache
def generator(lock: Any) -> Iterator[int]:
    yield 1


@distributed_cache(adapter=groq.CHAT)
def adapted(lock: Any) -> int:
    return 1


LOCK = threading.Lock()


@persist_artifact
def artifact(lock: Any) -> Path:
    return Path(__file__)


@distributed_cache(version="1")
def unencodable(x: int) -> Any:
    return object()


@distributed_cache(version="1")
async def unencodable_later(x: int) -> Any:
    return object()


CALLS = {
    "function": lambda: function(LOCK),
    "method": lambda: Owner().method(LOCK),
    "unbound": lambda: Owner.method(Owner(), LOCK),
    "coroutine": lambda: answered(_awaiting(coroutine, LOCK)),
    "generator": lambda: list(generator(LOCK)),
    "adapted": lambda: adapted(LOCK),
    "artifact": lambda: artifact(LOCK),
    "refresh": lambda: function.refresh(LOCK),
    "unencodable": lambda: unencodable(1),
    "unencodable_later": lambda: answered(_awaiting(unencodable_later, 1)),
}


async def _awaiting(function: Any, *args: Any) -> Any:
    return await function(*args)


@pytest.fixture(autouse=True)
def nothing_said() -> None:
    said = (function, coroutine, generator, adapted, artifact, unencodable, unencodable_later, Owner.__dict__["method"])
    for one in said:
        one._self_target._warned.clear()


@pytest.mark.parametrize("kind", CALLS)
def test_a_warning_stands_at_the_callers_line(kind: str) -> None:
    """Wherever in cachekit it was found."""
    call = CALLS[kind]
    line = (
        _awaiting.__code__.co_firstlineno + 1 if "_awaiting" in call.__code__.co_names else call.__code__.co_firstlineno
    )
    with pytest.warns(UserWarning) as warned:
        call()
    assert [(one.filename, one.lineno) for one in warned] == [(__file__, line)]


def test_a_warning_of_a_task_stands_at_the_function() -> None:
    """Who made the task is not on its stack."""

    async def main() -> None:
        await asyncio.create_task(coroutine(LOCK))

    with pytest.warns(UserWarning) as warned:
        asyncio.run(main())
    (one,) = warned
    assert (one.filename, one.lineno) == (__file__, coroutine.__wrapped__.__code__.co_firstlineno)
