"""One call as a plan sees it: everything resolved, nothing looked up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from cachekit.model import Codec, Key, Mode, Record

STREAMING: Final = "streaming"
"""What `judge` says of a stream that has just begun: nothing can be kept yet, and nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call, with everything resolved: `ttl` and the windows in seconds, tiers by name, fastest first.

    `judge` says why a value is not worth keeping, "" if it is; `changed`, that the key was built of something that is no
    longer so; `streamed`, that a Reply is wanted as a stream.
    """

    key: Key
    codec: Codec
    near: tuple[str, ...]
    far: tuple[str, ...]
    clock: Callable[[], int]
    mode: Mode = "on"
    ttl: float | None = None
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    cacheable: Callable[[Any], bool] | None = None
    tags: Callable[[], tuple[str, ...]] = tuple
    pin: bool = False
    leases: bool = True
    explain: Callable[[], str] = str
    streamed: bool = False
    changed: Callable[[], bool] = bool
    judge: Callable[[Any], str] | None = None


class Found(NamedTuple):
    """A record and the value that it decodes to."""

    record: Record
    value: Any
