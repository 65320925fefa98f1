"""Files of any size in IPFS: added, named by their CID, fetched again; in constant memory, and verified both ways."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from cachekit.errors import CachekitError, IntegrityError, TierError, TierFull
from cachekit.files.digests import Signature, signature
from cachekit.files.locks import has_locks, try_lock, unlock
from cachekit.files.parallel import at_once
from cachekit.ipfs.content.chunks import ChunkCipher, Source, pieces, sealed_size
from cachekit.ipfs.content.cids import CHUNK_BYTES, FileCid
from cachekit.ipfs.kubo.transport import KuboTransport

IDLE_SECONDS: Final = 10.0
_BUSY_SECONDS: Final = 0.02
_WRITE_BYTES: Final = 64 << 10
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


class Blob(NamedTuple):
    """A stored file: `size` and `sha256` (hex) are those of the plain file, `cid` names what is stored."""

    name: str
    cid: str
    size: int
    sha256: str


class Blobs:
    """Files in the daemon behind `transport`, sealed with `cipher`; None stores them as anybody can read them.

    `idle` is for how many seconds nothing may move; there is no other limit. With `offline` only what the daemon has
    is fetched, not what it could get from others. `told` hears of bytes of the file that are done, in the thread that
    did them; what it raises ends the work. Raises TierError; IntegrityError for what does not verify.
    """

    def __init__(
        self, transport: KuboTransport, cipher: ChunkCipher | None, *, idle: float = IDLE_SECONDS, offline: bool = True
    ) -> None:
        self._transport = transport
        self._cipher = cipher
        self._idle = idle
        self._offline = offline
        self._counting = threading.Lock()
        self.fetched = 0
        """Bytes that came over the wire so far, as they are stored."""

    def cid_of(self, path: Path, *, told: Callable[[int], None] = lambda _done: None) -> str:
        """The CID that `add` would give; nobody is asked."""
        with _local_errors(), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            cid = FileCid()
            for _piece in _fed(self._stored(file, size), cid, size, told):
                pass
            return cid.digest()

    def add(self, path: Path, name: str, *, pin: bool, told: Callable[[int], None] = lambda _done: None) -> str:
        """Store a file, pinned under `name` in the same call if it is to be; the CID is computed here, and compared."""
        with _local_errors(), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            cid = FileCid()
            stored = sealed_size(size) if self._cipher else size
            answered = self._transport.add_stream(
                _fed(self._stored(file, size), cid, size, told),
                size=stored,
                pin_name=name if pin else None,
                idle=self._idle,
            )
        computed = cid.digest()
        if answered != computed:
            raise IntegrityError("the daemon stored other bytes than it was given", reason="wrong_cid")
        return computed

    def fetch(
        self, cid: str, size: int, partial: Path, sha256: str, *, told: Callable[[int], None] = lambda _done: None
    ) -> Signature:
        """Make `partial` the whole file, on disk for good; whole chunks that it already has are not fetched again.

        Answers the signature under which its bytes are the right ones.

        One caller at a time for one `partial`; the others get TierError `busy`. After an error it holds verified
        chunks only, to be resumed; nothing at all where the file as a whole is not the one of `sha256` (hex).
        """
        with _local_errors(), _opened(partial) as file:
            source = Source(
                self._transport, cid, size, self._cipher, self._took, idle=self._idle, offline=self._offline
            )
            digest = hashlib.sha256()
            done = _resumed(file, size, source.width, digest)
            told(done)
            if done < size or not size:
                with contextlib.closing(source.chunks(done // source.width)) as chunks:
                    for chunk in chunks:
                        _write(file, chunk)
                        digest.update(chunk)
                        told(len(chunk))
            if digest.hexdigest() != sha256:
                file.truncate(0)
                raise IntegrityError("the fetched file is another one than was stored", reason="wrong_bytes")
            file.flush()
            os.fsync(file.fileno())
            return signature(os.fstat(file.fileno()))

    def fetch_all(
        self,
        files: Sequence[Blob],
        partial_of: Callable[[Blob], Path],
        publish: Callable[[Blob, Path, Signature], None],
        *,
        have: Callable[[Blob], bool] = lambda _blob: False,
        workers: int = 4,
        told: Callable[[Blob, int], None] = lambda _blob, _done: None,
    ) -> None:
        """Fetch several files at once; `publish` is called, in the thread that fetched it, for each that is whole,
        with what `fetch` answered. One that somebody else fetches is waited for, until `have` says that it is here.

        The first error stops the others at their next chunk, and is raised when all have stopped.
        """

        def one(blob: Blob, go_on: Callable[[], None]) -> None:
            def passed(done: int) -> None:
                go_on()
                told(blob, done)

            while not have(blob):
                try:
                    partial = partial_of(blob)
                    known = self.fetch(blob.cid, blob.size, partial, blob.sha256, told=passed)
                    with _local_errors():
                        return publish(blob, partial, known)
                except TierError as error:
                    # Who was a moment faster has moved the partial away.
                    if error.reason != "busy" and not have(blob):
                        raise
                    go_on()
                    time.sleep(_BUSY_SECONDS)

        at_once(one, files, name="cachekit-fetch", workers=workers)

    def _stored(self, file: BinaryIO, size: int) -> Iterator[bytes]:
        return self._cipher.sealed(file, size) if self._cipher else pieces(file, size, CHUNK_BYTES)

    def _took(self, size: int) -> None:
        with self._counting:
            self.fetched += size


def _fed(stored: Iterable[bytes], cid: FileCid, size: int, told: Callable[[int], None]) -> Iterator[bytes]:
    left = size
    for piece in stored:
        yield piece
        cid.update(piece)
        done = min(left, len(piece))
        left -= done
        told(done)


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
    found = os.fstat(file.fileno()).st_size
    whole = found if found == size else found // width * width if found < size else 0
    file.truncate(whole)
    while piece := file.read(CHUNK_BYTES):
        digest.update(piece)
    return whole


@contextlib.contextmanager
def _local_errors() -> Iterator[None]:
    try:
        yield
    except CachekitError:
        raise
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise TierFull(f"no room for a file: {error}") from error
        raise TierError(f"a file could not be read or written: {error}", reason="file") from error
