"""Theory of operation: every decision of a call is taken in this file, and nothing here does I/O.

A plan is a generator. It yields steps (`steps.py`) and is sent their answers; a driver (`drive.py`) performs them. So
the whole order of a call can be read below, and tested by scripting the answers.

The order: the near tiers (memory, disk) are read first, by everybody. Whoever misses joins the flight of that key: one
caller of this process leads and the others get its record. The leader takes the lease of the machine, looks once more
if somebody stored meanwhile, asks the far tiers (IPFS), and calls the origin. What it gets is written back.

Two rules: a tier that fails is told and stepped over, and an exception of the origin never enters the plan, so that the
user's traceback stays the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from cachekit.errors import CacheMiss, CannotEncode, TierError
from cachekit.model import FOREVER, MISS, NANOSECONDS, NOTHING_SAVED, Event, Record, Reply
from cachekit.plan.steps import (
    ALONE,
    BUSY,
    NOTHING,
    STREAMING,
    CallOrigin,
    Failed,
    Found,
    Join,
    Lease,
    Pause,
    Read,
    Request,
    Returned,
    Revalidate,
    Share,
    Steps,
    Tell,
    Write,
)
from cachekit.plan.waiting import STEADY

FIRST_PAUSE: Final = 0.005
LONGEST_PAUSE: Final = 0.1
"""Seconds between two looks at what another process is computing; doubled from the first to the longest."""


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
        found = yield from _first_in_line(request, stale, looked)
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
    return found.value if found else (yield from _asked(request, stale)).value


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
    yield Tell(_served(request, Event("stale", request.key.function, reason="origin_failed"), old))
    return old


def look(request: Request, tiers: tuple[str, ...], stale: list[Record], empty: tuple[str, ...] = ()) -> Steps:
    """Found in the first tier that has a fresh record, filled back into the faster ones; else None, and `stale` grows.
    `empty` names tiers that have none."""
    missed: list[str] = []
    for tier in tiers:
        try:
            record = None if tier in empty else (yield Read(tier))
        except TierError as error:
            yield Tell(Event("error", request.key.function, tier, error.reason, error=error))
            continue
        if record is not None and record.fresh(request.clock()):
            found = request.decode(record)
            if found:
                yield Tell(_served(request, Event("hit", request.key.function, tier), found))
                yield from fill(request, missed, record if tier in request.near else _tagged(request, record))
                return found
            yield Tell(Event("error", request.key.function, tier, "undecodable"))
        elif record is not None:
            stale.append(record)
        missed.append(tier)
    return None


def _tagged(request: Request, record: Record) -> Record:
    # What comes from afar has its tags veiled; a process without the credential must end it by their names too.
    return replace(record, tags=tuple(dict.fromkeys((*request.tags(), *record.tags))))


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


def fill(request: Request, tiers: list[str], record: Record) -> Steps:
    """Writes slow tiers first, so that whoever sees a fast copy can rely on a lasting one."""
    for tier in reversed(tiers):
        if request.mode == "read-only" and tier != "memory":
            continue
        try:
            yield Write(tier, record)
        except TierError as error:
            yield Tell(Event("error", request.key.function, tier, error.reason, error=error))


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
    yield Tell(_served(request, Event("coalesced", request.key.function), found))
    return found.value


def _anywhere(request: Request, stale: list[Record]) -> Steps:
    """Found in any tier, or stale and within its window; else None. Nobody waits: the value may come in pieces."""
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
        yield Tell(_served(request, Event("stale", request.key.function, reason="revalidating"), old))
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


def _first_in_line(request: Request, stale: list[Record], looked: bool) -> Steps:
    pause, waited = FIRST_PAUSE, 0.0
    patience = request.patient(stale) * (1.0 if request.nested else STEADY)
    while request.leases and waited < patience and not (yield Lease(waited)):
        yield Pause(pause)
        waited += pause
        pause = min(2 * pause, LONGEST_PAUSE)
        found = yield from look(request, request.near, stale)
        if found:
            return found
    empty = request.near[-1:] if looked and not request.news() else ()
    return (yield from look(request, request.near + request.far, stale, empty))


def missed(request: Request) -> Steps:
    """Nobody knows the value, and the origin is next. Raises CacheMiss in mode `replay`."""
    yield Tell(Event("miss", request.key.function))
    request.missed()
    if request.mode == "replay":
        raise CacheMiss(
            f"replay: nothing is stored for this call, and the origin may not be called\n{request.explain()}"
        )


def _served(request: Request, event: Event, found: Found) -> Event:
    """The event with what serving the record saved."""
    record, value = found
    saving, made = NOTHING_SAVED, False
    if type(value) is Reply:
        saving, made = value.saving, request.streamed and value.kind == "plain"
    return event._replace(size=len(record.payload), saved=record.seconds, saving=saving, synthetic=made)
