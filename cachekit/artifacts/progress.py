"""What is told while files are hashed, stored, added and fetched: to programs, to a terminal, else to the log.

A terminal gets a bar for each file that is under way, drawn by tqdm, a log a line every few seconds; both only for work
of `LARGE` bytes and more, which is what it takes to keep somebody waiting. What is added behind the calls has no bar, but
while somebody waits for it (`waiting`).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from cachekit.errors import UsageError
from cachekit.files.copying import Progress

__all__ = ["LARGE", "Progress", "counter", "on_progress", "tell", "waiting"]

LARGE: Final = 64 << 20
_PAUSE: Final = 5.0
"""Seconds of silence after which work is over, or was given up."""
_REDRAW: Final = 0.1
_LINE: Final = 4.0
_END: Final = 1.0
"""Seconds that the end of a file waits to be shown."""
_SCREEN: Final = os.terminal_size((80, 24))
_WIDEST: Final = 80
"""Columns of a bar: what is left of a longer one beside a line of the program would look like the line's end."""
log: Final = logging.getLogger("cachekit")

Callback = Callable[[Progress], None]


@dataclass(slots=True)
class _Job:
    """A file under way; `since` and `at` (the first and the last word of it) in seconds of the display's clock."""

    what: str
    name: str
    total: int
    begin: int
    since: float
    done: int = 0
    at: float = 0.0

    def line(self) -> str:
        """Share, size, rate and time left, for the log."""
        rate = (self.done - self.begin) / max(self.at - self.since, 1e-3)
        speed = f", {rate / (1 << 20):.0f} MiB/s" if rate > 0 else ""
        left = f", {_time((self.total - self.done) / rate)} left" if rate > 0 and self.done < self.total else ""
        share = self.done * 100 // max(self.total, 1)
        return f"{self.what} {_plain(self.name)}: {share:3d}% of {self.total / (1 << 20):.0f} MiB{speed}{left}"

    def bar(self, width: int) -> str:
        """The same, drawn for a terminal, in `width` characters at most."""
        # Imported where somebody looks: no call and no import waits for it.
        from tqdm import tqdm

        # The end of a name tells more than its beginning; in a narrow window the rate tells more than either.
        title = f"{self.what:<8} {_plain(self.name)[-max(8, width - 60) :]}"
        size = {"unit": "B", "unit_scale": True, "initial": self.begin}
        return str(tqdm.format_meter(self.done, self.total, self.at - self.since, width, title, ascii=True, **size))


class Display:
    """Shows the files under way, with `clock` in seconds. What another thread is just showing is left out.

    Bars stand below the cursor, which stays where it was: what the program prints goes over them, never they over it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiters: list[int] = []
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._jobs: dict[tuple[str, str, int], _Job] = {}
        self._burst = 0
        self._since = self._heard = self._next = -_PAUSE
        self._drawn = False

    def __call__(self, progress: Progress) -> None:
        if self._pid != os.getpid():  # at the fork another thread may have held the lock for ever
            self._renew()
        # Only the end of a file is waited for: else its bar would stay.
        if not self._lock.acquire(timeout=_END if progress.done >= progress.total else 0):
            return
        try:
            if progress.what != "adding" or os.getpid() in self._waiters or not _terminal():
                self._take(progress, self._clock())
        finally:
            self._lock.release()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        # No counter: a list needs no lock, and a forked child must not find itself waiting with its parent.
        waiter = os.getpid()
        self._waiters.append(waiter)
        try:
            yield
        finally:
            self._waiters.remove(waiter)
            if waiter not in self._waiters:
                self._forget_adding()

    def _forget_adding(self) -> None:
        if not self._lock.acquire(timeout=_END):
            return
        try:
            self._jobs = {key: job for key, job in self._jobs.items() if job.what != "adding"}
            if self._drawn and _terminal():
                self._draw(self._clock(), at_once=True)
        finally:
            self._lock.release()

    def _take(self, progress: Progress, now: float) -> None:
        if now - self._heard > _PAUSE:
            self._burst, self._since = 0, now
        self._heard = now
        key = (progress.what, progress.name, threading.get_ident())
        job = self._jobs.setdefault(key, _Job(progress.what, progress.name, progress.total, progress.done, now))
        self._burst += max(0, progress.done - job.done)
        job.done, job.at = progress.done, now
        over = progress.done >= progress.total
        for other in [one for one, it in self._jobs.items() if now - it.at > _PAUSE or (over and one == key)]:
            del self._jobs[other]
        large = progress.total >= LARGE or self._burst >= LARGE
        if (large or self._drawn) and _terminal():
            self._draw(now, at_once=over)
        elif large:
            self._write(job, now, over=over)

    def _draw(self, now: float, *, at_once: bool) -> None:
        if now < self._next and not at_once:
            return
        self._next = now + _REDRAW
        columns, rows = _screen()
        lines = [job.bar(min(columns - 1, _WIDEST)) for job in list(self._jobs.values())[: rows - 1]]
        # Room is made below (a terminal scrolls for it) before the cursor is noted: where it is noted, it can return.
        room = "\x1bD" * len(lines) + f"\x1b[{len(lines)}A"
        bars = room + "\x1b7" + "".join(f"\r\n{line}" for line in lines) + "\x1b8" if lines else ""
        with suppress(OSError):  # a terminal that is gone ends no work
            sys.stderr.write("\x1b[J" + bars)
            sys.stderr.flush()
        self._drawn = bool(lines)

    def _write(self, job: _Job, now: float, *, over: bool) -> None:
        # Small files are told of when they are over, large ones when there is a rate to tell.
        alone = job.total >= LARGE
        due = now >= self._next and now - (job.since if alone else self._since) >= _LINE
        if (due and (alone or over)) or (alone and over):
            self._next = now + _LINE
            log.info("%s", job.line())


def _screen() -> os.terminal_size:
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        return _SCREEN
    return size if min(size) > 1 else _SCREEN


def _terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # closed, or none at all (pythonw)
        return False


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
    UsageError for what cannot be called.
    """
    if not callable(callback):
        raise UsageError(f"on_progress takes a function of one Progress, not {type(callback).__name__}")
    _callbacks.append(callback)

    def remove() -> None:
        if callback in _callbacks:
            _callbacks.remove(callback)

    return remove


def tell(progress: Progress) -> None:
    """Passes on what happened: to the callbacks, and to the terminal or the log."""
    for callback in tuple(_callbacks):
        try:
            callback(progress)
        except Exception as error:  # marked as the program's own, and raised
            with suppress(AttributeError):  # an exception with slots
                setattr(error, _STOPS, True)
            raise
    _display(progress)


_STOPS: Final = "_cachekit_stops"


def stops(error: Exception) -> bool:
    """Whether a callback raised it: a program may stop the work by raising, and its exception is its own."""
    return bool(getattr(error, _STOPS, False))


def waiting() -> AbstractContextManager[None]:
    """Around waiting for what is added behind the calls: its bars are shown until the block ends, and then gone."""
    return _display.waiting()


def counter(what: str, name: str, total: int) -> Callable[[int], None]:
    """For who counts by differences: bytes that were done just now, of a file of `total` bytes."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        tell(Progress(what, name, done, total))

    return count
