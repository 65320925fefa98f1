"""Does a wait have an end? Who waits for whom, as calls said it, threads' stacks show it, and processes are related.

Each call knows by a context variable whose work it is a part of, and says what it waits for. The variable follows tasks,
and not the work that a function hands to a pool or a thread of its own. There the stacks tell: one thread waits for a
future (or for a thread to end), and the other one is at work on it.

What these cannot say (a queue, a lock, an event, another machine) is bounded by a budget: `patience`, a multiple of what
the origin took last time and at least what CACHEKIT_PATIENCE says; thirty times that, where nothing hints at a circle.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any, Final, Literal

MULTIPLE: Final = 10.0
STEADY: Final = 30.0
LOOK_AFTER: Final = 0.05
LOOK_EVERY: Final = 1.0
"""Seconds of a wait before the first look at the stacks, doubled up to the second."""

_WAITING: Final = frozenset({"threading", "queue", "concurrent", "multiprocessing", "joblib"})
_NEAR: Final = 4
_DEEPEST: Final = 400


class Work:
    """What others may wait for: a call, or a stream's next piece. `waits` is what it waits for itself."""

    __slots__ = ("over", "thread", "waits")

    def __init__(self) -> None:
        self.over = False
        self.thread = threading.get_ident()
        self.waits: list[Work] = []


LEADING: Final[ContextVar[tuple[Work, ...]]] = ContextVar("cachekit_leading", default=())
"""The work that the code of this context is a part of."""


def led() -> list[Work]:
    """What of it goes on."""
    return [work for work in LEADING.get() if not work.over]


@contextmanager
def waiting(work: Work) -> Iterator[bool]:
    """Says that the caller waits for `work`; True where that waits, directly or through others, for the caller."""
    mine = led()
    # Said first and looked after that, so that of two who do it at once one sees the other.
    for one in mine:
        one.waits.append(work)
    try:
        yield _leads_to(work, mine)
    finally:
        for one in mine:
            one.waits.remove(work)


def _leads_to(work: Work, mine: list[Work]) -> bool:
    ahead, seen = [work], set[int]()
    while ahead:
        one = ahead.pop()
        if one in mine:
            return True
        if id(one) not in seen:
            seen.add(id(one))
            ahead += one.waits
    return False


def outlast(work: Work, done: Callable[[float], bool], patience: float) -> Literal["done", "circle", "late"]:
    """Holds the thread until `done`, which waits for at most the seconds it is given, or until that has no sense."""
    with waiting(work) as circle:
        if circle:
            return "circle"
        begin, pause = time.monotonic(), LOOK_AFTER
        while not done(pause):
            seen = verdict(work.thread)
            if seen == "circle":
                return "circle"
            if time.monotonic() - begin > patience * (1.0 if seen == "doubt" else STEADY):
                return "late"
            pause = min(2 * pause, LOOK_EVERY)
        return "done"


Verdict = Literal["circle", "doubt", "none"]


def verdict(thread: int) -> Verdict:
    """Whether the thread waits, directly or through others, for this one; doubt: it waits for something of its own."""
    stacks = {one: list(_stack(frame)) for one, frame in sys._current_frames().items()}
    workers = {task: one for one, stack in stacks.items() for task in _tasks(stack)}
    waiting, seen, me = [thread], set[int](), threading.get_ident()
    while waiting:
        one = waiting.pop()
        if one == me:
            return "circle"
        if one not in seen:
            seen.add(one)
            waiting += [workers.get(awaited, awaited) for awaited in _awaited(stacks.get(one, []))]
    names = {_module(frame).partition(".")[0] for frame in stacks.get(thread, [])[:_NEAR]}
    return "doubt" if names & _WAITING else "none"


def is_ancestor(pid: int) -> bool:
    """Whether this process was started by that one, or by one of its children."""
    one = os.getppid()
    for _ in range(_DEEPEST):
        if one == pid:
            return True
        one = _parent(one)
        if one <= 1:
            return False
    return False


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return int(stat.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):  # no /proc, or the process ended
        return 0


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    for _ in range(_DEEPEST):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _tasks(stack: list[FrameType]) -> Iterator[int]:
    """What a pool's thread is at work on: futures, and jobs of multiprocessing.pool (below zero)."""
    for frame in stack:
        place = _module(frame), frame.f_code.co_name
        if place == ("concurrent.futures.thread", "run"):
            yield id(getattr(frame.f_locals.get("self"), "future", None))
        elif place == ("multiprocessing.pool", "worker"):
            yield _job(frame.f_locals.get("job"))


def _awaited(stack: list[FrameType]) -> Iterator[int]:
    """What a thread waits for: futures, jobs, threads."""
    for frame in stack:
        module, name, local = _module(frame), frame.f_code.co_name, frame.f_locals
        one: Any = local.get("self")
        if module == "concurrent.futures._base" and name in ("result", "exception"):
            yield id(one)
        elif module == "concurrent.futures._base" and name in ("wait", "as_completed"):
            yield from map(id, local.get("fs") or ())
        elif module == "threading" and name == "join":
            yield getattr(one, "ident", None) or 0
        elif module == "multiprocessing.pool" and name in ("wait", "get"):
            yield _job(getattr(one, "_job", None))
        elif module == __name__ and name == "outlast":
            yield local["work"].thread


def _job(number: Any) -> int:
    return -1 - number if isinstance(number, int) else 0
