"""What the processes of a machine tell each other: marks, the generation and totals, between real processes."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from neighbour import Neighbour, forked
from tiers.conformance import key

from cachekit.errors import TierError
from cachekit.model import EVERYWHERE, NANOSECONDS, Key, Mark, Record
from cachekit.tiers.ledger import Ledger, veiled

KEY = key(1, "team")
NEIGHBOUR = """
import sqlite3, sys
from pathlib import Path
from cachekit.model import Key, Mark, Record
from cachekit.tiers.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
ledger.open()
for line in sys.stdin:
    what, *words = line.split()
    if what == "mark":
        answer = ledger.mark([Mark(words[0], words[1], "" if words[2] == "-" else words[2], int(words[3]))])
    elif what == "covers":
        answer = ledger.covers(Key(words[0], bytes.fromhex(words[1])), Record("json", b"1", int(words[2])))
    elif what == "generation":
        answer = ledger.generation[0]
    elif what == "bump":
        answer = [ledger.bump() for _ in range(int(words[0]))] and None
    elif what == "add":
        answer = [ledger.add_totals({"f": {"calls": 1, "seconds": 0.5}}) for _ in range(int(words[0]))] and None
    elif what == "stored":
        answer = ledger.stored()
    elif what == "begin":
        held = sqlite3.connect(Path(sys.argv[1]) / "ledger.db", isolation_level=None)
        held.execute("BEGIN IMMEDIATE")
        answer = held.execute("INSERT INTO marks VALUES ('team', 'tag', 'red', 999)").rowcount
    print(answer, flush=True)
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[Neighbour]:
    with Neighbour(NEIGHBOUR, tmp_path) as process:
        yield process


def at(created: int, *tags: str) -> Record:
    return Record("json", b"1", created, tags=tags)


# -- marks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "covered"),
    [
        (Mark("team", "key", KEY.digest.hex(), 100), True),
        (Mark("team", "key", key(2).digest.hex(), 100), False),
        (Mark("other", "key", KEY.digest.hex(), 100), False),
        (Mark("team", "namespace", "", 100), True),
        (Mark("other", "namespace", "", 100), False),
        (Mark("team", "tag", "red", 100), True),
        (Mark("team", "tag", "green", 100), False),
        (Mark("other", "tag", "red", 100), False),
        (Mark(EVERYWHERE, "tag", "red", 100), True),
        (Mark(EVERYWHERE, "tag", "green", 100), False),
    ],
    ids=lambda value: (
        f"{value.namespace or 'everywhere'}-{value.kind}-{value.value[:5]}" if type(value) is Mark else None
    ),
)
def test_a_mark_ends_what_it_names(ledger: Ledger, mark: Mark, covered: bool) -> None:
    """A key, a namespace, a tag in one namespace or in all: what was made at or before it, and nothing else."""
    ledger.mark([mark])
    assert [ledger.covers(KEY, at(created, "blue", "red")) for created in (99, 100, 101)] == [covered, covered, False]


def test_the_latest_mark_counts(ledger: Ledger) -> None:
    """An older one that arrives later, as from another machine, brings nothing back."""
    for instant in (100, 200, 150):
        ledger.mark([Mark("team", "namespace", "", instant)])
    assert ledger.covers(KEY, at(200))
    assert not ledger.covers(KEY, at(201))


def test_several_marks_at_once(ledger: Ledger) -> None:
    """They are written together, and each of them counts."""
    ledger.mark([Mark("team", "tag", "red", 100), Mark("team", "tag", "blue", 200)])
    assert [ledger.covers(KEY, at(150, tag)) for tag in ("red", "blue")] == [False, True]


def test_before_a_directory_there_are_no_marks(tmp_path: Path) -> None:
    """A ledger that was not opened, as of a cache in memory alone, covers nothing and makes no file."""
    ledger = Ledger(tmp_path / "gone")
    assert not ledger.covers(KEY, at(1))
    assert ledger.generation[0] == 0
    assert not (tmp_path / "gone").exists()


def test_marks_outlive_their_process(ledger: Ledger, neighbour: Neighbour, tmp_path: Path) -> None:
    """What a process marked before it was killed is heeded by one that begins later, at its first question."""
    neighbour.ask("mark", "team", "namespace", "-", 100)
    neighbour.kill()
    later = Ledger(tmp_path)
    later.open()
    assert later.covers(KEY, at(100))
    later.close()


def test_veiled_marks_need_the_credential(ledger: Ledger) -> None:
    """Another machine names keys and tags by codes: without the veil they cover nothing, with it what they mean."""
    ledger.mark([Mark("team", "tag", veiled(b"code of red"), 100)])
    assert not ledger.covers(KEY, at(50, "red"))
    ledger.veil = lambda _key, found: [("tag", veiled(b"code of " + tag.encode())) for tag in found.tags]
    assert ledger.covers(KEY, at(50, "red"))
    assert not ledger.covers(KEY, at(50, "blue"))
    assert not ledger.covers(KEY, at(101, "red"))


def test_half_a_mark_is_none(ledger: Ledger) -> None:
    """Where one of several cannot be written nothing is, nobody is sent to look, and the next mark works as ever."""
    with pytest.raises(TierError):
        ledger.mark([Mark("team", "namespace", "", 100), Mark("team", "tag", "red", object())])  # type: ignore[arg-type]
    assert ledger.generation[0] == 0
    assert not ledger.covers(KEY, at(1))
    ledger.mark([Mark("team", "tag", "red", 100)])
    assert [ledger.covers(KEY, at(1, tag)) for tag in ("red", "blue")] == [True, False]


# -- the generation -------------------------------------------------------------------------------------------


def test_a_mark_is_heeded_at_once(ledger: Ledger, neighbour: Neighbour) -> None:
    """Another process sees the generation moved and the mark with it, at its very next question; both ways."""
    assert neighbour.ask("covers", "team", KEY.digest.hex(), 50) == "False"
    assert not ledger.covers(KEY, at(50, "red"))
    ledger.mark([Mark("team", "namespace", "", 100)])
    assert neighbour.ask("covers", "team", KEY.digest.hex(), 50) == "True"
    neighbour.ask("mark", "team", "tag", "red", 300)
    assert ledger.covers(KEY, at(250, "red"))


def test_a_bump_moves_everybodys_generation(ledger: Ledger, neighbour: Neighbour) -> None:
    """It says that something is to be read again, without a mark."""
    before = ledger.generation[0]
    neighbour.ask("bump", 1)
    moved = ledger.generation[0]
    assert moved > before
    assert neighbour.ask("generation") == str(moved)
    assert not ledger.covers(KEY, at(1))


def test_reading_moves_nothing(ledger: Ledger, neighbour: Neighbour) -> None:
    """Questions and totals are no news: nobody reads the disk again for them."""
    ledger.mark([Mark("team", "namespace", "", 100)])
    before = ledger.generation[0]
    ledger.covers(KEY, at(1))
    neighbour.ask("covers", "team", KEY.digest.hex(), 50)
    neighbour.ask("add", 3)
    assert ledger.generation[0] == before


def test_a_store_of_any_process_is_news_once(ledger: Ledger, neighbour: Neighbour, tmp_path: Path) -> None:
    """Who looked before looks again, and who looks after that does not; without a ledger nobody can tell."""
    seen = ledger.last_store()
    assert not ledger.has_stored_since(seen)
    for store in (lambda: neighbour.ask("stored"), ledger.stored):
        store()
        assert ledger.has_stored_since(seen)
        seen = ledger.last_store()
        assert not ledger.has_stored_since(seen)
    closed = Ledger(tmp_path / "none")
    closed.stored()
    assert closed.has_stored_since(closed.last_store())


def test_generations_outlive_everybody(ledger: Ledger, tmp_path: Path) -> None:
    """A process that begins later starts where the others were, so that no generation comes twice."""
    seen = [ledger.generation[0]]
    for _ in range(3):
        ledger.bump()
        seen.append(ledger.generation[0])
    ledger.close()
    later = Ledger(tmp_path)
    later.open()
    assert later.generation[0] == seen[-1]
    later.bump()
    seen.append(later.generation[0])
    assert len(set(seen)) == len(seen)
    later.close()


def test_many_processes_move_it_without_losing_a_mark(ledger: Ledger, tmp_path: Path) -> None:
    """Writers that swap may leave a lower number standing, but whoever looks after them all sees every mark."""
    names = [f"team{number}" for number in range(4)]

    def invalidate(name: str) -> None:
        with Neighbour(NEIGHBOUR, tmp_path) as process:
            for instant in range(1, 26):
                process.ask("mark", name, "namespace", "-", instant)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(invalidate, names))
    assert [ledger.covers(key(1, name), at(25)) for name in names] == [True] * len(names)
    assert not ledger.covers(key(1, names[0]), at(26))


def test_a_killed_writer_leaves_the_ledger_free(ledger: Ledger, neighbour: Neighbour) -> None:
    """kill -9 in the midst of a transaction: what it had not committed is not there, and the next mark is written."""
    ledger.mark([Mark("team", "tag", "blue", 100)])
    neighbour.ask("begin")
    neighbour.kill()
    ledger.mark([Mark("team", "tag", "green", 100)])
    assert [ledger.covers(KEY, at(100, tag)) for tag in ("blue", "red", "green")] == [True, False, True]


def test_a_forked_child_speaks_for_itself(ledger: Ledger) -> None:
    """With the parent's ledger inherited it heeds and makes marks, and the parent hears of them."""
    ledger.mark([Mark("team", "tag", "red", 100)])
    ledger.covers(KEY, at(1))

    def heeds_and_marks() -> bool:
        ledger.mark([Mark("team", "tag", "blue", 100)])
        return ledger.covers(KEY, at(50, "red")) and ledger.covers(KEY, at(50, "blue"))

    assert forked(heeds_and_marks)
    assert ledger.covers(KEY, at(50, "blue"))
    ledger.mark([Mark("team", "tag", "green", 100)])
    assert ledger.covers(KEY, at(50, "green"))


def test_threads_mark_and_ask_at_once(ledger: Ledger) -> None:
    """Each has what it just marked, whoever else writes; nobody is told of a locked file."""
    start = threading.Barrier(8)

    def turn(number: int) -> list[bool]:
        name, covered = f"team{number}", list[bool]()
        start.wait(30)
        for instant in range(1, 11):
            ledger.mark([Mark(name, "namespace", "", instant)])
            covered += [ledger.covers(Key(name, KEY.digest), at(instant)), ledger.covers(KEY, at(instant))]
        ledger.close()
        return covered

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(turn, range(8))) == [[True, False] * 10] * 8


# -- totals ---------------------------------------------------------------------------------------------------


def test_totals_add_up(ledger: Ledger) -> None:
    """Amounts of one counter are summed, a new function or counter begins at zero, and what was not named stays."""
    ledger.add_totals({"f": {"calls": 2, "seconds": 0.5}, "g": {"calls": 1}})
    ledger.add_totals({"f": {"calls": 3, "stores": 1}})
    assert ledger.totals() == {"f": {"calls": 5, "seconds": 0.5, "stores": 1}, "g": {"calls": 1}}


def test_no_totals_yet(ledger: Ledger) -> None:
    """A new directory has counted nothing, and adding nothing is no error."""
    ledger.add_totals({})
    assert ledger.totals() == {}


def test_no_call_of_any_process_is_lost(ledger: Ledger, tmp_path: Path) -> None:
    """Processes that add at the same time: the sum is exact."""

    def add(_: int) -> None:
        with Neighbour(NEIGHBOUR, tmp_path) as process:
            process.ask("add", 25)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    ledger.add_totals({"f": {"calls": 1}})
    assert ledger.totals() == {"f": {"calls": 101, "seconds": 50.0}}


def test_a_ledger_without_a_place_says_so(tmp_path: Path) -> None:
    """Where the files cannot be made an OSError or TierError comes, which callers expect, and no other."""
    (tmp_path / "file").write_text("")
    ledger: Any = Ledger(tmp_path / "file")
    for ask in (ledger.open, ledger.totals, lambda: ledger.add_totals({"f": {"calls": 1}})):
        with pytest.raises((OSError, TierError)):
            ask()


def test_a_mark_of_a_clock_far_ahead_ends_what_is_there_and_no_more(ledger: Ledger, tmp_path: Path) -> None:
    """Dated a day ahead it covers what was made until it was seen; for processes that begin later too."""
    ahead = time.time_ns() + 86_400 * NANOSECONDS
    ledger.mark([Mark("team", "namespace", "", ahead)])
    assert ledger.covers(KEY, at(time.time_ns() - NANOSECONDS))
    made = time.time_ns()
    assert not ledger.covers(KEY, at(made))
    later = Ledger(tmp_path)
    later.open()
    assert not later.covers(KEY, at(made))
    later.close()


def test_a_corrupt_ledger_is_set_aside_and_brings_nothing_back(ledger: Ledger, tmp_path: Path) -> None:
    """What was invalidated in it stays so, because whatever was made until then counts no more; later records do."""
    ledger.mark([Mark("team", "namespace", "", 100)])
    ledger.close()
    (tmp_path / "ledger.db").write_bytes(b"not a database, " * 1000)
    later = Ledger(tmp_path)
    later.open()
    assert later.covers(KEY, at(50))
    assert not later.covers(KEY, at(time.time_ns()))
    assert list(tmp_path.glob("ledger.db.corrupt-*"))
    later.close()


def test_an_altered_mark_covers_everything_made_until_now(ledger: Ledger, tmp_path: Path) -> None:
    """SQLite does not see a bit that changed in its file. What was invalidated is not known any more: all that is there."""
    ledger.mark([Mark("team", "tag", "red", 5)])
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as file:
        file.execute("UPDATE marks SET value = x'00'")
    again = Ledger(tmp_path)
    again.open()
    assert again.covers(KEY, Record("json", b"1", time.time_ns()))
    assert not again.covers(KEY, Record("json", b"1", time.time_ns() + NANOSECONDS))
    again.close()
