"""Calls that one request can answer together: each is kept alone, and of those under way nobody asks twice.

What is stored is told first. Of the rest a batch leads what nobody has under way, in one flight, and asks for it; only
then it waits for what others lead. So no batch holds what another one waits for.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from cachekit.cache.default import ROOT
from cachekit.calls.answers.asking import heeding
from cachekit.calls.lanes import Known, Lane, Nearby, arguments_of, remember, serve
from cachekit.calls.prepare import Prepared, driven, perform, prepare
from cachekit.model import MISS, Record
from cachekit.plan import plan as plans
from cachekit.plan.flight import Flight
from cachekit.plan.steps import Begin, CallOrigin, Do, Join, Returned, Steps


class Batch(Protocol):
    """What is known of the calls of a batch, by their places."""

    def known(self, at: int, value: Any, /) -> bool:
        """Takes a value that was stored, or that another caller asked for; False where it is of no use."""
        ...

    def ask(self, places: Sequence[int], /) -> Any:
        """What the origin says to the calls at `places`, asked once for them all; an awaitable of it for an async flow."""
        ...

    def learn(self, places: Sequence[int], answer: Any, /) -> Mapping[int, Any]:
        """What of the origin's answer to `places` is to be kept, by place; nothing where it does not fit them."""
        ...


class Parts:
    """One batch on its way: the calls that are not known by their places (None: not cached), and what it leads.

    It is the errand of its flow: whatever ends that, those who wait for it are told.
    """

    def __init__(self, lane: Lane, batch: Batch, *, scope: str, is_async: bool) -> None:
        self._lane, self._batch, self._scope, self._is_async = lane, batch, scope, is_async
        self._asked: dict[int, Prepared | None] = {}
        self._flights = ROOT.cache().flights
        self._flight: Flight | None = None

    def flow(self, calls: Sequence[tuple[Any, ...]], *, again: bool) -> Steps:
        """The whole of it; `again`: every call is asked for, whatever is stored or under way."""
        yield Begin(self)
        places = yield Do(functools.partial(self._looked, calls, again=again))
        if again:
            yield from self._ask(places)
            return
        alone: list[int] = []
        while places:
            mine, theirs = self._seats(places)
            mine = yield Do(functools.partial(self._unknown, mine, self._look_again))
            if mine:
                yield Do(functools.partial(self._miss, mine))
                yield from self._ask(mine)
            self.end(None)
            places = []
            for flight, its in theirs.items():
                records = yield Join(patience=self._patience(its[0]), flight=flight)
                its = yield Do(functools.partial(self._unknown, its, functools.partial(self._follow, records or {})))
                (places if records is None else alone).extend(its)
        if alone:
            yield Do(functools.partial(self._miss, alone))
            yield from self._ask(alone)

    def _looked(self, calls: Sequence[tuple[Any, ...]], *, again: bool) -> list[int]:
        if not again:
            return [at for at, call in enumerate(calls) if not self._at_once(at, call)]
        self._asked = {at: prepare(self._lane.target, call, {}) for at, call in enumerate(calls)}
        return list(self._asked)

    def _at_once(self, at: int, call: tuple[Any, ...]) -> bool:
        """Whether the value of a call is known; where it is not, the call is prepared."""
        value = serve(self._lane, call, {})
        if value is not MISS and type(value) is not Known and self._batch.known(at, value):
            return True
        one = self._asked[at] = prepare(self._lane.target, call, {})
        value = MISS if one is None else _stored(one)
        if one is None or value is MISS or not self._batch.known(at, value):
            return False
        remember(one.cache, self._lane, arguments_of(one, call, {}), one.key)
        return True

    def _seats(self, places: Sequence[int]) -> tuple[list[int], dict[Flight, list[int]]]:
        """What this batch asks for, and what others do."""
        digests = {at: one.key.digest for at in places if (one := self._asked[at]) is not None}
        self._flight, others = self._flights.lead(digests.values())
        theirs: dict[Flight, list[int]] = {}
        for at, digest in digests.items():
            if digest in others:
                theirs.setdefault(others[digest], []).append(at)
        return [at for at in places if digests.get(at) not in others], theirs

    def _ask(self, places: Sequence[int]) -> Steps:
        started, begin = time.time_ns(), time.perf_counter()
        origin = heeding(functools.partial(self._batch.ask, places), self._scope)
        answer = (yield CallOrigin(origin=functools.partial(driven, origin, is_async=self._is_async))).value
        yield Do(functools.partial(self._keep, places, answer, started, time.perf_counter() - begin))

    def _keep(self, places: Sequence[int], answer: Any, started: int, seconds: float) -> None:
        for at, value in self._batch.learn(places, answer).items():
            one = self._asked[at]
            if one is not None:
                request = replace(one.request, noted=functools.partial(self._note, one, one.request.noted))
                returned = Returned(value, seconds / len(places))
                perform(one, plans.arrived(request, returned, started), announce=True)

    def _note(self, one: Prepared, noted: Callable[[Record | None, str], None], record: Any, reason: str) -> None:
        noted(record, reason)
        if record is not None and self._flight is not None:
            self._flight.records[one.key.digest] = record

    # -- one call of it ------------------------------------------------------------------------

    def _unknown(self, places: Sequence[int], ask: Callable[[Prepared], Any]) -> list[int]:
        """Those of `places` that `ask` has no value for, or none of use."""
        unknown: list[int] = []
        for at in places:
            one = self._asked[at]
            value = MISS if one is None else ask(one)
            if value is MISS or not self._batch.known(at, value):
                unknown.append(at)
        return unknown

    def _look_again(self, one: Prepared) -> Any:
        found = perform(one, plans.landed(one.request))
        if found is None:
            return MISS
        self._note(one, _nobody, found.record, "")
        return found.value

    def _follow(self, records: Mapping[bytes, Record], one: Prepared) -> Any:
        record = records.get(one.key.digest)
        return MISS if record is None else perform(one, plans.followed(one.request, record))

    def _miss(self, places: Sequence[int]) -> None:
        for at in places:
            one = self._asked[at]
            if one is not None:
                perform(one, plans.missed(one.request))

    def _patience(self, at: int) -> float:
        one = self._asked[at]
        assert one is not None
        return one.request.patient([])

    # -- an errand's part ----------------------------------------------------------------------

    def join(self, step: Join) -> Any:
        return self._flights.follow(step.flight, step.patience)

    async def ajoin(self, step: Join) -> Any:
        return await self._flights.afollow(step.flight, step.patience)

    def end(self, error: BaseException | None) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            self._flights.land(flight, error)


def _stored(one: Prepared) -> Any:
    value = one.nearby()
    return perform(one, plans.part(one.request)) if type(value) is Nearby else value


def _nobody(_record: Record | None, _reason: str) -> None:
    """What is stored already is noted already."""


def parts(
    lane: Lane,
    calls: Sequence[tuple[Any, ...]],
    batch: Batch,
    *,
    scope: str = "",
    is_async: bool = False,
    again: bool = False,
) -> Steps:
    """Tells `batch` what is stored of `calls`, or what others have under way, and has it ask for the rest; no two equal.

    `calls` are their arguments; `scope` names the endpoint for its rate limit; `again`: everything is asked for.
    What `batch.ask` raises passes untouched; CacheMiss in mode `replay`.
    """
    return Parts(lane, batch, scope=scope, is_async=is_async).flow(calls, again=again)


def together(function: Any, calls: Sequence[tuple[Any, ...]], batch: Batch) -> None:
    """Calls of a decorated function of which one request can answer several: see `Answers.parts`.

    `calls` are their positional arguments, no two equal; the function itself is never called. What `batch.ask` raises
    passes untouched; CacheMiss in mode `replay`.
    """
    driven(parts(function._self_lane, calls, batch), is_async=False)
