"""How many tokens an answer took, in one shape for all vendors."""

from __future__ import annotations

from typing import Any, NamedTuple


class Usage(NamedTuple):
    """Tokens of one answer.

    `input` is all of the prompt and excludes nothing: `cached_input` (read from the vendor's prompt cache) and the two
    `cache_write`s (written to it, to live minutes or hours) are parts of it. `output` includes reasoning.
    """

    input: int = 0
    output: int = 0
    cached_input: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0


def tokens(counts: Any, *names: str) -> int:
    """The first whole, positive number under one of `names`; 0 where there is none, or `counts` is no mapping."""
    for name in names:
        count = counts.get(name) if isinstance(counts, dict) else None
        if isinstance(count, int) and not isinstance(count, bool) and count > 0:
            return count
    return 0
