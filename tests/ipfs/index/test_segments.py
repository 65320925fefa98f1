"""The wire format of the index: what is written comes back, and nothing else is believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachekit.errors import IntegrityError
from cachekit.ipfs.index import segments
from cachekit.ipfs.index.segments import Line, decode, encode
from cachekit.ipfs.trust.certificates import OWNER
from cachekit.ipfs.trust.credential import Credential, WriterKey

ONE = Credential.create()
_singles = st.floats(0, 1e9, width=32)
_entries = st.builds(
    Line,
    key=st.binary(min_size=16, max_size=16),
    kind=st.integers(0, 4),
    flags=st.integers(0, 7),
    digest=st.binary(min_size=32, max_size=32),
    size=st.integers(0, 2**63 - 1),
    created=st.integers(0, 2**63 - 1),
    expires=st.integers(0, 2**63 - 1),
    grace=_singles,
    seconds=_singles,
    tags=st.lists(st.binary(min_size=8, max_size=8), max_size=4).map(tuple),
)


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> WriterKey:
    return WriterKey.load(tmp_path_factory.mktemp("config"), ONE)


def _segment(writer: WriterKey, count: int = 3, namespace: str = "team", credential: Credential = ONE) -> bytes:
    entries = [Line(os.urandom(16), created=number) for number in range(count)]
    return encode(entries, credential=credential, namespace=namespace, writer=writer, sequence=7)


def _reason(data: bytes, credential: Credential = ONE, namespace: str = "team") -> str:
    with pytest.raises(IntegrityError) as caught:
        decode(data, credential, namespace)
    return caught.value.reason


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(_entries, min_size=1, max_size=5))
def test_entries_come_back(writer: WriterKey, entries: list[Line]) -> None:
    """Every field, exactly."""
    data = encode(entries, credential=ONE, namespace="team", writer=writer, sequence=9)
    assert decode(data, ONE, "team") == (writer.public, 9, entries, OWNER)


def test_an_entry_takes_at_most_128_bytes_and_a_segment_1_mib(writer: WriterKey) -> None:
    """As measured on a full segment."""
    full = _segment(writer, segments.MAX_LINES)
    assert len(full) <= 1 << 20
    assert (len(full) - len(_segment(writer, 1))) / (segments.MAX_LINES - 1) <= 128
    with pytest.raises(ValueError, match="not 0"):
        _segment(writer, 0)
    with pytest.raises(ValueError, match="holds 1 to"):
        _segment(writer, segments.MAX_LINES + 1)


def test_each_refusal_has_its_reason(writer: WriterKey, tmp_path: Path) -> None:
    """Distinct words, for the counters."""
    good = _segment(writer)
    stranger = Credential.create()
    foreign = encode(
        [Line(bytes(16))], credential=stranger, namespace="team", writer=WriterKey.load(tmp_path, stranger), sequence=1
    )
    assert _reason(b"") == "empty_segment"
    assert _reason(b"PK\3\4" + good[4:]) == "not_a_segment"
    assert _reason(good[:4] + b"\3" + good[5:]) == "unknown_version"
    assert _reason(good[:-1]) == "truncated"
    assert _reason(good[:60]) == "truncated"
    assert _reason(good + b"\0") == "truncated"
    assert _reason(good + bytes(1 << 20)) == "oversized"
    assert _reason(foreign) == "foreign_writer"
    assert _reason(good, namespace="other") == "wrong_namespace"
    assert _reason(good[:150] + bytes([good[150] ^ 1]) + good[151:]) == "bad_signature"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_altered_byte_is_refused(writer: WriterKey, at: int, change: int) -> None:
    """Anywhere in the segment."""
    data = bytearray(_segment(writer))
    data[at % len(data)] ^= change
    assert _reason(bytes(data))


@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    """With an IntegrityError and nothing else, behind a good magic too."""
    assert _reason(noise)
    assert _reason(b"ckix\1" + noise)


def test_a_writer_certified_for_another_owner_is_refused(writer: WriterKey) -> None:
    """Even with the namespace's secret."""
    twin = Credential(ONE.secret, Credential.create().owner)
    assert _reason(_segment(writer), credential=twin) == "foreign_writer"
