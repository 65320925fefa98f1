"""Looking for a record where one may be, nearest first, and filling it back into the tiers that had none."""

from __future__ import annotations

from dataclasses import replace

from cachekit.errors import TierError
from cachekit.model import NOTHING_SAVED, Event, Record, Reply
from cachekit.plan.steps import Found, Read, Request, Steps, Tell, Write


def look(
    request: Request,
    tiers: tuple[str, ...],
    stale: list[Record],
    empty: tuple[str, ...] = (),
    *,
    what: str = "hit",
    patience: float = 0.0,
) -> Steps:
    """Found in the first tier that has a fresh record, filled back into the faster ones; else None, and `stale` grows.

    `empty` names tiers that have none; `what` is what the record is told as, "" for not at all. `patience` as in Read.
    """
    missed: list[str] = []
    for tier in tiers:
        try:
            record = None if tier in empty else (yield Read(tier, patience))
        except TierError as error:
            yield Tell(Event("error", request.key.function, tier, error.reason, error=error))
            continue
        if record is not None and record.fresh(request.clock()):
            found = request.decode(record)
            if found:
                if what:
                    yield Tell(served(request, Event(what, request.key.function, tier), found))
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


def fill(request: Request, tiers: list[str], record: Record) -> Steps:
    """Writes slow tiers first, so that whoever sees a fast copy can rely on a lasting one."""
    for tier in reversed(tiers):
        if request.mode == "read-only" and tier != "memory":
            continue
        try:
            yield Write(tier, record)
        except TierError as error:
            yield Tell(Event("error", request.key.function, tier, error.reason, error=error))


def served(request: Request, event: Event, found: Found) -> Event:
    """The event with what serving the record saved."""
    record, value = found
    saving, made = NOTHING_SAVED, False
    if type(value) is Reply:
        saving, made = value.saving, request.streamed and value.kind == "plain"
    return event._replace(size=len(record.payload), saved=record.seconds, saving=saving, synthetic=made)
