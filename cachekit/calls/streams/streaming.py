"""Calls whose answer comes in pieces: pieces reach the caller as they come, and are kept once the last one came.

The same for generator functions and for an SDK's streams. Nobody waits for another process here: a lease would hold the
first piece back until the other's last.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from cachekit.calls.prepare import Prepared, begun, driven, perform, retried
from cachekit.calls.streams.following import AsyncFollowed, Followed
from cachekit.calls.streams.log import Abandoned, Clock, Ended, Pieces
from cachekit.model import Event
from cachekit.plan import loops
from cachekit.plan import plan as plans
from cachekit.plan.steps import CallOrigin, Returned, Steps


def streamed(prepared: Prepared, pieces: Pieces) -> Steps:
    """The stored value, or the stream Begun."""
    whole = functools.partial(_collected, prepared, pieces)
    steps = plans.stream(prepared.request)
    return begun(prepared, steps, functools.partial(opened, prepared, pieces), whole=whole)


def opened(prepared: Prepared, pieces: Pieces) -> Any:
    """The call's stream, Begun, together with everybody else who wants it now."""
    return driven(_joined(prepared, pieces), is_async=prepared.is_async)


def _joined(prepared: Prepared, pieces: Pieces) -> Steps:
    if prepared.is_async and loops.trio() is not None:
        return (yield from alone(prepared, pieces))  # following is asyncio's only
    loop = id(asyncio.get_running_loop()) if prepared.is_async else 0
    make = functools.partial(_kept, prepared, pieces)
    while True:
        followed = prepared.cache.streams.join(prepared.key.digest, loop, make)
        stream = (yield CallOrigin(origin=followed.begin)).value
        if stream is not None:
            return stream
        if not followed.over:
            # It waits for this very call, or stands still.
            return (yield from alone(prepared, pieces))


def alone(prepared: Prepared, pieces: Pieces) -> Steps:
    """A stream that came where none was expected, Begun: kept like any other, with nobody to follow it."""
    followed = _kept(prepared, pieces)
    followed.join()
    return (yield CallOrigin(origin=followed.begin)).value


def _collected(prepared: Prepared, pieces: Pieces) -> Any:
    """All of the stream at once, for a refresh in the background that nobody reads."""
    followed = _followed(prepared, pieces, _not_kept)
    followed.join()

    def flow() -> Steps:
        return pieces.finish((yield CallOrigin(origin=followed.all)).value)

    return driven(flow(), is_async=prepared.is_async)


def _kept(prepared: Prepared, pieces: Pieces) -> Followed | AsyncFollowed:
    """A stream that is stored when it ends."""

    def ended(log: list[Any], clock: Clock, error: BaseException | None) -> Any:
        prepared.cache.streams.leave(followed)
        outcome = _outcome(prepared, pieces, log, clock, error, too_long=followed.too_long)
        if outcome is None:
            if prepared.cache.claims is not None:
                prepared.cache.claims.end(prepared.key, "vain")
            return None
        arrived = plans.arrived(prepared.request, outcome, clock.started)
        return perform(prepared, arrived, announce=True, claimed=True)

    followed = _followed(prepared, pieces, ended)
    return followed


def _followed(prepared: Prepared, pieces: Pieces, ended: Ended) -> Followed | AsyncFollowed:
    kind = AsyncFollowed if prepared.is_async else Followed
    return kind(pieces, functools.partial(retried, prepared.target), ended, prepared.request.patience)


def _not_kept(_log: list[Any], _clock: Clock, _error: BaseException | None) -> None:
    return None


def _outcome(
    prepared: Prepared, pieces: Pieces, log: list[Any], clock: Clock, error: BaseException | None, *, too_long: bool
) -> Returned | None:
    """What is to be kept of a stream that ended; None where that is nothing, which is told."""
    try:
        if _is_spoiled(prepared, pieces, log, error, too_long=too_long):
            return None
        return Returned(pieces.finish(log), clock.passed() / 1e9)
    except Exception as raised:  # an adapter's word on what was read and paid for: the reader has it already
        prepared.cache.tell(Event("skipped", prepared.target.name, reason="raised", error=raised))
        return None


def _is_spoiled(
    prepared: Prepared, pieces: Pieces, log: list[Any], error: BaseException | None, *, too_long: bool
) -> bool:
    if not too_long and (error is None or (isinstance(error, Abandoned) and pieces.whole(log))):
        return False
    reason = "oversized" if too_long else "aborted" if isinstance(error, Abandoned) else "origin_failed"
    prepared.cache.tell(Event("skipped", prepared.target.name, reason=reason))
    return True
