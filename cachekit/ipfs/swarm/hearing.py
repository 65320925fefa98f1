"""What is done with a message that came: nothing of it is believed that does not verify, and who sends other things is noted."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from cachekit.errors import UNREADABLE, IntegrityError, TierError
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.kubo.network import MOST_BYTES
from cachekit.ipfs.swarm.book import Book, Member
from cachekit.ipfs.swarm.following import Follower
from cachekit.ipfs.swarm.messages import Envelope, Message
from cachekit.model import SKEW

_TAKE_SECONDS: Final = 2.0
_SETTLED_SECONDS: Final = 2.0
_ANSWERS: Final = 3.0
"""How many members answer who lacks something, however many could."""
_FLOOD_PER_SECOND: Final = 200
_WORDS: Final = ("id", "name", "role", "state", "version")
_LONGEST: Final = 200
_MOST_SENDERS: Final = 4096
_MOST_ADDRESSES: Final = 16
_MOST_OTHERS: Final = 64


class Hearing:
    """`news` is called where something is to be done soon; `owes`: somebody lacks heads that we have; so are we by who
    is new (`is_greeted`)."""

    def __init__(
        self,
        envelope: Envelope,
        follower: Follower,
        book: Book,
        news: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:
        self.owes = self.owes_roster = self.is_greeted = False
        self.settled = threading.Event()
        """Set once somebody knew no more than we."""
        self._envelope = envelope
        self._follower = follower
        self._book = book
        self._news = news
        self._report = report
        self._recent = dict[str, list[float]]()
        self._changed = 0.0
        self._said = ""
        self._kinds: dict[str, Callable[[str, Message], None]] = {
            "hello": self._on_hello,
            "heads": self._on_heads,
            "claim": self._on_claim,
            "roster": self._on_roster,
        }

    def renew_after_fork(self) -> None:
        """A lock that another thread held at the fork would stay locked for ever."""
        self.settled = threading.Event()

    def hear(self, sender: str, data: bytes) -> None:
        """Take in what the daemon `sender` said; raises nothing."""
        try:
            self._bounded(sender, data)
            message = self._envelope.open(data)
            self._kinds[message.kind](sender, message)
        except IntegrityError as error:
            self._refuse(sender, error.reason)
        except UNREADABLE:
            self._refuse(sender, "bad_message")
        except TierError as error:
            self._report(error.reason)

    def _refuse(self, sender: str, reason: str) -> None:
        try:
            self._follower.refuse(sender, reason)
        except TierError as error:  # the book cannot be written: what was refused stays refused
            self._report(error.reason)

    def _bounded(self, sender: str, data: bytes) -> None:
        if len(data) > MOST_BYTES:
            raise IntegrityError("a message is too long", reason="oversized")
        now = time.monotonic()
        if len(self._recent) > _MOST_SENDERS:
            self._recent.clear()
        recent = [at for at in self._recent.get(sender, ()) if now - at < 1.0][-_FLOOD_PER_SECOND:]
        self._recent[sender] = [*recent, now]
        if len(recent) >= _FLOOD_PER_SECOND:
            raise IntegrityError("more messages than anybody needs", reason="flood")

    def _on_heads(self, sender: str, message: Message) -> None:
        new = bool(message.says.get("new"))
        texts = [bytes.fromhex(text) for text in message.says["heads"]]
        news = self._follower.hear(texts, sender, new=new)
        if news:
            self._changed = time.monotonic()
        deadline = Deadline(_TAKE_SECONDS)  # for all: what there is no time for is taken in later
        for head in news if new else ():
            if deadline.rest:
                self._follower.take(head, message.blocks, deadline)
        if news:
            self._news()
        self.look(message.says.get("state"))

    def look(self, state: str | None = None) -> None:
        """Whether we know by now what somebody else said that it knows."""
        self._said = state or self._said
        if not self.settled.is_set() and self._said == self._follower.state() and not self._book.lacking():
            self.settled.set()

    def _on_hello(self, sender: str, message: Message) -> None:
        if abs(time.time_ns() - message.at) > SKEW:
            self._refuse(sender, "clock")
        says = message.says
        writer, name, role, state, version = (_word(says[word]) for word in _WORDS)
        addresses = _words(says["addresses"], _MOST_ADDRESSES)
        others = {_word(peer): _words(where, _MOST_ADDRESSES) for peer, where in says.get("others", {}).items()}
        roster, now = int(says.get("roster", 0)), time.time_ns()
        if len(others) > _MOST_OTHERS:
            raise IntegrityError("a message names more members than anybody asked for", reason="too_many_names")
        # Who said it with a clock that was ahead is heard again once that is right.
        said = min(message.at, now)
        if self._book.greet(Member(sender, writer, name, role, addresses, state, version, said, now)):
            self._news()
        for peer, where in others.items():
            self._book.greet(Member(peer, "", "", "", where[:2], "", "", 0, 0))
        quiet = time.monotonic() - self._changed > _SETTLED_SECONDS
        if state != self._follower.state() and (says.get("joining") or quiet):
            self.owes = self.owes or self._is_chosen()
        if roster < self._follower.roster().number:
            self.owes_roster = self.owes_roster or self._is_chosen()
        self.look(state)
        if says.get("joining"):
            self.is_greeted = self.is_greeted or self._is_chosen()
        if self.owes or self.owes_roster or self.is_greeted:
            self._news()

    def _is_chosen(self) -> bool:
        """Whether we are among the few who answer what all could."""
        online = sum(one.online for one in self._book.members())
        return random.random() < _ANSWERS / max(1.0, online)  # noqa: S311 - spreads load, guards nothing

    def _on_roster(self, sender: str, message: Message) -> None:
        self._follower.take_roster(bytes.fromhex(message.says["roster"]), sender)

    def _on_claim(self, sender: str, message: Message) -> None:
        self._book.claims.heard(sender, message.at, message.says["claims"])


def _word(said: object) -> str:
    """What people are shown; IntegrityError `bad_name` for what none would write."""
    if not isinstance(said, str) or len(said) > _LONGEST or not said.isprintable():
        raise IntegrityError("a name that cannot be shown", reason="bad_name")
    return said


def _words(said: Sequence[object], most: int) -> tuple[str, ...]:
    return tuple(map(_word, said[:most]))
