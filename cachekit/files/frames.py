"""Bytes joined so that they come apart in one way only, and small files that say by themselves that they are whole.

What reads a note and nothing else imports this and no more.
"""

from __future__ import annotations

import hashlib

_SHORT = 512
_LENGTHS = [length.to_bytes(8, "big") for length in range(_SHORT)]
CHECKED = 32
"""Bytes that `checksum` gives, which stand at the end of a file."""


def frame(*parts: bytes) -> bytes:
    """Join parts so that no byte can move from one to its neighbour."""
    pieces = [len(parts).to_bytes(4, "big")]
    for part in parts:
        length = len(part)
        pieces += (_LENGTHS[length] if length < _SHORT else length.to_bytes(8, "big"), part)
    return b"".join(pieces)


def checksum(name: bytes, body: bytes) -> bytes:
    """What a file ends with that holds `body` and was written under `name`."""
    return hashlib.sha256(frame(name, body)).digest()


def place_of(name: bytes) -> str:
    """Where such a file lies, below its directory."""
    digits = hashlib.sha256(name).hexdigest()
    return f"{digits[:2]}/{digits}"
