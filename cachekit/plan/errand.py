"""The errand of a plan: what its steps are performed with, which is tiers, flight, lease, claim, listeners and the origin."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from cachekit.errors import CannotEncode, TierError, TierUnavailable, UsageError
from cachekit.model import Event, Key, Record
from cachekit.plan.steps import ALONE, LEAD, Claim, Join, Lease, Read, Revalidate, Share, Standing, Tell, Waive, Write

if TYPE_CHECKING:
    from cachekit.cache.cache import Cache


PARENTS_TURN: Final = 1.0
"""Seconds that a process waits for one that started it: longer than most origins, shorter than anybody's patience."""


class Errand:
    """One plan's. `revalidate` starts the background refresh; `announce` makes a store known to all processes.

    `claimed`: it ends what an earlier errand told the team that this machine computes, and waived as lasting.
    """

    __slots__ = (
        "_announce",
        "_cache",
        "_claimed",
        "_leads",
        "_leased",
        "_quiet",
        "_revalidate",
        "_sealed",
        "_sent",
        "_started",
        "_warn",
        "key",
        "origin",
    )

    def __init__(
        self,
        cache: Cache,
        key: Key,
        origin: Callable[[], Any],
        *,
        revalidate: Callable[[Mapping[str, Any]], None] | None = None,
        announce: bool = False,
        quiet: bool = False,
        sealed: bool = True,
        claimed: bool = False,
        warn: Callable[[UsageError], None] | None = None,
    ) -> None:
        self.key = key
        self.origin = origin
        self._cache = cache
        self._revalidate = revalidate
        self._announce = announce
        self._quiet = quiet
        self._sealed = sealed
        self._warn = warn
        self._claimed = claimed
        self._leads = False
        self._leased = False
        self._sent = False
        self._started = time.perf_counter()

    def perform(self, step: Any) -> Any:
        return _PERFORM[type(step)](self, step)

    def hops(self, step: Any) -> bool:
        """Whether the step may hold the thread for longer than a local read."""
        kind = type(step)
        if kind is Read:
            return self._cache.tiers[step.tier].blocking
        return kind is Claim or (kind is Write and step.tier != "memory")

    def join(self, step: Join) -> Any:
        standing = self._cache.flights.join(self.key.digest, wait=step.wait, patience=step.patience)
        self._leads = standing is LEAD
        return standing

    async def ajoin(self, step: Join) -> Any:
        standing = await self._cache.flights.ajoin(self.key.digest, wait=step.wait, patience=step.patience)
        self._leads = standing is LEAD
        return standing

    def end(self, error: BaseException | None) -> None:
        if self._leased:
            self._cache.leases.release(self.key.digest)
        if self._leads:
            self._cache.flights.leave(self.key.digest, error)
        if self._claimed:
            self._unclaim(error)
        self._cache.tidy()

    def read(self, step: Read) -> Record | None:
        how = {"patience": step.patience} if step.patience and step.tier == "ipfs" else {}
        record = self._cache.tiers[step.tier].get(self.key, **how)
        return None if record is None or self._covered(record) else record

    def _covered(self, record: Record) -> bool:
        try:
            return self._cache.ledger.covers(self.key, record)
        except (sqlite3.Error, OSError) as error:
            # Without the ledger nobody can say that the record was not invalidated.
            raise TierUnavailable(f"cannot read the invalidations: {error}", reason="ledger") from error

    def write(self, step: Write) -> None:
        tier = self._cache.tiers[step.tier]
        how = {"encrypt": False} if step.tier == "ipfs" and not self._sealed else {}
        try:
            tier.put(self.key, step.record, **how)
        except TierError:
            raise
        except Exception as error:  # a number or a text that the tier's format cannot hold: the value is paid for
            raise TierError(f"cannot store this record: {error!r}", reason="record") from error
        self._sent |= step.tier == "ipfs"
        if step.tier == "memory" and self._covered(step.record):
            # Invalidated while it was computed; and after this a fast lane would not ask the ledger any more.
            tier.drop(self.key)
        self._cache.tell(Event("write", self.key.function, step.tier, size=len(step.record.payload)))
        if step.tier == "disk" and self._announce:
            self._bump()

    def tell(self, step: Tell) -> None:
        event = step.event
        if event.what == "hit":
            event = event._replace(seconds=time.perf_counter() - self._started)
        if self._warn is not None and isinstance(event.error, CannotEncode):
            self._warn(event.error)
        if event.what == "miss":
            self._cache.missed(self.key)
        elif event.what == "origin":
            self._cache.flights.took[self.key.function] = event.seconds
            if self._cache.claims is not None:
                self._cache.claims.learn(self.key.function, event.seconds)
        if not self._quiet or event.what in ("error", "skipped"):
            self._cache.tell(event)

    def lease(self, step: Lease) -> bool:
        leases, digest = self._cache.leases, self.key.digest
        self._leased = leases.acquire(digest)
        return self._leased or (step.seconds > PARENTS_TURN and leases.of_a_parent(digest))

    def claim(self, step: Claim) -> Standing:
        claims = self._cache.claims
        standing = ALONE if claims is None else claims.claim(self.key, step, mine=self._claimed)
        self._claimed = standing is LEAD
        return standing

    def waive(self, step: Waive) -> None:
        claims, self._claimed = self._cache.claims, False
        if claims is not None and not step.lasting:
            claims.end(self.key, "handed")

    def _unclaim(self, error: BaseException | None) -> None:
        claims = self._cache.claims
        if claims is not None:
            handed = error is not None and not isinstance(error, Exception)
            claims.end(self.key, "stored" if self._sent else "handed" if handed else "vain")

    def share(self, step: Share) -> None:
        if self._leads:
            self._cache.flights.share(self.key.digest, step.record)

    def revalidate(self, step: Revalidate) -> None:
        if self._revalidate is not None:
            self._revalidate(step.given)

    def _bump(self) -> None:
        try:
            self._cache.ledger.bump()
        except (sqlite3.Error, OSError) as error:
            raise TierError(f"cannot announce a new value: {error}", reason="ledger") from error


_PERFORM: dict[type, Callable[[Errand, Any], Any]] = {
    Read: Errand.read,
    Write: Errand.write,
    Tell: Errand.tell,
    Lease: Errand.lease,
    Claim: Errand.claim,
    Waive: Errand.waive,
    Share: Errand.share,
    Revalidate: Errand.revalidate,
}
