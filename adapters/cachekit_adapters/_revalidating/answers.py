"""What a service said to one request, and what that means: is it kept, was it withheld, and how is it asked for again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

from cachekit import CachekitError

LONGEST: Final = 3600.0
"""Seconds that a service is left alone at most; then it may say again how long."""

_DRAINED: Final = re.compile(r"\br=0\b.*?\bt=(\d+)")

_KEPT: Final = frozenset(
    {"cache-control", "content-language", "content-type", "etag", "last-modified", "link", "x-github-media-type"}
)
"""Headers that describe the answer. Others are of one exchange, and a 304 would not renew them."""


class Answer(NamedTuple):
    """A response: `headers` by lower-case name. `aside` is what came beside the body, such as what a command warned of."""

    status: int
    headers: dict[str, str]
    body: bytes
    aside: bytes = b""

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body, parsed; ValueError where it is no JSON, None where there is none."""
        return json.loads(self.body) if self.body else None


class Withheld(Exception):
    """The service did not answer the question: a rate limit, a failure. What stood before may stand in for it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.answer = answer


class RateLimited(CachekitError):
    """The service asked to be left alone, and nothing is kept that could stand in. `seconds`: for how much longer."""

    def __init__(self, scope: str, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(
            f"{scope} is left alone for another {seconds:.0f} s, because its rate limit was reached; ask again then"
        )


def described(answer: Answer) -> Answer:
    """The answer as it is kept, and as everybody gets it: a hit has the same shape as a miss."""
    return answer._replace(headers={name: text for name, text in answer.headers.items() if name in _KEPT})


def conditions(old: Answer) -> dict[str, str]:
    """Headers that ask whether `old` is still so; empty where the service gave no validator."""
    if "etag" in old.headers:
        return {"If-None-Match": old.headers["etag"]}
    return {"If-Modified-Since": old.headers["last-modified"]} if "last-modified" in old.headers else {}


def kept(answer: Answer) -> bool:
    """Whether an answer is one to keep: whole, and not told to be forgotten."""
    return answer.status == 200 and "no-store" not in answer.headers.get("cache-control", "").lower()


def limited(answer: Answer) -> bool:
    """Whether a rate limit was reached. A 403 says so by its headers or its text; else it is a refusal for good."""
    if answer.status != 403:
        return answer.status == 429
    said = "retry-after" in answer.headers or answer.headers.get("x-ratelimit-remaining") == "0"
    return said or b"rate limit" in (answer.body + answer.aside).lower()


def withheld(answer: Answer) -> bool:
    """Whether the service may give another answer later, and said nothing about the question now."""
    return answer.status >= 500 or limited(answer)


def pause(answer: Answer, now: float) -> float | None:
    """Seconds for which the service wants to be left alone, as its headers say; None where they say nothing.

    `now` is the machine's clock; a reset is counted by the service's own clock where it tells the time.
    """
    after = answer.headers.get("retry-after", "").strip()
    if after.isdecimal():
        return float(after)
    if drained := _DRAINED.search(answer.headers.get("ratelimit", "")):  # the Hub's, of the IETF's draft
        return float(drained[1])
    clock = _instant(answer.headers.get("date", "")) or now
    if until := _instant(after):
        return max(0.0, until - clock)
    reset = answer.headers.get("x-ratelimit-reset", "")
    left = answer.headers.get("x-ratelimit-remaining", "0" if limited(answer) else "")
    if not reset.isdecimal() or left != "0":
        return None
    return max(0.0, float(reset) - clock)


def _instant(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None


def merged(old: Answer, confirmed: Mapping[str, str]) -> Answer:
    """What was kept, with what a 304 says anew of it."""
    return old._replace(headers={**old.headers, **{name: text for name, text in confirmed.items() if name in _KEPT}})
