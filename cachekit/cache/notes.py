"""What is remembered of this machine's calls, so that a miss can be explained: never a value, and nothing leaves here.

A few hundred calls a function: what each was by its digests, and of the newest their texts too. Kept in memory until the
housekeeper saves them, one small file a function. Losing them loses explanations and nothing else.
"""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachekit.errors import UNREADABLE
from cachekit.keys.parts import Sketch, Trait, Traits
from cachekit.model import NANOSECONDS

if TYPE_CHECKING:
    from cachekit.files.digest_cache import Digests
    from cachekit.model import Key

_CALLS: Final = 512
"""Calls that are remembered of one function."""
_DETAILED: Final = 32
_CODES: Final = 4
_BASE, _EACH = 2_048, 40
"""Bytes that a function's file may take: these, and these for each call. 40 is 1.5 % of what an entry of 2 kB takes on disk
(docs/performance.md). Details go first."""
_LONGEST: Final = 1 << 18
_LONGEST_TEXT: Final = 1 << 24
_NAME: Final = b"calls 1 of "
_KEY: Final = 12
_MILLISECOND: Final = NANOSECONDS // 1_000


class Note(NamedTuple):
    """One call: instants in milliseconds (`expires` 0: never), `outcome` "" where it was stored, else why not."""

    key: str
    arguments: str
    code: str
    created: int
    expires: int
    outcome: str
    call: Traits | None


_KINDS: Final = (str, str, str, int, int, str)


class _Waiting(NamedTuple):
    sketch: Sketch
    created: int
    expires: int
    outcome: str

    def note(self) -> Note:
        sketch, created, expires, outcome = self
        ids = _short(sketch), sketch.arguments_id, sketch.code_id
        return Note(*ids, created, expires, outcome, sketch.call)


class Noted(NamedTuple):
    """What is known of one function: its calls, oldest first, and the codes they were made with."""

    notes: tuple[Note, ...] = ()
    codes: Mapping[str, Traits] = {}

    def of(self, sketch: Sketch) -> Note | None:
        """The newest note of the very same call."""
        key = _short(sketch)
        return next((note for note in reversed(self.notes) if note.key == key), None)

    def code_of(self, key: Key) -> str:
        """What stands for the code that a call was made with, '' where that is not known here."""
        short = key.digest.hex()[:_KEY]
        return next((note.code for note in reversed(self.notes) if note.key == short), "")

    def nearest(self, sketch: Sketch) -> tuple[Note, list[str]] | None:
        """The call that differs in the fewest things, and what these are; of several the newest."""
        found: tuple[Note, list[str]] | None = None
        for note in reversed(self.notes):
            call = None if note.arguments == sketch.arguments_id else note.call
            if note.code in self.codes and (call is not None or note.arguments == sketch.arguments_id):
                lines = sketch.against(self.codes[note.code], call)
                if found is None or len(lines) < len(found[1]):
                    found = note, lines
        return found


class Notes:
    """The calls noted in this process, and those of earlier ones, by function. Safe from any thread."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[_Waiting]] = {}

    def add(self, function: str, sketch: Sketch, created: int, expires: int, outcome: str) -> None:
        """Notes one call; instants in ns since the epoch."""
        waiting = self._waiting.setdefault(function, deque(maxlen=_CALLS))
        if len(waiting) > _DETAILED:
            waiting[-_DETAILED].sketch.forget()
        waiting.append(_Waiting(sketch, created // _MILLISECOND, expires // _MILLISECOND, outcome))

    def of(self, function: str, kept: Digests | None) -> Noted:
        """What is known of a function now."""
        return _merged(_read(function, kept), list(self._waiting.get(function, ())))

    def save(self, kept: Digests | None) -> None:
        """Keeps what waits for the processes that come."""
        if kept is None:
            return
        # What is noted from here on waits for the next time: of a program that goes on missing there is no end.
        waiting, self._waiting = self._waiting, {}
        for function, calls in list(waiting.items()):
            kept.write(_NAME + function.encode(), _packed(_merged(_read(function, kept), list(calls))))

    def renew_after_fork(self) -> None:
        """The parent saves what it noted."""
        self._waiting = {}


def _short(sketch: Sketch) -> str:
    return sketch.key.digest.hex()[:_KEY]


def _merged(known: Noted, come: Iterable[_Waiting]) -> Noted:
    codes, notes = dict(known.codes), {note.key: note for note in known.notes}
    for one in come:
        note = one.note()
        notes.pop(note.key, None)
        notes[note.key] = note
        codes.pop(note.code, None)
        codes[note.code] = one.sketch.code
    codes = dict(list(codes.items())[-_CODES:])
    newest = [note for note in notes.values() if note.code in codes][-_CALLS:]
    return _detailed(Noted(tuple(newest), codes), _DETAILED)


def _detailed(noted: Noted, many: int) -> Noted:
    """With the texts of the newest calls only."""
    plain = len(noted.notes) - many
    return noted._replace(
        notes=tuple(note._replace(call=None) if i < plain else note for i, note in enumerate(noted.notes))
    )


def _packed(noted: Noted) -> bytes:
    many = _DETAILED
    while True:
        data = zlib.compress(json.dumps({"codes": noted.codes, "notes": noted.notes}).encode())
        if len(data) <= _BASE + _EACH * len(noted.notes) or not many:
            return data
        many //= 2
        noted = _detailed(noted, many)


def _read(function: str, kept: Digests | None) -> Noted:
    data = None if kept is None else kept.read(_NAME + function.encode(), _LONGEST)
    if data is None:
        return Noted()
    try:
        # A few bytes may say how to write gigabytes.
        found = json.loads(zlib.decompressobj().decompress(data, _LONGEST_TEXT))
        codes = {name: _traits(code) for name, code in found["codes"].items()}
        return Noted(tuple(_note(fields) for fields in found["notes"]), codes)
    except (zlib.error, *UNREADABLE):  # another format: nothing is known
        return Noted()


def _note(fields: list[Any]) -> Note:
    note = Note(*fields)
    if tuple(map(type, note[:6])) != _KINDS:
        raise TypeError("a note of another format")
    return note if note.call is None else note._replace(call=_traits(note.call))


def _traits(found: Mapping[str, Any]) -> dict[str, Trait]:
    return {name: Trait(str(digest), str(text), bool(whole)) for name, (digest, text, whole) in found.items()}
