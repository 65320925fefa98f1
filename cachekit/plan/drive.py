"""One call's errand: performs the steps of a plan with the tiers, the flight, the lease and the listeners of a cache.

The only two loops: `run` performs a plan's steps on this thread, `arun` on an event loop.

An errand holds what a plan's steps are performed with: tiers, flight, lease, listeners and the origin. Only TierError is
thrown into the plan. The origin is called outside every `try` that catches for the plan, so that an origin which raises
StopIteration does not end the plan, and its traceback stays caller → run → origin.
"""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Protocol

from cachekit.errors import CannotEncode, TierError, TierUnavailable, UsageError
from cachekit.model import Event, Key, Record
from cachekit.plan.steps import (
    LEAD,
    Call,
    Failed,
    Join,
    Lease,
    Pause,
    Read,
    Returned,
    Revalidate,
    Share,
    Steps,
    Tell,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cachekit.model import Tier
    from cachekit.plan.flight import Flights, Leases
    from cachekit.tiers.ledger import Ledger


def run(steps: Steps, errand: Errand, origin: Callable[[], Any]) -> Any:
    """Performs `steps` and returns what the plan returns; raises what the origin raises."""
    answer: Any = None
    fault: TierError | None = None
    ending: BaseException | None = None
    try:
        while True:
            try:
                step = steps.send(answer) if fault is None else steps.throw(fault)
            except StopIteration as done:
                return done.value
            answer, fault, kind = None, None, type(step)
            if kind is Call:
                answer = _call(step, origin)
            elif kind is Join:
                answer = errand.join(step)
            elif kind is Pause:
                time.sleep(step.seconds)
            else:
                try:
                    answer = errand.perform(step)
                except TierError as error:
                    fault = error
    except BaseException as error:
        ending = error
        raise
    finally:
        steps.close()
        errand.end(ending)


async def arun(steps: Steps, errand: Errand, origin: Callable[[], Awaitable[Any]], pool: Callable[[], Executor]) -> Any:
    """Like `run`, on an event loop: what may block goes to `pool`, with the caller's context variables."""
    answer: Any = None
    fault: TierError | None = None
    ending: BaseException | None = None
    try:
        while True:
            try:
                step = steps.send(answer) if fault is None else steps.throw(fault)
            except StopIteration as done:
                return done.value
            answer, fault, kind = None, None, type(step)
            if kind is Call:
                answer = await _acall(step, origin)
            elif kind is Join:
                answer = await errand.ajoin(step)
            elif kind is Pause:
                await asyncio.sleep(step.seconds)
            else:
                try:
                    answer = await _hop(errand, step, pool) if errand.hops(step) else errand.perform(step)
                except TierError as error:
                    fault = error
    except BaseException as error:
        ending = error
        raise
    finally:
        steps.close()
        errand.end(ending)


def _call(step: Call, origin: Callable[[], Any]) -> Returned | Failed:
    started = time.perf_counter()
    if not step.fallback:
        return Returned(origin(), time.perf_counter() - started)
    try:
        return Returned(origin(), time.perf_counter() - started)
    except Exception as error:  # the caller asked for stale_if_error, and the plan tells it
        return Failed(error)


async def _acall(step: Call, origin: Callable[[], Awaitable[Any]]) -> Returned | Failed:
    started = time.perf_counter()
    if not step.fallback:
        return Returned(await origin(), time.perf_counter() - started)
    try:
        return Returned(await origin(), time.perf_counter() - started)
    except Exception as error:  # the caller asked for stale_if_error, and the plan tells it
        return Failed(error)


async def _hop(errand: Errand, step: Any, pool: Callable[[], Executor]) -> Any:
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(pool(), lambda: context.run(errand.perform, step))


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
