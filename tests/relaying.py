"""A relay in front of a real Kubo, which fails the n-th request that it is asked to pass on, once, in one of several ways."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from faults import Exchange, StandIn, serving

_OWN: Final = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}
_MESSAGE: Final = {"Message": "datastore is closed", "Code": 0, "Type": "error"}


class _Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    chunked: bool


class Relay:
    """Lets request number `at` fail (0: none), or the first that says `at`.

    `lines` are those that were asked, `failed` is the one that failed.
    """

    def __init__(self, api: str, at: int | str, fail: Callable[[Relay, Exchange], bool]) -> None:
        self.api = ""
        self.lines: list[str] = []
        self.failed = ""
        self._host = api.split("/")[2]
        self._port = int(api.split("/")[4])
        self._at = at
        self._fail = fail
        self._lock = threading.Lock()
        self._gone = False
        self._server: StandIn | None = None

    def __call__(self, exchange: Exchange) -> bool:
        with self._lock:
            self.lines.append(exchange.line)
            fails = not self.failed and self._is_meant(exchange.line)
            if fails:
                self.failed = exchange.line.split()[1].removeprefix("/api/v0/")
        if self._gone:
            return exchange.reset()
        return self._fail(self, exchange) if fails else _told(exchange, self.asked(exchange))

    def _is_meant(self, line: str) -> bool:
        return self._at in line if isinstance(self._at, str) else len(self.lines) == self._at

    def asked(self, exchange: Exchange) -> _Answer:
        """What Kubo answers."""
        with contextlib.closing(http.client.HTTPConnection(self._host, self._port, timeout=30)) as kubo:
            headers = {name: value for name, value in exchange.headers.items() if name not in _OWN}
            kubo.request("POST", exchange.line.split()[1], exchange.body, headers)
            answer = kubo.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _OWN}
            return _Answer(answer.status, kept, answer.read(), answer.getheader("transfer-encoding") == "chunked")

    def go(self) -> None:
        """From now on nobody is there."""
        assert self._server is not None
        self._gone = True
        self._server.leave()

    @contextlib.contextmanager
    def open(self) -> Iterator[Relay]:
        """Listens at `api`."""
        with serving(self) as self._server:
            self.api = self._server.api
            yield self


def _told(exchange: Exchange, answer: _Answer, part: int | None = None) -> bool:
    """The answer, or the first `part` bytes of its body, and then the end."""
    old = "HTTP/1.0" in exchange.line
    headers = dict(answer.headers)
    if answer.chunked and not old:
        headers["Transfer-Encoding"] = "chunked"
    elif not answer.chunked:
        headers["Content-Length"] = str(len(answer.body))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    body = answer.body[:part]
    if answer.chunked and not old:
        body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + (b"0\r\n\r\n" if part is None else b"")
    exchange.send(f"HTTP/1.1 {answer.status} X\r\n{head}\r\n".encode() + body)
    return part is None and not old


def _reset(_relay: Relay, exchange: Exchange) -> bool:
    """Before Kubo hears of it."""
    return exchange.reset()


def _lost(relay: Relay, exchange: Exchange) -> bool:
    """Kubo did it, and nobody learns that."""
    relay.asked(exchange)
    return exchange.reset()


def _gone(relay: Relay, exchange: Exchange) -> bool:
    """The daemon ends: this connection, all others, and new ones are refused."""
    relay.go()
    return exchange.reset()


def _error(_relay: Relay, exchange: Exchange) -> bool:
    return exchange.json(_MESSAGE, 500)


def _cut(relay: Relay, exchange: Exchange) -> bool:
    """Half of the answer, which ends like a whole one where that can be."""
    answer = relay.asked(exchange)
    return _told(exchange, answer, len(answer.body) // 2)


def _hang(_relay: Relay, exchange: Exchange) -> bool:
    return exchange.silence()


FAULTS: Final[dict[str, Callable[[Relay, Exchange], bool]]] = {
    "reset": _reset,
    "lost": _lost,
    "gone": _gone,
    "error": _error,
    "cut": _cut,
    "hang": _hang,
}


def relaying(api: str, at: int | str, kind: str) -> contextlib.AbstractContextManager[Relay]:
    """A relay to the daemon at `api`, whose request number `at`, or the first that says `at`, fails in the way of `kind`."""
    return Relay(api, at, FAULTS[kind]).open()
