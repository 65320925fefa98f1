"""Members and strangers who send what nobody honest would: nothing is raised, no value is wrong, one reason names who it was.

The book, the table and what judges are real; `StubNetwork` stands for a daemon, which cannot be made to say such things.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cachekit.errors import IntegrityError
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.cids import binary_cid, cid_from, digest_of, directory_block, raw_cid
from cachekit.ipfs.content.sealed import packed
from cachekit.ipfs.index.index import MOST_SEGMENTS, Index
from cachekit.ipfs.index.reading import record_of
from cachekit.ipfs.index.segments import ENCRYPTED, Line, encode
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.kubo.network import MOST_BYTES
from cachekit.ipfs.swarm.book import Book
from cachekit.ipfs.swarm.following import Follower
from cachekit.ipfs.swarm.heads import Head, sign
from cachekit.ipfs.swarm.hearing import Hearing
from cachekit.ipfs.swarm.messages import Envelope
from cachekit.ipfs.trust.credential import Credential, WriterKey
from cachekit.ipfs.trust.roster import Roster
from cachekit.model import NANOSECONDS

TEAM = Credential.create()
SENDER = "12D3peer"
DAY = 86_400 * NANOSECONDS
HELLO: dict[str, Any] = {
    "id": "", "name": "laptop", "role": "writer", "state": "s", "version": "1", "addresses": [], "roster": 0,
}  # fmt: skip
CID = raw_cid(b"block")


class StubNetwork:
    """A stub for a daemon and its transport: blocks, and nobody else to ask."""

    def __init__(self) -> None:
        self.blocks = dict[str, bytes]()
        self.transport = self

    def block_get(self, cid: str, *, timeout: float, peers: bool = False) -> bytes | None:
        del timeout, peers
        return self.blocks.get(cid)

    def import_blocks(self, blocks: Sequence[tuple[bytes, bytes]], *, timeout: float) -> None:
        del blocks, timeout


class Place:
    """A machine that hears, and a certified writer who misbehaves."""

    def __init__(self, home: Path) -> None:
        self.reported: list[str] = []
        self.network: Any = StubNetwork()
        self.book = Book(home / "swarm.db")
        self.table = Table(home / "index.db", TEAM, self.reported.append)
        self.table.remember("team")
        index = Index(self.network, self.table)
        self.follower = Follower(self.network, index, self.table, self.book, self.reported.append)
        self.envelope = Envelope(TEAM)
        self.ears = Hearing(self.envelope, self.follower, self.book, lambda: None, self.reported.append)
        self.writer = WriterKey.load(home / "liar", TEAM)

    def hear(self, kind: Any, says: dict[str, Any], at: int = 0, blocks: dict[str, bytes] | None = None) -> None:
        self.ears.hear(SENDER, self.envelope.seal(kind, at or time.time_ns(), says, blocks or {}))

    def offences(self) -> list[tuple[str, str]]:
        return sorted((one.who, one.reason) for one in self.book.offences())

    def segment(self, sequence: int, *lines: Line) -> str:
        """The CID of one of the writer's, which the daemon has."""
        data = encode(lines, credential=TEAM, namespace="team", writer=self.writer, sequence=sequence)
        self.network.blocks[raw_cid(data)] = data
        return raw_cid(data)

    def head(self, sequence: int, links: dict[str, str] | bytes) -> Head:
        """The writer's, on a directory with these links, or on a block."""
        if isinstance(links, bytes):
            cid, block = cid_from(0x70, digest_of(raw_cid(links))), links
        else:
            cid, block, _ = directory_block([(name, target, 1) for name, target in links.items()])
        self.network.blocks[cid] = block
        return sign(TEAM, self.writer, "team", sequence, cid, 1, "")

    def say(self, *texts: bytes, new: bool = True) -> None:
        self.hear("heads", {"heads": [text.hex() for text in texts], "new": new})

    def entries(self) -> list[Line]:
        return list(self.table.lines("team"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.book.close()
    made.table.close()


def name_of(sequence: int) -> str:
    return f"{sequence:016d}"


def entry(key: bytes = bytes(32), **fields: Any) -> Line:
    return Line(TEAM.index_key("team", key), created=time.time_ns())._replace(**fields)


def raw(body: bytes, kind: int = 1, length: int | None = None) -> bytes:
    """A message that a holder of the secret sealed, whatever is in it."""
    start = struct.pack(">BqI", kind, time.time_ns(), len(body) if length is None else length)
    return Envelope(TEAM)._cipher.seal(start + body)


def said(kind: int, says: Any) -> bytes:
    return raw(json.dumps(says).encode(), kind)


HELLOS, HEADS, CLAIMS, ROSTERS = range(4)


def noise() -> dict[str, tuple[bytes, str]]:
    """What each says, sealed now: a message of some minutes ago would be refused for its clock."""
    return {
        "nothing": (b"", "foreign_message"),
        "another team's": (Envelope(Credential.create()).seal("hello", 1, HELLO), "foreign_message"),
        "truncated": (Envelope(TEAM).seal("hello", 1, HELLO)[:-1], "foreign_message"),
        "too long": (bytes(MOST_BYTES + 1), "oversized"),
        "an unknown kind": (raw(b"{}", kind=9), "bad_message"),
        "cut within": (Envelope(TEAM)._cipher.seal(b"\0\0"), "bad_message"),
        "another length": (raw(b"{}", length=1 << 31), "bad_message"),
        "no JSON": (raw(b"\xff{"), "bad_message"),
        "no object": (said(HEADS, [1]), "bad_message"),
        "nothing said": (said(HELLOS, {}), "bad_message"),
        "heads that are a number": (said(HEADS, {"heads": 5}), "bad_message"),
        "heads that are no bytes": (said(HEADS, {"heads": ["zz"]}), "bad_message"),
        "heads that are nothing": (said(HEADS, {"heads": [""]}), "bad_head"),
        "a roster that is a list": (said(ROSTERS, {"roster": []}), "bad_message"),
        "a roster that nobody signed": (said(ROSTERS, {"roster": "00" * 300}), "bad_roster"),
        "claims in claims": (said(CLAIMS, {"claims": [[[]]]}), "bad_message"),
        "claims without end": (said(CLAIMS, {"claims": [[]] * 10_000}), "too_many_claims"),
        "a claim since ever": (said(CLAIMS, {"claims": [["s", "00", "t", "never", 1, "open"]]}), "bad_message"),
        "an unknown state": (said(CLAIMS, {"claims": [["s", "00", "t", 1, 1, "?"]]}), "bad_message"),
        "deep nesting": (raw(b'{"heads":' + b"[" * 200_000, HEADS), "bad_message"),
        "a number of 5 000 digits": (raw(b'{"roster":' + b"9" * 5_000 + b"}", HELLOS), "bad_message"),
        "an infinite number": (said(HELLOS, {**HELLO, "roster": float("inf")}), "bad_message"),
        "a block cut off": (raw(b"{}" + binary_cid(CID) + b"\xff\xff\xff\xff", HEADS, 2), "bad_message"),
        "another block": (raw(b"{}" + binary_cid(CID) + b"\0\0\0\1?", HEADS, 2), "wrong_bytes"),
        "a name of 4 kB": (said(HELLOS, {**HELLO, "name": "n" * 4096}), "bad_name"),
        "a name with NUL": (said(HELLOS, {**HELLO, "name": "a\0b"}), "bad_name"),
        "a name that is a terminal's command": (said(HELLOS, {**HELLO, "name": "\x1b[2J"}), "bad_name"),
        "half a character": (raw(json.dumps({**HELLO, "name": "\ud800"}).encode(), HELLOS), "bad_name"),
        "a name that is a list": (said(HELLOS, {**HELLO, "name": ["laptop"]}), "bad_name"),
        "an address of 4 kB": (said(HELLOS, {**HELLO, "addresses": ["/" * 4096]}), "bad_name"),
        "others without end": (
            said(HELLOS, {**HELLO, "others": {str(number): [] for number in range(10_000)}}),
            "too_many_names",
        ),
    }


NOISE = tuple(noise())


@pytest.mark.parametrize("what", NOISE)
def test_what_nobody_honest_says_is_refused_by_one_reason(place: Place, what: str) -> None:
    """It is counted once, under the daemon that sent it, and nothing of it is kept."""
    message, reason = noise()[what]
    place.ears.hear(SENDER, message)
    assert place.offences() == [(SENDER, reason)]
    assert place.reported == [reason]
    assert (place.book.members(), place.book.heads(), place.entries()) == ([], [], [])


def test_a_name_that_climbs_is_only_a_name(place: Place) -> None:
    """Nothing is a path that a member calls itself."""
    place.hear("hello", {**HELLO, "name": "../../etc", "others": {"../..": ["/../.."]}})
    assert {one.peer: one.name for one in place.book.members()} == {SENDER: "../../etc", "../..": ""}
    assert place.offences() == []


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_a_day_off_is_named_and_its_owner_heard(place: Place, days: int) -> None:
    """Once the clock is right again too; what it claims is not believed."""
    off = time.time_ns() + days * DAY
    place.hear("hello", {**HELLO, "name": "off"}, at=off)
    place.hear("claim", {"claims": [["s", "00", "t", off, 1e9, "open"]]}, at=off)
    assert place.offences() == [(SENDER, "clock")]
    assert place.book.claims.living("s", b"\0") == []
    place.hear("hello", {**HELLO, "name": "right"})
    assert [(one.name, one.online) for one in place.book.members()] == [("right", True)]


@pytest.mark.parametrize("seconds", [1e308, float("inf"), float("nan"), -1e308])
def test_absurd_numbers_in_a_claim_hold_nobody_up(place: Place, seconds: float) -> None:
    """Neither for ever nor before anybody."""
    place.hear("claim", {"claims": [["s", "00", "t", -(10**30), seconds, "open"]]})
    assert all(one.seconds <= 10 and one.at > 0 for _, one in place.book.claims.living("s", b"\0"))


def test_a_flood_is_counted_and_others_are_heard(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand messages in one second of the clock two hundred are read."""
    now = time.monotonic()
    monkeypatch.setattr("cachekit.ipfs.swarm.hearing.time.monotonic", lambda: now)
    message = place.envelope.seal("hello", time.time_ns(), HELLO)
    for _ in range(1000):
        place.ears.hear(SENDER, message)
    assert [(one.reason, one.times) for one in place.book.offences()] == [("flood", 800)]
    place.ears.hear("other", message)
    assert len(place.book.members()) == 2


# -- heads and what they name ---------------------------------------------------------------------


def test_a_replayed_head_is_counted_and_nothing_comes_back(place: Place) -> None:
    """One that a member passes on, and does not call news, is old and no offence."""
    place.say(place.head(5, {name_of(5): place.segment(5, entry())}).text)
    old = place.head(3, {name_of(3): place.segment(3, entry(b"3" * 32))}).text
    place.say(old, new=False)
    assert place.offences() == []
    place.say(old)
    assert place.offences() == [(SENDER, "rollback")]
    assert [head.sequence for head in place.book.heads()] == [5]
    assert len(place.entries()) == 1


def test_a_forged_head_is_counted(place: Place, tmp_path: Path) -> None:
    """Whether it was altered, or signed by somebody whom the owner does not know."""
    good = place.head(1, {name_of(1): place.segment(1, entry())})
    place.say(good.text[:-1] + bytes([good.text[-1] ^ 1]))
    stranger = WriterKey.load(tmp_path / "stranger", Credential.create())
    place.say(sign(TEAM, stranger, "team", 1, good.root, 1, "").text)
    assert place.offences() == [(SENDER, "bad_signature"), (SENDER, "foreign_writer")]
    assert (place.book.heads(), place.entries()) == ([], [])


@pytest.mark.parametrize(("sequence", "size"), [(1 << 53, 1), (1, 1 << 53)])
def test_a_head_that_says_what_cannot_be_is_counted(place: Place, sequence: int, size: int) -> None:
    """Numbers that JSON or SQLite could not hold."""
    place.say(sign(TEAM, place.writer, "team", sequence, CID, size, "").text)
    assert place.offences() == [(SENDER, "bad_head")]


TREES: dict[str, tuple[Callable[[Place], dict[str, str] | bytes], str]] = {
    "garbage": (lambda _: b"\xff" * 100, "not_a_file"),
    "a file": (lambda _: b"\x0a\x02\x08\x02", "not_a_directory"),
    "10 000 segments": (
        lambda place: dict.fromkeys(map(name_of, range(1, 10_001)), place.segment(1, entry())),
        "too_many_segments",
    ),
    "..": (lambda place: {"..": place.segment(1, entry())}, "unexpected_file"),
    "NUL": (lambda place: {"a\0/b": place.segment(1, entry())}, "unexpected_file"),
    "4 kB": (lambda place: {"9" * 4096: place.segment(1, entry())}, "unexpected_file"),
    "a file under another number": (lambda place: {name_of(2): place.segment(1, entry())}, "misplaced"),
    "an absurd number": (lambda place: {name_of(1): place.segment(1, entry(grace=float("nan")))}, "malformed"),
    "tomorrow's entry": (
        lambda place: {name_of(1): place.segment(1, entry(created=time.time_ns() + DAY))},
        "future",
    ),
    "an empty block": (lambda place: {name_of(1): raw_cid(b"")}, "empty_segment"),
    "no segment": (lambda place: {name_of(1): CID}, "not_a_segment"),
}


@pytest.mark.parametrize("what", TREES)
def test_a_tree_that_no_writer_makes_gives_nothing_and_names_its_writer(place: Place, what: str) -> None:
    """It is judged once: the head counts as read, and is not asked for again."""
    tree, reason = TREES[what]
    place.network.blocks |= {raw_cid(b""): b"", CID: b"block"}
    place.say(place.head(1, tree(place)).text)
    assert place.offences() == [(place.writer.id, reason)]
    assert place.reported == [reason]
    assert (place.entries(), place.book.lacking()) == ([], [])


def test_as_many_segments_as_a_writer_may_have_are_taken_in(place: Place) -> None:
    """The bound is of what nobody needs."""
    links = {name_of(n): place.segment(n, entry(bytes([n]) * 32)) for n in range(1, MOST_SEGMENTS + 1)}
    place.say(place.head(MOST_SEGMENTS, links).text)
    assert len(place.entries()) == MOST_SEGMENTS
    assert place.offences() == []


def test_each_offence_of_a_writer_is_named_whatever_was_refused_before(place: Place) -> None:
    """Also where a name sorts before an earlier one, or the earlier one is gone."""
    place.network.blocks[CID] = b"block"
    place.say(place.head(5, {name_of(5): CID}).text)
    place.say(place.head(6, {"..": CID, name_of(5): CID}).text)
    place.say(place.head(7, {name_of(7): raw_cid(b"")}).text)
    place.network.blocks[raw_cid(b"")] = b""
    for head in place.book.lacking():
        place.follower.take(head, {}, Deadline(5))
    assert place.offences() == [
        (place.writer.id, reason) for reason in ("empty_segment", "not_a_segment", "unexpected_file")
    ]


def test_a_writer_whose_newest_segments_are_gone_is_named(place: Place) -> None:
    """A newer head on an older state: nothing is forgotten, and nothing comes back."""
    place.say(place.head(5, {name_of(5): place.segment(5, entry())}).text)
    place.say(place.head(6, {name_of(2): place.segment(2, entry(b"2" * 32))}).text)
    assert place.offences() == [(place.writer.id, "rollback")]
    assert len(place.entries()) == 1


def test_a_key_that_points_at_anothers_payload_names_its_writer(place: Place) -> None:
    """Nothing prevents it: a certified writer is believed, and might as well store a wrong value of its own. A payload
    says no key, so that equal ones are one. But the entry says who wrote it, and to distrust that writer ends it everywhere."""
    one, two = b"1" * 32, b"2" * 32
    payload = packed(TEAM, "team", "json", b'"two"', encrypt=True)
    honest = entry(two, digest=digest_of(raw_cid(payload)), size=len(payload), flags=ENCRYPTED)
    place.say(place.head(1, {name_of(1): place.segment(1, honest, honest._replace(key=entry(one).key))}).text)
    found = place.table.find("team", one)
    assert found is not None
    record = record_of(place.table, "team", found, payload)
    writer = place.table.members.wrote(TEAM.namespace_id("team"), found.key)
    assert writer == place.writer.id
    assert set(place.table.members.tags(writer, found.created)) <= set(record.tags)
    place.table.members.take(Roster().distrusting(writer, 0).signed(TEAM).text)
    assert place.table.find("team", one) is None


def test_a_strangers_entry_cannot_point_at_a_payload_of_another_namespace(place: Place) -> None:
    """A payload opens in the namespace that it was sealed for, and no other."""
    payload = packed(TEAM, "other", "json", b'"other"', encrypt=True)
    line = entry(digest=digest_of(raw_cid(payload)), size=len(payload), flags=ENCRYPTED)
    with pytest.raises(IntegrityError):
        record_of(place.table, "team", line, payload)


def test_a_forked_child_waits_for_no_lock_of_its_parent(place: Place) -> None:
    """What another thread held of what is waited for, at the fork, is nobody's in the child."""
    held = place.ears.settled._cond
    with held:
        place.ears.renew_after_fork()
        asking = threading.Thread(target=place.ears.settled.set, daemon=True)
        asking.start()
        asking.join(5)
        assert not asking.is_alive()
