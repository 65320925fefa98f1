"""Objects that raise whatever they are asked, passed and reached: the call goes on, at most uncached, and is counted."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest

from cachekit import distributed_cache, stats


class Proxy:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no context")


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__mro__", "__module__", "__qualname__", "__dict__", "__cachekit_key__"):
            raise RuntimeError("no context")
        return super().__getattribute__(name)


class Hidden(metaclass=Meta):
    pass


class Pretending:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no context")

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise RuntimeError("no context")


class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise ValueError("eq")

    def __hash__(self) -> int:
        raise ValueError("hash")


class Opaque:
    def __getattr__(self, name: str) -> Any:
        raise ValueError(name)

    def __repr__(self) -> str:
        raise ValueError("repr")


@dataclass
class Record:
    value: Any

    def __eq__(self, other: object) -> bool:
        raise ValueError("eq")

    __hash__ = None  # type: ignore[assignment]


class Key:
    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def __cachekit_key__(self) -> Any:
        if self.error is None:
            return self
        raise self.error


class Text(str):
    def __eq__(self, other: object) -> bool:
        raise ValueError("eq")

    __hash__ = str.__hash__


def released() -> memoryview:
    view = memoryview(bytearray(b"a"))
    view.release()
    return view


def deep() -> list[Any]:
    tree: list[Any] = []
    for _ in range(100_000):
        tree = [tree]
    return tree


def cyclic() -> dict[str, Any]:
    tree: dict[str, Any] = {}
    tree["me"] = Record(tree)
    return tree


ODD: dict[str, Callable[[], Any]] = {
    "a proxy outside of its context": Proxy,
    "a class that hides": lambda: Hidden,
    "an instance of a class that hides": Hidden,
    "an instance without a class": Pretending,
    "a class without a module": lambda: type("C", (), {"__module__": None}),
    "an instance of a class without a module": type("C", (), {"__module__": None}),
    "a released memoryview": released,
    "a text with a surrogate": lambda: {"\ud800": "\ud800"},
    "equality that raises": Incomparable,
    "attributes that raise": Opaque,
    "a record whose equality raises": lambda: Record(1),
    "a key that raises": lambda: Key(KeyError("x")),
    "a key that is too deep": lambda: Key(RecursionError()),
    "a key that is itself": lambda: Key(None),
    "a text whose equality raises": lambda: {Text("a"): Text("b")},
    "a deep tree": deep,
    "a cycle": cyclic,
    "a generator": lambda: (one for one in ()),
    "a lock": threading.Lock,
    "a thread local": threading.local,
    "a frame": sys._getframe,
    "a module": lambda: sys,
    "a code object": lambda: deep.__code__,
    "a long number": lambda: 10**5000,
    "a mock": mock.MagicMock,
    "a mock in a list": lambda: [mock.Mock()],
    "what create_autospec made": lambda: mock.create_autospec(deep),
}


@pytest.mark.parametrize("name", ODD)
def test_whatever_is_passed_the_call_goes_on(name: str) -> None:
    """The function answers, once or each time; nothing else is raised."""
    odd = ODD[name]()

    @distributed_cache
    def ask(x: Any = None, **more: Any) -> int:
        return 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ask(odd) == ask(x=odd) == ask(more=odd) == ask(**{"\ud800": odd}) == 1
    assert set(stats(ask).as_dict()["bypasses"]) <= {"unkeyable", "mocked", 'ipfs: configure(ipfs="off")'}
    assert ("mocked" in stats(ask).as_dict()["bypasses"]) == ("mock" in name or "autospec" in name)


@pytest.mark.parametrize("name", ODD)
def test_whatever_is_reached_the_call_goes_on(name: str) -> None:
    """The same for what stands in a closure, a default and a container of the function."""
    odd = ODD[name]()
    held = [odd]

    def helper(value: Any = odd) -> Any:
        return held

    @distributed_cache
    def ask(x: int) -> int:
        return x if x else (odd, helper)  # type: ignore[return-value]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ask(1) == ask(1) == ask(1) == 1
    assert ("mocked" in stats(ask).as_dict()["bypasses"]) == ("mock" in name or "autospec" in name)
