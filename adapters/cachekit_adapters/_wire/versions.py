"""Which model a server has: asked of the server itself, at most once a minute, for `version="server"`."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from cachekit import Event, tell
from cachekit_adapters._wire.native import Server

LASTS: Final = 60.0
"""Seconds that what a server said of itself is taken for true, a failure to say it included."""


class Version(NamedTuple):
    """`text` goes into the identity, `about` beside the answer."""

    text: str
    about: dict[str, str]


class Versions:
    """What servers said of themselves, by the URL that was asked. One for each wrapped client."""

    def __init__(self, server: Server, name: str) -> None:
        self._server, self._name = server, name
        self._known: dict[str, tuple[float, Version | None]] = {}
        self._lock = threading.Lock()
        self._turn: asyncio.Lock | None = None

    @property
    def path(self) -> str:
        return self._server.info

    def of(self, url: str, ask: Callable[[str], Any]) -> Version | None:
        """The version at `url`, from `ask(url)`, a response. None, which is counted, where the server does not say."""
        with self._lock:
            if self._stale(url):
                self._note(url, _answered(ask, url))
        return self._told(url)

    async def aof(self, url: str, ask: Callable[[str], Awaitable[Any]]) -> Version | None:
        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:
            if self._stale(url):
                self._note(url, await _aanswered(ask, url))
        return self._told(url)

    def _stale(self, url: str) -> bool:
        known = self._known.get(url)
        return known is None or time.monotonic() - known[0] >= LASTS

    def _note(self, url: str, info: Any) -> None:
        text = self._server.version(info)
        self._known[url] = time.monotonic(), Version(text, self._server.about(info)) if text else None

    def _told(self, url: str) -> Version | None:
        version = self._known[url][1]
        if version is None:
            tell(Event("bypass", self._name, reason="unknown_version"))
        return version


def _answered(ask: Callable[[str], Any], url: str) -> Any:
    try:
        return _info(ask(url))
    except Exception:  # no answer, for whatever reason: the call goes on uncached, and is counted as that
        return None


async def _aanswered(ask: Callable[[str], Awaitable[Any]], url: str) -> Any:
    try:
        return _info(await ask(url))
    except Exception:  # no answer, for whatever reason: the call goes on uncached, and is counted as that
        return None


def _info(response: Any) -> Any:
    return json.loads(response.content) if response.status_code == 200 else None
