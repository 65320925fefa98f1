"""Files of any size in IPFS: added, named by their CID, fetched again; in constant memory, and verified both ways."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from cachekit.errors import IntegrityError, TierError, TierFull
from cachekit.files.digests import Signature, signature
from cachekit.files.locks import NO_ROOM, has_locks, try_lock, unlock
from cachekit.files.parallel import at_once
from cachekit.ipfs.content.chunks import PLAIN_BYTES, ChunkCipher, pieces, sealed_size
from cachekit.ipfs.content.cids import CHUNK_BYTES, FileCid
from cachekit.ipfs.content.engine import Engine
from cachekit.ipfs.content.unixfs import BlockOf, leaves
from cachekit.ipfs.content.unixfs import pieces as file_pieces

IDLE_SECONDS: Final = 10.0
_BUSY_SECONDS: Final = 0.02
_WRITE_BYTES: Final = 64 << 10


class Remote(NamedTuple):
    """A stored file: `size` and `sha256` (hex) are those of the plain file, `cid` names what is stored."""

    name: str
    cid: str
    size: int
    sha256: str


class Transfer:
    """Files to and from the daemon behind `transport`, sealed with `cipher`; None stores them as anybody can read them.

    `idle` is for how many seconds nothing may move; there is no other limit. Only what the daemon itself has is
    fetched. `progress` hears of bytes of the file that are done, in the thread that did them; what it raises ends the
    work. Raises TierError; IntegrityError for what does not verify.
    """

    def __init__(self, transport: Engine, cipher: ChunkCipher | None, *, idle: float = IDLE_SECONDS) -> None:
        self._transport = transport
        self._cipher = cipher
        self._idle = idle
        self._width = PLAIN_BYTES if cipher else CHUNK_BYTES

    def cid_of(self, path: Path, *, progress: Callable[[int], None] = lambda _done: None) -> str:
        """The CID that `add` would give; nobody is asked."""
        with _local_errors(), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            cid = FileCid()
            for _piece in self._fed(file, size, cid, progress):
                pass
            return cid.digest()

    def pieces(self, path: Path, *, progress: Callable[[int], None] = lambda _done: None) -> Iterator[bytes]:
        """The file as it is stored, leaf by leaf."""
        with _local_errors(), path.open("rb") as file:
            yield from self._fed(file, os.fstat(file.fileno()).st_size, FileCid(), progress)

    def bring(
        self,
        remote: Remote,
        path: Path,
        block_of: BlockOf,
        *,
        progress: Callable[[int], None] = lambda _done: None,
    ) -> None:
        """Make `path` the whole file out of blocks that are at hand; its SHA-256 is for the caller to compare."""
        stored = enumerate(file_pieces(remote.cid, block_of, limit=self._stored_size(remote.size)))
        with _local_errors(), path.open("xb") as file:
            for index, piece in stored:
                plain = self._cipher.opened(index, piece, remote.size) if self._cipher else piece
                _write(file, plain)
                progress(len(plain))

    def add(
        self,
        path: Path,
        name: str,
        *,
        pin: bool,
        progress: Callable[[int], None] = lambda _done: None,
        until: float = math.inf,
    ) -> str:
        """Store a file, pinned under `name` in the same call if it is to be; the CID is computed here, and compared.

        `until`, an instant of `time.monotonic`, ends every wait.
        """
        with _local_errors(), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            cid = FileCid()
            answered = self._transport.add_stream(
                self._fed(file, size, cid, progress),
                size=self._stored_size(size),
                pin_name=name if pin else None,
                idle=self._idle,
                until=until,
            )
        computed = cid.digest()
        if answered != computed:
            raise IntegrityError("the daemon stored other bytes than it was given", reason="wrong_cid")
        return computed

    def fetch(
        self, remote: Remote, partial: Path, *, progress: Callable[[int], None] = lambda _done: None
    ) -> Signature:
        """Make `partial` the whole file, on disk for good; whole chunks that it already has are not fetched again.

        Answers the signature under which its bytes are the right ones.

        One caller at a time for one `partial`; the others get TierError `busy`. After an error it holds verified
        chunks only, to be resumed; nothing at all where the file as a whole is another one.
        """
        with _local_errors(), _opened(partial) as file:
            digest = hashlib.sha256()
            done = _resumed(file, remote.size, self._width, digest)
            progress(done)
            if done < remote.size or not remote.size:
                with contextlib.closing(self._chunks(remote, done // self._width)) as chunks:
                    for chunk in chunks:
                        _write(file, chunk)
                        digest.update(chunk)
                        progress(len(chunk))
            if digest.hexdigest() != remote.sha256:
                file.truncate(0)
                raise IntegrityError("the fetched file is another one than was stored", reason="wrong_bytes")
            file.flush()
            os.fsync(file.fileno())
            return signature(os.fstat(file.fileno()))

    def fetch_all(
        self,
        files: Sequence[Remote],
        partial_of: Callable[[Remote], Path],
        publish: Callable[[Remote, Path, Signature], None],
        *,
        have: Callable[[Remote], bool] = lambda _remote: False,
        workers: int = 4,
        progress: Callable[[Remote, int], None] = lambda _remote, _done: None,
    ) -> None:
        """Fetch several files at once; `publish` is called, in the thread that fetched it, for each that is whole,
        with what `fetch` answered. One that somebody else fetches is waited for, until `have` says that it is here.

        The first error stops the others at their next chunk, and is raised when all have stopped.
        """

        def one(remote: Remote, go_on: Callable[[], None]) -> None:
            def passed(done: int) -> None:
                go_on()
                progress(remote, done)

            while not have(remote):
                try:
                    partial = partial_of(remote)
                    known = self.fetch(remote, partial, progress=passed)
                    with _local_errors():
                        return publish(remote, partial, known)
                except TierError as error:
                    # Who was a moment faster has moved the partial away.
                    if error.reason != "busy" and not have(remote):
                        raise
                    go_on()
                    time.sleep(_BUSY_SECONDS)

        at_once(one, files, name="cachekit-fetch", workers=workers)

    def _chunks(self, remote: Remote, first: int) -> Generator[bytes, None, None]:
        """The plain chunks of a file from number `first` on, each verified as it comes."""
        at = first * CHUNK_BYTES
        # What is sealed verifies by itself; the nodes above it need not be asked for.
        nodes = leaves(remote.cid, lambda cid: self._transport.block_get(cid, timeout=self._idle))
        digests = islice(nodes, first, None)
        length = self._stored_size(remote.size) - at
        with contextlib.closing(
            self._transport.cat_stream(remote.cid, offset=at, length=length, idle=self._idle)
        ) as stored:
            for index, piece in enumerate(stored, first):
                if self._cipher is not None:
                    yield self._cipher.opened(index, piece, remote.size)
                elif hashlib.sha256(piece).digest() == next(digests, b""):
                    yield piece
                else:
                    raise IntegrityError("the daemon gave other bytes than it was asked for", reason="wrong_bytes")
        if self._cipher is None and remote.size and next(digests, b""):
            raise IntegrityError(f"the file has more than the {remote.size} bytes it should have", reason="oversized")

    def _stored_size(self, size: int) -> int:
        return sealed_size(size) if self._cipher else size

    def _fed(self, file: BinaryIO, size: int, cid: FileCid, progress: Callable[[int], None]) -> Iterator[bytes]:
        """The file as it is stored, piece by piece; each goes to `cid` as well."""
        left = size
        for piece in self._cipher.sealed(file, size) if self._cipher else pieces(file, size, CHUNK_BYTES):
            yield piece
            cid.update(piece)
            done = min(left, len(piece))
            left -= done
            progress(done)


def _write(file: BinaryIO, chunk: bytes) -> None:
    # Linux copies a whole MiB at once into the large folios of an aligned file, at a seventh of the usual speed.
    view = memoryview(chunk)
    for at in range(0, len(view), _WRITE_BYTES):
        file.write(view[at : at + _WRITE_BYTES])


@contextlib.contextmanager
def _opened(partial: Path) -> Iterator[BinaryIO]:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(partial, flags, 0o600), "r+b") as file:
        # Two who write one partial would leave holes behind each other, and one of them publish it.
        free = not has_locks() or try_lock(file.fileno())
        # Published while we came: what is open here is no partial any more, and must not be cut.
        if not free or not os.path.samestat(os.fstat(file.fileno()), partial.stat()):
            raise TierError(f"somebody else fetches {partial.name}", reason="busy")
        try:
            yield file
        finally:
            # Said aloud: a child forked meanwhile has the descriptor too, and would keep the lock.
            unlock(file.fileno())


def _resumed(file: BinaryIO, size: int, width: int, digest: Any) -> int:
    """Cut `file` to whole chunks, and give `digest` what is left; how many bytes that is."""
    length = os.fstat(file.fileno()).st_size
    whole = length if length == size else length // width * width if length < size else 0
    file.truncate(whole)
    while piece := file.read(CHUNK_BYTES):
        digest.update(piece)
    return whole


@contextlib.contextmanager
def _local_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise TierFull(f"no room for a file: {error}") from error
        raise TierError(f"a file could not be read or written: {error}", reason="file") from error
