"""Responses of httpx and httpx2: what a live one reads from, and new ones whose body comes in given pieces."""

from __future__ import annotations

import functools
import importlib
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Final

LIBRARIES: Final = frozenset({"httpx", "httpx2"})
GONE: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers of how the bytes came; the bytes here are decoded."""


def library_of(value: Any) -> Any:
    """The module httpx or httpx2, whichever this client, request or response is of, or None."""
    kind: Any = type(value)
    return _library_of(kind)


@functools.lru_cache(64)
def _library_of(kind: Any) -> Any:
    roots = (each.__module__.partition(".")[0] for each in kind.__mro__)
    name = next((root for root in roots if root in LIBRARIES), None)
    return None if name is None else importlib.import_module(name)


def source(response: Any, *, is_async: bool) -> Any:
    """What a response reads from: decoded bytes as they come; closing it closes the response."""
    return (_AsyncSource if is_async else _Source)(response)


def body(beside: Any, pieces: Any, *, is_async: bool) -> Any:
    """A response's `stream` that gives `pieces`: a list, or an iterator of the response's kind, which it closes.

    `beside` is of the library whose response it will be.
    """
    library = library_of(beside)
    base = library.AsyncByteStream if is_async else library.SyncByteStream
    return type("Body", (_AsyncBody if is_async else _Body, base), {})(pieces)


async def each(values: Iterable[Any]) -> AsyncIterator[Any]:
    """The same, for an event loop."""
    for value in values:
        yield value


def _encoded(response: Any) -> bool:
    """Whether decoding is needed; the new response goes through its own decoder once more, and each takes its time."""
    return "content-encoding" in response.headers


class _Source:
    """A response's bytes; no generator, because one that never began does not close anything."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self._pieces: Iterator[bytes] = response.iter_bytes() if _encoded(response) else response.iter_raw()

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._response.close()


class _AsyncSource:
    def __init__(self, response: Any) -> None:
        self._response = response
        self._pieces: AsyncIterator[bytes] = response.aiter_bytes() if _encoded(response) else response.aiter_raw()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def aclose(self) -> None:
        await self._response.aclose()


class _Body:
    def __init__(self, pieces: Any) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        getattr(self._pieces, "close", lambda: None)()


class _AsyncBody:
    def __init__(self, pieces: Any) -> None:
        self._pieces: Any = pieces if hasattr(pieces, "__anext__") else each(pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        await self._pieces.aclose()
