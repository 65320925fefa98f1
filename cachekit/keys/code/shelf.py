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
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachekit.errors import UNREADABLE
from cachekit.files.digests import frame, shelf
from cachekit.keys.code.names import Names, Outer

if TYPE_CHECKING:
    from cachekit.files.digest_cache import Digests

_LONGEST: Final = 1 << 20
_LIMIT: Final = 16_384
_READING: Final = ("names.py", "shelf.py", "source.py", "text.py")
_WHOLE: Final = 0
"""What most names are: read as a whole, and not changed. One object stands for all of them."""
_READ: Final = Outer(((),))

_found: dict[str, Any] = {}
"""By mark: what came from the shelf, and nobody asked for yet."""
_kept: dict[tuple[Digests, bytes], frozenset[str]] = {}
"""By shelf and place: the marks that stood there."""
_left: set[tuple[Digests, bytes]] = set()
"""What this process wrote. Once only: closures of one definition may reach other code each time."""


class Facts(NamedTuple):
    """What the code of a function says for itself, whatever it meets when it runs.

    `portable`: whether other machines can compute the same (False: read from the bytecode, where no source is). `place`
    is `file:line`; `returns` the annotation of what comes back. `mark` stands for the code and the file that this was
    read of, "" where there is no file.
    """

    digest: str
    portable: bool
    names: Names
    place: str
    returns: str = ""
    mark: str = ""


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
        return None if data is None else _unpacked(data, mark)
    except UNREADABLE:  # never written so: it is read again
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
    try:
        found = dict(from_json(data[len(header) :])) if data is not None and data.startswith(header) else {}
    except UNREADABLE:  # never written so: everything is read again
        found = {}
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
        data = header + to_json({mark: _packed(one) for mark, one in known.items()})
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


def _packed(facts: Facts) -> list[Any]:
    """Facts but for their mark, as lists, texts and numbers."""
    outer = {
        name: _WHOLE if use.reads == {()} and not use.changes else [use.changes, *sorted(use.reads)]
        for name, use in facts.names.outer.items()
    }
    imports = [[level, name, *sorted(chains)] for (level, name), chains in facts.names.imports.items()]
    return [facts.digest, facts.portable, outer, imports, facts.place, facts.returns]


def _unpacked(data: list[Any], mark: str) -> Facts:
    """What was packed. Raises of UNREADABLE for what never was facts."""
    digest, portable, outer, imports, place, returns = data
    names = Names({name: _READ if use == _WHOLE else _outer(use) for name, use in outer.items()})
    names.imports = {(level, name): set(map(tuple, chains)) for level, name, *chains in imports}
    return Facts(digest, portable, names, place, returns, mark)


def _outer(use: list[Any]) -> Outer:
    outer = Outer(map(tuple, use[1:]))
    outer.changes = use[0]
    return outer
