"""What a stream left behind: its values in their order, each encoded for itself, and when each of them came.

A stream as one payload: its chunks in their order, each encoded for itself, with the instant it came at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Any, Final, NamedTuple

from cachekit.errors import UNREADABLE, CannotEncode, IntegrityError
from cachekit.values.codecs import LoadingCodec

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
        except UNREADABLE as error:
            raise IntegrityError(f"a chunk's head is cut off: {error}") from error
        middle = place + _HEAD.size + name
        place = middle + size
        if place > len(data):
            raise IntegrityError("a chunk is cut off")
        yield Chunk(at, data[middle - name : middle].decode("utf-8", "replace"), data[middle:place])


class Recording(list[Any]):
    """A stream's values. `instants` are nanoseconds after the stream was asked for, one for each value."""

    def __init__(self, values: Iterable[Any], instants: Iterable[int] = ()) -> None:
        super().__init__(values)
        self.instants = tuple(instants) or (0,) * len(self)


class Piece:
    """One value on its way: the first reader gets the value itself, every other one a copy of its own."""

    __slots__ = ("_values", "at", "chunk", "error")

    def __init__(self, value: Any, at: int, codec: LoadingCodec) -> None:
        self._values = [value]
        self.at = at
        self.chunk: Chunk | None = None
        self.error: CannotEncode | None = None
        try:
            self.chunk = Chunk(at, *codec.dump(value))
        except CannotEncode as error:
            self.error = error
        except Exception as error:  # whatever a value raises that is looked at: it is given on all the same
            self.error = CannotEncode(f"a piece could not be looked at: {error!r}", reason="raised")

    def take(self, codec: LoadingCodec) -> Any:
        if self.chunk is None:
            return self._values[0]  # it cannot be copied
        try:
            return self._values.pop()
        except IndexError:
            return codec.load(self.chunk.codec, self.chunk.payload)


class PiecesCodec(LoadingCodec):
    """Recordings to one payload and back, by the codec of their values."""

    def __init__(self, values: LoadingCodec) -> None:
        self.values = values
        self.loaders = {NAME: self._load}

    def dump(self, value: Iterable[Any]) -> tuple[str, bytes]:
        """A Recording, the Pieces of one, or plain values. Raises CannotEncode with the reason of the first refusal."""
        return NAME, pack(self._chunks(value))

    def _load(self, payload: bytes) -> Recording:
        # All of them at once: what cannot be rebuilt is found before the first is served.
        chunks = list(unpack(payload))
        values = [self.values.load(chunk.codec, chunk.payload) for chunk in chunks]
        return Recording(values, [chunk.at for chunk in chunks])

    def _chunks(self, value: Iterable[Any]) -> Iterator[Chunk]:
        instants = value.instants if isinstance(value, Recording) else None
        for number, item in enumerate(value):
            piece = item if isinstance(item, Piece) else Piece(item, instants[number] if instants else 0, self.values)
            if piece.chunk is None:
                raise piece.error or CannotEncode("a piece cannot be encoded", reason="type")
            yield piece.chunk
