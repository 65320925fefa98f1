"""Until when a service is left alone, known to every thread and process that shares the cache directory."""

from __future__ import annotations

import functools
import threading
import time
from typing import Any, Final

from cachekit import MISS, current_mode, distributed_cache
from cachekit_adapters._revalidating.answers import LONGEST, Answer, limited, pause

_FIRST: Final = 60.0
"""Seconds of the first pause where the service says nothing; each further one is twice as long."""

_here: Final[dict[str, list[float]]] = {}
_lock: Final = threading.Lock()


@functools.cache
def _shared() -> Any:
    def cooldown(scope: str) -> list[float]:
        raise LookupError(scope)

    cooldown.__module__, cooldown.__qualname__ = "cachekit_adapters", "cooldown"
    # Twice the longest pause: who is refused again within that time has not waited long enough.
    return distributed_cache(ttl=2 * LONGEST, share=False, version="1")(cooldown)


def left(scope: str) -> float:
    """Seconds for which `scope` is still to be left alone; 0.0 where it may be asked. One look at memory and disk."""
    return min(max(0.0, _standing(scope)[0] - time.time()), LONGEST)


def heed(scope: str, answer: Answer) -> None:
    """Notes what an answer says about the next request: a rate limit reached, none left of it, or all well again."""
    now, (until, last) = time.time(), _standing(scope)
    said = pause(answer, now)
    if said is None and not limited(answer):
        if last and until <= now and answer.status < 500:
            _forget(scope)
        return
    if said is None and until > now:  # others were refused at the same time: that is one refusal
        return
    length = min(LONGEST, (max(_FIRST, 2 * last) if said is None else said))
    if now + length > until:
        _keep(scope, [now + length, length if said is None else last])


def _standing(scope: str) -> list[float]:
    """Until when, in seconds since the epoch, and how long the last pause was that the service did not say."""
    shared = MISS if current_mode() == "off" else _shared().peek(scope)
    with _lock:
        here = _here.get(scope, [0.0, 0.0])
    return here if shared is MISS else max(here, shared)


def _keep(scope: str, standing: list[float]) -> None:
    with _lock:
        _here[scope] = standing
    if current_mode() in ("on", "refresh"):  # else it holds in this process
        _shared().put(standing, scope)


def _forget(scope: str) -> None:
    with _lock:
        _here.pop(scope, None)
    if current_mode() in ("on", "refresh"):
        _shared().invalidate(scope)
