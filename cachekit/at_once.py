"""Several files at once: while one waits for the disk, another is digested. An error, or Ctrl-C, ends the others too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Stopped(Exception):
    """Ends work that is given up. Never leaves this module: what gave it up does."""


def at_once(
    work: Callable[[Item, Callable[[], None]], Result], items: Iterable[Item], *, name: str, workers: int = 4
) -> list[Result]:
    """What `work` makes of each item, in their order, on threads called `name`; the first error is raised when all stopped.

    Between its steps `work` calls its second argument, which does not come back where another item failed.
    """
    stop = threading.Event()

    def go_on() -> None:
        if stop.is_set():
            raise _Stopped

    with ThreadPoolExecutor(max(1, workers), thread_name_prefix=name) as pool:
        try:
            jobs = [pool.submit(work, item, go_on) for item in items]
            done, _running = wait(jobs, return_when=FIRST_EXCEPTION)
            failed = [error for job in done if (error := job.exception()) is not None]
            if failed:
                raise next((error for error in failed if not isinstance(error, _Stopped)), failed[0])
            return [job.result() for job in jobs]
        finally:
            # Ctrl-C comes this way too.
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
