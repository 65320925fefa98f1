"""What Kubo answered, believing none of it, and what can go wrong on the way, in cachekit's words.

Every failure is sorted here, and nowhere else.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Final

from cachekit.errors import IntegrityError, TierError, TierUnavailable

OLDEST: Final = (0, 30)
"""The oldest Kubo we speak to."""

_OK: Final = 200
_FORBIDDEN: Final = (401, 403)
_SERVER_ERROR: Final = 500
_DEPTH: Final = 12
# Kubo has one status for all its errors; only the words tell an absent thing from a broken node.
_ABSENT: Final = (
    "file does not exist",
    "no link named",
    "block was not found locally",
    "failed to fetch all nodes",
    "not found",
    "not pinned",
)


class NotThere(TierError):
    """Kubo answered that it does not have the thing: a miss, not a failure."""

    reason = "not_found"


def from_status(status: int, message: str | None) -> TierError:
    """The error of an answer that is not 200; `message` is what Kubo's JSON said, None where there was none."""
    words = f"{status}: {message}" if message is not None else str(status)
    if status == _SERVER_ERROR and message is not None and any(absent in message for absent in _ABSENT):
        return NotThere(message)
    if status in _FORBIDDEN:
        return TierUnavailable(f"the RPC refuses us ({words}); set CACHEKIT_IPFS_AUTH", reason="forbidden")
    if status >= _SERVER_ERROR or message is not None:
        return TierError(f"the RPC answered {words}", reason=f"http_{status}")
    return IntegrityError(f"no Kubo RPC: it answered {words}", reason="not_kubo")


@contextlib.contextmanager
def boundary() -> Iterator[None]:
    """Let nothing but TierError out."""
    try:
        yield
    except TierError:
        raise
    except Exception as error:  # the classes of a client that may not be installed cannot be named here
        raise translate(error) from error


def translate(error: BaseException) -> TierError:
    """The TierError that `error`, with all that lies behind it, amounts to."""
    chain = list(_behind(error))
    refusal: Any = next((link for link in chain if getattr(link, "response", None) is not None), None)
    if refusal is not None:
        # No words of Kubo's came with it: an error page, or a redirect that was not followed.
        return from_status(int(refusal.response.status_code), None)
    for kinds, made, reason in _SORTS:
        if any(isinstance(link, kinds) for link in chain):
            return made(f"{type(error).__name__}: {error}", reason=reason)
    # requests' word for chunks that break off, by name because requests may not be installed.
    if any(type(link).__name__ == "ChunkedEncodingError" for link in chain):
        return IntegrityError(str(error), reason="truncated")
    if any(isinstance(link, OSError) and link.errno is not None for link in chain):
        return TierUnavailable(str(error), reason="network")
    return IntegrityError(f"no Kubo RPC: {type(error).__name__}: {error}", reason="not_kubo")


# In this order: a timeout is often wrapped in a connection error, and a closed connection is also "bad HTTP".
_SORTS: Final[tuple[tuple[tuple[type[BaseException], ...], type[TierError], str], ...]] = (
    ((TimeoutError,), TierUnavailable, "timeout"),
    ((ConnectionRefusedError, FileNotFoundError), TierUnavailable, "refused"),
    ((PermissionError,), TierUnavailable, "forbidden"),
    ((ssl.SSLError,), TierUnavailable, "tls"),
    ((socket.gaierror,), TierUnavailable, "unresolved"),
    ((http.client.IncompleteRead,), IntegrityError, "truncated"),
    ((ConnectionError,), TierUnavailable, "reset"),
)


def _behind(error: BaseException) -> Iterator[BaseException]:
    # ipfshttpclient, requests and urllib3 each wrap, and not always with `from`.
    pending: list[Any] = [error]
    seen: set[int] = set()
    while pending and len(seen) < _DEPTH:
        link = pending.pop(0)
        if isinstance(link, BaseException) and id(link) not in seen:
            seen.add(id(link))
            yield link
            pending += [getattr(link, "original", None), link.__cause__, link.__context__, *link.args]


def message_of(body: bytes) -> str | None:
    """What Kubo's JSON error says, or None where `body` is no such thing."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    message = answer.get("Message") if isinstance(answer, dict) else None
    return message if isinstance(message, str) else None


def reject_refusal(response: http.client.HTTPResponse, body: bytes) -> None:
    """Raise what an answer says that is not 200, or that is none of Kubo's; `body` is what a refusal came with."""
    if response.status != _OK:
        raise from_status(response.status, message_of(body))
    reject_html(response.headers.get("Content-Type", ""))


def reject_html(content_type: str) -> None:
    """Raise IntegrityError for a page made for people: a proxy, a portal, another server."""
    if content_type.lower().startswith("text/html"):
        raise IntegrityError("no Kubo RPC: it answered with a web page", reason="not_kubo")


def exactly(data: bytes, size: int) -> bytes:
    """`data`, which must be `size` bytes, or IntegrityError."""
    if len(data) != size:
        raise IntegrityError(f"the answer ended after {len(data)} of {size} bytes", reason="truncated")
    return data


def entries(answer: Any) -> list[tuple[str, str, int]]:
    """(name, CID, bytes) of each entry in what `files/ls` answered."""
    return [(string(entry, "Name"), string(entry, "Hash"), int(entry["Size"])) for entry in answer["Entries"] or ()]


def string(answer: Any, name: str) -> str:
    """The text under `name`; TypeError or KeyError where there is none."""
    return text(answer[name])


def text(value: Any) -> str:
    """`value`, which must be text, or TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def numbers(version: str) -> tuple[int, ...]:
    """What `version` counts as: (0, 44, 0) for `0.44.0-dev`, whatever a build adds to it; ValueError for what is no version."""
    begins = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    if begins is None:
        raise ValueError(f"no version: {version!r}")
    return tuple(int(part or 0) for part in begins.groups())


def dotted(version: tuple[int, ...]) -> str:
    """`version` for people."""
    return ".".join(map(str, version))
