"""Saying what this machine computes, without a daemon: what is said, when nothing is, and what the answer to a caller is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from neighbour import forked

from cachekit.errors import TierUnavailable
from cachekit.ipfs.swarm.book import Book, Member
from cachekit.ipfs.swarm.claiming import Claims
from cachekit.ipfs.swarm.claims import OWN
from cachekit.ipfs.swarm.claims import Claim as Said
from cachekit.ipfs.trust.credential import Credential
from cachekit.model import NANOSECONDS, Key
from cachekit.plan.steps import ALONE, BUSY, LEAD, Claim, Standing

KEY = Key("default", b"k" * 32, "tests.f")


class Wire:
    """Stands for a Swarm: a real book, and what was said."""

    def __init__(self, place: Path) -> None:
        self.book = Book(place / "swarm.db")
        self.up: bool | Exception = True
        self.said: list[Any] = []
        self.spoken = threading.Condition()

    def is_up(self) -> bool:
        if isinstance(self.up, Exception):
            raise self.up
        return self.up

    def say(self, _kind: str, says: dict[str, Any], _seconds: float) -> None:
        with self.spoken:
            self.said.append(says["claims"])
            self.spoken.notify_all()

    def states(self, wanted: str) -> list[str]:
        """The states that were said of the key, once the last one is `wanted`."""
        with self.spoken:
            assert self.spoken.wait_for(lambda: self.said and self.said[-1][-1][-1] == wanted, 10)
            return [claim[-1] for claims in self.said for claim in claims]


class Machine:
    """Its claims, and what became of them."""

    def __init__(self, place: Path, *, writes: bool = True) -> None:
        self.wire = Wire(place)
        self.reported: list[str] = []
        self.flushes = True
        self.credential = Credential.create()
        wire: Any = self.wire
        self.claims = Claims(wire, self.credential, lambda: self.flushes, self.reported.append, writes=writes)

    def accompany(self, seconds_ago: float = 0.0) -> None:
        """Another member was heard."""
        seen = time.time_ns() - int(seconds_ago * NANOSECONDS)
        self.wire.book.greet(Member("P", "id", "name", "writer", (), "", "1", seen, seen))

    def ask(self, *, announce: bool = True, late: bool = False, mine: bool = False) -> Standing:
        return self.claims.claim(KEY, Claim(announce, late), mine=mine)

    def hear(self, token: str, at: int, state: str = "open", seconds: float = 3.0) -> None:
        """What another peer claims."""
        space = self.credential.namespace_id(KEY.namespace)
        key = self.credential.index_key(KEY.namespace, KEY.digest)
        self.wire.book.claims.heard("P", time.time_ns(), [Said(space, key, token, at, seconds, state).said()])


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """One with company."""
    made = Machine(tmp_path)
    made.accompany()
    yield made
    made.claims.close(1.0)


def test_what_is_claimed_is_said_and_held(machine: Machine) -> None:
    """And again after a second; at the end the others hear how it ended."""
    assert [machine.ask(), machine.ask(mine=True)] == [LEAD, LEAD]
    assert machine.wire.states("open")
    with machine.wire.spoken:
        assert machine.wire.spoken.wait_for(lambda: len(machine.wire.said) > 1, 5)
    machine.claims.end(KEY, "stored")
    assert set(machine.wire.states("stored")) == {"open", "stored"}


def test_what_could_not_be_published_came_to_nothing(machine: Machine) -> None:
    """The others go on alone instead of looking for it."""
    machine.flushes = False
    machine.ask()
    machine.claims.end(KEY, "stored")
    assert machine.wire.states("vain")[-1] == "vain"
    assert machine.ask() is ALONE


def test_who_gives_up_lets_others_begin(machine: Machine) -> None:
    """This machine too."""
    machine.ask()
    machine.claims.end(KEY, "handed")
    machine.wire.states("handed")
    assert machine.ask() is LEAD


def test_another_call_of_the_process_does_not_wait_for_its_own(machine: Machine) -> None:
    """One that reads the same stream joins it at once."""
    machine.ask()
    assert machine.ask() is ALONE


def test_who_was_first_is_waited_for_until_it_is_late(machine: Machine) -> None:
    """A machine that claimed later gives way; who waited long enough does not wait for that peer again."""
    machine.ask()
    machine.hear("early", 1)
    assert machine.ask(mine=True) is BUSY
    assert machine.wire.states("handed")
    assert machine.ask(late=True) is ALONE
    machine.hear("early", 1)
    assert machine.ask() is LEAD


def test_who_was_later_is_not_waited_for(machine: Machine) -> None:
    """By the instants that both said."""
    machine.ask()
    machine.hear("late", 1 << 62)
    assert machine.ask(mine=True) is LEAD


def test_what_came_to_nothing_elsewhere_is_everybodys_own(machine: Machine) -> None:
    """For a few seconds nobody claims it, so that those who waited do not wait for each other."""
    machine.hear("other", 1, "vain")
    assert machine.ask() is ALONE


@pytest.mark.parametrize("why", ["alone", "no topics", "no daemon", "not announced", "reader", "no book"])
def test_nothing_is_said_where_nobody_would_gain(tmp_path: Path, why: str) -> None:
    """And the caller is told that nobody is waited for."""
    machine = Machine(tmp_path, writes=why != "reader")
    machine.accompany(3600 if why == "alone" else 0)
    if why == "no topics":
        machine.wire.up = False
    if why == "no daemon":
        machine.wire.up = TierUnavailable("no daemon", reason="connection")
    if why == "no book":
        machine.wire.book.close()
        (tmp_path / "swarm.db").unlink()
        (tmp_path / "swarm.db").mkdir()
    assert machine.ask(announce=why != "not announced") is ALONE
    machine.claims.close(1.0)
    assert machine.wire.said == []
    assert bool(machine.reported) == (why in ("no daemon", "no book"))


def test_who_may_not_write_waits_all_the_same(tmp_path: Path) -> None:
    """Its own value would reach nobody; that of another does."""
    machine = Machine(tmp_path, writes=False)
    machine.hear("other", 1)
    assert machine.ask() is BUSY


def test_a_process_that_ends_says_so(machine: Machine) -> None:
    """What it computed may be begun elsewhere."""
    machine.ask()
    machine.wire.states("open")
    machine.claims.close(1.0)
    assert machine.wire.states("handed")[-1] == "handed"


def test_a_forked_child_claims_nothing_of_its_parents(machine: Machine) -> None:
    """It waits for the parent, as any other process does."""
    machine.ask()

    def check() -> bool:
        machine.claims.renew_after_fork()
        return machine.ask() is BUSY

    assert forked(check)
    assert [peer for peer, _ in machine.wire.book.claims.living(*machine.claims._place(KEY))] == [OWN]


def test_a_slow_function_is_remembered_for_the_machine(machine: Machine, tmp_path: Path) -> None:
    """One line where it becomes slow, and where it is no more; what this process saw itself counts first."""
    machine.claims.learn("f", 0.5)
    machine.claims.learn("f", 1.5)
    machine.claims.learn("g", 2.0)
    machine.claims.learn("g", 0.1)
    machine.claims.close(1.0)
    assert Book(tmp_path / "swarm.db").claims.took() == {"f": 1.5, "g": 0.1}
    assert [machine.claims.took("f", 0.0), machine.claims.took("f", 0.2)] == [1.5, 0.2]
