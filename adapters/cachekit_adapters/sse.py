"""Server-sent events: bytes ↔ events, as the HTML standard has them.

Works on what was received so far. An event counts once the blank line behind it is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

DONE = "[DONE]"
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def events(data: bytes) -> Iterator[tuple[str, str]]:
    """Each finished event as (name or "", data). Bytes that are not UTF-8 become U+FFFD."""
    for name, text in _events(data):
        yield name.decode(errors="replace"), text.decode(errors="replace")


def json_events(data: bytes) -> Iterator[tuple[str, Any]]:
    """Each finished event as (name or "", parsed data), up to `[DONE]`, where the SDKs stop reading.

    Raises ValueError for data that is no JSON or no UTF-8.
    """
    for name, text in _events(data):
        if text.strip() == DONE.encode():
            return
        yield name.decode(errors="replace"), parsed(text)


def is_done(data: bytes) -> bool:
    """Whether a finished event `[DONE]` is in it."""
    return DONE.encode() in data and any(text.strip() == DONE for _, text in events(data))


def frame(data: object, event: str = "") -> bytes:
    """One event. A string is sent as it is, anything else as JSON."""
    # ASCII: clients that split text into lines would also split at U+2028.
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    lines = [f"event: {event}"] if event else []
    lines += [f"data: {line}" for line in re.split(r"\r\n|\r|\n", text)]
    return ("\n".join(lines) + "\n\n").encode()


def parsed(text: str | bytes) -> Any:
    """JSON. Raises ValueError for anything else, also where it is nested too deep to read."""
    try:
        return json.loads(text.decode() if isinstance(text, bytes) else text)
    except RecursionError:
        raise ValueError("JSON nested too deep") from None


def _events(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    name, found = b"", list[bytes]()
    received = data.removeprefix(_BYTE_ORDER_MARK)
    for line in (_LINE_END.split(received) if b"\r" in received else received.split(b"\n"))[:-1]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            found.append(value)
        elif field == b"event":
            name = value
        if line:
            continue
        if found:
            yield name, b"\n".join(found)
        name, found = b"", []
