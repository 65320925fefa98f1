"""The team as one process of this machine sees it: it listens for all of them, and says what this machine has.

Of all processes of a cache directory one holds the lock and listens; what it hears stands in files that all of them read.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from cachekit.errors import TierError
from cachekit.files.locks import has_locks, try_lock
from cachekit.ipfs.breaker import Breaker, Deadline
from cachekit.ipfs.index.segments import Line
from cachekit.ipfs.kubo.network import Network, Subscription
from cachekit.ipfs.swarm.announcing import Announcer
from cachekit.ipfs.swarm.book import Book
from cachekit.ipfs.swarm.following import Follower
from cachekit.ipfs.swarm.hearing import Hearing
from cachekit.ipfs.swarm.messages import Envelope, Kind, topic_of
from cachekit.ipfs.trust.credential import Credential
from cachekit.ipfs.trust.roster import Roster
from cachekit.ipfs.worker import Worker

_CALL_SECONDS: Final = 2.0
_TAKE_SECONDS: Final = 30.0
_TICK_SECONDS: Final = 0.5
HELLO_SECONDS: Final = 10.0
_ALONE_SECONDS: Final = 1.0
"""How often it says hello whom nobody has answered yet."""
_CONNECT_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 1.5
"""How long `sync` waits for somebody to say what it knows."""
POLL_SECONDS: Final = 30.0
"""How often the names of writers are looked up whose heads nobody says any more."""
_MOST_CONNECTED: Final = 64
_MOST_NAMES: Final = 16
_LARGEST_ANSWER: Final = 1000


class Swarm:
    """`me` is how this machine introduces itself: its writer's id or '', its name, and its role.

    `peers` are multiaddrs to connect with. `reachable` gives the addresses that others may dial, of those at which the
    daemon listens. `report` hears what was refused. Nothing is done before `start`.
    """

    def __init__(
        self,
        network: Network,
        follower: Follower,
        announcer: Callable[[Swarm], Announcer] | None,
        book: Book,
        credential: Credential,
        breaker: Breaker,
        lock: Path,
        *,
        me: Callable[[], tuple[str, str, str]],
        peers: Sequence[str],
        reachable: Callable[[list[str]], list[str]],
        report: Callable[[str], None],
    ) -> None:
        self.book = book
        self.network = network
        self._follower = follower
        self._announcer = None if announcer is None else announcer(self)
        self._breaker = breaker
        self._envelope = Envelope(credential)
        self._topic = topic_of(credential)
        self._lock_path = lock
        self._me = me
        self._peers = tuple(peers)
        self._reachable = reachable
        self._report = report
        self._ears = Hearing(self._envelope, follower, book, self._wake, report)
        self._begin()
        self._tending = Worker("cachekit-swarm", self._tended, (0.0,))
        self._hearing = Worker("cachekit-topic", self._heard, (0.0, 1.0))

    def _begin(self) -> None:
        self._lock: IO[str] | None = None
        self._nudge = threading.Event()
        self._begun = threading.Event()
        self._listening = threading.Event()
        self._subscription: Subscription | None = None
        self._topics: bool | None = None
        self._due = dict[str, float]()
        self._own_peer = ""

    # -- what others use ------------------------------------------------------------------------------

    def start(self) -> None:
        """From now on, listen for the team, unless another process of this machine does."""
        self._tending.wake()

    def leads(self) -> bool:
        """Whether this process listens for the machine."""
        return self._lock is not None

    def has_topics(self) -> bool:
        """Whether the daemon has topics; asked once."""
        if self._topics is None:
            self._topics = self.network.has_topics(_CALL_SECONDS)
        return self._topics

    def is_up(self) -> bool:
        """Whether what is said now may be heard by others. Raises TierError."""
        return self._breaker.allows() and self._breaker.call(self.has_topics)

    def say(
        self, kind: Kind, says: dict[str, Any], seconds: float = _CALL_SECONDS, blocks: Mapping[str, bytes] = {}
    ) -> None:
        """Say something to all members that listen. Raises TierError; nothing where there are no topics."""
        if self.has_topics():
            self.network.publish(self._topic, self._envelope.seal(kind, time.time_ns(), says, blocks), seconds)

    def announce(self, namespace: str, blocks: Mapping[str, bytes], deadline: Deadline) -> None:
        """Tell all members what `namespace` has by now, which stands in the daemon; what fails is said later."""
        if self._announcer is not None:
            self._announcer.announce(namespace, blocks, deadline)

    def payload(self, namespace: str, entry: Line, deadline: Deadline) -> bytes | None:
        """The payload of an entry from whoever has it; None where nobody did in time, lately or now. Raises TierError."""
        return self._follower.payload(namespace, entry, deadline)

    def say_roster(self, roster: Roster) -> None:
        """Have all members hear of a roster. Raises TierError."""
        self.say("roster", {"roster": roster.text.hex()})

    def is_settled(self) -> bool:
        """Whether `settle` has nothing to wait for."""
        return self._ears.settled.is_set()

    def settle(self, seconds: float) -> None:
        """Wait until we know what somebody else knows, once and at most so long; another process that listens does already."""
        if self._lock is not None or not self._begun.is_set():
            self._ears.settled.wait(seconds)
        self._ears.settled.set()

    def look_again(self, deadline: Deadline) -> int:
        """Ask everybody, by name and by topic, for what is lacking here, and take it in; how many entries. Raises TierError."""
        self._ears.settled.clear()
        self._say_hello(joining=True)
        self.settle(min(_ANSWER_SECONDS, deadline.rest))
        for head in self.book.heads():
            if head.name and deadline.rest:
                with contextlib.suppress(TierError):
                    self._follower.look(head.name, deadline)
        self._take_lacking(deadline)
        return self._follower.taken()

    def close(self) -> None:
        """Listen no more; another process of the machine goes on."""
        for worker in (self._tending, self._hearing):
            worker.end()
        self._quit()

    def join(self, timeout: float) -> None:
        """Wait until its threads have ended."""
        for worker in (self._tending, self._hearing):
            worker.join(timeout)

    def renew_after_fork(self) -> None:
        """The child listens only once its parent does not."""
        lock = self._lock
        self._begin()
        if lock is not None:
            lock.close()
        for part in (self._ears, self._tending, self._hearing):
            part.renew_after_fork()
        self._tending.wake()

    # -- listening ------------------------------------------------------------------------------------

    def _heard(self) -> bool:
        if self._lock is None or not self._breaker.allows():
            return self._lock is None
        try:
            if not self.has_topics():
                return False
            self._subscription = self.network.subscribe(self._topic, _CALL_SECONDS)
            self._listening.set()
            self._due.clear()
            self._nudge.set()
            for sender, data in self._subscription:
                if sender != self._own_peer:
                    self._ears.hear(sender, data)
        except TierError:  # silence, or a daemon that ended: the next subscription says whether it is back
            pass
        except Exception:  # a thread that dies of the unforeseen would leave the team unheard, unnoticed
            self._report("swarm_failed")
        finally:
            self._listening.clear()
        return False

    def _wake(self) -> None:
        self._nudge.set()

    # -- tending --------------------------------------------------------------------------------------

    def _tended(self) -> bool:
        self._nudge.wait(_TICK_SECONDS)
        self._nudge.clear()
        try:
            if self._breaker.allows() and self._holds_lock():
                self._hearing.begin()
                self._tend()
            self._begun.set()
        except TierError as error:
            self._breaker.judge(error)
        except Exception:  # a thread that dies of the unforeseen would leave the team unheard, unnoticed
            self._report("swarm_failed")
        return False

    def _holds_lock(self) -> bool:
        if self._lock is None and has_locks():
            try:
                file = self._lock_path.open("a")
            except OSError:
                return False
            if not try_lock(file.fileno()):
                file.close()
                return False
            self._lock = file
        return self._lock is not None

    def _tend(self) -> None:
        self._every("connect", _CONNECT_SECONDS, self._connect)
        if self._listening.is_set():
            joining = "hello" not in self._due
            seconds = HELLO_SECONDS if self.book.accompanied() else _ALONE_SECONDS
            self._every("hello", seconds, lambda: self._say_hello(joining=joining))
            if self._ears.is_greeted:
                self._ears.is_greeted = False
                self._say_hello(joining=False)
            if self._ears.owes_roster:
                self._ears.owes_roster = False
                self.say_roster(self._follower.roster())
            if self._ears.owes:
                self._ears.owes = False
                self._answer()
        self._take_lacking(Deadline(_TAKE_SECONDS))
        self._ears.look()
        for head in self.book.lacking("kept")[:4]:
            self._follower.keep(head, Deadline(_CALL_SECONDS))
        if self._announcer is not None:
            self._every("announce", _CONNECT_SECONDS, partial(self._announcer.announce_all, Deadline(_CALL_SECONDS)))
        self._every("poll", POLL_SECONDS, self._follower.poll)
        self._every("tidy", POLL_SECONDS, self.book.tidy)

    def _every(self, what: str, seconds: float, work: Callable[[], object]) -> None:
        now = time.monotonic()
        if now >= self._due.get(what, 0.0):
            self._due[what] = now + seconds * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing
            work()

    def _take_lacking(self, deadline: Deadline) -> None:
        for head in self.book.lacking("taken"):
            if deadline.rest:
                try:
                    self._follower.take(head, {}, deadline)
                except TierError as error:  # who has it may be away: the others' may still be had
                    self._report(f"unread_{error.reason}")

    def _connect(self) -> None:
        known = [one for one in self.book.members() if one.online or not one.said]
        addresses = [*self._peers, *(address for one in known for address in one.addresses[:2])]
        random.shuffle(addresses)
        self.network.reach(addresses[:_MOST_CONNECTED], self._own_peer, _CALL_SECONDS)

    def _say_hello(self, *, joining: bool) -> None:
        self._own_peer, listens = self.network.identity(_CALL_SECONDS)
        writer, name, role = self._me()
        # Who knows only one of us shall reach us all, whoever is away.
        others = {one.peer: one.addresses[:2] for one in self.book.members()[:_MOST_NAMES] if one.said}
        says = {"id": writer, "name": name, "role": role, "addresses": self._reachable(listens), "others": others}
        roster = self._follower.roster().number
        about = {"roster": roster, "state": self._follower.state(), "version": "1", "joining": joining}
        self.say("hello", {**says, **about})

    def _answer(self) -> None:
        heads = self.book.heads()
        if heads:
            random.shuffle(heads)
            texts = [head.text.hex() for head in heads[:_LARGEST_ANSWER]]
            self.say("heads", {"heads": texts, "state": self._follower.state()})

    def _quit(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()
