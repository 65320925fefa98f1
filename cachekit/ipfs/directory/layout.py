"""What lies where in the directory, and how a listing is written.

store                      says that this is one: MARK
blocks/<2 letters>/<CID>   a block
tree/<path>                a small file, the same bytes
tree/<path>/listing        what is in the directory: a static web server lists none
links/<path>               the CID that is kept while this file is there
pins/<2 letters>/<CID>     a pin; the file holds its name
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, NamedTuple

from cachekit.artifacts.portable import name_problem
from cachekit.errors import UNREADABLE, IntegrityError, TierError, TierUnavailable
from cachekit.ipfs.content.cids import binary_cid, raw_cid

Where = tuple[str, ...]
"""The names on the way to a file, from the directory on."""

VERSION: Final = "1"
MARK: Final = b"cachekit " + VERSION.encode() + b"\n"
STORE: Final[Where] = ("store",)
BLOCKS: Final = "blocks"
TREE: Final = "tree"
LINKS: Final = "links"
PINS: Final = "pins"
LISTING: Final = "listing"
LISTING_BYTES: Final = 4 << 20
BLOCK_BYTES: Final = 2 << 20
MARK_BYTES: Final = 64
_CID_BYTES: Final = 64


class Entry(NamedTuple):
    """A file or directory as its parent's listing has it; `changed`, in ns, is 0 for a directory."""

    cid: str
    size: int
    changed: int


def names_of(path: str) -> Where:
    """The names in a path that begins with `/`; TierError `bad_name` for one that no directory may have."""
    start, *names = path.split("/")
    problem = "is no path of ours" if start or not names else next(filter(None, map(_problem, names)), "")
    if problem:
        raise TierError(f"{path[:200]!r} {problem}", reason="bad_name")
    return tuple(names)


def _problem(name: str) -> str:
    return "has a name that is ours" if name == LISTING or name.startswith(".") else name_problem(name)


def sharded(kind: str, cid: str) -> Where:
    """Where a CID's block or pin is; IntegrityError `bad_cid` for what is no CID of ours."""
    binary_cid(cid)
    # The last letter has eight values only.
    return (kind, cid[-3:-1], cid)


def encode(entries: Mapping[str, Entry]) -> bytes:
    """The listing of a directory: of equal ones equal bytes."""
    return json.dumps(sorted((name, *entry) for name, entry in entries.items()), separators=(",", ":")).encode()


def decode(listing: bytes) -> dict[str, Entry] | None:
    """What a listing says, whatever the names are; None where it is none."""
    try:
        return {name: _entry(*rest) for name, *rest in json.loads(listing)}
    except UNREADABLE:
        return None


def _entry(cid: str, size: int, changed: int) -> Entry:
    for value, kind in ((cid, str), (size, int), (changed, int)):
        if type(value) is not kind:
            raise TypeError
    if len(cid) > _CID_BYTES or size < 0:
        raise ValueError
    return Entry(cid, size, changed)


def told(listing: bytes) -> list[tuple[str, str, int]]:
    """(name, CID, bytes) of each entry; what is no listing is one strange file, for its reader to refuse."""
    entries = decode(listing)
    if entries is None:
        return [(LISTING, raw_cid(listing), len(listing))]
    return [(name, entry.cid, entry.size) for name, entry in entries.items()]


def marked(mark: bytes | None, api: str) -> str:
    """The version that a directory's mark says; TierUnavailable `no_store`, `too_new`."""
    if mark is None or not mark.startswith(b"cachekit "):
        raise TierUnavailable(f"{api} is no store of cachekit's: nobody has written there yet", reason="no_store")
    if mark != MARK:
        raise TierUnavailable(f"{api} was made by a newer cachekit; upgrade this one", reason="too_new")
    return VERSION


def exactly(data: bytes, size: int) -> bytes:
    """`data`, which must be `size` bytes, or IntegrityError."""
    if len(data) != size:
        raise IntegrityError(f"the file has {len(data)}, not {size} bytes", reason="truncated")
    return data
