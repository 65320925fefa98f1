"""Why a call is a miss: what became of its entry, or what differs from the nearest call of this machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from cachekit.model import FOREVER, NANOSECONDS, Event, Key, Record

if TYPE_CHECKING:
    from cachekit.cache.cache import Cache
    from cachekit.cache.notes import Note
    from cachekit.keys.keyer import Keyer
    from cachekit.keys.parts import Sketch

log: Final = logging.getLogger("cachekit.misses")
_LOGGED: Final = 5
"""Differences that the log tells of one miss."""


class Remembering:
    """Notes one call. What it was is taken before the origin runs, which may change its arguments."""

    __slots__ = ("_cache", "_key", "_keyer", "_sketch", "_take")

    def __init__(self, cache: Cache, keyer: Keyer, key: Key, take: Callable[[], Sketch]) -> None:
        self._cache, self._keyer, self._key, self._take = cache, keyer, key, take
        self._sketch: Sketch | None = None

    def missed(self) -> None:
        """Before the origin. At INFO the log says why it is asked."""
        self._unharmed(self._look)

    def noted(self, record: Record | None, reason: str) -> None:
        """What was stored; with a reason why it was not."""
        self._unharmed(self._keep, record, reason)

    def _look(self) -> None:
        self._sketch = self._take()
        if log.isEnabledFor(logging.INFO):
            reason, lines = why(self._cache, self._sketch)
            told = "; ".join([reason, *self._keyer.named(lines)[:_LOGGED]])
            log.info("miss of %s, %s: %s", self._key.function, self._key, told)

    def _keep(self, record: Record | None, reason: str) -> None:
        created, expires = (time.time_ns(), FOREVER) if record is None else (record.created, record.expires)
        self._cache.notes.add(self._key.function, self._sketch or self._take(), created, expires, reason)

    def _unharmed(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception as error:  # of whatever is looked at: the call goes on, and is explained less well
            self._cache.tell(Event("error", self._key.function, "notes", type(error).__name__))


def why(cache: Cache, sketch: Sketch, tags: tuple[str, ...] = ()) -> tuple[str, list[str]]:
    """A sentence, and what differs, a line each."""
    noted = cache.notes.of(sketch.key.function, cache.noted)
    note = noted.of(sketch)
    if note is not None:
        return _gone(cache, sketch, note, tags), []
    nearest = noted.nearest(sketch)
    if nearest is None:
        return "this machine remembers no earlier call of it", []
    note, lines = nearest
    return f"the nearest call was {_ago(note)}", lines or ["something that is not remembered"]


def _gone(cache: Cache, sketch: Sketch, note: Note, tags: tuple[str, ...]) -> str:
    if note.outcome:
        return f"the call of {_ago(note)} was not stored: {note.outcome}"
    if cache.ledger.covers(sketch.key, Record("", b"", note.created * (NANOSECONDS // 1_000), tags=tags)):
        return f"the entry of {_ago(note)} was invalidated"
    if note.expires and note.expires <= time.time() * 1_000:
        return f"the entry of {_ago(note)} expired"
    return f"the entry of {_ago(note)} is not here any more: culled, or cleared"


def _ago(note: Note) -> str:
    """How long ago the call was."""
    seconds = max(0, time.time() - note.created / 1_000)
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name} ago"
    return f"{seconds:.0f} s ago"
