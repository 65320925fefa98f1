"""Who of the team computes which key, as this machine heard it: a table that all of its processes read."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

from cachekit.errors import IntegrityError
from cachekit.files.sqlite import Database
from cachekit.model import NANOSECONDS, SKEW

State = Literal["open", "stored", "vain", "handed"]
"""It goes on; its value was published; it came to nothing; it was given up, and others may begin."""
OWN: Final = ""
"""The peer of this machine's claims."""
VAIN_SECONDS: Final = 5.0
"""How long nobody waits for anybody where a call came to nothing: who waited calls for himself."""
MOST_SAID: Final = 256
"""Claims in one message."""
_STATES: Final[tuple[str, ...]] = get_args(State)
_LONGEST_SECONDS: Final = {"open": 10.0, "stored": 1.0, "vain": 10.0, "handed": 0.0}
_LET_DOWN_SECONDS: Final = 300.0
"""How long a peer whose claim ran out is not waited for again for that key."""
_MOST_OF_A_PEER: Final = 2048
_MOST: Final = 16_384
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS computing (space TEXT, key BLOB, peer TEXT, token TEXT, at INTEGER, until INTEGER,
    state TEXT, PRIMARY KEY (space, key, peer, token)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS took (function TEXT PRIMARY KEY, seconds REAL) WITHOUT ROWID;
"""
_KEEP: Final = """INSERT INTO computing VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (space, key, peer, token) DO UPDATE SET
    at = CASE WHEN state = 'open' AND excluded.state = 'open' THEN at ELSE excluded.at END,
    until = excluded.until, state = excluded.state"""
_TIDY: Final = "DELETE FROM computing WHERE until <= ? AND (state != 'open' OR until <= ? OR peer = ?)"
_COUNT: Final = "SELECT coalesce(sum(peer = ?), 0), count(*) FROM computing"
_LET_DOWN: Final = "SELECT 1 FROM computing WHERE space = ? AND key = ? AND peer = ? AND state = 'open' AND until <= ?"


class Claim(NamedTuple):
    """`at` is when it was first said (ns, by the sayer's clock), `seconds` how long it holds from now on unless renewed.

    `token` tells the processes of one peer apart.
    """

    space: str
    key: bytes
    token: str
    at: int
    seconds: float
    state: str

    @property
    def order(self) -> tuple[int, str]:
        """Of several who say at once that they compute a key, the lowest does: all see the same."""
        return self.at, self.token

    def said(self) -> list[Any]:
        """As it goes into a message."""
        return [self.space, self.key.hex(), self.token, self.at, self.seconds, self.state]


class ClaimTable:
    """The claims in a book's file. Everything may raise TierError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def heard(self, peer: str, at: int, said: Sequence[Any]) -> None:
        """Note what a peer's message of its instant `at` says. Raises IntegrityError for what nobody honest would say."""
        now = time.time_ns()
        if abs(now - at) > SKEW:
            raise IntegrityError("a claim of long ago, or of a clock that is wrong", reason="clock")
        if len(said) > MOST_SAID:
            raise IntegrityError("a message claims too much", reason="too_many_claims")
        claims = [_read(one, at) for one in said]
        with self._database.transaction() as connection:
            if _is_full(connection, peer, len(claims)):
                connection.execute(_TIDY, (now, now, OWN))
                if _is_full(connection, peer, len(claims)):
                    raise IntegrityError("a peer claims more than anybody computes", reason="too_many_claims")
            for claim in claims:
                if not connection.execute(_LET_DOWN, (claim.space, claim.key, peer, now)).fetchone():
                    connection.execute(_KEEP, _row(claim, peer, now))

    def keep(self, claims: Iterable[Claim]) -> None:
        """Note what this machine computes itself."""
        now = time.time_ns()
        with self._database.transaction() as connection:
            for claim in claims:
                connection.execute(_KEEP, _row(claim, OWN, now))

    def drop(self, claim: Claim) -> None:
        """Forget one of this machine's."""
        query = "DELETE FROM computing WHERE space = ? AND key = ? AND peer = ? AND token = ?"
        self._database.rows(query, claim.space, claim.key, OWN, claim.token)

    def living(self, space: str, key: bytes) -> list[tuple[str, Claim]]:
        """(peer, claim) of all that hold and say that a key is being computed, was just now, or was in vain; in order.

        In vain was for a while also what was stored and did not come: a value that takes longer on its way than to compute.
        """
        now = time.time_ns()
        query = """SELECT peer, token, at, until, CASE WHEN until > ? THEN state ELSE 'vain' END FROM computing
            WHERE space = ? AND key = ? AND state != 'handed'
            AND until BETWEEN CASE WHEN state = 'stored' THEN ? ELSE ? END AND ?"""
        # Nor what holds longer than anybody may say: the clock was set back.
        latest = now + int((max(_LONGEST_SECONDS.values()) + 1) * NANOSECONDS)
        found = self._database.rows(query, now, space, key, now - int(VAIN_SECONDS * NANOSECONDS), now + 1, latest)
        claims = [
            (peer, Claim(space, key, token, at, (until - now) / 1e9, state)) for peer, token, at, until, state in found
        ]
        return sorted(claims, key=lambda one: one[1].order)

    def let_down(self, peer: str, claim: Claim) -> None:
        """Note that it was waited for long enough, so that nobody of this machine waits for that peer again for the key."""
        query = "UPDATE computing SET state = 'open', until = ? WHERE space = ? AND key = ? AND peer = ?"
        self._database.rows(query, time.time_ns() - 1, claim.space, claim.key, peer)

    def tidy(self) -> None:
        """Drop what time has ended."""
        now = time.time_ns()
        self._database.rows(_TIDY, now, now - int(_LET_DOWN_SECONDS * NANOSECONDS), OWN)

    def took(self) -> dict[str, float]:
        """How many seconds origins took last time on this machine, by function, as far as somebody said."""
        return dict(self._database.rows("SELECT function, seconds FROM took"))

    def learn(self, function: str, seconds: float) -> None:
        """Remember that for the machine's other processes."""
        self._database.rows("INSERT OR REPLACE INTO took VALUES (?, ?)", function, seconds)


def _is_full(connection: sqlite3.Connection, peer: str, more: int) -> bool:
    theirs, everybodys = connection.execute(_COUNT, (peer,)).fetchone()
    return bool(theirs + more > _MOST_OF_A_PEER or everybodys + more > _MOST)


def _read(said: Any, sent: int) -> Claim:
    space, key, token, at, seconds, state = said
    if state not in _STATES or not isinstance(at, int) or not isinstance(seconds, (int, float)):
        raise IntegrityError("a claim that cannot be read", reason="bad_message")
    # Who says that it began before anybody else is believed as far as a call may take; who says "for ever" is not.
    began = max(min(at, sent), sent - 24 * 3600 * NANOSECONDS)
    within = max(0.0, min(float(seconds), _LONGEST_SECONDS[state]))
    return Claim(str(space)[:32], bytes.fromhex(key)[:16], str(token)[:32], began, within, str(state))


def _row(claim: Claim, peer: str, now: int) -> tuple[Any, ...]:
    until = now + int(claim.seconds * NANOSECONDS)
    return claim.space, claim.key, peer, claim.token, claim.at, until, claim.state
