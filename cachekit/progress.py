"""What is told while files are hashed, stored, added and fetched: to programs, to a terminal, else to the log.

A terminal gets a bar for each file that is under way, a log a line every few seconds; both only for work of `LARGE`
bytes and more, which is what it takes to keep somebody waiting.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cachekit.artifact_files import Progress

__all__ = ["LARGE", "Progress", "counter", "on_progress", "tell"]

LARGE: Final = 64 << 20
_PAUSE: Final = 5.0
"""Seconds of silence after which work is over, or was given up."""
_REDRAW: Final = 0.1
_LINE: Final = 4.0
_WIDTH: Final = 24
log: Final = logging.getLogger("cachekit")

Callback = Callable[[Progress], None]


@dataclass(slots=True)
class _File:
    """A file under way; `since` and `at` (the first and the last word of it) in seconds of `time.monotonic`."""

    what: str
    name: str
    total: int
    begin: int
    since: float
    done: int = 0
    at: float = 0.0

    def text(self) -> str:
        rate = (self.done - self.begin) / max(self.at - self.since, 1e-3)
        left = f", {_time((self.total - self.done) / rate)} left" if rate > 0 and self.done < self.total else ""
        share = self.done * 100 // max(self.total, 1)
        return f"{share:3d}% of {self.total / (1 << 20):.0f} MiB, {rate / (1 << 20):.0f} MiB/s{left}"


class Display:
    """Shows the files under way. What another thread is just showing is left out; nobody ever waits here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[tuple[str, str, int], _File] = {}
        self._burst = 0
        self._heard = 0.0
        self._drawn = 0
        self._next = 0.0

    def __call__(self, told: Progress) -> None:
        # Never waited for: at a fork another thread may hold it for ever.
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._take(told, time.monotonic())
        finally:
            self._lock.release()

    def _take(self, told: Progress, now: float) -> None:
        if now - self._heard > _PAUSE:
            self._burst = 0
        self._heard = now
        key = (told.what, told.name, threading.get_ident())
        file = self._files.setdefault(key, _File(told.what, told.name, told.total, told.done, now))
        self._burst += max(0, told.done - file.done)
        file.done, file.at = told.done, now
        large = told.total >= LARGE or self._burst >= LARGE
        over = told.done >= told.total
        for other in [one for one, it in self._files.items() if now - it.at > _PAUSE or (over and one == key)]:
            del self._files[other]
        if large and _terminal():
            self._draw(now, at_once=over)
        elif large:
            self._write(file, now, at_once=over and told.total >= LARGE)

    def _draw(self, now: float, *, at_once: bool) -> None:
        if now < self._next and not at_once:
            return
        self._next = now + _REDRAW
        lines = [_bar(file) for file in self._files.values()]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        sys.stderr.write(up + "\x1b[J" + "".join(f"{line}\n" for line in lines))
        sys.stderr.flush()
        self._drawn = len(lines)

    def _write(self, file: _File, now: float, *, at_once: bool) -> None:
        if now >= self._next or at_once:
            self._next = now + _LINE
            log.info("%s %s: %s", file.what, _plain(file.name), file.text())


def _terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # closed, or none at all (pythonw)
        return False


def _bar(file: _File) -> str:
    full = _WIDTH * file.done // max(file.total, 1)
    return f"{file.what:<8} {'#' * full:.<{_WIDTH}} {_plain(file.name)[-30:]} {file.text()}"[:118]


def _plain(name: str) -> str:
    # Names come from other machines, and a terminal obeys what it is sent.
    return "".join(c if c.isprintable() else "?" for c in name)


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


_display: Final = Display()
_callbacks: Final[list[Callback]] = []


def on_progress(callback: Callback) -> Callable[[], None]:
    """Tells `callback` of every MiB from now on, of small files too; returns what takes it off again.

    It is called in the thread that does the work. What it raises ends that work, and nothing is left half done.
    """
    _callbacks.append(callback)

    def remove() -> None:
        if callback in _callbacks:
            _callbacks.remove(callback)

    return remove


def tell(told: Progress) -> None:
    """Passes on what happened: to the callbacks, and to the terminal or the log."""
    for callback in tuple(_callbacks):
        callback(told)
    _display(told)


def counter(what: str, name: str, total: int) -> Callable[[int], None]:
    """For who counts by differences: bytes that were done just now, of a file of `total` bytes."""
    done = 0

    def passed(count: int) -> None:
        nonlocal done
        done += count
        tell(Progress(what, name, done, total))

    return passed
