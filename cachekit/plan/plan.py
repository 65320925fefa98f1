"""Theory of operation: every decision of a call is taken here, in `looking` and in `turns`, and nothing of it does I/O.

A plan is a generator. It yields steps (`steps.py`) and is sent their answers; a driver (`drive.py`) performs them. So
the whole order of a call can be read below, and tested by scripting the answers.

The order: the near tiers (memory, disk) are read first, by everybody. Whoever misses joins the flight of that key: one
caller of this process leads and the others get its record. The leader takes the lease of the machine, looks once more
if somebody stored meanwhile, asks the far tiers (IPFS), tells the team where the origin is slow, and calls it. What it
gets is written back.

Two rules: a tier that fails is told and stepped over, and an exception of the origin never enters the plan, so that the
user's traceback stays the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cachekit.errors import CacheMiss, CannotEncode
from cachekit.model import FOREVER, MISS, NANOSECONDS, Event, Record
from cachekit.plan.looking import fill, look, served
from cachekit.plan.steps import (
    ALONE,
    BUSY,
    NOTHING,
    STREAMING,
    CallOrigin,
    Failed,
    Join,
    Lease,
    Request,
    Returned,
    Revalidate,
    Share,
    Steps,
    Tell,
    Waive,
)
from cachekit.plan.turns import first_in_line, in_turn


def plan(request: Request, *, looked: bool = False) -> Steps:
    """The call itself; returns the value. `looked`: the near tiers were read just now and have no record."""
    stale: list[Record] = []
    if request.mode != "refresh" and not looked:
        found = (yield from look(request, request.near, stale)) or (yield from _revalidating(request, stale))
        if found:
            return found.value
    standing = yield Join(patience=request.patient(stale))
    if isinstance(standing, Record):
        value = yield from followed(request, standing)
        if value is not MISS:
            return value
        standing = ALONE
    if standing is not ALONE and request.mode != "refresh":
        found = yield from first_in_line(request, stale, looked)
        if found:
            yield Share(found.record)
            return found.value
    return (yield from compute(request, stale))


def compute(request: Request, stale: list[Record]) -> Steps:
    """Asks the origin and keeps what it gave; returns the value."""
    started = request.clock()
    outcome = yield from _asked(request, stale)
    if isinstance(outcome, Returned):
        yield from arrived(request, outcome, started)
    return outcome.value


def stream(request: Request) -> Steps:
    """A call whose value comes in pieces: the stored value, or the opened stream, which is kept when it `arrived`."""
    stale: list[Record] = []
    found = yield from _anywhere(request, stale)
    found = found or (yield from in_turn(request, stale))
    if found:
        return found.value
    outcome = yield from _asked(request, stale)
    if isinstance(outcome, Returned):
        yield Waive(lasting=True)
    return outcome.value


def arrived(request: Request, outcome: Returned, started: int) -> Steps:
    """Keeps what the origin gave, asked for at `started`; returns whether it was stored."""
    yield Tell(Event("origin", request.key.function, seconds=outcome.seconds))
    return (yield from keep(request, outcome.value, started, outcome.seconds))


def _asked(request: Request, stale: list[Record]) -> Steps:
    """What the origin Returned, or the Found that stands in for its exception."""
    yield from missed(request)
    old = request.newest(stale, request.stale_if_error)
    outcome = yield CallOrigin(
        () if old is None else Exception, given=request.given(request.newest(stale, request.recalled))
    )
    if not isinstance(outcome, Failed):
        return outcome
    assert old is not None
    yield Tell(Event("error", request.key.function, "origin", type(outcome.error).__name__, error=outcome.error))
    yield Share(old.record)
    yield Tell(served(request, Event("stale", request.key.function, reason="origin_failed"), old))
    return old


def keep(request: Request, value: Any, started: int, seconds: float) -> Steps:
    """Encodes and stores what the origin returned; returns whether it was stored."""
    try:
        record = _record(request, value, started, seconds)
    except CannotEncode as error:
        yield Tell(Event("skipped", request.key.function, reason=error.reason, error=error))
        request.noted(None, error.reason)
        yield Share(None)
        return False
    yield Share(record)
    if record is None:
        return False
    refused = _refused(request, value)
    request.noted(record, "" if refused is None else refused.reason)
    if refused is not None:
        yield Tell(refused)
        return False
    yield from fill(request, [*request.near, *request.far], record)
    yield Tell(Event("store", request.key.function, size=len(record.payload)))
    return True


def _refused(request: Request, value: Any) -> Event | None:
    reason, error = "read-only" if request.mode == "read-only" else "", None
    # What `cacheable` raises is its author's mistake, and no word on the value.
    if not reason and request.cacheable is not None and not request.cacheable(value):
        reason = "not_cacheable"
    try:
        reason = reason or ("input_changed" if request.changed() else "")
        reason = reason or (request.judge(value) if request.judge is not None else "")
    except Exception as raised:  # an adapter's word on a value that is paid for: it is returned all the same
        error = _unlooked(raised)
        reason = error.reason
    return Event("skipped", request.key.function, reason=reason, error=error) if reason else None


def _unlooked(error: Exception) -> CannotEncode:
    remedy = "leave such values out with cacheable=, or pass codec="
    return CannotEncode(f"the value could not be looked at ({error!r}): {remedy}", reason="raised")


def _record(request: Request, value: Any, started: int, seconds: float) -> Record | None:
    """None for a stream that has just begun. Raises CannotEncode, and nothing else."""
    try:
        if request.judge is not None and request.judge(value) == STREAMING:
            return None
        (name, payload), tags = request.codec.dump(value), request.tags()
    except CannotEncode:
        raise
    except Exception as error:  # whatever a value raises that is looked at: it is paid for, and returned
        raise _unlooked(error) from error
    expires = FOREVER if request.ttl is None else started + int(seconds * NANOSECONDS) + int(request.ttl * NANOSECONDS)
    pin = request.pin if isinstance(request.pin, bool) else started + int(request.pin * NANOSECONDS)
    return Record(name, payload, started, expires, request.grace, seconds, tags, pin)


def renew(request: Request, given: Mapping[str, Any] = NOTHING) -> Steps:
    """The background half of stale-while-revalidate: one caller of one process, or nobody; returns nothing."""
    if (yield Join(wait=False)) is BUSY:
        return
    if request.leases and not (yield Lease()):
        return
    if (yield from in_turn(request, [], what="")):
        return
    started = request.clock()
    outcome = yield CallOrigin(given=given)
    yield from arrived(request, outcome, started)


def part(request: Request) -> Steps:
    """The stored value of a call that is a part of another one, or MISS, which is not told: somebody may be at it.

    A stale one is asked for with the others that are missing: alone nobody can refresh it.
    """
    found = None if request.mode == "refresh" else (yield from look(request, request.near + request.far, []))
    return found.value if found else MISS


def landed(request: Request) -> Steps:
    """What has landed nearby since its new leader looked for it: Found, or None."""
    return None if request.mode == "refresh" else (yield from look(request, request.near, []))


def followed(request: Request, record: Record) -> Steps:
    """The value that another caller shared, or MISS."""
    found = request.decode(record)
    if found is None:
        return MISS
    yield Tell(served(request, Event("coalesced", request.key.function), found))
    return found.value


def _anywhere(request: Request, stale: list[Record]) -> Steps:
    """Found in any tier, or stale and within its window; else None."""
    if request.mode == "refresh":
        return None
    found = yield from look(request, request.near + request.far, stale)
    if found:
        return found
    return (yield from _revalidating(request, stale))


def _revalidating(request: Request, stale: list[Record]) -> Steps:
    """Found within the window of stale-while-revalidate, and a refresh begun; else None."""
    old = request.newest(stale, request.stale_while_revalidate)
    if old is not None and request.mode != "replay":
        yield Revalidate(request.given(request.newest(stale, request.recalled)))
        yield Tell(served(request, Event("stale", request.key.function, reason="revalidating"), old))
        return old
    return None


def peek(request: Request) -> Steps:
    """The stored value, or MISS; never the origin, and nobody waits."""
    if request.mode == "off":
        return MISS
    found = yield from look(request, request.near + request.far, [])
    return found.value if found else MISS


def put(request: Request, value: Any) -> Steps:
    """Stores a value that did not come from the origin; returns whether it was stored."""
    return (yield from keep(request, value, request.clock(), 0.0))


def missed(request: Request) -> Steps:
    """Nobody knows the value, and the origin is next. Raises CacheMiss in mode `replay`."""
    yield Tell(Event("miss", request.key.function))
    request.missed()
    if request.mode == "replay":
        raise CacheMiss(
            f"replay: nothing is stored for this call, and the origin may not be called\n{request.explain()}"
        )
