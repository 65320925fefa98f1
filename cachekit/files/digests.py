"""What stands at a path: digests of files and trees, remembered by stat signature.

A file is read once, in pieces, whatever its size. As long as its signature stays as it was, its digest is known from
memory, and that of a large file from a shelf which other processes share, where there is one; a signature so young that
another write could have left it unchanged is not trusted.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Final

from cachekit.errors import CannotKey
from cachekit.files.frames import frame as frame

if TYPE_CHECKING:
    from cachekit.files.digest_cache import Digests

Signature = tuple[int, ...]

LINE: Final = b"%d %d %d %d %d"
"""A signature as text: `LINE % signature(status)`."""
PIECE: Final = 1 << 20
"""Bytes read at a time."""
SHELVED: Final = 1 << 20
"""Bytes from which a file's digest is worth a look at the shelf; a smaller one is read as fast."""
_TICK_NS: Final = 10_000_000
_WRITTEN_OUT_NS: Final = 60_000_000_000
"""The system writes a changed page out in less, by default after some 30 s."""
_MEMO_LIMIT: Final = 65_536
_ATTEMPTS: Final = 3
_files: dict[str, tuple[Signature, bytes]] = {}
_shelves: list[Digests] = []


def keep_in(shelf: Digests) -> None:
    """From now on digests of large files are looked up and kept there, instead of where they were."""
    _shelves[:] = [shelf]


def shelf() -> Digests | None:
    """Where small things are kept for other processes, as long as a cache is open."""
    return _shelves[0] if _shelves else None


def release(shelf: Digests) -> None:
    """Ends that, unless another shelf took its place."""
    if shelf in _shelves:
        _shelves.clear()


def content_digest(path: Path, *, where: str) -> bytes:
    """Canonical bytes of what stands at `path`, a file or a tree; its own name does not count. Raises CannotKey."""
    try:
        return _content(os.fspath(path), ())
    except (OSError, ValueError, RecursionError) as error:
        why = _inside(error, path) + (getattr(error, "strerror", None) or str(error))
        message = f"{where!r} is a path whose content cannot be read ({why}): pass one that exists, or a str"
        raise CannotKey(f"{message}, or leave it out with ignore=({where!r},) or key=", where) from error


def file_digest(path: str | os.PathLike[str], status: os.stat_result | None = None) -> bytes:
    """SHA-256 of a file's bytes, from memory while its signature stays; `status` is a stat just made.

    Raises OSError, and ValueError for a file that changes each time it is read.
    """
    known = known_digest(path, signature(status or os.stat(path)))
    if known is not None:
        return known
    for _ in range(_ATTEMPTS):
        began = time.time_ns()
        with open(path, "rb") as stream:
            _write_out(stream, began)
            before = signature(os.fstat(stream.fileno()))
            digest = stream_digest(stream)
            after = signature(os.fstat(stream.fileno()))
        if before == after:
            if settled(after, began):
                vouch(path, after, digest)
            return digest
    raise ValueError("it changes while it is read")


def stream_digest(
    stream: BinaryIO,
    into: BinaryIO | None = None,
    *,
    told: Callable[[int], None] | None = None,
    algorithm: Callable[[], hashlib._Hash] = hashlib.sha256,
) -> bytes:
    """Digest of the rest of `stream`, in constant memory: what is read is written to `into`, where one is given.

    `told` hears how many bytes each piece had.
    """
    digest = algorithm()
    while piece := stream.read(PIECE):
        digest.update(piece)
        if into is not None:
            write_all(into, piece)
        if told is not None:
            told(len(piece))
    return digest.digest()


def write_all(stream: IO[bytes], piece: bytes) -> None:
    """Writes a piece: a file without a buffer of its own may take less at a time."""
    rest = memoryview(piece)
    while rest:
        rest = rest[stream.write(rest) :]


def signature(status: os.stat_result) -> Signature:
    """What changes when a file does: device, inode, size, and the instants (ns) of the last write and change."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def settled(known: Signature, at: int) -> bool:
    """Whether a write at or after `at` (ns) would have to change the signature: not within the clock's tick."""
    return at - max(known[3], known[4]) >= _TICK_NS


def vouch(path: str | os.PathLike[str], known: Signature, digest: bytes) -> None:
    """Keeps the digest of a file under a signature that says it all: it is settled, or nobody can be writing there."""
    path = os.path.abspath(os.fspath(path))
    _keep(path, known, digest)
    for shelf in _shelves_for(known):
        shelf.put(path, known, digest)


def known_digest(path: str | os.PathLike[str], now: Signature) -> bytes | None:
    """The digest of the file that has this signature now, if it is known; nothing of it is read."""
    path = os.path.abspath(os.fspath(path))
    known = _files.get(path)
    if known is not None and known[0] == now:
        return known[1]
    for shelf in _shelves_for(now):
        if (digest := shelf.get(path, now)) is not None:
            _keep(path, now, digest)
            return digest
    return None


def _write_out(stream: BinaryIO, now: int) -> None:
    # A store through a memory map moves the signature only when it is the page's first since it was written out. The
    # shelf would remember for ever what the next stores make wrong, so the pages of a young file are written out first.
    known = signature(os.fstat(stream.fileno()))
    if _shelves_for(known) and not settled(known, now - _WRITTEN_OUT_NS):
        with suppress(OSError):  # refused there: what a map hides stays hidden, and nothing else
            os.fsync(stream.fileno())


def _shelves_for(known: Signature) -> tuple[Digests, ...]:
    """Where a digest is kept for other processes: nowhere that of a small file."""
    return tuple(_shelves) if known[2] >= SHELVED else ()


def _keep(path: str, known: Signature, digest: bytes) -> None:
    if len(_files) >= _MEMO_LIMIT:
        _files.clear()
    _files[path] = (known, digest)


def _inside(error: Exception, root: Path) -> str:
    name = error.filename if isinstance(error, OSError) else None
    return f"{os.path.relpath(name, root)!r} in it: " if isinstance(name, str) and name != os.fspath(root) else ""


def _content(path: str, above: tuple[tuple[int, int], ...]) -> bytes:
    status = os.stat(path)
    identity = (status.st_dev, status.st_ino)
    if stat.S_ISREG(status.st_mode):
        return frame(b"file", file_digest(path, status))
    if not stat.S_ISDIR(status.st_mode):
        raise ValueError("neither a file nor a directory")
    if identity in above:
        raise ValueError("a link leads back to a directory above it")
    names = sorted(os.fsencode(name) for name in os.listdir(path))
    contents = [_content(os.path.join(path, os.fsdecode(name)), (*above, identity)) for name in names]
    return frame(b"tree", hashlib.sha256(frame(*names, *contents)).digest())
