"""Who of the team computes what: what is believed of what peers say, and what a machine concludes from it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from cachekit.errors import IntegrityError
from cachekit.ipfs.swarm.book import Book
from cachekit.ipfs.swarm.claims import MOST_SAID, OWN, Claim, ClaimTable
from cachekit.model import NANOSECONDS

SPACE, KEY = "5" * 32, b"k" * 16


@pytest.fixture
def table(tmp_path: Path) -> ClaimTable:
    return Book(tmp_path / "swarm.db").claims


def claim(key: bytes = KEY, *, token: str = "t", age: float = 0.0, seconds: float = 3.0, state: str = "open") -> Claim:
    return Claim(SPACE, key, token, time.time_ns() - int(age * NANOSECONDS), seconds, state)


def hear(table: ClaimTable, peer: str, *claims: Claim, late: float = 0.0) -> None:
    """What a message says that left `late` seconds ago."""
    table.heard(peer, time.time_ns() - int(late * NANOSECONDS), [one.said() for one in claims])


def living(table: ClaimTable, key: bytes = KEY) -> list[tuple[str, str]]:
    return [(peer, one.state) for peer, one in table.living(SPACE, key)]


def test_the_first_comes_first_on_every_machine(tmp_path: Path) -> None:
    """Whatever the order in which claims are heard, and which of them are the machine's own; the token decides a draw."""
    early, late = claim(age=1, token="z"), claim(token="b")
    drawn = late._replace(token="a")
    one, other = (Book(tmp_path / name).claims for name in ("one", "other"))
    one.keep([late])
    hear(one, "E", early)
    hear(one, "D", drawn)
    other.keep([early])
    hear(other, "D", drawn)
    hear(other, "L", late)
    tokens = [[found.token for _, found in table.living(SPACE, KEY)] for table in (one, other)]
    assert tokens == [["z", "a", "b"]] * 2


def test_a_claim_that_is_renewed_keeps_its_place(table: ClaimTable) -> None:
    """It holds for longer, and began when it began."""
    first = claim(age=2, seconds=0.5)
    hear(table, "P", first)
    hear(table, "P", claim(seconds=3))
    [(_, found)] = table.living(SPACE, KEY)
    assert (found.at, found.seconds > 1) == (first.at, True)


def test_a_peer_whose_claim_ran_out_is_not_waited_for_again(table: ClaimTable) -> None:
    """For that key; others are, and the peer is for others."""
    hear(table, "P", claim(seconds=0))
    hear(table, "P", claim(), claim(b"o" * 16), claim(token="another process"))
    hear(table, "Q", claim())
    assert (living(table), living(table, b"o" * 16)) == ([("Q", "open")], [("P", "open")])


def test_a_peer_that_was_waited_for_long_enough_is_not_waited_for_again(table: ClaimTable) -> None:
    """Though it goes on saying that it computes the key, or that its value is there."""
    for state in ("open", "stored"):
        hear(table, state, claim(state=state))
        table.let_down(*table.living(SPACE, KEY)[0])
        hear(table, state, claim(state=state))
        assert living(table) == []


def test_a_value_that_was_published_and_does_not_come_is_everybodys_own(table: ClaimTable) -> None:
    """It takes longer on its way than to compute: nobody waits for the next one either."""
    hear(table, "P", claim(state="stored", seconds=0))
    assert living(table) == [("P", "vain")]


@pytest.mark.parametrize("state", ["stored", "handed"])
def test_a_peer_that_kept_its_word_is_waited_for_again(table: ClaimTable, state: str) -> None:
    """Its value was published, or it said that others may begin."""
    hear(table, "P", claim())
    hear(table, "P", claim(state=state, seconds=0))
    hear(table, "P", claim())
    assert living(table) == [("P", "open")]


@pytest.mark.parametrize(("state", "seconds"), [("open", 10), ("stored", 1), ("vain", 10)])
def test_nobody_is_believed_for_ever(table: ClaimTable, state: str, seconds: float) -> None:
    """An absurd time is cut, and a beginning before all others is not before the day."""
    hear(table, "P", claim(seconds=1e12, age=1e9, state=state))
    [(_, found)] = table.living(SPACE, KEY)
    assert seconds - 1 < found.seconds <= seconds
    assert time.time_ns() - found.at < 25 * 3600 * NANOSECONDS


@pytest.mark.parametrize("late", [-400, 400])
def test_an_old_message_claims_nothing(table: ClaimTable, late: float) -> None:
    """Who repeats what was said long ago holds nobody up; a clock that is minutes off costs a second call, and is named."""
    with pytest.raises(IntegrityError) as caught:
        hear(table, "P", claim(), late=late)
    assert (caught.value.reason, living(table)) == ("clock", [])


def test_a_flood_is_bounded_for_each_peer(table: ClaimTable) -> None:
    """Who claims everything is refused, and the others are heard all the same."""
    refused = 0
    for number in range(20):
        keys = [bytes([number, at]) * 8 for at in range(MOST_SAID)]
        try:
            hear(table, "P", *(claim(key) for key in keys))
        except IntegrityError as error:
            assert error.reason == "too_many_claims"
            refused += 1
    hear(table, "Q", claim())
    assert refused >= 4
    assert living(table) == [("Q", "open")]


def test_what_is_over_makes_room(table: ClaimTable) -> None:
    """A peer that computes much is no flood."""
    for number in range(20):
        keys = [bytes([number, at]) * 8 for at in range(MOST_SAID)]
        hear(table, "P", *(claim(key) for key in keys))
        hear(table, "P", *(claim(key, state="stored", seconds=0) for key in keys))
    hear(table, "P", claim())
    assert living(table) == [("P", "open")]


@pytest.mark.parametrize(
    "said",
    [
        [[]], [["s"]], [[SPACE, "zz", "t", 1, 1.0, "open"]], [[SPACE, 7, "t", 1, 1.0, "open"]],
        [[SPACE, "00", "t", "1", 1.0, "open"]], [[SPACE, "00", "t", 1, "1", "open"]], [[SPACE, "00", "t", 1, 1.0, "mine"]],
        [[SPACE, "00", "t", 1, float("nan"), "open"]], [[SPACE, "00", "t", 10**400, 1.0, "open"]],
        [[SPACE, "00", "t", 1, 1.0, []]], 7, {"a": 1}, [[SPACE, "00", "t", 1, 1.0, "open"]] * (MOST_SAID + 1),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_or_harmless(table: ClaimTable, said: Any) -> None:
    """As whoever hears it expects: with an error that says that a peer wrote it, or with a claim that holds for seconds."""
    try:
        table.heard("P", time.time_ns(), said)
    except (IntegrityError, ValueError, TypeError, LookupError, ArithmeticError):
        pass
    assert all(found.seconds <= 10 for _, found in table.living(SPACE, b"\0"))


def test_tidying_keeps_whom_one_cannot_rely_on(table: ClaimTable) -> None:
    """What ended well, and what this machine's own processes left behind, goes."""
    hear(table, "P", claim(seconds=0))
    hear(table, "Q", claim(seconds=0, state="stored"))
    table.keep([claim(token="killed", seconds=0)])
    table.tidy()
    hear(table, "P", claim())
    table.keep([claim(token="killed")])
    assert living(table) == [(OWN, "open")]


def test_another_process_knows_how_long_a_function_took(tmp_path: Path) -> None:
    """The machine remembers it in the book."""
    Book(tmp_path / "swarm.db").claims.learn("slow", 2.5)
    assert Book(tmp_path / "swarm.db").claims.took() == {"slow": 2.5}
