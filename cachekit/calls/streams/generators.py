"""Decorated generator functions: values reach the caller as they come, and a hit replays them one by one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from cachekit.calls.prepare import Prepared, driven, prepare
from cachekit.calls.streams.log import Pieces
from cachekit.calls.streams.recording import Piece, Recording
from cachekit.calls.streams.streaming import streamed
from cachekit.calls.target import Target
from cachekit.model import MISS
from cachekit.plan.gate import Scope
from cachekit.plan.loops import sleep


def call(target: Target, origin: Callable[[], Any], args: Any, kwargs: Any) -> Any:
    """An iterator, or an async one. The key is built now; nothing is looked up before the first value is asked for."""
    prepared = prepare(target, args, kwargs)
    if prepared is None:
        return origin()
    return (_avalues if prepared.is_async else _values)(prepared, origin)


def refresh(target: Target, origin: Callable[[], Any], args: Any, kwargs: Any) -> Any:
    """The same, from the origin whatever is stored."""
    with Scope(mode="refresh"):
        return call(target, origin, args, kwargs)


def _values(prepared: Prepared, origin: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    answer = driven(streamed(prepared, _pieces(prepared, origin)), is_async=False)
    if isinstance(answer, Recording):
        for value, ahead in _paced(prepared, answer):
            if ahead:
                time.sleep(ahead)
            yield value
        return
    try:
        if answer.first is not MISS:
            yield answer.first
            yield from answer.others
    finally:
        answer.others.close()


async def _avalues(prepared: Prepared, origin: Callable[[], AsyncIterator[Any]]) -> AsyncIterator[Any]:
    answer = await driven(streamed(prepared, _pieces(prepared, origin)), is_async=True)
    if isinstance(answer, Recording):
        for value, ahead in _paced(prepared, answer):
            if ahead:
                await sleep(ahead)
            yield value
        return
    try:
        if answer.first is not MISS:
            yield answer.first
            async for value in answer.others:
                yield value
    finally:
        await answer.others.aclose()


def _pieces(prepared: Prepared, origin: Callable[[], Any]) -> Pieces:
    codec = prepared.target.codec.values  # type: ignore[attr-defined]
    return Pieces(origin, lambda value, at: Piece(value, at, codec), lambda piece: piece.take(codec), list)


def _paced(prepared: Prepared, recording: Recording) -> Iterator[tuple[Any, float]]:
    """Each value, and how many seconds too early it is where the recorded pace is wanted."""
    recorded, begin = prepared.target.policy.pace == "recorded", time.perf_counter_ns()
    for value, at in zip(recording, recording.instants, strict=True):
        yield value, max(0.0, (begin + at - time.perf_counter_ns()) / 1e9) if recorded else 0.0
