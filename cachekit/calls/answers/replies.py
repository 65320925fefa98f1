"""An answer as it was on the wire, to bytes and back; and the codec that turns an SDK's own value into one.

"CKA1" | length of head 4 | head (JSON) | body
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from struct import Struct
from typing import Any, Final, NamedTuple

from cachekit.errors import UNREADABLE, CannotEncode, IntegrityError
from cachekit.model import Adapter, Reply, Saving
from cachekit.values.codecs import Loader, LoadingCodec

NAME: Final = "reply"
"""`Record.codec` of such a payload."""

_MAGIC: Final = b"CKA1"
_HEAD: Final = Struct("<4sI")
_WHOLE: Final = frozenset({int})


class Live(NamedTuple):
    """What the origin returned, and its wire form, if it has one the adapter knows; a stream has none before its end.

    `error` is what the adapter raised instead.
    """

    value: Any
    reply: Reply | None
    streaming: bool = False
    error: Exception | None = None


def pack_reply(reply: Reply) -> bytes:
    head = {
        "kind": reply.kind,
        "about": dict(reply.about),
        "saving": list(reply.saving),
        "pieces": [number for piece in reply.pieces for number in piece],
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    return b"".join((_HEAD.pack(_MAGIC, len(text)), text, reply.body))


def unpack_reply(data: bytes) -> Reply:
    """Raises IntegrityError for anything that `pack_reply` did not make."""
    try:
        magic, size = _HEAD.unpack_from(data)
        end = _HEAD.size + size
        if magic != _MAGIC or end > len(data):
            raise ValueError("the head is cut off")
        head = json.loads(data[_HEAD.size : end])
        kind, about, saving, numbers = head["kind"], head["about"], Saving(*head["saving"]), head["pieces"]
        if kind not in ("plain", "stream") or type(about) is not dict or not isfinite(sum(saving)):
            raise ValueError("the head is no reply's")
        if not set(map(type, numbers)) <= _WHOLE or min(numbers, default=0) < 0:
            raise ValueError("the pieces have no lengths")
        return Reply(kind, data[end:], about, saving, tuple(zip(numbers[::2], numbers[1::2], strict=True)))
    except UNREADABLE as error:
        raise IntegrityError(f"the payload is no reply: {error}") from error


class ReplyCodec(LoadingCodec):
    """Live answers and Replies to payloads; a payload comes back as a Reply, which the adapter then restores."""

    loaders: Mapping[str, Loader] = {NAME: unpack_reply}

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    def dump(self, value: Any) -> tuple[str, bytes]:
        reply = value.reply if isinstance(value, Live) else value
        if isinstance(value, Live) and value.error is not None:
            sentence = f"{self._adapter.name} could not take the answer down: {value.error!r}"
            raise CannotEncode(sentence, reason="raised") from value.error
        if not isinstance(reply, Reply):
            raise CannotEncode(f"it is no answer that {self._adapter.name} knows", reason="unknown_answer")
        return NAME, pack_reply(reply)
