"""What a command reports, and the few things that several commands need to make a report."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Literal

from cachekit.cache.default import default, disk
from cachekit.errors import TierUnavailable, UsageError
from cachekit.keys.keyer import parse_key
from cachekit.model import NANOSECONDS, Key

YES: Final = 0
NO: Final = 1
"""The exit status of a negative answer, and of a tier that failed."""
USAGE: Final = 2
INTERRUPTED: Final = 130
"""What a shell says of a program that Ctrl-C ended."""

State = Literal["ok", "note", "failed"]
_SILENT: Final = ("refused", "timeout", "unresolved", "reset", "network", "no_store", "disk")
"""Why nobody answered."""
_DIGITS: Final = 64
_HEX: Final = re.compile(r"[0-9a-fA-F]{1,64}")


@dataclass(frozen=True, slots=True)
class Report:
    """The same answer as `data` (fit for JSON) and as `text` for people; `raw` bytes go to standard output instead of text."""

    data: Any
    text: str
    status: int = YES
    raw: bytes | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `remedy` is what to do, empty where nothing is."""

    check: str
    state: State
    text: str
    remedy: str = ""


def plain(value: Any) -> dict[str, object]:
    """A dataclass as JSON has it: paths as text."""
    return {name: str(item) if isinstance(item, Path) else item for name, item in asdict(value).items()}


def say(line: str) -> None:
    """What goes on meanwhile, beside the answer."""
    print(line, file=sys.stderr, flush=True)


class Nothing(Exception):
    """There is no result; the message says why, on standard error, and `data` is the same for JSON."""

    def __init__(self, data: Any, message: str) -> None:
        super().__init__(message)
        self.data = data


def table(head: Sequence[str], rows: Sequence[Sequence[object]], right: int = 0) -> str:
    """Aligned columns; the last `right` of them to the right, because they are numbers."""
    lines = [[printable(str(cell)) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = len(head) - right

    def line(cells: list[str]) -> str:
        padded = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "  ".join(padded).rstrip()

    return "\n".join(map(line, lines))


def printable(text: str) -> str:
    """Without control characters: names and values come from other machines, and a terminal obeys what it is sent."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def instant(nanoseconds: int) -> str:
    """ISO 8601, UTC, to the second; the bare number where no calendar has it."""
    try:
        moment = datetime.fromtimestamp(nanoseconds / NANOSECONDS, tz=timezone.utc)
    except (OverflowError, ValueError, OSError):
        return f"{nanoseconds} ns"
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def explained(error: Exception) -> str:
    """What to say of an error: of a daemon that does not answer, which one was asked, and the remedy."""
    if not isinstance(error, TierUnavailable) or error.reason not in _SILENT:
        return str(error)
    team = default().team
    return str(error) if team is None else unanswered(f"{team.api}: {error}")


def unanswered(why: str) -> str:
    if default().settings.store:
        return f"the store does not answer ({printable(why)}); `cachekit doctor` looks closer"
    return (
        f"the IPFS daemon does not answer ({printable(why)}); `cachekit doctor` looks closer, "
        "`cachekit node start` starts a private one"
    )


def find_key(text: str) -> Key:
    """The key that `<namespace>/<hex>` names; fewer than 64 digits, or no namespace, where one entry on disk fits.

    Raises Nothing where no entry fits, UsageError for what is not a key, and where several entries fit.
    """
    namespace, slash, digits = text.rpartition("/")
    if namespace and len(digits) == _DIGITS:
        return parse_key(text)
    if not _HEX.fullmatch(digits) or (slash and not namespace):
        raise UsageError(f"{text!r} is not a key: it is <namespace>/<64 hex digits>, or the beginning of the digits")
    fitting = [
        Key(header.namespace, digest, header.function)
        for digest, header in disk().entries()
        if digest.hex().startswith(digits.lower()) and namespace in ("", header.namespace)
    ]
    if len(fitting) > 1:
        raise UsageError(f"{text!r} fits {len(fitting)} entries, {fitting[0]} for one; give more digits")
    if not fitting:
        raise no_such(text)
    return fitting[0]


def no_such(text: str) -> Nothing:
    return Nothing({"key": None}, f"no entry on disk fits {printable(text)}")
