"""What Hugging Face's client reads: the bytes of an answer, or the lines of a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from cachekit_adapters._wire.bodies import each
from cachekit_adapters._wire.exchange import EVENTS, JSON, ClientAnswer, ClientRequest, Exchange, Head
from cachekit_adapters._wire.operation import Operation

_DONE: Final = b"data: [DONE]"


class Lines:
    """Values of the client's `_inner_post`: bytes, and iterators of lines without their ends."""

    def exchange(self, _operation: Operation, value: Any, *, whole: bool) -> Exchange | None:
        if not isinstance(value, ClientAnswer):
            return None
        content, (_, path, body, _, about) = value
        return Exchange(path, body, content if whole else b"", JSON if whole else EVENTS, {}, about)

    def request(self, context: Any) -> tuple[str, Any] | None:
        return (context.path, context.body) if isinstance(context, ClientRequest) else None

    def whole(self, _head: Head, content: bytes, _context: Any) -> Any:
        return content

    def stream(self, _head: Head, pieces: list[bytes], context: Any) -> Any:
        lines = b"".join(pieces).decode().split("\n")
        return each(lines) if context.is_async else iter(lines)

    def streams(self, value: Any) -> bool:
        return isinstance(value, ClientAnswer) and not isinstance(value.value, bytes)

    def source(self, value: Any) -> Any:
        return (_awaited_source if value.request.is_async else _source)(value.value)

    def retold(self, value: Any, pieces: Any) -> Any:
        return (_awaited_retold if value.request.is_async else _retold)(pieces)

    def mark(self, _stream: Any) -> bytes:
        return b""


LINES: Final = Lines()


def _source(lines: Any) -> Iterator[bytes]:
    """A line each, up to the last that the client reads."""
    for line in lines:
        data = line.encode() + b"\n"
        yield data
        if _is_done(data):
            # The blank line that ends the event: the client does not read on to it.
            yield b"\n"
            return


async def _awaited_source(lines: Any) -> AsyncIterator[bytes]:
    async for line in lines:
        data = line.encode() + b"\n"
        yield data
        if _is_done(data):
            yield b"\n"
            return


def _retold(pieces: Iterator[bytes]) -> Iterator[str]:
    try:
        for piece in pieces:
            if _is_done(piece):
                # The client stops here, and the answer is kept before it does.
                for _ in pieces:
                    pass
            yield piece[:-1].decode()
    finally:
        pieces.close()  # type: ignore[attr-defined]


async def _awaited_retold(pieces: AsyncIterator[bytes]) -> AsyncIterator[str]:
    try:
        async for piece in pieces:
            if _is_done(piece):
                async for _ in pieces:
                    pass
            yield piece[:-1].decode()
    finally:
        await pieces.aclose()  # type: ignore[attr-defined]


def _is_done(line: bytes) -> bool:
    return line.strip() == _DONE
