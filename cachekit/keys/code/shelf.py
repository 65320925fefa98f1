"""What earlier processes read of source files: one small file for each decorated function, with the facts of all code it
reaches.

Facts stand under a mark of the code object, its name and the content of its file, which say all that facts are made of:
so they are what a reading now would give, or they are not found. The file is believed only when it was written by this
Python, by the very modules that read here, and is whole; else each source is read, as it would be without.
"""

from __future__ import annotations

import functools
import hashlib
import marshal
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cachekit.files.digests import frame, shelf
from cachekit.keys.code.facts import Facts, packed, unpacked

if TYPE_CHECKING:
    from cachekit.files.digest_cache import Digests

_LONGEST: Final = 1 << 20
_LIMIT: Final = 16_384
_READING: Final = ("facts.py", "names.py", "source.py", "text.py")

_found: dict[str, Any] = {}
"""By mark: what came from the shelf, and nobody asked for yet."""
_kept: dict[tuple[Digests, bytes], frozenset[str]] = {}
"""By shelf and place: the marks that stood there."""
_left: set[tuple[Digests, bytes]] = set()
"""What this process wrote. Once only: closures of one definition may reach other code each time."""


def mark_of(code: types.CodeType, qualname: str, content: bytes) -> str:
    """Stands for all that facts are made of; "" where the code cannot be told in bytes. `content` is the file's digest."""
    try:
        # Version 2 writes no references: equal code has equal bytes, with every name, constant, line and column.
        data = marshal.dumps(code, 2)
    except ValueError:
        return ""
    return hashlib.sha256(b"%b%b%b" % (content, qualname.encode("utf-8", "surrogatepass"), data)).hexdigest()


def facts_at(mark: str) -> Facts | None:
    """What an earlier process read."""
    data = _found.pop(mark, None)
    try:
        return None if data is None else unpacked(data, mark)
    except (ValueError, TypeError, AttributeError):  # never written so: it is read again
        return None


def recall(function: types.FunctionType) -> None:
    """Takes in what an earlier process left for a decorated function, once."""
    shared, place, header = shelf(), _place(function), _header()
    if shared is None or not header or (shared, place) in _kept:
        return
    for memo in (_found, _kept, _left):
        if len(memo) > _LIMIT:
            memo.clear()
    from cachekit.keys.plain import from_json  # whoever only reads sources does without orjson

    data = shared.read(place, _LONGEST)
    found = from_json(data[len(header) :]) if data is not None and data.startswith(header) else {}
    _found.update(found)
    _kept[shared, place] = frozenset(found)


def keep(function: types.FunctionType, facts: Iterable[Facts]) -> None:
    """Leaves the facts of all code that a decorated function reaches to later processes, where these would miss any."""
    shared, place, header = shelf(), _place(function), _header()
    if shared is None or not header or (shared, place) in _left:
        return
    known = {one.mark: one for one in facts if one.mark}
    if _kept.get((shared, place), frozenset()) == known.keys():
        return
    from cachekit.keys.plain import to_json

    _left.add((shared, place))
    try:
        data = header + to_json({mark: packed(one) for mark, one in known.items()})
    except TypeError:  # a file name that is no text
        return
    if len(data) <= _LONGEST:
        shared.write(place, data)


def _place(function: types.FunctionType) -> bytes:
    names = (str(sys.implementation.cache_tag), function.__code__.co_filename, function.__qualname__)
    return frame(b"code", *(name.encode("utf-8", "surrogatepass") for name in names))


@functools.cache
def _header() -> bytes:
    """What a file begins with that was written by this Python and these modules; empty where they cannot be read."""
    try:
        reading = [Path(__file__).with_name(name).read_bytes() for name in _READING]
    except OSError:
        return b""
    return frame(b"cachekit code 1", sys.version.encode(), hashlib.sha256(frame(*reading)).digest())
