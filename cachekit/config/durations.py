"""How long: numbers with units, as people write them. Apart from the settings, for a decorator reads one at import."""

from __future__ import annotations

import re
import reprlib
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from cachekit.errors import UNREADABLE, UsageError

DURATIONS: Final = "seconds, '500ms', '30s', '30m', '24h', '7d', '2w' (100 years at most), or 'none'/'forever'"
_UNITS: Final = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
# Expiry instants are nanoseconds and may be stored in 64 bits, which end in the year 2262.
_LONGEST: Final = 100 * 365 * 86400.0


def seconds(value: object, what: str) -> float | None:
    """A duration in seconds, None for ever: int, float, timedelta, None, or text such as '30m'; 0 is allowed.

    Raises UsageError naming `what` for anything else: negative, NaN, infinite, a bool, more than 100 years.
    """
    try:
        return duration(value)
    except UNREADABLE:
        msg = f"{what}: {reprlib.repr(value)} is not a duration; accepted: {DURATIONS}"
    raise UsageError(msg)


def duration(value: Any) -> float | None:
    """As `seconds`, but raises of UNREADABLE without a sentence."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("none", "forever")):
        return None
    length = value.total_seconds() if isinstance(value, timedelta) else number(value, _UNITS)
    return float(within(float(length), _LONGEST))


def number(value: Any, units: dict[str, Any]) -> Any:
    """`value` as a number; text may carry one of `units`. A bool is an int to Python and a mistake to us."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", value.strip().lower()) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise ValueError
    return Decimal(match[1]) * Decimal(str(units[match[2]]))


LONGEST_NAME: Final = 1024
"""Bytes of a namespace, or of a tag's template."""


def within(number: Any, most: float) -> Any:
    """`number`, or ValueError unless it lies between 0 and `most`."""
    if not 0 <= number <= most:
        raise ValueError
    return number
