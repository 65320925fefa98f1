"""A server that said "later" is left alone until then, by every thread of the process.

One cooldown per endpoint and tenant (`scope`): a rate limit is the tenant's, and what one thread was told holds for all.
"""

from __future__ import annotations

import time
from typing import Final

from cachekit.retrying import retry_after

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

    def wait(self, scope: str) -> None:
        while left := self.left(scope):
            time.sleep(left)

    async def await_(self, scope: str) -> None:
        import asyncio

        while left := self.left(scope):
            await asyncio.sleep(left)

    def heed(self, scope: str, error: Exception) -> None:
        """Notes what an origin's exception says of the next attempt: an HTTP status and a Retry-After header."""
        status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
        seconds = retry_after(error) if status in BUSY else None
        if seconds:
            self._until[scope] = max(self._until.get(scope, 0.0), time.monotonic() + seconds)
