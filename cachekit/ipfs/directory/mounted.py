"""A directory of a mounted disk, read and written by several machines at once: the engine that needs no daemon.

What each writes is its own, a block or a file in its own directory. Shared are only listings, which are made anew from
what is there and looked at once more afterwards: so whoever wrote last has seen everybody.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit

from cachekit.errors import IntegrityError, TierError, TierUnavailable
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.cids import CHUNK_BYTES, FileCid, binary_cid, file_cid, raw_cid, text_of
from cachekit.ipfs.directory.collecting import Collection, all_below, all_directories
from cachekit.ipfs.directory.files import Files
from cachekit.ipfs.directory.layout import (
    BLOCK_BYTES,
    BLOCKS,
    LINKS,
    LISTING,
    LISTING_BYTES,
    MARK,
    PINS,
    STORE,
    TREE,
    Entry,
    Where,
    decode,
    encode,
    names_of,
    sharded,
)
from cachekit.ipfs.directory.patience import Patience
from cachekit.ipfs.directory.stored import Stored, late

_LEVELS: Final = 2
"""How far up a change is told: a writer's directory, and the namespace's."""
_T = TypeVar("_T")


class Mounted(Stored):
    """The directory at `api`, a `file:` URL; it must be there. With `founding` an empty one is made a store.

    As `content.engine.Engine` says. A call that the file system does not answer in time goes on by itself.
    """

    kind = "directory"
    writable = True

    def __init__(self, api: str, *, founding: bool = True) -> None:
        self.api = api
        self._files = Files(_path_of(api))
        self._founding = founding
        self._patience = Patience()

    def _get(self, where: Where, limit: int, timeout: float) -> bytes | None:
        def got() -> bytes | None:
            data = self._files.read(where, limit, use=where[0] == BLOCKS)
            if data is None:
                self._expect()
                # The first one of all is the mark itself, which may just have been made.
                data = self._files.read(where, limit) if where == STORE else None
            return data

        return self._patience.wait(got, timeout)

    def import_blocks(self, blocks: Sequence[tuple[bytes, bytes]], *, timeout: float) -> None:
        """Store (binary CID, block) pairs, each forced to the disk; IntegrityError for a block under another's CID."""

        def stored(go_on: Callable[[], None]) -> None:
            lacking = list[tuple[Where, bytes]]()
            for cid, block in blocks:
                go_on()
                where = sharded(BLOCKS, text_of(cid))
                if not self._has(cid, where, block):
                    lacking.append((where, block))
            if lacking:
                self._expect()
                self._files.put_all(list(dict(lacking).items()), go_on)

        if blocks:
            self._within(timeout, stored)

    def add(self, data: bytes, *, timeout: float) -> str:
        """Store `data` unpinned as a file, and give its CID."""
        until = time.monotonic() + timeout
        return self.add_stream([data], size=len(data), pin_name=None, idle=timeout, until=until)

    def add_stream(
        self, pieces: Iterable[bytes], *, size: int, pin_name: str | None, idle: float, until: float = math.inf
    ) -> str:
        """Store `size` bytes as a file, pinned under a name unless that is None; what `pieces` raises passes through."""
        nodes = list[tuple[bytes, bytes]]()
        made, sent = FileCid(lambda cid, block: nodes.append((cid, block))), 0
        for leaf in _leaves(pieces):
            sent += len(leaf)
            made.update(leaf)
            nodes.append((binary_cid(raw_cid(leaf)), leaf))
            self._emptied(nodes, min(idle, until - time.monotonic()))
        if sent != size:
            raise IntegrityError(f"the pieces were {sent} bytes, not {size}", reason="changed")
        cid = made.digest()
        self._emptied(nodes, min(idle, until - time.monotonic()))
        if pin_name is not None:
            self.pin(cid, pin_name, timeout=min(idle, until - time.monotonic()))
        return cid

    def write(self, path: str, data: bytes, *, timeout: float) -> None:
        """Make `data` the file at `path`; it is listed when it stands on the disk."""
        names = names_of(path)

        def written(go_on: Callable[[], None]) -> None:
            self._expect()
            self._files.put((TREE, *names), data)
            self._list_anew(names, go_on)

        self._within(timeout, written)

    def remove(self, path: str, *, timeout: float) -> None:
        """Remove what is at `path`, links too, with all below it; nothing there is fine."""
        names = names_of(path)

        def removed(go_on: Callable[[], None]) -> None:
            self._expect()
            self._files.remove((LINKS, *names))
            if self._files.found((TREE, *names)):
                self._files.remove((TREE, *names))
                self._list_anew(names, go_on)

        self._within(timeout, removed)

    def pin(self, cid: str, name: str, *, timeout: float) -> None:
        """Keep what is here under `cid`, with all below it; TierError `not_found` where a part is missing."""

        def pinned(go_on: Callable[[], None]) -> None:
            for part in all_below(cid, self._block):
                go_on()
                found = self._files.found(sharded(BLOCKS, part))
                if found is None:
                    raise TierError(f"the store lacks {part}", reason="not_found")
                self._files.use(sharded(BLOCKS, part), found.st_size)
            self._files.put(sharded(PINS, cid), name.encode())

        self._within(timeout, pinned)

    def unpin(self, cid: str, *, timeout: float) -> None:
        """Undo `pin`; not pinned is fine."""
        self._within(timeout, lambda _go_on: self._files.remove(sharded(PINS, cid)))

    def link(self, cid: str, path: str, *, timeout: float) -> None:
        """Keep what is here under `cid` while something is at `path`; TierError `not_found`."""
        where = (LINKS, *names_of(path))

        def linked(_go_on: Callable[[], None]) -> None:
            if self._files.found(sharded(BLOCKS, cid)) is None:
                raise TierError(f"the store lacks {cid}", reason="not_found")
            if self._files.found(where) is None:
                self._files.put(where, cid.encode())

        self._within(timeout, linked)

    def names(self, path: str, *, timeout: float) -> Sequence[str]:
        """The names in a directory, those of links too."""
        names = names_of(path)

        def found(_go_on: Callable[[], None]) -> list[str]:
            both = {name for kind in (TREE, LINKS) for name, _ in self._files.entries((kind, *names))}
            return sorted(both - {LISTING})

        return self._within(timeout, found)

    def collect(self, *, timeout: float) -> int:
        """Remove the blocks that nobody used for 30 days, unless a pin or a link keeps them; how many."""

        def collected(go_on: Callable[[], None]) -> int:
            self._expect()
            # Who was killed between listing and looking once more may have left another's news out.
            for _, *names in reversed(list(all_directories(self._files, (TREE,)))):
                self._list_one(tuple(names), "", go_on)
            return Collection(self._files, self._block).run(time.time(), go_on)

        return self._within(timeout, collected)

    def close(self) -> None:
        """Nothing is open between two calls."""

    def _within(self, timeout: float, work: Callable[[Callable[[], None]], _T]) -> _T:
        """`work`, which is given what raises when the time is over."""
        deadline = Deadline(timeout)

        def go_on() -> None:
            if not deadline.rest:
                raise late()

        return self._patience.wait(lambda: work(go_on), timeout)

    def _expect(self) -> None:
        """TierUnavailable where this is no store and cannot be made one: a mount point without its mount, as a rule."""
        if self._files.found(STORE) is not None:
            return
        root = self._files.root
        if not root.is_dir():
            raise TierUnavailable(f"{root} is not there: is it mounted?", reason="no_store")
        names = {name for name, _ in self._files.entries(())} - {"lost+found"}
        if STORE[0] in names:  # just founded by somebody else
            return
        if names or not self._founding:
            why = "other things are in it" if names else "nobody has written there yet"
            raise TierUnavailable(f"{root} is no store of cachekit's: {why}", reason="no_store")
        try:
            self._files.put(STORE, MARK)
        except TierError as error:
            message = f"{root} is no store of cachekit's, and cannot be made one: {error}"
            raise TierUnavailable(message, reason="no_store") from error

    def _block(self, cid: str) -> bytes | None:
        return self._files.read(sharded(BLOCKS, cid), BLOCK_BYTES)

    def _has(self, cid: bytes, where: Where, block: bytes) -> bool:
        if hashlib.sha256(block).digest() != cid[-32:]:
            raise IntegrityError("a block under another block's CID", reason="wrong_bytes")
        # Read, for what a broken disk made of it would keep the right bytes out for ever.
        return self._files.use(where, len(block)) and self._files.read(where, len(block)) == block

    def _emptied(self, nodes: list[tuple[bytes, bytes]], timeout: float) -> None:
        self.import_blocks(nodes, timeout=timeout)
        nodes.clear()

    def _list_anew(self, names: Where, go_on: Callable[[], None]) -> None:
        """Tell the directories above what changed at `names`."""
        for level in range(1, len(names) + 1):
            above, name = names[:-level], names[-level]
            # Higher up only the name counts: what changed need not be known to every other namespace's readers.
            if level <= _LEVELS or name not in (decode(self._listed(above) or b"") or {}):
                self._list_one(above, name, go_on)

    def _list_one(self, names: Where, changed: str, go_on: Callable[[], None]) -> None:
        while True:
            go_on()
            listed = self._listed(names)
            known = decode(listed or b"") or {}
            # Within one tick of the disk's clock a file of the same size looks the same.
            known.pop(changed, None)
            made = encode(dict(self._entries(names, known)))
            if made == listed:
                return
            # And once more from the start: another machine may have listed in between, without what we just wrote.
            self._files.put((TREE, *names, LISTING), made)

    def _listed(self, names: Where) -> bytes | None:
        try:
            return self._files.read((TREE, *names, LISTING), LISTING_BYTES)
        except IntegrityError:  # no listing: made anew
            return None

    def _entries(self, names: Where, known: dict[str, Entry]) -> Iterator[tuple[str, Entry]]:
        for name, found in self._files.entries((TREE, *names)):
            before = known.get(name)
            if stat.S_ISDIR(found.st_mode):
                listing = self._listed((*names, name))
                if listing is not None:
                    yield name, Entry(raw_cid(listing), 0, 0)
            elif before and (before.size, before.changed) == (found.st_size, found.st_mtime_ns):
                yield name, before
            elif name != LISTING and found.st_size <= BLOCK_BYTES:
                data = self._files.read((TREE, *names, name), BLOCK_BYTES)
                if data is not None:
                    yield name, Entry(file_cid(data), len(data), found.st_mtime_ns)


def _path_of(api: str) -> Path:
    path = unquote(urlsplit(api).path)
    return Path(path[1:] if os.name == "nt" and path[2:3] == ":" else path)


def _leaves(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces, cut into leaves of 1 MiB; one at least."""
    rest = bytearray()
    for piece in pieces:
        rest += piece
        # A full one waits for the byte after it: a file of exactly 1 MiB has no second, empty leaf.
        while len(rest) > CHUNK_BYTES:
            yield bytes(rest[:CHUNK_BYTES])
            del rest[:CHUNK_BYTES]
    yield bytes(rest)
