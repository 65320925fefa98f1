"""Records: what is written comes back, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachekit.errors import IntegrityError, UsageError
from cachekit.model import Key, Record
from cachekit.tiers.records import MAGIC, PEEK, decode, encode, peek

KEY = Key("team", bytes(range(32)), "module.function")
RECORD = Record("json", b'{"a":1}' * 20, 10, 20, 1.5, 0.25, ("user:1", "zwei\n\x00ü"), pin=True)
INT64 = st.integers(-(2**63), 2**63 - 1)
RECORDS = st.builds(
    Record,
    codec=st.text(max_size=30),
    payload=st.binary(max_size=300),
    created=INT64,
    expires=INT64,
    grace=st.floats(0, allow_nan=False),
    seconds=st.floats(0, allow_nan=False, allow_infinity=False),
    tags=st.lists(st.text(max_size=20), max_size=4).map(tuple),
    pin=st.booleans(),
)
KEYS = st.builds(Key, namespace=st.text(max_size=20), digest=st.binary(min_size=32, max_size=32), function=st.text())


@given(KEYS, RECORDS)
def test_round_trip(key: Key, record: Record) -> None:
    """Every record comes back equal, of the model's own class, from bytes and from a memoryview."""
    data = encode(key, record)
    for loaded in (decode(key, data), decode(key, memoryview(data))):
        assert loaded == record
        assert type(loaded) is Record
        assert type(loaded.payload) is bytes


def test_a_decoded_record_is_frozen() -> None:
    """A decoded record refuses assignment like any other Record."""
    with pytest.raises(AttributeError):
        decode(KEY, encode(KEY, RECORD)).codec = "text"  # type: ignore[misc]


@given(st.data())
def test_a_changed_byte_is_refused(data: st.DataObject) -> None:
    """Whatever byte is changed, to whatever: IntegrityError."""
    good = bytearray(encode(KEY, RECORD))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IntegrityError):
        decode(KEY, bytes(good))


def test_every_truncation_is_refused() -> None:
    """A record cut short anywhere, or grown by a byte, is refused."""
    good = encode(KEY, RECORD)
    for end in range(len(good)):
        with pytest.raises(IntegrityError):
            decode(KEY, good[:end])
    with pytest.raises(IntegrityError):
        decode(KEY, good + b"\0")


@given(st.binary(max_size=400))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    """Bytes that no encode made are refused by decode, with or without our magic in front."""
    for foreign in (data, MAGIC + data):
        with pytest.raises(IntegrityError):
            decode(KEY, foreign)


@pytest.mark.parametrize("other", [Key("team", b"x" * 32), Key("tea", KEY.digest), Key("teams", KEY.digest)])
def test_another_keys_record_is_refused(other: Key) -> None:
    """A record filed under another digest or namespace does not verify."""
    with pytest.raises(IntegrityError):
        decode(other, encode(KEY, RECORD))


def test_a_newer_format_has_its_own_reason() -> None:
    """A later format is refused and counted apart from damage."""
    with pytest.raises(IntegrityError) as caught:
        decode(KEY, b"CKR2" + encode(KEY, RECORD)[4:])
    assert caught.value.reason == "format"


@pytest.mark.parametrize(
    ("key", "record"),
    [
        (Key("n" * 70_000, KEY.digest), RECORD),
        (KEY, Record("c" * 300, b"", 1)),
        (KEY, Record("json", b"", 2**63)),
    ],
)
def test_what_does_not_fit_the_header_is_a_usage_error(key: Key, record: Record) -> None:
    """A namespace, a codec name or an instant too large for its field raises UsageError."""
    with pytest.raises(UsageError):
        encode(key, record)


def test_a_long_function_name_is_cut_for_people_only() -> None:
    """A very long function name neither fails nor changes the record."""
    key = Key("n", KEY.digest, "ü" * 5000)
    data = encode(key, RECORD)
    assert decode(key, data) == RECORD
    assert peek(data).function.startswith("ü" * 500)


@pytest.mark.parametrize("tags", [b"[" * 100_000, b"{", b"1", b'"a"\n\xff'])
def test_tags_of_another_kind_are_refused_though_the_checksum_is_right(
    tags: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes the right sum over what no reader expects gets the one error that readers raise."""
    monkeypatch.setattr("cachekit.tiers.records._dump_tags", lambda _tags: tags)
    data = encode(KEY, RECORD)
    with pytest.raises(IntegrityError):
        decode(KEY, data)


def test_a_codec_without_a_name_is_refused_though_the_checksum_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are no text name no codec."""
    monkeypatch.setattr("cachekit.tiers.records._text", lambda text: b"\xff" if text == RECORD.codec else text.encode())
    data = encode(KEY, RECORD)
    with pytest.raises(IntegrityError):
        decode(KEY, data)


def test_peek_reads_the_head_alone() -> None:
    """The first PEEK bytes of a big record give everything that `cachekit ls` shows."""
    record = Record("json", b"x" * 100_000, 10, 20, 1.5, 0.25, ("a", "b"), pin=True)
    head = peek(encode(KEY, record)[:PEEK])
    assert head == ("team", "module.function", "json", 10, 20, 100_000, ("a", "b"), True, 0.25, 1.5, True)


@given(st.integers(0, PEEK))
def test_peek_never_shows_half_a_tag(cut: int) -> None:
    """Tags beyond the bytes at hand are left out, not cut."""
    tags = tuple(f"tag-number-{index}" for index in range(1000))
    data = encode(KEY, Record("json", b"x", 1, tags=tags))[:cut]
    try:
        seen = peek(data).tags
    except IntegrityError:
        return
    assert seen == tags[: len(seen)]


@pytest.mark.parametrize("data", [b"", b"CKR1", b"x" * 200, b"CKR9" + b"\0" * 100])
def test_peek_refuses_what_is_no_record(data: bytes) -> None:
    """Bytes without a whole header are no record."""
    with pytest.raises(IntegrityError):
        peek(data)
