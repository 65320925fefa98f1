"""A bound for calls into the file system, which knows none: a mount that hangs keeps a thread, never its caller."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

from cachekit.errors import TierUnavailable

_MOST_STUCK: Final = 4
_T = TypeVar("_T")


class Patience:
    """Waits for work as long as it may. Where a few threads hang, nobody waits any more until one of them is back."""

    def __init__(self) -> None:
        self._stuck: list[threading.Thread] = []

    def wait(self, work: Callable[[], _T], seconds: float) -> _T:
        """What `work` gives or raises; TierUnavailable `timeout`, and then it may still be done later."""
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        if seconds <= 0 or len(self._stuck) >= _MOST_STUCK:
            raise _late()
        outcome = list[Callable[[], _T]]()
        thread = threading.Thread(target=_done, args=(work, outcome), name="cachekit-store", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no threads any more at exit, and none left otherwise
            return work()
        thread.join(seconds)
        if not outcome:
            self._stuck.append(thread)
            raise _late()
        return outcome[0]()


def _done(work: Callable[[], _T], outcome: list[Callable[[], _T]]) -> None:
    try:
        result = work()
    except BaseException as error:
        outcome.append(_raising(error))
    else:
        outcome.append(lambda: result)


def _raising(error: BaseException) -> Callable[[], NoReturn]:
    def again() -> NoReturn:
        raise error

    return again


def _late() -> TierUnavailable:
    return TierUnavailable("the file system did not answer in time", reason="timeout")
