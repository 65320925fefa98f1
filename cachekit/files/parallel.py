"""Several files at once: while one waits for the disk, another is digested. An error, or Ctrl-C, ends the others too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Stopped(Exception):
    """Ends work that is given up. Never leaves this module: what gave it up does."""


def at_once(
    work: Callable[[Item, Callable[[], None]], Result], items: Sequence[Item], *, name: str, workers: int = 4
) -> list[Result]:
    """What `work` makes of each item, in their order, on threads called `name`; the first error is raised when all stopped.

    Between its steps `work` calls its second argument, which does not come back where another item failed.
    """
    try:
        return _pooled(work, items, name, workers)
    except _NoThreads:
        return [work(item, _go_on) for item in items]


class _NoThreads(Exception):
    """Nothing was begun: the program is ending, or may have no more threads."""


def _pooled(
    work: Callable[[Item, Callable[[], None]], Result], items: Sequence[Item], name: str, workers: int
) -> list[Result]:
    try:
        # Imported late: at the end of a program, where calls may still be cached, it cannot be imported any more.
        from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
    except RuntimeError as error:
        raise _NoThreads from error
    stop, lock = threading.Event(), threading.Lock()
    waiting, results = iter(enumerate(items)), dict[int, Result]()

    def go_on() -> None:
        if stop.is_set():
            raise _Stopped

    def run() -> None:
        while not stop.is_set():
            with lock:
                following = next(waiting, None)
            if following is None:
                return
            results[following[0]] = work(following[1], go_on)

    with ThreadPoolExecutor(max(1, workers), thread_name_prefix=name) as pool:
        try:
            jobs = _begun(pool, run, min(workers, len(items)))
            done, _running = wait(jobs, return_when=FIRST_EXCEPTION)
            failed = [raised for job in done if (raised := job.exception()) is not None]
            if failed:
                raise failed[0]
            return [results[index] for index in range(len(items))]
        finally:
            # Ctrl-C comes this way too.
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _begun(pool: Any, run: Callable[[], None], count: int) -> list[Any]:
    """As many of `count` as may be: one that gets no thread of its own finds nothing left to do."""
    jobs: list[Any] = []
    try:
        for _ in range(count):
            jobs.append(pool.submit(run))
    except RuntimeError as error:
        if not jobs:
            raise _NoThreads from error
    return jobs


def _go_on() -> None:
    return None
