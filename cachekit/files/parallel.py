"""Several files at once: while one waits for the disk, another is digested. An error, or Ctrl-C, ends the others too."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

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
    waiting, stop = deque(enumerate(items)), threading.Event()
    results, errors = dict[int, Result](), list[BaseException]()

    def go_on() -> None:
        if stop.is_set():
            raise _Stopped

    def run() -> None:
        try:
            while not stop.is_set():
                try:
                    index, item = waiting.popleft()
                except IndexError:
                    return
                results[index] = work(item, go_on)
        except BaseException as error:
            errors.append(error)
            stop.set()

    threads = _started(run, name, min(workers, len(items)))
    try:
        if not threads:
            run()
        for thread in threads:
            thread.join()
    finally:
        stop.set()  # Ctrl-C comes this way too
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return [results[index] for index in range(len(items))]


def _started(run: Callable[[], None], name: str, count: int) -> list[threading.Thread]:
    """As many of `count` as may be: none at the end of a program, which may have no more threads then."""
    threads: list[threading.Thread] = []
    for number in range(count):
        thread = threading.Thread(target=run, name=f"{name}_{number}")
        try:
            thread.start()
        except RuntimeError:
            break
        threads.append(thread)
    return threads
