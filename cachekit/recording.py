"""What a stream left behind: its values in their order, each encoded for itself, and when each of them came."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cachekit.chunks import NAME, Chunk, pack, unpack
from cachekit.errors import CannotEncode, IntegrityError
from cachekit.values.codecs import LoadingCodec


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

    def take(self, codec: LoadingCodec) -> Any:
        if self.chunk is None:
            return self._values[0]  # it cannot be copied
        try:
            return self._values.pop()
        except IndexError:
            return codec.load(self.chunk.codec, self.chunk.payload)


class PiecesCodec:
    """Recordings to one payload and back, by the codec of their values."""

    def __init__(self, values: LoadingCodec) -> None:
        self.values = values

    def dump(self, value: Iterable[Any]) -> tuple[str, bytes]:
        """A Recording, the Pieces of one, or plain values. Raises CannotEncode with the reason of the first refusal."""
        return NAME, pack(self._chunks(value))

    def load(self, name: str, payload: bytes) -> Recording:
        """Every value is decoded here: what cannot be rebuilt is found before the first of them is served."""
        return self.loader(name)(payload)  # type: ignore[no-any-return]

    def loader(self, name: str) -> Callable[[bytes], Any]:
        if name != NAME:
            raise IntegrityError(f"the payload is in {name!r}, and a stream was expected")
        return self._load

    def _load(self, payload: bytes) -> Recording:
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
