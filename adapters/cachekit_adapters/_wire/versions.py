"""Which model a server has: asked of the server itself, at most once a minute, for `version="server"`."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from cachekit import CallOrigin, Failed
from cachekit_adapters._wire.flows import Flow

LASTS: Final = 60.0
"""Seconds that what a server said of itself is taken for true: a redeployed model misses at the latest after them."""

_NEVER: Final = (-math.inf, None)


class Version(NamedTuple):
    """`text` goes into the identity, `about` beside the answer."""

    text: str
    about: Mapping[str, str] = {}


class ServerInfo(NamedTuple):
    """What a server tells of itself at `path`: `version` changes with the model, "" where it is no such reply."""

    path: str
    version: Callable[[Any], str]
    about: Callable[[Any], dict[str, str]]

    def read(self, response: Any) -> Version | None:
        """The Version that a response tells, None where it tells none."""
        info = json.loads(response.content) if response.status_code == 200 else None
        text = self.version(info)
        return Version(text, self.about(info)) if text else None


class Versions:
    """What servers said of themselves, by their URLs. One for each wrapped client.

    `read` makes a Version of a reply; None, or an exception, where it tells none. `in_turn`: callers wait for each other,
    and that a server does not say is taken for true as long; else each of them asks.
    """

    def __init__(self, path: str, read: Callable[[Any], Version | None], *, is_async: bool, in_turn: bool) -> None:
        self._path, self._read = path, read
        self._turn: Any = (asyncio.Lock() if is_async else threading.Lock()) if in_turn else None
        self._kept: dict[str, tuple[float, Version | None]] = {}

    def known(self, server: str) -> Version | None:
        """What the server said, while it is believed."""
        at, version = self._kept.get(server, _NEVER)
        return version if time.monotonic() - at < LASTS else None

    def of(self, server: str, get: Callable[[str], Any]) -> Flow:
        """A flow: what `get(url)` tells of a server; None where it tells nothing: the call then goes uncached."""
        if self._turn is None:
            return self.known(server) or (yield from self._fresh(server, get))
        yield CallOrigin(origin=self._turn.acquire)
        try:
            at, version = self._kept.get(server, _NEVER)
            return version if time.monotonic() - at < LASTS else (yield from self._fresh(server, get))
        finally:
            self._turn.release()

    def _fresh(self, server: str, get: Callable[[str], Any]) -> Flow:
        answer = yield CallOrigin(Exception, functools.partial(get, server + self._path))
        try:
            version = None if isinstance(answer, Failed) else self._read(answer.value)
        except Exception:  # a reply of another kind, whatever is wrong with it, tells no version
            version = None
        if version is not None or self._turn is not None:
            self._kept[server] = time.monotonic(), version
        return version
