"""Files moved, copied and made to last: each is read once, in pieces, and digested on the way."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from cachekit.errors import TierFull, TierUnavailable, UsageError
from cachekit.files.digests import PIECE, Signature, settled, signature, stream_digest, write_all
from cachekit.files.locks import NO_ROOM, clone, of_another_user

CALLERS: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ENXIO)
"""What the system says of a path that whoever gave it has to look at; the rest is the system's own trouble."""
_READ: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class Progress(NamedTuple):
    """`what` is done to the file `name`: hashing, storing, adding, fetching; `done` of `total` bytes."""

    what: str
    name: str
    done: int
    total: int


Told = Callable[[Progress], None]


def counter(tell: Told, what: str, name: str, total: int) -> Callable[[int], None]:
    """For who counts by differences: takes bytes that were done just now, of a file of `total` bytes."""
    done = 0

    def passed(count: int) -> None:
        nonlocal done
        done += count
        tell(Progress(what, name, done, total))

    return passed


@contextmanager
def degrading(doing: str) -> Iterator[None]:
    """What the operating system refuses in the store is a TierError."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise TierFull(f"no room while {doing}: {error}") from error
        raise TierUnavailable(f"{doing} failed: {error}", reason="io") from error


def open_source(path: Path, name: str) -> BinaryIO:
    """A regular file, opened for reading, and no link followed. UsageError for anything else; OSError is the system's."""
    try:
        stream = os.fdopen(os.open(path, _READ), "rb", buffering=0)
    except OSError as error:
        if error.errno not in CALLERS:
            raise
        raise UsageError(f"{name!r} cannot be read ({error.strerror}); nothing was stored") from error
    regular = False
    try:
        regular = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    finally:
        if not regular:
            stream.close()
    if not regular:
        raise UsageError(f"{name!r} is no regular file any more; nothing was stored")
    return stream


def copy(source: Path, target: Path, name: str, told: Told | None) -> str:
    """Copies to a new file, shared blocks where the file system can; the hex SHA-256 of what it holds now."""
    with open_source(source, name) as reading, open(target, "xb", buffering=0) as writing:
        before = signature(os.fstat(reading.fileno()))
        shared = clone(reading.fileno(), writing.fileno())
        digest = _digest(reading, before, None if shared else writing, name, told)
        os.fsync(writing.fileno())
    return digest


def take(source: Path, target: Path, name: str, told: Told | None) -> str:
    """Moves a file that nobody else has, else copies it; the hex SHA-256 of what `target` holds now."""
    status = os.lstat(source)
    # A file with a second name could be written under that name; one of another user or device cannot be had by a rename.
    if status.st_nlink != 1 or status.st_dev != os.stat(target.parent).st_dev or of_another_user(status):
        return copy(source, target, name, told)
    if status.st_mtime_ns > time.time_ns():  # a clock went back, or somebody set it: it would not settle for as long
        return copy(source, target, name, told)
    while not settled(signature(status), time.time_ns()):
        time.sleep(0.002)  # else whoever has it open could write to it within this tick, and nobody would notice
    try:
        os.rename(source, target)
    except OSError:  # its directory is read-only
        return copy(source, target, name, told)
    with open_source(target, name) as reading:
        digest = _digest(reading, signature(os.fstat(reading.fileno())), None, name, told)
        os.fsync(reading.fileno())
    return digest


def sha256_of(path: Path, name: str, told: Told | None) -> str:
    """The hex SHA-256 of a file. Raises OSError."""
    with open(os.open(path, _READ), "rb", buffering=0) as reading:
        passed = told and counter(told, "hashing", name, os.fstat(reading.fileno()).st_size)
        return stream_digest(reading, told=passed).hex()


def duplicate(source: Path, target: Path, mode: int) -> None:
    """A new file of its own at `target`: shared blocks, else copied by the kernel, else read and written."""
    with open(source, "rb", buffering=0) as reading, open(target, "xb", buffering=0) as writing:
        if not clone(reading.fileno(), writing.fileno()) and not _copied_by_kernel(reading.fileno(), writing.fileno()):
            while piece := reading.read(PIECE):
                write_all(writing, piece)
        os.chmod(target, mode)


def lasting(path: Path) -> None:
    """Makes what a directory lists survive a power cut, where directories can be synchronised."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def link(source: Path, target: Path) -> bool:
    """A second name for a file; False where links are refused. FileExistsError and FileNotFoundError pass."""
    try:
        os.link(source, target)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # a file system without links, too many links, another device
        return False
    return True


def _digest(reading: BinaryIO, before: Signature, writing: BinaryIO | None, name: str, told: Told | None) -> str:
    """UsageError where the signature is no longer what it was `before`."""
    passed = told and counter(told, "storing" if writing else "hashing", name, before[2])
    digest = stream_digest(reading, writing, told=passed).hex()
    if signature(os.fstat(reading.fileno())) != before:
        raise UsageError(f"{name!r} is written to while it is stored: return it when it is complete")
    return digest


def _copied_by_kernel(source: int, target: int) -> bool:
    if not hasattr(os, "copy_file_range"):
        return False
    try:
        while os.copy_file_range(source, target, 1 << 30):
            pass
    except OSError:  # refused between these file systems, perhaps half way: the plain loop begins anew
        os.lseek(source, 0, os.SEEK_SET)
        os.lseek(target, 0, os.SEEK_SET)
        return False
    return True
