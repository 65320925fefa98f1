"""Reading what an RPC answered, believing none of it: each function raises where the answer is not one of Kubo's."""

from __future__ import annotations

import json
from typing import Any

from cachekit.errors import IntegrityError


def message_of(body: bytes) -> str | None:
    """What Kubo's JSON error says, or None where `body` is no such thing."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    message = found.get("Message") if isinstance(found, dict) else None
    return message if isinstance(message, str) else None


def reject_html(content_type: str) -> None:
    """Raise IntegrityError for a page made for people: a proxy, a portal, another server."""
    if content_type.lower().startswith("text/html"):
        raise IntegrityError("no Kubo RPC: it answered with a web page", reason="not_kubo")


def exactly(stream: Any, size: int) -> bytes:
    """All of `stream`, and `size` bytes exactly, or IntegrityError."""
    parts: list[bytes] = []
    got = 0
    with stream:
        for part in stream:
            got += len(part)
            if got > size:
                raise IntegrityError(f"the file has more than its {size} bytes", reason="oversized")
            parts.append(part)
    if got != size:
        raise IntegrityError(f"the answer ended after {got} of {size} bytes", reason="truncated")
    return b"".join(parts)


def entries(told: Any) -> list[tuple[str, str, int]]:
    """(name, CID, bytes) of each entry that `files/ls` told."""
    return [(string(entry, "Name"), string(entry, "Hash"), int(entry["Size"])) for entry in told["Entries"] or ()]


def string(told: Any, name: str) -> str:
    """The text under `name`; TypeError or KeyError where there is none."""
    return text(told[name])


def text(told: Any) -> str:
    """`told`, which must be text, or TypeError."""
    if not isinstance(told, str):
        raise TypeError(f"expected text, got {type(told).__name__}")
    return told


def numbers(version: str) -> tuple[int, ...]:
    """What `version` counts as: (0, 44, 0) for `0.44.0-dev`; ValueError for what is no version."""
    return tuple(int(part) for part in version.partition("-")[0].split("."))


def dotted(version: tuple[int, ...]) -> str:
    """`version` for people."""
    return ".".join(map(str, version))
