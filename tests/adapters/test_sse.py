"""Server-sent events: what the standard says of them, and what a cut leaves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachekit_adapters._wire.sse import Recorded, events, frame, is_done, json_events, tellable


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_kind_of_line_end_ends_a_line(end: bytes) -> None:
    """LF, CRLF and CR are the same."""
    data = end.join([b"event: a", b"data: 1", b"", b"data: 2", b"", b""])
    assert list(events(data)) == [("a", "1"), ("", "2")]


def test_data_of_several_lines_is_one_text() -> None:
    """Data lines are joined with LF; one space behind the colon is not part of them."""
    assert list(events(b"data: a\ndata:b\ndata:  c\ndata\n\n")) == [("", "a\nb\n c\n")]


def test_comments_other_fields_and_a_byte_order_mark_are_no_data() -> None:
    """Comments keep a connection open; id and retry are not for us."""
    assert list(events(b"\xef\xbb\xbf: hello\nid: 1\nretry: 5\ndata: x\n\n: ping\n\n")) == [("", "x")]


def test_an_event_without_data_is_none_and_its_name_is_not_the_next_ones() -> None:
    """A name alone is dropped with its event."""
    assert list(events(b"event: lost\n\ndata: x\n\n")) == [("", "x")]


def test_the_last_event_needs_its_blank_line() -> None:
    """A cut before it gives the event to nobody."""
    data = b"data: 1\n\ndata: [DONE]\n\n"
    for cut in range(len(data)):
        assert not is_done(data[:cut])
    assert is_done(data)


def test_json_events_end_at_done_and_refuse_what_is_no_json() -> None:
    """Bytes that are no UTF-8, and JSON nested too deep to read, are no JSON either."""
    assert list(json_events(b'event: e\ndata: {"a":1}\n\ndata: [DONE]\n\ndata: x\n\n')) == [("e", {"a": 1})]
    for bad in (b"{", b'"\xff"', b"[" * 100_000, b""):
        with pytest.raises(ValueError):
            list(json_events(b"data: " + bad + b"\n\n"))


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists), st.sampled_from(["", "delta"]))
def test_what_is_framed_is_read(told: Any, name: str) -> None:
    """frame and json_events are each other's reverse, for any text."""
    assert list(json_events(frame([told], name))) == [(name, [told])]


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="\r", codec="utf-8")))
def test_a_text_is_framed_as_it_is(text: str) -> None:
    """Texts of several lines become several data lines."""
    assert list(events(frame(text))) == [("", text)]


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_read(data: bytes) -> None:
    """Whatever was received, reading it ends, and raises nothing."""
    list(events(data))


def test_told_again_a_stream_says_the_same() -> None:
    """Blocks without data go, and nothing else does: not what stands behind a byte order mark."""
    data = b"\xef\xbb\xbfdata: 1\n\nid: 7\n\ndata: 2\n\n"
    assert list(events(tellable(data))) == list(events(data)) == [("", "1"), ("", "2")]


def test_a_recorded_stream_says_what_its_bytes_say() -> None:
    """Parsed once or each time, cut anywhere: the same events, the same refusal, the same end."""
    data = b'event: a\ndata: {"n": 1}\n\ndata:  [2, 3] \n\ndata: {"n": \n\ndata: [DONE]\n\n'
    for whole in (data, data.replace(b'data: {"n": \n\n', b"")):
        for cut in range(len(whole) + 1):
            recorded = Recorded(whole[:cut])
            for _ in range(2):
                assert _said(recorded) == _said(whole[:cut])
                assert is_done(recorded) == is_done(whole[:cut])


def _said(data: bytes) -> tuple[list[Any], bool]:
    found: list[Any] = []
    try:
        for event in json_events(data):
            found.append(event)
    except ValueError:
        return found, False
    return found, True
