"""What not every operating system has: advisory file locks, and users with numbers. The one home of fcntl.

Without locks (Windows) calls are cached as ever; what needs them says `NO_LOCKS`: the private node and sending to IPFS.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import Final

try:
    import fcntl
except ImportError:  # Windows, WebAssembly
    fcntl = None  # type: ignore[assignment]

NO_ROOM: Final = (27, 28, 122)
"""EFBIG, ENOSPC, EDQUOT."""
_LAYOUTS: Final = {"linux": "hhqqi0q", "darwin": "qqihh"}
"""struct flock on 64 bits: kind, whence, start, length, process; in another order on macOS."""

_FICLONE: Final = 0x40049409
NO_LOCKS: Final = (
    f"this system ({sys.platform}) has no file locks (fcntl), so the private node and sending to IPFS are not "
    "available here; memory, disk and reading from IPFS are"
)


def has_locks() -> bool:
    """Whether the locks below lock anything."""
    return fcntl is not None


def try_lock(descriptor: int) -> bool:
    """Lock an open file against every other opening of it; whether it was free. Never waits. OSError without locks."""
    if fcntl is None:
        raise OSError(NO_LOCKS)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Undo `try_lock`, also for children that were forked meanwhile."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def lock_byte(descriptor: int, offset: int) -> None:
    """Lock one byte against other processes. Raises BlockingIOError or PermissionError where another holds it."""
    if fcntl is not None:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)


def holder_of_byte(descriptor: int, offset: int) -> int:
    """The process that holds the lock on the byte; 0 where nobody does, or the system does not tell."""
    layout = _LAYOUTS.get(sys.platform)
    if fcntl is None or layout is None or sys.maxsize < 1 << 32:
        return 0
    first = ((fcntl.F_WRLCK, os.SEEK_SET), (offset, 1), (0,))
    fields = [number for part in (first if sys.platform == "linux" else (*first[1:], first[0])) for number in part]
    found = struct.unpack(layout, fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(layout, *fields)))
    kind, pid = (found[0], found[4]) if sys.platform == "linux" else (found[3], found[2])
    return 0 if kind == fcntl.F_UNLCK else max(0, pid)


def unlock_byte(descriptor: int, offset: int) -> None:
    """Undo `lock_byte`."""
    if fcntl is not None:
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, offset)


def clone(source: int, target: int) -> bool:
    """Let an open file share the blocks of another (FICLONE) until either is written; whether it could be done."""
    if fcntl is None or not sys.platform.startswith("linux"):
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # another file system, or one without it
        return False
    return True


def of_another_user(found: os.stat_result) -> bool:
    """Whether somebody else owns the file; False where files have no owner."""
    return hasattr(os, "geteuid") and found.st_uid != os.geteuid()
