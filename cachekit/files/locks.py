"""What not every operating system has: advisory file locks, and users with numbers. The one home of fcntl.

Without locks (Windows) calls are cached as ever; what needs them says `NO_LOCKS`: the private node and sending to IPFS.
"""

from __future__ import annotations

import os
import sys
from typing import Final

try:
    import fcntl
except ImportError:  # Windows, WebAssembly
    fcntl = None  # type: ignore[assignment]

NO_ROOM: Final = (27, 28, 122)
"""EFBIG, ENOSPC, EDQUOT."""
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
