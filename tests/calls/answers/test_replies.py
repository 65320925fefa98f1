"""Kept answers: what was packed comes back, and anything else is refused with one error."""

from __future__ import annotations

import json
import struct

import pytest

from cachekit.calls.answers.replies import pack_reply, unpack_reply
from cachekit.errors import IntegrityError
from cachekit.model import Reply, Saving

REPLY = Reply("stream", b"abc", {"model": "m"}, Saving(), ((1, 2), (3, 1)))
PACKED = pack_reply(REPLY)


def test_a_reply_comes_back() -> None:
    """Kind, body, what is known of it and the times of its pieces."""
    assert unpack_reply(PACKED) == REPLY


@pytest.mark.parametrize(
    "head",
    [
        b"[" * 100_000,
        b"{}",
        b"[]",
        b'{"pieces": 1}',
        b'{"pieces": [1]}',
        b"\xff",
        json.dumps({"pieces": [1, 2]}).encode(),
    ],
)
def test_a_head_of_another_kind_is_refused(head: bytes) -> None:
    """Nested too deep, of another shape, or no text: the one documented error."""
    with pytest.raises(IntegrityError):
        unpack_reply(struct.pack("<4sI", b"CKA1", len(head)) + head)
