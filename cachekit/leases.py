"""Single flight between the processes of a machine: a lease is a kernel lock on one byte of a file.

The byte's offset comes from the key, so that one open file serves every key. The kernel ends a lease in the instant its
holder dies, whatever killed it, so there is nothing to renew and no flag that could be left behind; POSIX record locks
are not inherited by fork. They do not exclude the threads of one process: `flight` does that.

A lease saves work and nothing depends on it: where locks are missing (Windows, some network drives), everybody leads.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from cachekit.files.locks import has_locks, lock_byte, unlock_byte

_files: dict[Path, int] = {}
_files_lock = threading.Lock()


def _open(path: Path) -> int:
    # Closing any descriptor of the file would end all leases of the process, so it is opened once and never closed.
    with _files_lock:
        if path not in _files:
            _files[path] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o600)
        return _files[path]


class Leases:
    """Leases of one cache directory; `path` is the lock file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def acquire(self, digest: bytes) -> bool:
        """Whether nobody else on this machine holds the lease; never waits."""
        if not has_locks():
            return True
        try:
            lock_byte(_open(self._path), _offset(digest))
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return True
        return True

    def release(self, digest: bytes) -> None:
        if not has_locks():
            return
        try:
            unlock_byte(_open(self._path), _offset(digest))
        except OSError:
            return


def _offset(digest: bytes) -> int:
    return int.from_bytes(digest[:7], "big")
