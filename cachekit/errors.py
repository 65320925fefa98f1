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

import struct
from typing import Final

UNREADABLE: Final = (
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, MemoryError, struct.error),
)
"""What Python raises while bytes are read that somebody else wrote: each reader turns it into the class that it documents."""


class CachekitError(Exception):
    """The base class of every exception that cachekit itself raises."""


class UsageError(CachekitError):
    """A parameter, a setting or a directory that the caller must change; the message says how."""


class CannotKey(UsageError):
    """`argument` names what cannot be keyed (a parameter or a closure variable); `reason` is the word that is counted."""

    def __init__(self, message: str, argument: str = "", reason: str = "unkeyable") -> None:
        super().__init__(message)
        self.argument = argument
        self.reason = reason


class CannotEncode(UsageError):
    """`reason` is the short word counted in `stats().skipped`."""

    def __init__(self, message: str, reason: str = "unencodable") -> None:
        super().__init__(message)
        self.reason = reason


class TierError(CachekitError):
    """A tier (memory, disk, IPFS) failed. A decorated call steps over it, unless `CACHEKIT_STRICT` is on.

    Functions that need one tier (`flush`, `sync`, `store`, `fetch`, `restore`, …) raise it. `reason` is the short word
    under which it is counted in `stats().as_dict()["errors"][tier]`.
    """

    reason = "failed"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class TierUnavailable(TierError):
    """The tier is off, or its daemon or database did not answer in time."""

    reason = "unavailable"


class IntegrityError(TierError):
    """Bytes came that are not those that were stored; a decorated call takes them for a miss."""

    reason = "integrity"


class TierFull(TierError):
    """There was no room to store."""

    reason = "full"


class CacheMiss(CachekitError):
    """In mode `replay` there is no stored value, and the function may not be called; the message explains the key."""
