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


async def each(values: Iterable[Any]) -> AsyncIterator[Any]:
    """`values` one by one, for an event loop."""
    for value in values:
        yield value


class Source:
    """What a response reads from: decoded bytes as they come; closing it closes the response.

    No generator, because one that never began does not close anything.
    """

    def __init__(self, response: Any) -> None:
        self._response = response

    def _is_raw(self) -> bool:
        """Whether the bytes are as they came over the wire, where a decoder would only take its time.

        They are not of a response that somebody read before, such as a hook of the client.
        """
        return not ("content-encoding" in self._response.headers or self._response.is_stream_consumed)

    def __iter__(self) -> Iterator[bytes]:
        return self._response.iter_raw() if self._is_raw() else self._response.iter_bytes()  # type: ignore[no-any-return]

    def close(self) -> None:
        self._response.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_raw() if self._is_raw() else self._response.aiter_bytes()  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        await self._response.aclose()


def body(beside: Any, pieces: Any, *, is_async: bool) -> Any:
    """A response's `stream` that gives `pieces`: a list, or an iterator of the response's kind, which it closes.

    `beside` is of the library whose response it will be.
    """
    return _body_of(library_of(beside), is_async=is_async)(pieces)


@functools.cache
def _body_of(library: Any, *, is_async: bool) -> Any:
    return type("Body", (_Body, library.AsyncByteStream if is_async else library.SyncByteStream), {})


class _Body:
    def __init__(self, pieces: Any) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        if hasattr(self._pieces, "close"):
            self._pieces.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces if hasattr(self._pieces, "__anext__") else each(self._pieces)

    async def aclose(self) -> None:
        if hasattr(self._pieces, "aclose"):
            await self._pieces.aclose()
