"""Saying what this machine computes, so that no other of the team computes it meanwhile; and asking who does.

A claim holds for seconds and is renewed while the origin runs: who dies is not waited for. It saves work, and nothing
depends on it: what is not heard, or not believed, costs a second call.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Final

from cachekit.errors import TierError
from cachekit.ipfs.swarm.claims import MOST_SAID, VAIN_SECONDS, Claim, State
from cachekit.ipfs.swarm.swarm import Swarm
from cachekit.ipfs.trust.credential import Credential
from cachekit.ipfs.worker import Worker
from cachekit.model import Key
from cachekit.plan.steps import ALONE, BUSY, LEAD, Standing
from cachekit.plan.steps import Claim as Asked
from cachekit.plan.turns import ANNOUNCED

_READ_SECONDS: Final = 1.0
HOLDS_SECONDS: Final = 3.0
RENEWING_SECONDS: Final = 1.0
"""How long a claim holds, and how often it is said again."""
LANDING_SECONDS: Final = 0.5
"""How long others look for a value that was published, which may come after the word that it was."""
_GAP_SECONDS: Final = 0.02
"""Between two messages: what comes together travels together."""
_SAYING_SECONDS: Final = 1.0
_Place = tuple[str, bytes]


class Claims:
    """Safe from any thread. `flush` publishes what was stored, and says whether it could.

    `writes`: others may have what this machine computes. Nothing is done before the first claim.
    """

    def __init__(
        self,
        swarm: Swarm,
        credential: Credential,
        flush: Callable[[], bool],
        report: Callable[[str], None],
        *,
        writes: bool,
    ) -> None:
        self._swarm = swarm
        self._table = swarm.book.claims
        self._credential = credential
        self._flush = flush
        self._report = report
        self._writes = writes
        self._saying = Worker("cachekit-claims", self._said, (0.0, _GAP_SECONDS))
        self._storing = Worker("cachekit-claimed", self._published)
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._nudge = threading.Event()
        self._token = secrets.token_hex(8)
        self._held = dict[_Place, Claim]()
        self._stored = set[_Place]()
        self._ended: list[Claim] = []
        self._known: dict[str, float] | None = None
        self._read = 0.0
        self._learnt = dict[str, float]()
        self._speaking = threading.Lock()

    def claim(self, key: Key, step: Asked, *, mine: bool) -> Standing:
        """Whose turn it is, as the step has it; raises nothing. `mine`: the caller was told that it leads."""
        place = self._place(key)
        if place in self._held and not mine:
            return ALONE  # another call of this process leads: what it may share, it shares
        try:
            return self._standing(place, announce=step.announce and self._writes, late=step.late)
        except TierError as error:  # it cannot be known: everybody computes
            self._report(f"unclaimed_{error.reason}")
            return ALONE

    def end(self, key: Key, state: State) -> None:
        """This machine computes a key no more, if it did; a `stored` value is published before the others hear of it."""
        place = self._place(key)
        with self._lock:
            if place not in self._held:
                return
            if state == "stored":
                self._stored.add(place)
        if state == "stored":
            self._storing.wake()
        else:
            self._part(place, state)

    def took(self, function: str, here: float) -> float:
        """How many seconds its origin took last time: `here` in this process, else in another one of the machine."""
        if here:
            return here
        # Another process may have learnt it since.
        if self._known is None or (function not in self._known and time.monotonic() >= self._read + _READ_SECONDS):
            try:
                self._known, self._read = {**self._table.took(), **self._learnt}, time.monotonic()
            except TierError as error:
                self._report(f"unclaimed_{error.reason}")
                return 0.0
        return self._known.get(function, 0.0)

    def learn(self, function: str, seconds: float) -> None:
        """What an origin took just now; the machine is told where it is slow, or is no more."""
        slow = seconds >= ANNOUNCED
        if slow is not (self.took(function, 0.0) >= ANNOUNCED) and self._known is not None:
            self._known[function] = self._learnt[function] = seconds
            self._saying.wake()
            self._nudge.set()

    def close(self, timeout: float) -> None:
        """Say that nothing is computed here any more; what was stored has been published."""
        for worker in (self._saying, self._storing):
            worker.end()
        self._nudge.set()
        for place in list(self._held):
            self._part(place, "stored" if place in self._stored else "handed", wake=False)
        if self._ended or self._learnt or self._speaking.locked():
            try:
                self._say(timeout)
            except TierError as error:
                self._report(f"unclaimed_{error.reason}")

    def renew_after_fork(self) -> None:
        """What the parent computes is the parent's."""
        self._begin()
        for worker in (self._saying, self._storing):
            worker.renew_after_fork()

    def _place(self, key: Key) -> _Place:
        return self._credential.namespace_id(key.namespace), self._credential.index_key(key.namespace, key.digest)

    def _standing(self, place: _Place, *, announce: bool, late: bool) -> Standing:
        mine = self._held.get(place)
        living = self._table.living(*place)
        before = [
            (peer, one)
            for peer, one in living
            if one.state != "vain" and one.token != self._token and (mine is None or one.order < mine.order)
        ]
        if before:
            if mine is not None:
                self._part(place, "handed")
            if late:
                self._table.let_down(*before[0])
            return ALONE if late else BUSY
        if mine is not None:
            return LEAD
        if late or not announce or any(one.state == "vain" for _, one in living) or not self._is_heard():
            return ALONE
        self._hold(Claim(*place, self._token, time.time_ns(), HOLDS_SECONDS, "open"))
        return LEAD

    def _is_heard(self) -> bool:
        return self._swarm.is_up() and self._swarm.book.accompanied()

    def _hold(self, claim: Claim) -> None:
        self._table.keep([claim])
        with self._lock:
            self._held[claim.space, claim.key] = claim
        self._saying.wake()
        self._nudge.set()

    def _part(self, place: _Place, state: State, *, wake: bool = True) -> None:
        with self._lock:
            claim = self._held.pop(place, None)
            self._stored.discard(place)
            if claim is None:
                return
            holds = {"stored": LANDING_SECONDS, "vain": VAIN_SECONDS}.get(state, 0.0)
            self._ended.append(claim._replace(seconds=holds, state=state))
        if wake:
            self._saying.wake()
            self._nudge.set()

    def _said(self) -> bool:
        self._nudge.wait(RENEWING_SECONDS)
        self._nudge.clear()
        try:
            self._say(_SAYING_SECONDS)
        except TierError as error:  # who does not hear it computes for himself
            self._report(f"unclaimed_{error.reason}")
        except Exception:  # a thread that dies of the unforeseen would leave all claims to run out, unnoticed
            self._report("claiming_failed")
        return not self._held and not self._ended

    def _say(self, seconds: float) -> None:
        with self._speaking:  # in order; and who closes waits until all is said
            while self._learnt:
                self._table.learn(*self._learnt.popitem())
            with self._lock:
                ended, self._ended = self._ended, []
                claims = [*self._held.values(), *ended]
            for claim in ended:
                self._table.drop(claim)
            self._table.keep([claim for claim in claims if claim.state in ("open", "vain")])
            for at in range(0, len(claims), MOST_SAID):
                said = [claim.said() for claim in claims[at : at + MOST_SAID]]
                self._swarm.say("claim", {"claims": said}, seconds)

    def _published(self) -> bool:
        with self._lock:
            places = list(self._stored)
        state: State = "stored" if places and self._flush() else "vain"
        for place in places:
            self._part(place, state)
        return True
