"""Server-sent events: bytes ↔ events, as the HTML standard has them.

Works on what was received so far. An event counts once the blank line behind it is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from cachekit_adapters._wire.exchange import parsed

DONE = "[DONE]"
_DONE = DONE.encode()
_LINE_END = re.compile(rb"\r\n|\r|\n")
_scan: Callable[[str, int], tuple[Any, int]] = vars(json.JSONDecoder())["scan_once"]
_OTHER_FIELD = re.compile(rb"(?:^|[\r\n])(?:id|retry|event)(?:[:\r\n]|$)")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class _Read(NamedTuple):
    """What stands in a stream up to its `[DONE]`, or up to what cannot be read."""

    events: list[tuple[str, Any]]
    done: bool
    error: ValueError | None


class Recorded(bytes):
    """The bytes of an answer that is over: what a stream says is parsed once, however many ask, and `judged` once.

    Whoever reads `json_events` of it shares what was parsed, and leaves it as it is.
    """

    read: _Read | None = None
    judged: str | None = None


def events(data: bytes) -> Iterator[tuple[str, str]]:
    """Each finished event as (name or "", data). Bytes that are not UTF-8 become U+FFFD."""
    for name, text in _events(data):
        yield name.decode(errors="replace"), text.decode(errors="replace")


def json_events(data: bytes) -> Iterator[tuple[str, Any]]:
    """Each finished event as (name or "", parsed data), up to `[DONE]`, where the SDKs stop reading.

    Raises ValueError for data that is no JSON or no UTF-8.
    """
    read = _read(data)
    yield from read.events
    if read.error is not None:
        raise read.error


def is_done(data: bytes) -> bool:
    """Whether a finished event `[DONE]` is in it."""
    if isinstance(data, Recorded) and _read(data).done:
        return True
    return _DONE in data and any(text.strip() == _DONE for _, text in _events(data))


def blocks(data: bytes) -> list[bytes]:
    """What stands between blank lines, each with its end: `b"".join` of it says the same. A rest without end is the last."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data
    *ended, rest = lines.split(b"\n\n")
    parts = [block.lstrip(b"\n") + b"\n\n" for block in ended]
    return [*parts, rest] if rest else parts


def data_of(block: bytes) -> bytes:
    """The data of one such block."""
    return next((text for _, text in _events(block)), b"")


def tellable(data: bytes) -> bytes:
    """The same events without the blocks that have no data: some SDKs take each for an event, and cannot read it."""
    if _OTHER_FIELD.search(data) is None:
        return data
    parts = blocks(data.removeprefix(_BYTE_ORDER_MARK))
    return b"".join([block for block in parts if block.startswith(b"data") or b"\ndata" in block])


def frame(data: object, event: str = "") -> bytes:
    """One event. A string is sent as it is, anything else as JSON."""
    # ASCII: clients that split text into lines would also split at U+2028.
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    lines = [f"event: {event}"] if event else []
    lines += [f"data: {line}" for line in re.split(r"\r\n|\r|\n", text)]
    return ("\n".join(lines) + "\n\n").encode()


def _scanned(text: bytes) -> Any:
    """`parsed(text)`; most chunks have no space around them, and then the scanner alone does it in half the time."""
    decoded = text.decode()
    try:
        value, end = _scan(decoded, 0)
    except (StopIteration, ValueError, RecursionError):
        return parsed(decoded)
    return value if end == len(decoded) else parsed(decoded)


def _read(data: bytes) -> _Read:
    if isinstance(data, Recorded) and data.read is not None:
        return data.read
    pairs, done, error = list[tuple[str, Any]](), False, None
    try:
        for name, text in _events(data):
            done = text.strip() == _DONE
            if done:
                break
            pairs.append((name.decode(errors="replace"), _scanned(text)))
    except ValueError as raised:
        error = raised
    read = _Read(pairs, done, error)
    if isinstance(data, Recorded):
        data.read = read
    return read


def _events(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    name, lines = b"", list[bytes]()
    received = data.removeprefix(_BYTE_ORDER_MARK)
    for line in (_LINE_END.split(received) if b"\r" in received else received.split(b"\n"))[:-1]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value
        if line:
            continue
        if lines:
            yield name, b"\n".join(lines)
        name, lines = b"", []
