"""Retries of the origin, the only home of tenacity: a facade with three knobs (model.Retry).

The retry sits inside the cache: a hit is never retried and a failed attempt is never stored. Only the exceptions named
are retried, and a `Retry-After` that the exception carries (as an HTTP response's header) is waited for, up to
`max_wait`. The last exception passes untouched.

A server that said "later" is left alone until then by every thread of the process, without `retry=` too. There is one
cooldown per endpoint and tenant (`scope`): a rate limit is the tenant's, and what one thread was told holds for all.
"""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from cachekit.errors import UNREADABLE
from cachekit.plan.steps import Pause, Steps

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from cachekit.model import Retry


def call(retry: Retry, origin: Callable[..., Any], *, is_async: bool = False, **given: Any) -> Any:
    """Calls `origin` at most `retry.attempts` times; of a coroutine function (`is_async`) it gives an awaitable."""
    try:
        import tenacity
    except OSError:  # no descriptor is free: the first attempt may do without
        return origin(**given)
    controller: Any = (tenacity.AsyncRetrying if is_async else tenacity.Retrying)(**_rules(retry))
    return controller(origin, **given)


def retry_after(error: BaseException, now: float | None = None) -> float | None:
    """Seconds that `error` asks to wait: its `retry_after`, or its response's `Retry-After` (RFC 9110 §10.2.3).

    None where it says nothing that can be read.
    """
    direct = getattr(error, "retry_after", None)
    try:
        if isinstance(direct, (int, float)) and not math.isnan(direct):
            return max(0.0, float(direct))
    except UNREADABLE:  # a number that no float holds
        return None
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
    text = headers.get("Retry-After") or headers.get("retry-after") if hasattr(headers, "get") else None
    if not isinstance(text, str):
        return None
    return _parse(text.strip(), time.time() if now is None else now)


def _parse(text: str, now: float) -> float | None:
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except UNREADABLE:
        return None


def _rules(retry: Retry) -> dict[str, Any]:
    import tenacity

    backoff = tenacity.wait_random_exponential(multiplier=0.5, max=retry.max_wait)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = retry_after(error) if error else None
        return backoff(state) if asked is None else min(asked, retry.max_wait)

    return {
        "retry": tenacity.retry_if_exception_type(retry.on),
        "stop": tenacity.stop_after_attempt(retry.attempts),
        "wait": wait,
        "reraise": True,
    }


LONGEST_WAIT: Final = 60.0
"""Seconds that a call is held back at most; where the server asks for more, the call is made and the SDK tells."""

BUSY: Final = frozenset({429, 503, 529})
"""Too many requests, unavailable, and Anthropic's overloaded."""


class Cooldowns:
    """Until when, on the monotonic clock, each scope is to be left alone."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def left(self, scope: str) -> float:
        """Seconds to wait before a call; 0.0 where none is needed, or more than LONGEST_WAIT."""
        left = self._until.get(scope, 0.0) - time.monotonic()
        return left if 0 < left <= LONGEST_WAIT else 0.0

    def waiting(self, scope: str) -> Steps:
        """A flow that ends when the scope may be asked."""
        while left := self.left(scope):
            yield Pause(left)

    def heed(self, scope: str, error: Exception) -> None:
        """Notes what an origin's exception says of the next attempt: an HTTP status and a Retry-After header."""
        status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
        seconds = retry_after(error) if status in BUSY else None
        if seconds:
            self._until[scope] = max(self._until.get(scope, 0.0), time.monotonic() + seconds)
