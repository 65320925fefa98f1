"""Responses of httpx and httpx2: what a live one reads from, and new ones whose body comes in given pieces."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Final

LIBRARIES: Final = frozenset({"httpx", "httpx2"})
GONE: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers of how the bytes came; the bytes here are decoded."""


def library_of(value: Any) -> str | None:
    """httpx or httpx2, whichever this client, request or response is of, or None."""
    roots = (kind.__module__.partition(".")[0] for kind in type(value).__mro__)
    return next((root for root in roots if root in LIBRARIES), None)


def library(value: Any) -> Any:
    """The module of it. Raises TypeError where it is of neither."""
    name = library_of(value)
    if name is None:
        raise TypeError(f"{type(value)} is none of httpx or httpx2")
    return importlib.import_module(name)


def source(response: Any, *, is_async: bool) -> Any:
    """What a response reads from: decoded bytes as they come; closing it closes the response."""
    return (_AsyncSource if is_async else _Source)(response)


def body(beside: Any, pieces: Any, *, is_async: bool) -> Any:
    """A response's `stream` that gives `pieces`: a list, or an iterator of the response's kind, which it closes.

    `beside` is of the library whose response it will be.
    """
    base = library(beside).AsyncByteStream if is_async else library(beside).SyncByteStream
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
