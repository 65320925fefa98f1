"""What can go wrong, sorted by whose fault it is.

CachekitError
├── UsageError    the caller's: raised, and the sentence names the remedy
│   ├── CannotKey       an argument that cannot be keyed: the call goes through uncached, with one warning
│   └── CannotEncode    a value that would not come back the same: returned, not stored, said once
├── TierError     a place that should have answered did not: the call goes on without it, and it is counted
│   ├── TierUnavailable   nobody answered in time (refused, timed out, breaker open)
│   ├── IntegrityError    something answered, with bytes that do not verify
│   └── TierFull          there was no room to store
└── CacheMiss     only in mode `replay`, where the origin may not be called

Exceptions of the decorated function are none of these: they pass through untouched.
"""

from __future__ import annotations


class CachekitError(Exception):
    """Base of everything cachekit raises."""


class UsageError(CachekitError):
    """The call, the configuration or the directory must be changed; the message says how."""


class CannotKey(UsageError):
    """`argument` names what cannot be keyed (a parameter or a closure variable)."""

    def __init__(self, message: str, argument: str = "") -> None:
        super().__init__(message)
        self.argument = argument


class CannotEncode(UsageError):
    """`reason` is the short word counted in `stats().skipped`."""

    def __init__(self, message: str, reason: str = "unencodable") -> None:
        super().__init__(message)
        self.reason = reason


class TierError(CachekitError):
    """A tier failed. Never reaches a caller unless `CACHEKIT_STRICT` is on.

    `reason` is the short word under which the failure is counted in `stats().errors[tier]`.
    """

    reason = "failed"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class TierUnavailable(TierError):
    """Nobody answered in time."""

    reason = "unavailable"


class IntegrityError(TierError):
    """The bytes do not verify; they are treated as a miss."""

    reason = "integrity"


class TierFull(TierError):
    """There was no room to store."""

    reason = "full"


class CacheMiss(CachekitError):
    """Mode `replay` found no stored value; the message explains the key."""
