"""The calls of Kubo's RPC that concern other daemons: who is connected, what a topic carries, and what a name names."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import math
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from cachekit.errors import TierError, TierUnavailable
from cachekit.ipfs.kubo.answers import boundary, dotted, reject_refusal, string, text
from cachekit.ipfs.kubo.http import Connection, allowed
from cachekit.ipfs.kubo.streams import upload
from cachekit.ipfs.kubo.transport import KuboTransport

PUBSUB_SINCE: Final = (0, 43)
"""Below it a peer can exhaust a daemon's memory through pubsub (CVE-2026-46679)."""
MOST_BYTES: Final = 512 << 10
"""Of one message; gossipsub itself carries 1 MiB."""
_LINE_BYTES: Final = 2 * MOST_BYTES
_DIAL_SECONDS: Final = 1.0
_EXISTS: Final = "already exists"


class Network:
    """What the daemon behind `transport` knows of others. Every call raises TierError, as those of the transport."""

    def __init__(self, transport: KuboTransport) -> None:
        self.transport = transport

    def has_topics(self, timeout: float) -> bool:
        """Whether the daemon is recent enough for topics to be safe, and has them turned on."""
        if self.transport.known_version(timeout) < PUBSUB_SINCE:
            return False
        try:
            self.transport.ask("pubsub/ls", {}, timeout)
        except TierUnavailable:
            raise
        except TierError:  # "experimental pubsub feature not enabled"
            return False
        return True

    def subscribe(self, topic: str, timeout: float) -> Subscription:
        """Hear what is said under `topic`, from the moment that this returns."""
        return Subscription(self.transport, topic, timeout)

    def publish(self, topic: str, data: bytes, timeout: float) -> None:
        """Say `data` under `topic` to all who hear it now, ourselves included."""
        until = time.monotonic() + timeout
        options = {"arg": _multibase(topic)}
        upload(self.transport.dialer, "pubsub/pub", options, [data], size=len(data), idle=timeout, until=until)

    def connect(self, address: str, timeout: float) -> None:
        """Connect with the daemon at a multiaddr that ends in `/p2p/ID`, now and whenever the connection is lost."""
        self.transport.ask("swarm/peering/add", {"arg": address}, timeout)
        self.transport.ask("swarm/connect", {"arg": address}, timeout)

    def reach(self, addresses: Iterable[str], own: str, timeout: float) -> None:
        """Connect with those of the daemons that are not, `own` left out, as far as there is time; who is away is passed over."""
        end, there = time.monotonic() + timeout, {*self.peers(timeout), own}
        for address in addresses:
            peer, left = address.rpartition("/p2p/")[2], end - time.monotonic()
            if peer not in there and left > 0:
                with contextlib.suppress(TierError):  # away, or behind a wall: asked again in a while
                    self.connect(address, min(_DIAL_SECONDS, left))
                    there.add(peer)

    def peers(self, timeout: float) -> set[str]:
        """The ids of all connected daemons."""
        answer = self.transport.ask("swarm/peers", {}, timeout)
        with boundary():
            return {string(peer, "Peer") for peer in answer["Peers"] or ()}

    def identity(self, timeout: float) -> tuple[str, list[str]]:
        """The daemon's own id, and the multiaddrs at which it listens, with that id."""
        answer = self.transport.ask("id", {}, timeout)
        with boundary():
            return string(answer, "ID"), [text(address) for address in answer["Addresses"] or ()]

    def name_of(self, key: str, timeout: float) -> str:
        """The IPNS name of the daemon's key that is called `key`, made the first time."""
        until = time.monotonic() + timeout
        with boundary():
            try:
                return string(self.transport.ask("key/gen", {"arg": key, "type": "ed25519"}, timeout), "Id")
            except TierError as error:
                if _EXISTS not in str(error):
                    raise
            known = self.transport.ask("key/list", {}, until - time.monotonic())["Keys"]
            return next(string(one, "Id") for one in known if one["Name"] == key)

    def point(self, key: str, cid: str, timeout: float) -> None:
        """Have the name of `key` name `cid`."""
        options = {"arg": f"/ipfs/{cid}", "key": key, "allow-offline": "true", "resolve": "false", "lifetime": "720h"}
        self.transport.ask("name/publish", {**options, "ttl": "1s"}, timeout)

    def pointed(self, name: str, timeout: float) -> str | None:
        """The CID that a name names, as far as anybody knows who can be asked; None where nobody does."""
        options = {"arg": name, "nocache": "true", "recursive": "false", "dht-timeout": f"{math.ceil(timeout)}s"}
        try:
            path = string(self.transport.ask("name/resolve", options, timeout), "Path")
        except TierError as error:
            if error.reason == "http_500" or error.reason == "not_found":
                return None
            raise
        return path.removeprefix("/ipfs/") if path.startswith("/ipfs/") else None


class Subscription:
    """Iterates over (sender's peer id, data); ends when it was closed. Raises TierError, `timeout` after `idle` s of silence."""

    def __init__(self, transport: KuboTransport, topic: str, timeout: float, idle: float = 60.0) -> None:
        self._idle = idle
        self._closed = False
        self._connection = Connection(transport.dialer)
        self._socket: socket.socket | None = None
        with boundary():
            try:
                with allowed(timeout, _LINE_BYTES):
                    self._connection.begin("pubsub/sub", {"arg": _multibase(topic)}, {})
                    self._socket = self._connection.sock
                    self._response = self._connection.getresponse()
                reject_refusal(self._response, b"")
            except BaseException:
                self._connection.close()
                raise

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        with boundary(), contextlib.closing(self._connection):
            while not self._closed:
                try:
                    with allowed(self._idle, _LINE_BYTES):
                        line = self._response.readline(_LINE_BYTES)
                except (OSError, http.client.HTTPException):
                    if self._closed:
                        return
                    raise
                if not line:
                    return
                said = _said(line)
                if said is not None:
                    yield said

    def close(self) -> None:
        """End the iteration, from whatever thread."""
        self._closed = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _said(line: bytes) -> tuple[str, bytes] | None:
    message: Any = json.loads(line)
    data = text(message["data"])
    if not data.startswith("u") or len(data) > _LINE_BYTES:
        return None
    return string(message, "from"), base64.urlsafe_b64decode(data[1:] + "=" * (-len(data[1:]) % 4))


def _multibase(topic: str) -> str:
    return "u" + base64.urlsafe_b64encode(topic.encode()).decode("ascii").rstrip("=")


def too_old(version: tuple[int, ...]) -> str:
    """Why there are no topics on a daemon of this version, for `doctor`; '' where there may be."""
    if version >= PUBSUB_SINCE:
        return ""
    return f"Kubo {dotted(version)} must not have pubsub turned on (CVE-2026-46679); {dotted(PUBSUB_SINCE)} may"
