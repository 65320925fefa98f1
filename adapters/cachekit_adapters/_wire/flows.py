"""A client's method as one flow, for blocking and asynchronous clients alike: what is awaited or not is the driver's."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from cachekit import CallOrigin, driven

Flow = Generator[Any, Any, Any]
"""Yields `CallOrigin` and `Do`, is sent what came of them, and returns the value."""


def method(flow: Callable[..., Flow], *, is_async: bool) -> Callable[..., Any]:
    """What performs `flow(…)`; of an asynchronous client a coroutine function."""

    def performed(*args: Any, **kwargs: Any) -> Any:
        return driven(flow(*args, **kwargs), is_async=is_async)

    async def awaited(*args: Any, **kwargs: Any) -> Any:
        return await performed(*args, **kwargs)

    return awaited if is_async else performed


def changed(origin: Callable[[], Any], change: Callable[[Any], Any], *, is_async: bool) -> Callable[[], Any]:
    """An origin that gives `change` of what `origin` gives."""

    def flow() -> Flow:
        return change((yield CallOrigin(origin=origin)).value)

    return method(flow, is_async=is_async)
