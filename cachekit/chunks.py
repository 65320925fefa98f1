"""A stream as one payload: its chunks in their order, each encoded for itself, with the instant it came at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from struct import error as struct_error
from typing import Final, NamedTuple

from cachekit.errors import IntegrityError

NAME: Final = "stream"
"""`Record.codec` of such a payload."""

_HEAD: Final = Struct("<QHI")


class Chunk(NamedTuple):
    """One chunk: `at` in nanoseconds after the stream was asked for, `codec` and `payload` as in a Record."""

    at: int
    codec: str
    payload: bytes


def pack(chunks: Iterable[Chunk]) -> bytes:
    """For each chunk: at 8 | length of codec 2 | length of payload 4 | codec | payload."""
    pieces: list[bytes] = []
    for at, codec, payload in chunks:
        name = codec.encode()
        pieces += (_HEAD.pack(at, len(name), len(payload)), name, payload)
    return b"".join(pieces)


def unpack(data: bytes) -> Iterator[Chunk]:
    """The chunks that `pack` was given. Raises IntegrityError for anything else."""
    place = 0
    while place < len(data):
        try:
            at, name, size = _HEAD.unpack_from(data, place)
        except struct_error as error:
            raise IntegrityError(f"a chunk's head is cut off: {error}") from error
        middle = place + _HEAD.size + name
        place = middle + size
        if place > len(data):
            raise IntegrityError("a chunk is cut off")
        yield Chunk(at, data[middle - name : middle].decode("utf-8", "replace"), data[middle:place])
