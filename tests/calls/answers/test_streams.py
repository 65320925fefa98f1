"""Answers that come as a stream, of an adapter of one's own: what is kept of them, and how it comes back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cachekit import Adapter, Answers, Reply, Wanted

PIECES = [b"one ", b"two"]
STREAMED = Wanted(True)


class Words:
    """A stream that an SDK could give: its language, and words as they come."""

    language = b"en:"

    def __iter__(self) -> Iterator[bytes]:
        yield from PIECES


def words() -> Adapter:
    return Adapter(
        name="test.words",
        capture=lambda _value: None,
        restore=lambda reply, _streamed, _context: list(reply.told()),
        judge=lambda _reply: "",
        streams=lambda value: isinstance(value, Words),
        retold=lambda _stream, pieces: list(pieces),
        finish=lambda data: Reply("stream", data),
    )


def twice(adapter: Adapter) -> tuple[Any, Any]:
    """The live stream's pieces, and those of the stored one."""
    answers = Answers(adapter)
    live, stored = (answers.call("which words?", Words, STREAMED) for _ in range(2))
    return live, stored


def test_a_stream_comes_back_piece_by_piece() -> None:
    """What was live is stored, and replayed in the same pieces."""
    assert twice(words()) == (PIECES, PIECES)


def test_a_stream_s_head_is_kept_before_its_bytes() -> None:
    """What `head` says of the live stream is the first piece of what is kept; its readers never see it."""
    assert twice(replace(words(), head=lambda stream: stream.language)) == (PIECES, [Words.language, *PIECES])
