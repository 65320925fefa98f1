"""One call's errand: performs the steps of a plan with the tiers, the flight, the lease and the listeners of a cache."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from cachekit.errors import CannotEncode, TierError, TierUnavailable, UsageError
from cachekit.model import Event, Key, Record
from cachekit.steps import LEAD, Join, Lease, Read, Revalidate, Share, Tell, Write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cachekit.flight import Flights
    from cachekit.leases import Leases
    from cachekit.ledger import Ledger
    from cachekit.model import Tier


class Means(Protocol):
    """What a cache lends to an errand."""

    flights: Flights
    leases: Leases
    ledger: Ledger

    @property
    def tiers(self) -> Mapping[str, Tier]: ...
    def tell(self, event: Event) -> None: ...
    def missed(self, key: Key) -> None: ...
    def tidy(self) -> None: ...


class Errand:
    """Implements `drive.Errand`. `revalidate` starts the background refresh; `announce` makes a store known to all."""

    __slots__ = (
        "_announce",
        "_leads",
        "_leased",
        "_means",
        "_quiet",
        "_revalidate",
        "_sealed",
        "_started",
        "_warn",
        "key",
    )

    def __init__(
        self,
        means: Means,
        key: Key,
        *,
        revalidate: Callable[[], None] | None = None,
        announce: bool = False,
        quiet: bool = False,
        sealed: bool = True,
        warn: Callable[[UsageError], None] | None = None,
    ) -> None:
        self.key = key
        self._means = means
        self._revalidate = revalidate
        self._announce = announce
        self._quiet = quiet
        self._sealed = sealed
        self._warn = warn
        self._leads = False
        self._leased = False
        self._started = time.perf_counter()

    def perform(self, step: Any) -> Any:
        return _PERFORM[type(step)](self, step)

    def hops(self, step: Any) -> bool:
        """Whether the step may hold the thread for longer than a local read."""
        kind = type(step)
        if kind is Read:
            return self._means.tiers[step.tier].blocking
        return kind is Write and step.tier != "memory"

    def join(self, step: Join) -> Any:
        standing = self._means.flights.join(self.key.digest, wait=step.wait)
        self._leads = standing is LEAD
        return standing

    async def ajoin(self, step: Join) -> Any:
        standing = await self._means.flights.ajoin(self.key.digest, wait=step.wait)
        self._leads = standing is LEAD
        return standing

    def end(self, error: BaseException | None) -> None:
        if self._leased:
            self._means.leases.release(self.key.digest)
        if self._leads:
            self._means.flights.leave(self.key.digest, error)
        self._means.tidy()

    def read(self, step: Read) -> Record | None:
        record = self._means.tiers[step.tier].get(self.key)
        return None if record is None or self._covered(record) else record

    def _covered(self, record: Record) -> bool:
        try:
            return self._means.ledger.covers(self.key, record)
        except (sqlite3.Error, OSError) as error:
            # Without the ledger nobody can say that the record was not invalidated.
            raise TierUnavailable(f"cannot read the invalidations: {error}", reason="ledger") from error

    def write(self, step: Write) -> None:
        tier = self._means.tiers[step.tier]
        if step.tier == "ipfs" and not self._sealed:
            tier.put(self.key, step.record, encrypt=False)  # type: ignore[call-arg]
        else:
            tier.put(self.key, step.record)
        if step.tier == "memory" and self._covered(step.record):
            # Invalidated while it was computed; and after this a fast lane would not ask the ledger any more.
            tier.drop(self.key)
        self._means.tell(Event("write", self.key.function, step.tier, size=len(step.record.payload)))
        if step.tier == "disk" and self._announce:
            self._bump()

    def tell(self, step: Tell) -> None:
        event = step.event
        if event.what == "hit":
            event = event._replace(seconds=time.perf_counter() - self._started)
        if self._warn is not None and isinstance(event.error, CannotEncode):
            self._warn(event.error)
        if event.what == "miss":
            self._means.missed(self.key)
        if not self._quiet or event.what in ("error", "skipped"):
            self._means.tell(event)

    def lease(self, _: Lease) -> bool:
        self._leased = self._means.leases.acquire(self.key.digest)
        return self._leased

    def share(self, step: Share) -> None:
        if self._leads:
            self._means.flights.share(self.key.digest, step.record)

    def revalidate(self, _: Revalidate) -> None:
        if self._revalidate is not None:
            self._revalidate()

    def _bump(self) -> None:
        try:
            self._means.ledger.bump()
        except (sqlite3.Error, OSError) as error:
            raise TierError(f"cannot announce a new value: {error}", reason="ledger") from error


_PERFORM: dict[type, Callable[[Errand, Any], Any]] = {
    Read: Errand.read,
    Write: Errand.write,
    Tell: Errand.tell,
    Lease: Errand.lease,
    Share: Errand.share,
    Revalidate: Errand.revalidate,
}
