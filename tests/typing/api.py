"""Uses of the public surface, never executed: mypy --strict and pyright read it (`make types`).

`assert_type` fails where a type is lost, `Any` included. The lines that ignore an error are wrong uses: both checkers
complain of an ignore that nothing needs, so each of them must stay an error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from typing_extensions import assert_type

from cachekit import (
    MISS,
    Cached,
    Explanation,
    Key,
    Retry,
    configure,
    distributed_cache,
    export_car,
    gc,
    import_car,
    persist_artifact,
    stats,
    warm,
)
from cachekit.cache.cache import Cache
from cachekit.model import Missing

T = TypeVar("T")


@distributed_cache
def bare(text: str, *, model: str = "m") -> dict[str, int]:
    return {text: len(model)}


@distributed_cache(ttl="1h", tags=["user:{user}"], retry=Retry(on=(OSError,)), stale_if_error=timedelta(days=1))
def called(user: int) -> list[str]:
    return [str(user)]


@distributed_cache
async def waited(text: str) -> str:
    return text


@distributed_cache(ttl=None)
async def waited_for(text: str) -> str:
    return text


@distributed_cache
def counted(most: int) -> Iterator[float]:
    yield float(most)


@distributed_cache(pace="recorded", coalesce="team")
def generated(most: int) -> Generator[float, None, None]:
    yield float(most)


@distributed_cache
async def streamed(most: int) -> AsyncIterator[float]:
    yield float(most)


@distributed_cache
def loose(text: str) -> Any:
    return text


@distributed_cache
def same(value: T) -> T:
    return value


@persist_artifact
def built(name: str) -> Path:
    return Path(name)


@persist_artifact(output="place", scratch="work", ttl="7d", version="2", coalesce="machine")
def placed(name: str, place: Path | None = None, work: Path | None = None) -> Path:
    return work or Path(name)


class Service:
    @distributed_cache(ignore=("self",))
    def method(self, number: int) -> float:
        return number / 2

    @distributed_cache
    async def waiting(self, number: int) -> float:
        return number / 2

    @distributed_cache
    def counting(self, most: int) -> Iterator[int]:
        yield most

    @distributed_cache
    @classmethod
    def outer_class(cls, number: int) -> str:
        return f"{cls.__name__}{number}"

    @classmethod
    @distributed_cache
    def inner_class(cls, number: int) -> str:
        return f"{cls.__name__}{number}"

    @distributed_cache
    @staticmethod
    def outer_static(number: int) -> list[int]:
        return [number]

    @staticmethod
    @distributed_cache(ttl=60)
    def inner_static(number: int) -> list[int]:
        return [number]

    @distributed_cache
    @staticmethod
    def nothing() -> int:
        return 1

    def uses_its_own(self) -> None:
        assert_type(self.method(3), float)
        assert_type(self.outer_class(3), str)
        assert_type(self.inner_static(3), list[int])


class Narrow(Service):
    pass


class Box(Generic[T]):
    def __init__(self, content: T) -> None:
        self.content = content

    @distributed_cache
    def get(self, number: int) -> T:
        return self.content


@distributed_cache
def attached(owner: Attached, number: int) -> float:
    return number / 2


class Attached:
    method = attached


@dataclass
class Holder:
    function: Cached[[int], list[str]]


def functions() -> None:
    assert_type(bare("a", model="b"), dict[str, int])
    assert_type(called(1), list[str])
    assert_type(bare.refresh("a"), dict[str, int])
    assert_type(bare.peek("a"), dict[str, int] | Missing)
    assert_type(bare.put({"a": 1}, "a", model="b"), bool)
    assert_type(bare.invalidate("a"), bool)
    assert_type(bare.clear(), bool)
    assert_type(bare.key_for("a"), Key)
    assert_type(bare.explain("a"), Explanation)
    assert_type(bare.cache, Cache)
    assert_type(bare.__wrapped__("a"), dict[str, int])
    assert_type(bare.__name__, str)
    assert_type(same(3), int)
    found = bare.peek("a")
    if found is not MISS:
        assert_type(found, dict[str, int])


def as_values() -> None:
    decorated: Cached[..., dict[str, int]] = bare
    plain: Callable[[int], list[str]] = called
    decorate = distributed_cache(namespace="n", codec="json")
    assert_type(decorate(len)([]), int)
    assert_type(decorate(str.upper)("a"), str)
    assert_type(distributed_cache(called.__wrapped__, ttl=3)(1), list[str])
    with configure(ttl="5m"):
        print(decorated, plain, stats(bare).as_dict(), warm(Service().method, [1]))


async def coroutine_functions() -> None:
    assert_type(await waited("a"), str)
    assert_type(await waited_for("a"), str)
    assert_type(await waited.refresh("a"), str)
    assert_type(await waited.peek("a"), str | Missing)
    assert_type(await waited.put("b", "a"), bool)
    assert_type(await waited.invalidate("a"), bool)
    assert_type(waited.key_for("a"), Key)
    assert_type(waited.explain("a"), Explanation)
    assert_type(await Service().waiting(1), float)
    assert_type(await Service().waiting.peek(1), float | Missing)
    assert_type(await Service().waiting.put(0.5, 1), bool)


async def generator_functions() -> None:
    assert_type(counted(3), Iterator[float])
    assert_type(generated(3), Generator[float, None, None])
    assert_type(list(counted.refresh(3)), list[float])
    assert_type(counted.peek(3), list[float] | Missing)
    assert_type(generated.peek(3), list[float] | Missing)
    assert_type(counted.put([0.5], 3), bool)
    assert_type(counted.invalidate(3), bool)
    assert_type(Service().counting.peek(3), list[int] | Missing)
    assert_type([value async for value in streamed(3)], list[float])
    assert_type([value async for value in streamed.refresh(3)], list[float])
    assert_type(await streamed.peek(3), list[float] | Missing)
    assert_type(await streamed.put([0.5], 3), bool)
    assert_type(await streamed.invalidate(3), bool)


def artifacts() -> None:
    assert_type(built("a"), Path)
    assert_type(built.peek("a"), Path | Missing)
    assert_type(built.put(Path("a"), "a"), bool)
    assert_type(placed("a", Path("b")), Path)


def methods() -> None:
    service = Service()
    assert_type(service.method(3), float)
    assert_type(Service.method(service, 3), float)
    assert_type(Narrow().method(3), float)
    assert_type(service.method.peek(3), float | Missing)
    assert_type(service.method.put(1.5, 3), bool)
    assert_type(service.method.invalidate(3), bool)
    assert_type(service.method.key_for(3), Key)
    assert_type(service.method.explain(3), Explanation)
    assert_type(service.method.cache, Cache)
    assert_type(Service.method.peek(service, 3), float | Missing)
    assert_type(Attached().method(3), float)
    assert_type(Attached.method(Attached(), 3), float)
    assert_type(Attached().method.peek(3), float | Missing)
    assert_type(Holder(called).function(3), list[str])
    assert_type(Holder(called).function.peek(3), list[str] | Missing)
    assert_type(Box("a").get(3), str)
    assert_type(Box("a").get.peek(3), str | Missing)


def methods_of_classes() -> None:
    assert_type(Service.outer_class(3), str)
    assert_type(Service().outer_class(3), str)
    assert_type(Narrow.outer_class(3), str)
    assert_type(Service.outer_class.peek(3), str | Missing)
    assert_type(Service.outer_class.put("a", 3), bool)
    assert_type(Service.inner_class(3), str)
    assert_type(Service().inner_class(3), str)
    assert_type(Service.outer_static(3), list[int])
    assert_type(Service().outer_static(3), list[int])
    assert_type(Service().outer_static.peek(3), list[int] | Missing)
    assert_type(Service.inner_static(3), list[int])
    assert_type(Service().inner_static(3), list[int])
    assert_type(Service().inner_static.invalidate(3), bool)
    assert_type(Service.nothing(), int)
    assert_type(Service().nothing(), int)


async def untyped() -> None:
    """A function that may return anything is no coroutine function for it."""
    assert_type(loose("a"), Any)
    assert_type(loose.peek("a"), Any)
    assert_type(loose.put(3, "a"), Any)
    assert_type(loose.invalidate("a"), Any)


async def wrong_calls() -> None:
    bare("a", modle="b")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    bare()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    called("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await waited(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Service().method("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Service().method()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Service.outer_class("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Service.inner_class("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Service().outer_static("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Service().inner_static("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    built(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def wrong_helpers() -> None:
    bare.peek(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bare.key_for()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    bare.put(3, "a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bare.put({})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    bare.peeek("a")  # type: ignore[attr-defined]  # pyright: ignore
    bare + bare  # type: ignore[operator]  # pyright: ignore
    await waited.put(3, "a")  # type: ignore[call-overload]  # pyright: ignore
    await bare.peek("a")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    Service().method.peek("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def pinned() -> None:
    for pin in (True, "30d", timedelta(days=30), 3600, 0.5):
        decorate = persist_artifact(pin=pin)
        assert_type(distributed_cache(pin=pin)(called.__wrapped__)(1), list[str])
        assert_type(decorate(called.__wrapped__)(1), list[str])
    exported = export_car("a.car", since=timedelta(days=2), tag="t", function="m.f", namespace="n")
    assert_type(exported, dict[str, Any])
    assert_type(import_car("a.car"), dict[str, Any])
    assert_type(gc(), dict[str, int])


def wrong_keywords() -> None:
    distributed_cache(pin=None)  # type: ignore[call-overload]  # pyright: ignore
    persist_artifact(pin=[])  # type: ignore[call-overload]  # pyright: ignore
    export_car("a.car", since=[])  # type: ignore[arg-type]  # pyright: ignore
    distributed_cache(tttl=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    distributed_cache(ttl=[])  # type: ignore[call-overload]  # pyright: ignore
    distributed_cache(coalesce="all")  # type: ignore[call-overload]  # pyright: ignore
    distributed_cache(output="a")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    persist_artifact(tttl=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    persist_artifact(output=3)  # type: ignore[call-overload]  # pyright: ignore
    persist_artifact(pace="recorded")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
