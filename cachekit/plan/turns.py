"""Whose turn is it: one process of a machine computes a key, and one machine of a team, and the others look for its value."""

from __future__ import annotations

from typing import Final

from cachekit.model import NANOSECONDS, Record
from cachekit.plan.looking import look
from cachekit.plan.steps import ALONE, LEAD, Claim, Lease, Pause, Request, Steps, Waive
from cachekit.plan.waiting import STEADY

FIRST_PAUSE: Final = 0.005
LONGEST_PAUSE: Final = 0.1
"""Seconds between two looks at what another process is computing; doubled from the first to the longest."""
SETTLING: Final = 0.1
"""Seconds between saying that we compute a key and doing so: who says it at the same time is heard meanwhile."""
ANNOUNCED: Final = 1.0
"""Seconds that an origin took last time, from which on the team is told of it."""


def first_in_line(request: Request, stale: list[Record], looked: bool) -> Steps:
    """Found in any tier, where another process or machine has put it by now; None where it is the caller's to compute."""
    pause, waited, patience = FIRST_PAUSE, 0.0, _patience(request, stale)
    while request.leases and waited < patience and not (yield Lease(waited)):
        yield Pause(pause)
        waited += pause
        pause = min(2 * pause, LONGEST_PAUSE)
        found = yield from look(request, request.near, stale)
        if found:
            return found
    empty = request.near[-1:] if looked and not request.news() else ()
    found = yield from look(request, request.near + request.far, stale, empty)
    return found or (yield from in_turn(request, stale, waited))


def in_turn(request: Request, stale: list[Record], waited: float = 0.0, what: str = "coalesced") -> Steps:
    """Found, where another machine computed it meanwhile; None where it is the caller's to compute, or nobody's turn.

    `waited`: seconds of the caller's patience that are spent. `what` as in `look`; the near tiers have no value.
    """
    if request.coalesce == "machine" or request.mode not in ("on", "read-only"):
        return None
    announce, patience = _announces(request, stale), _patience(request, stale)
    pause, leads, spent, begun = FIRST_PAUSE, False, waited, request.clock()
    while True:
        late = waited >= patience
        standing = yield Claim(announce=announce, late=late)
        if late or standing is ALONE or (leads and standing is LEAD):
            return None
        leads = standing is LEAD
        spell = SETTLING if leads else pause
        yield Pause(spell)
        # By the clock too: a look at the far tiers may take longer than the pause.
        waited = max(waited + spell, spent + (request.clock() - begun) / NANOSECONDS)
        pause = min(2 * pause, LONGEST_PAUSE)
        tiers, left = request.near + request.far, max(0.0, patience - waited)
        found = yield from look(request, tiers, [], request.near, what=what, patience=left)
        if found:
            if leads:
                yield Waive()
            return found


def _announces(request: Request, stale: list[Record]) -> bool:
    if request.mode == "read-only":  # nobody could have what it computes
        return False
    return request.coalesce == "team" or max([request.took(), *(old.seconds for old in stale)]) >= ANNOUNCED


def _patience(request: Request, stale: list[Record]) -> float:
    return request.patient(stale) * (1.0 if request.nested else STEADY)
