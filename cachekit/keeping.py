"""The part of a plan that keeps what the origin gave: is it worth keeping, as what record, and where."""

from __future__ import annotations

from typing import Any

from cachekit.errors import CannotEncode, TierError
from cachekit.model import FOREVER, NANOSECONDS, Event, Record
from cachekit.request import STREAMING, Request
from cachekit.steps import Share, Steps, Tell, Write


def keep(request: Request, value: Any, started: int, seconds: float) -> Steps:
    """Encodes and stores what the origin returned; returns whether it was stored."""
    if request.judge is not None and request.judge(value) == STREAMING:
        yield Share(None)
        return False
    try:
        record = _record(request, value, started, seconds)
    except CannotEncode as error:
        yield Tell(Event("skipped", request.key.function, reason=error.reason, error=error))
        yield Share(None)
        return False
    yield Share(record)
    reason = _refusal(request, value)
    if reason:
        yield Tell(Event("skipped", request.key.function, reason=reason))
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


def _refusal(request: Request, value: Any) -> str:
    if request.mode == "read-only":
        return "read-only"
    if request.cacheable is not None and not request.cacheable(value):
        return "not_cacheable"
    if request.changed():
        return "input_changed"
    return request.judge(value) if request.judge is not None else ""


def _record(request: Request, value: Any, started: int, seconds: float) -> Record:
    name, payload = request.codec.dump(value)
    expires = FOREVER if request.ttl is None else started + int(seconds * NANOSECONDS) + int(request.ttl * NANOSECONDS)
    grace = max(request.stale_while_revalidate, request.stale_if_error)
    return Record(name, payload, started, expires, grace, seconds, request.tags(), request.pin)
