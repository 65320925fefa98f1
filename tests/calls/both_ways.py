"""A decorated function and its twin that is a coroutine function, called alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


def answered(answer: Any) -> Any:
    """What was returned; awaited on a loop of its own where it must be."""

    async def awaited(waiting: Awaitable[Any]) -> Any:
        return await waiting

    return asyncio.run(awaited(answer)) if isinstance(answer, Awaitable) else answer


class Way:
    """Calls the one or the other of two functions, and their helpers: `way(pair)(1)`, `way(pair).peek(1)`."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, pair: tuple[Any, Any]) -> Asked:
        return Asked(pair[self.number])


class Asked:
    """A decorated function of either kind, as a plain one."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return answered(self.function(*args, **kwargs))

    def __getattr__(self, helper: str) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            return answered(getattr(self.function, helper)(*args, **kwargs))

        return called
