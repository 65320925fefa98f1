"""The calls of Kubo's RPC that cachekit makes.

Those a lookup waits for go over a line of our own (`http`), files over `streams`, all the rest through `client`.
"""

from __future__ import annotations

import io
import json
import math
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from cachekit.errors import IntegrityError, TierError, TierUnavailable
from cachekit.ipfs.content.cids import CHUNK_BYTES, LINKS, encode_car
from cachekit.ipfs.kubo.answers import (
    OLDEST,
    NotThere,
    boundary,
    dotted,
    entries,
    exactly,
    numbers,
    string,
    text,
)
from cachekit.ipfs.kubo.client import Connections, authorization
from cachekit.ipfs.kubo.http import Address, Dialer
from cachekit.ipfs.kubo.streams import download, upload

_NAMED_ADD: Final = (0, 38)
_VERSION_SECONDS: Final = 2.0
_FEWEST_SECONDS: Final = 0.1
_BLOCK_BYTES: Final = 2 << 20
_JSON_BYTES: Final = 16 << 20
_ALREADY: Final = "already has entry by that name"
_T = TypeVar("_T")
_FILE: Final = {
    "cid-version": "1",
    "raw-leaves": "true",
    "chunker": f"size-{CHUNK_BYTES}",
    "hash": "sha2-256",
    "max-file-links": str(LINKS),
    "cid-base": "base32",
    "trickle": "false",
    "inline": "false",
    "nocopy": "false",
    "only-hash": "false",
    "wrap-with-directory": "false",
    "preserve-mode": "false",
    "preserve-mtime": "false",
    "progress": "false",
}
"""A daemon's own configuration decides whatever is not said."""


class KuboTransport:
    """The RPC at the multiaddr `api`. CIDs are text (base32 CIDv1); paths are MFS paths.

    `auth` is `user:password`, or a bearer token, with or without the words `basic:` and `bearer:`. `find` says where the
    daemon is by now, when its version is asked. One connection per thread and process, opened on first use. UsageError
    for an address or credential that cannot be meant. `peers`: files are had from those that the daemon knows, too.

    Every call is over within its `timeout`, in seconds, whatever the other side does; `add_stream` and `cat_stream`
    have no deadline: only `idle` seconds in which nothing moves end them. All raise TierError and nothing else:
    TierUnavailable where nobody answered in time, IntegrityError where the answer is not what Kubo answers. "Not there"
    is None, not an error. Bytes that come back are NOT verified here: the caller compares them with the CID.
    """

    kind = "Kubo"
    writable = True

    def __init__(self, api: str, *, auth: str | None = None, find: Callable[[], str] | None = None) -> None:
        self.api = api
        self.peers = False
        self._find = find
        self.dialer = Dialer(Address.parse(api), authorization(auth))
        self._local = threading.local()
        self._version: tuple[int, ...] = ()

    def version(self) -> str:
        """Kubo's version, from where it is now. TierUnavailable `too_old` below `OLDEST`."""
        if self._find is not None:
            self._move(self._find())
        return self._checked_version(_VERSION_SECONDS)

    def block_get(self, cid: str, *, timeout: float, peers: bool = False) -> bytes | None:
        """The block of `cid` if this daemon has it; with `peers` it asks those that it knows, for as long as it may."""
        options = {"arg": cid, "offline": "false" if peers else "true"}
        return _or_none(lambda: self._bytes("block/get", options, timeout, _BLOCK_BYTES))

    def read(self, path: str, *, limit: int, timeout: float) -> bytes | None:
        """The MFS file at `path`; IntegrityError `oversized` where it is longer than `limit` bytes."""
        return _or_none(lambda: self._bytes("files/read", {"arg": path}, timeout, limit))

    def stat(self, path: str, *, timeout: float) -> str | None:
        """The CID of what is at `path`. Never ask for `/`: it visits everybody's directories."""
        options = {"arg": path, "hash": "true", "cid-base": "base32"}
        return _or_none(lambda: string(self.ask("files/stat", options, timeout), "Hash"))

    def list(self, path: str, *, timeout: float) -> list[tuple[str, str, int]] | None:
        """(name, CID, bytes) of each entry of a directory, as Kubo tells them: files of others may have a CIDv0."""
        options = {"arg": path, "long": "true", "cid-base": "base32"}
        return _or_none(lambda: entries(self.ask("files/ls", options, timeout)))

    def cat(self, cid: str, *, size: int, timeout: float, peers: bool = False) -> bytes | None:
        """The file of `cid`: exactly `size` bytes or IntegrityError, for Kubo ends a broken answer like a whole one."""
        options = {"arg": cid, "offline": "false" if peers else "true"}
        return _or_none(lambda: exactly(self._bytes("cat", options, timeout, size), size))

    def import_blocks(self, blocks: Sequence[tuple[bytes, bytes]], *, timeout: float) -> None:
        """Store (binary CID, block) pairs, unpinned, as one CAR."""
        if not blocks:
            return
        with self._client(timeout) as client:
            # With stats there is an answer to hold Kubo to; without, success and a failure half-way look alike.
            options = {"pin-roots": "false", "stats": "true"}
            answer = client.dag.imprt(io.BytesIO(encode_car(blocks)), opts=options).as_json()
            if answer["Stats"]["BlockCount"] != len(blocks):
                raise IntegrityError("Kubo imported another number of blocks than it was sent", reason="not_kubo")

    def add(self, data: bytes, *, timeout: float) -> str:
        """Store `data` unpinned as a file, and give its CID: the one `cids.file_cid` computes."""
        with self._client(timeout) as client:
            return text(client.add_bytes(data, opts={**_FILE, "pin": "false"}))

    def add_stream(
        self, pieces: Iterable[bytes], *, size: int, pin_name: str | None, idle: float, until: float = math.inf
    ) -> str:
        """Store `size` bytes as a file, pinned under a name unless that is None; its CID is what `cids.FileCid` computes.

        `until`, an instant of `time.monotonic`, ends every wait. What `pieces` raises passes through, and nothing is
        stored.
        """
        self.known_version(min(_VERSION_SECONDS, until - time.monotonic()))
        pinning = {"pin": "false"} if pin_name is None else {"pin": "true", "pin-name": pin_name}
        answer = upload(self.dialer, "add", {**_FILE, **pinning}, pieces, size=size, idle=idle, until=until)
        with boundary():
            cid = string(json.loads(answer), "Hash")
        # Older ones overlook the name, and pin without it.
        if pin_name is not None and self._version < _NAMED_ADD:
            self.pin(cid, pin_name, timeout=min(idle, until - time.monotonic()))
        return cid

    def cat_stream(self, cid: str, *, offset: int, length: int, idle: float) -> Generator[bytes, None, None]:
        """`length` bytes of a file from `offset` on, 1 MiB at a time; TierError `not_found`, or fewer is `truncated`."""
        options = {
            "arg": cid,
            "offset": str(offset),
            "length": str(length),
            "offline": "false" if self.peers else "true",
        }
        return download(self.dialer, "cat", options, length=length, idle=idle)

    def write(self, path: str, data: bytes, *, timeout: float) -> None:
        """Make `data` the MFS file at `path`, and flush; directories are made as needed."""
        with self._client(timeout) as client:
            options = {"parents": "true", "flush": "true", "cid-version": "1", "raw-leaves": "true"}
            client.files.write(path, io.BytesIO(data), create=True, truncate=True, opts=options)

    def remove(self, path: str, *, timeout: float) -> None:
        """Remove what is at the MFS `path`, with all below it; nothing there is fine."""
        with suppress(NotThere), self._client(timeout) as client:
            client.files.rm(path, recursive=True, opts={"force": "true"})

    def pin(self, cid: str, name: str, *, timeout: float) -> None:
        """Pin what this daemon has under `cid`, recursively; TierError `not_found` where a part is missing."""
        with self._client(timeout) as client:
            # Offline: a pin that has to search the network hangs, which would look like a dead daemon.
            client.pin.add(cid, offline=True, opts={"name": name})

    def pinned(self, cid: str, *, timeout: float) -> str | None:
        """The name of the pin of `cid`, '' for one without; None where only other pins may keep it."""
        # Not both at once: of what is not pinned `all` looks for a way from every pin there is.
        name = self._pin_name(cid, "recursive", timeout)
        return self._pin_name(cid, "direct", timeout) if name is None else name

    def link(self, cid: str, path: str, *, timeout: float) -> None:
        """Make what this daemon has under `cid` the MFS file at `path`, unless something is there; TierError `not_found`."""
        try:
            with self._client(timeout) as client:
                client.files.cp(f"/ipfs/{cid}", path, opts={"parents": "true", "offline": "true"})
        except TierError as error:
            if _ALREADY not in str(error):
                raise

    def names(self, path: str, *, timeout: float) -> Sequence[str]:
        """What stands in an MFS directory; nothing where there is none."""
        listed = _or_none(lambda: self.ask("files/ls", {"arg": path}, timeout))
        with boundary():
            return [string(entry, "Name") for entry in (listed or {}).get("Entries") or ()]

    def unpin(self, cid: str, *, timeout: float) -> None:
        """Undo `pin`; not pinned is fine."""
        with suppress(NotThere), self._client(timeout) as client:
            client.pin.rm(cid)

    def collect(self, *, timeout: float) -> int:
        """0: what nobody needs is the daemon's own business."""
        del timeout
        return 0

    def close(self) -> None:
        """Drop the connections, those of other threads once their call is over. A later call opens new ones."""
        self._local = threading.local()

    def _move(self, api: str) -> None:
        if api != self.api:
            with boundary():
                self.dialer.address = Address.parse(api)
            self.api, self._version = api, ()
            self.close()

    # -- the hot calls ------------------------------------------------------------------------------

    def _bytes(self, call: str, options: Mapping[str, str], timeout: float, limit: int) -> bytes:
        return self._mine().kept.post(call, options, timeout=timeout, limit=limit)

    def ask(self, call: str, options: Mapping[str, str], timeout: float) -> Any:
        """What another call answers, read as JSON, of which an empty answer is None."""
        with boundary():
            body = self._bytes(call, options, timeout, _JSON_BYTES)
            return json.loads(body) if body.strip() else None

    def _pin_name(self, cid: str, kind: str, timeout: float) -> str | None:
        options = {"arg": cid, "type": kind, "names": "true"}
        return _or_none(lambda: text(next(iter(self.ask("pin/ls", options, timeout)["Keys"].values())).get("Name", "")))

    def _checked_version(self, timeout: float) -> str:
        with boundary():
            version = string(self.ask("version", {}, timeout), "Version")
            self._version = numbers(version)
        if self._version < OLDEST:
            message = f"Kubo {version} is too old; cachekit needs {dotted(OLDEST)} or newer"
            raise TierUnavailable(message, reason="too_old")
        return version

    def known_version(self, timeout: float = _VERSION_SECONDS) -> tuple[int, ...]:
        """Its version, asked once."""
        # Kubo ignores options it does not know, so a call that did not fail proves nothing about an old one.
        if not self._version >= OLDEST:
            self._checked_version(timeout)
        return self._version

    def _mine(self) -> Connections:
        mine: Connections | None = getattr(self._local, "mine", None)
        # After a fork both processes would read each other's answers from one connection.
        if mine is None or mine.pid != os.getpid():
            mine = self._local.mine = Connections(self.dialer)
        return mine

    # -- through ipfshttpclient ---------------------------------------------------------------------

    @contextmanager
    def _client(self, timeout: float) -> Iterator[Any]:
        with boundary():
            end = time.monotonic() + timeout
            self.known_version(timeout)
            mine, left = self._mine(), end - time.monotonic()
            mine.prepare()
            # Importing the client takes its time, once: that is not the daemon's fault.
            left = max(end - time.monotonic(), min(left, _FEWEST_SECONDS))
            with mine.using(left, _JSON_BYTES) as client:
                yield client


def _or_none(call: Callable[[], _T]) -> _T | None:
    with boundary():
        try:
            return call()
        except NotThere:
            return None
