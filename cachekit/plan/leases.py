"""Which process of a machine does the work.

A lease is a kernel lock on one byte of a file. The byte's offset comes from the key, so that one open file serves every
key. The kernel ends a lease in the instant its holder dies, whatever killed it, so there is nothing to renew and no flag
that could be left behind; POSIX record locks are not inherited by fork. They do not exclude the threads of one process:
a flight does that. A lease saves work and nothing depends on it: where locks are missing (Windows, some network
drives), everybody leads.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cachekit.files import forks
from cachekit.files.locks import has_locks, holder_of_byte, lock_byte, unlock_byte
from cachekit.plan.waiting import is_ancestor

_files: dict[str, tuple[int, int]] = {}
_files_lock: Final = forks.Lock()


def _open(path: str) -> int:
    # Closing any descriptor of the file would end all leases of the process, so it is opened once and never closed;
    # and once more where somebody took it away, because others lock what stands there now.
    file, inode = _files.get(path, (-1, -1))
    if file >= 0 and _inode(path) == inode:
        return file
    with _files_lock:
        if _files.get(path, (-1, -1)) == (file, inode):
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o600)
            _files[path] = file, os.fstat(file).st_ino
        return _files[path][0]


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return -1


class Leases:
    """Leases of one cache directory; `path` is the lock file."""

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)  # looked at by every miss, and a Path is slow to look at

    def acquire(self, digest: bytes) -> bool:
        """Whether nobody else on this machine holds the lease; never waits."""
        if not has_locks():
            return True
        try:
            file = _open(self._path)
        except OSError:
            # Who may not open the file cannot be told that somebody holds it: without leases everybody leads.
            return True
        try:
            lock_byte(file, _offset(digest))
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return True
        return True

    def of_a_parent(self, digest: bytes) -> bool:
        """Whether a process holds the lease that started this one, and so may wait for it."""
        try:
            return is_ancestor(holder_of_byte(_open(self._path), _offset(digest)))
        except OSError:
            return False

    def release(self, digest: bytes) -> None:
        # In the file that it was taken in: nobody looks at one that was taken away.
        file, _ = _files.get(self._path, (-1, -1))
        if file < 0 or not has_locks():
            return
        try:
            unlock_byte(file, _offset(digest))
        except OSError:
            return


def _offset(digest: bytes) -> int:
    return int.from_bytes(digest[:7], "big")
