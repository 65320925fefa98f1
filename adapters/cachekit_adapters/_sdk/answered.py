"""An SDK's value beside the bytes that it was made of: what is kept is what the server said, not what an SDK says of it.

A value may be more than its answer: `parse()` puts objects of the caller's own classes into it, and embeddings come as
numbers that were base64. The bytes are heard where the SDK makes the value of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, NamedTuple


class Answered(NamedTuple):
    """A live answer: the caller's value, and the bytes of the body."""

    value: Any
    content: bytes


_responses: Final[ContextVar[list[Any] | None]] = ContextVar("cachekit_adapters_responses", default=None)


def heard(process: Callable[..., Any]) -> Callable[..., Any]:
    """A client's `_process_response` that lets `answering` know of the response."""

    @functools.wraps(process)
    def processed(*args: Any, **kwargs: Any) -> Any:
        responses = _responses.get()
        if responses is not None:
            responses[:] = [kwargs.get("response")]
        return process(*args, **kwargs)

    return processed


def answering(ask: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
    """`ask`, whose value comes as Answered; as it is where it holds no whole answer."""

    def answered(*args: Any) -> Any:
        responses: list[Any] = []
        token = _responses.set(responses)
        try:
            return _beside(ask(*args), responses)
        finally:
            _responses.reset(token)

    async def awaited(*args: Any) -> Any:
        responses: list[Any] = []
        token = _responses.set(responses)
        try:
            return _beside(await ask(*args), responses)
        finally:
            _responses.reset(token)

    return awaited if is_async else answered


def _beside(value: Any, responses: list[Any]) -> Any:
    if not responses or isinstance(value, str):
        return value
    try:
        return Answered(value, responses[0].content)
    except (AttributeError, RuntimeError):  # a body that nobody read yet: it is no plain answer
        return value
