"""Who is believed: invitations, what the roster says of them, and what a member can open."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cachekit.errors import IntegrityError, UsageError
from cachekit.ipfs.content.chunks import ChunkCipher
from cachekit.ipfs.index.rows import SegmentFile
from cachekit.ipfs.index.segments import Line, decode, encode
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.trust.certificates import MOST_BYTES, Issued
from cachekit.ipfs.trust.credential import Credential, WriterKey
from cachekit.ipfs.trust.roster import MAGIC, Roster
from cachekit.ipfs.trust.tokens import Token, load_credential, parse_credential
from cachekit.model import NANOSECONDS, Mark

OWNER = Credential.create()
KEY = b"k" * 32


def _invited(name: str = "laptop", **said: object) -> Credential:
    return OWNER.invited(name, **{"writes": True, **said})  # type: ignore[arg-type]


def _writer(credential: Credential, place: Path) -> WriterKey:
    return WriterKey.load(place, credential)


def _segment(writer: WriterKey, sequence: int = 1, created: int = 0, digest: bytes = KEY) -> bytes:
    line = Line(OWNER.index_key("team", digest), size=1, created=created or time.time_ns())
    return encode([line], credential=OWNER, namespace="team", writer=writer, sequence=sequence)


def _taken(table: Table, writer: WriterKey, data: bytes) -> int:
    sequence = decode(data, OWNER, "team").sequence
    segment = table.read_segment(data, "team", writer.id, f"{sequence:016d}")
    file = SegmentFile(writer.id, f"{sequence:016d}", f"cid{sequence}", sequence, len(data))
    return table.accept("team", file, segment.lines)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """A reader's index."""
    return Table(tmp_path / "index.db", OWNER.reader())


def _roster(table: Table, change: Callable[[Roster], Roster]) -> Roster:
    roster = change(table.members.roster()).signed(OWNER)
    table.members.take(roster.text)
    return roster


def test_an_invited_writer_is_believed_under_its_name(tmp_path: Path) -> None:
    """By everybody who knows the owner, and two machines with one invitation are two writers."""
    credential = _invited()
    first, second = (_writer(credential, tmp_path / name) for name in ("one", "two"))
    issued = [decode(_segment(writer), OWNER.reader(), "team").issuer for writer in (first, second)]
    assert issued[0] == issued[1] == Issued(credential.invitation.certificate.id, "laptop")  # type: ignore[union-attr]
    assert first.id != second.id


def test_a_read_only_invitation_certifies_nobody(tmp_path: Path) -> None:
    """Neither as it is, nor with the word for writing altered in it."""
    credential = _invited(writes=False)
    assert not credential.writes
    with pytest.raises(UsageError, match="only reads"):
        _writer(credential, tmp_path)
    assert credential.invitation is not None
    forged = replace(credential.invitation, certificate=credential.invitation.certificate._replace(writes=True))
    data = _segment(_writer(replace(credential, invitation=forged), tmp_path / "forged"))
    with pytest.raises(IntegrityError) as refused:
        decode(data, OWNER, "team")
    assert refused.value.reason == "foreign_writer"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"expires": time.time_ns() - 301 * NANOSECONDS}, "expired_certificate"),
        ({"scope": b"n" * 16}, "wrong_namespace"),
    ],
)
def test_an_invitation_has_an_end_and_a_scope(tmp_path: Path, said: dict[str, object], reason: str) -> None:
    """Beyond them nobody is believed; a clock may be five minutes off."""
    with pytest.raises(IntegrityError) as refused:
        decode(_segment(_writer(_invited(**said), tmp_path)), OWNER, "team")
    assert refused.value.reason == reason
    decode(_segment(_writer(_invited(expires=time.time_ns() - 200 * NANOSECONDS), tmp_path / "b")), OWNER, "team")
    decode(_segment(_writer(_invited(scope=bytes.fromhex(OWNER.namespace_id("team"))), tmp_path / "c")), OWNER, "team")


def test_forged_chains_are_refused(tmp_path: Path) -> None:
    """A stranger's, one for another writer, a long one, random bytes: each with a word that is counted."""
    stranger = Credential.create().invited("laptop", writes=True)
    good, other = _writer(_invited(), tmp_path / "good"), _writer(_invited(), tmp_path / "other")
    for certificate in (
        stranger.certify(good.public), other.certificate, good.certificate[:-1], good.certificate + b"x" * MOST_BYTES,
        os.urandom(200), b"", good.certificate[:65],
    ):  # fmt: skip
        with pytest.raises(IntegrityError) as refused:
            decode(_segment(replace(good, certificate=certificate)), OWNER, "team")
        assert refused.value.reason in ("foreign_writer", "bad_signature", "truncated")


def test_what_a_revoked_member_writes_is_refused(tmp_path: Path, table: Table) -> None:
    """What was seen of it until then stays; a machine that comes later believes the same part of it."""
    writer = _writer(_invited(), tmp_path)
    first, second = _segment(writer, 1), _segment(writer, 2)
    _taken(table, writer, first)
    who = table.members.named("laptop")
    roster = _roster(table, lambda known: known.revoking(who[0], table.members.seen(who[0])))
    with pytest.raises(IntegrityError) as refused:
        _taken(table, writer, second)
    assert refused.value.reason == "revoked"
    assert table.living("team", KEY) is not None
    late = Table(tmp_path / "late.db", OWNER.reader())
    late.members.take(roster.text)
    assert _taken(late, writer, first) == 1
    with pytest.raises(IntegrityError):
        _taken(late, writer, second)


def test_what_a_distrusted_member_stored_ends_everywhere(tmp_path: Path) -> None:
    """In the index, for what comes later of that time, and, by marks, in the tiers that hold copies."""
    marks: list[Mark] = []

    def heed(new: Sequence[Mark]) -> None:
        marks.extend(new)

    table, writer, now = Table(tmp_path / "index.db", OWNER, heed=heed), _writer(_invited(), tmp_path), time.time_ns()
    _taken(table, writer, _segment(writer, 1, created=now - 3600 * NANOSECONDS))
    tags = table.members.tags(writer.id, now)
    who = table.members.named("laptop")[0]
    _roster(table, lambda known: known.distrusting(who, 0))
    assert table.living("team", KEY) is None
    assert {mark.value for mark in marks} & set(tags)
    assert _taken(table, writer, _segment(writer, 2, created=now - 7200 * NANOSECONDS)) == 0
    assert _taken(table, writer, _segment(writer, 3, created=time.time_ns() + NANOSECONDS)) == 1


def test_distrust_since_a_day_leaves_what_is_older(tmp_path: Path) -> None:
    """In the index to the nanosecond; in copies by the day."""
    table, writer, now = Table(tmp_path / "index.db", OWNER), _writer(_invited(), tmp_path), time.time_ns()
    day = 86_400 * NANOSECONDS
    _taken(table, writer, _segment(writer, 1, created=now - 3 * day))
    _taken(table, writer, _segment(writer, 2, created=now - day, digest=b"o" * 32))
    who = table.members.named("laptop")[0]
    _roster(table, lambda known: known.distrusting(who, now - 2 * day))
    assert table.living("team", KEY) is not None
    assert table.living("team", b"o" * 32) is None


def test_a_rotated_secret_opens_for_members_and_not_for_the_revoked(tmp_path: Path) -> None:
    """What was sealed before opens still; files in chunks as well."""
    kept, gone = _invited("kept"), _invited("gone")
    tables = [Table(tmp_path / f"{name}.db", one) for name, one in (("owner", OWNER), ("kept", kept), ("gone", gone))]
    owners = tables[0].members
    before, chunk_before = OWNER.seal("team", b"before"), next(ChunkCipher.of(OWNER, "team").sealed(_stream(b"x"), 1))
    for one in (kept, gone):
        assert one.invitation is not None
        certificate = one.invitation.certificate
        _roster(tables[0], lambda known, certificate=certificate: known.inviting(certificate, OWNER.later))  # type: ignore[misc]
    _roster(tables[0], lambda known: known.revoking(gone.invitation.certificate.id, {}))  # type: ignore[union-attr]
    roster = _roster(tables[0], lambda known: known.rotating(OWNER, os.urandom(32)))
    for one in tables[1:]:
        one.members.take(roster.text)
    after, chunk_after = OWNER.seal("team", b"after"), next(ChunkCipher.of(OWNER, "team").sealed(_stream(b"y"), 1))
    assert [kept.unseal("team", sealed) for sealed in (before, after)] == [b"before", b"after"]
    assert [ChunkCipher.of(kept, "team").opened(0, chunk, 1) for chunk in (chunk_before, chunk_after)] == [b"x", b"y"]
    assert gone.unseal("team", before) == b"before"
    for sealed in (lambda: gone.unseal("team", after), lambda: ChunkCipher.of(gone, "team").opened(0, chunk_after, 1)):
        with pytest.raises(IntegrityError):
            sealed()
    late = _invited("late")
    assert late.invitation is not None
    roster = _roster(tables[0], lambda known: known.inviting(late.invitation.certificate, OWNER.later))  # type: ignore[union-attr]
    Table(tmp_path / "late.db", late).members.take(roster.text)
    assert late.unseal("team", after) == b"after"
    assert owners.roster().number == 5
    OWNER.later.clear()


def test_a_roster_is_the_owners_and_never_an_older_one(table: Table) -> None:
    """Altered, cut, another owner's, one below the known number: refused or passed over."""
    first = _roster(table, lambda known: known)
    second = _roster(table, lambda known: known)
    assert not table.members.take(first.text)
    assert table.members.roster().number == second.number == 2
    stranger = Roster(number=9).signed(Credential.create())
    for text in (stranger.text, second.text[:-1], MAGIC + b"{}", b"", second.text.replace(b"2", b"3", 1)):
        with pytest.raises(IntegrityError) as refused:
            table.members.take(text)
        assert refused.value.reason == "bad_roster"
    with pytest.raises(UsageError, match="owner's machine"):
        Roster().signed(OWNER.reader())


def test_a_token_is_a_credential_too(tmp_path: Path) -> None:
    """In a variable or a file: for a machine that has no more than that."""
    credential = _invited()
    token = Token(
        credential,
        b"s" * 32,
        tuple(f"/ip4/192.0.2.{n}/tcp/4001/p2p/12D3KooW{'x' * 44}" for n in range(60)),
        "team",
        "ci",
    )
    text = token.to_text()
    assert len(text) <= 4000
    assert parse_credential(text) == credential == load_credential(text, tmp_path / "none")
    read = Token.parse(text)
    assert (read.swarm_key, read.namespace, read.name) == (b"s" * 32, "team", "ci")
    assert 0 < len(read.peers) < 60
    for wrong in (text[:-3], text.replace("ck2.", "ck3."), "ck2.", text[:50] + "A" + text[51:]):
        with pytest.raises(UsageError) as refused:
            parse_credential(wrong)
        assert wrong[10:40] not in str(refused.value) or len(wrong) < 40
    assert repr(token).find(credential.secret.hex()) < 0
    assert "secret" not in repr(token)


def _stream(data: bytes) -> object:
    import io

    return io.BytesIO(data)
