"""Named contents in one directory: each verified when it is read, replaced whole, and never anywhere else.

    contents/<place>-<digest>-<write>   the bytes; `place` is 32 hex digits of SHA-256 of the name, `digest` all 64 of the
                                        bytes, `write` random: who removes what it replaced takes no other writer's away
    entries/<place>                     JSON: name, digest, size, write, cid, pinned

A name is only a name. It is hashed, and never looked up on disk.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_FLAGS: Final = ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK")  # a link leads elsewhere; a pipe has no end
_READING: Final = sum(getattr(os, name, 0) for name in _FLAGS) | os.O_RDONLY
_MOST_SEEN: Final = 10_000
_CONTENT: Final = re.compile(r"([0-9a-f]{32})-([0-9a-f]{64})-[0-9a-f]{8}")


class Entry(NamedTuple):
    """What is known of one name; `cid` is "" for what was only stored here."""

    name: str
    digest: str
    size: int
    write: str = ""
    cid: str = ""
    pinned: bool = False


class _Seen(NamedTuple):
    """An entry as it was read, from the file at `path` while that had `stamp`; `content` is where its bytes stand."""

    path: str
    stamp: tuple[int, int]
    entry: Entry
    content: str


class LocalFiles:
    """The contents below `directory`, which is made (0700) with the first write. Safe between threads and processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._contents = os.path.join(directory, "contents", "")
        self._entries = os.path.join(directory, "entries", "")
        self._lock = threading.Lock()
        self._seen: dict[str, _Seen] = {}

    def write(self, entry: Entry, data: bytes) -> Path:
        """Keeps `data` under the entry's name, in the place of what had it; where it stands. Raises OSError."""
        for directory in (self._contents, self._entries):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        if self._elsewhere():
            raise OSError(errno.ELOOP, "a link in its place would be written through", str(self.directory))
        entry = entry._replace(write=secrets.token_hex(4))
        path = self._path(entry)
        _replace(path, data)
        with self._lock:
            before = self.entry(entry.name)
            _replace(self._entries + _place(entry.name), json.dumps(entry._asdict()).encode())
        if before is not None:
            _unlink(self._path(before))
        return Path(path)

    def entry(self, name: str) -> Entry | None:
        """What is known under `name`."""
        seen = self._look(name)
        return None if seen is None else seen.entry

    def _look(self, name: str) -> _Seen | None:
        seen = self._seen.get(name)
        path = self._entries + _place(name) if seen is None else seen.path
        try:
            status = os.stat(path)
            stamp = status.st_mtime_ns, status.st_ino
            if seen is None or seen.stamp != stamp:
                if self._elsewhere():
                    return None
                entry = Entry(**json.loads(_read(path)))
                if entry.name != name:
                    return None
                if len(self._seen) >= _MOST_SEEN:
                    self._seen.clear()
                seen = self._seen[name] = _Seen(path, stamp, entry, self._path(entry))
        except (OSError, ValueError, TypeError):  # none, or one that somebody altered
            self._seen.pop(name, None)
            return None
        return seen

    def read(self, name: str) -> bytes | None:
        """The bytes of a name; None where there are none, or others than were written."""
        while (seen := self._look(name)) is not None:
            data = _verified(seen.content, seen.entry.digest)
            if data is not None or self._look(name) == seen:
                return data
        return None

    def at(self, path: str) -> tuple[str, bytes] | None:
        """Place and bytes of a path that `write` returned; None for every other one, which is not even looked at."""
        found = self._ours(path)
        data = _verified(path, found[2]) if found and not self._elsewhere() else None
        return None if found is None or data is None else (found[1], data)

    def drop(self, name: str) -> bool:
        """Forgets a name; whether it was known."""
        entry = self.entry(name)
        if entry is None:
            return False
        _unlink(self._entries + _place(name))
        _unlink(self._path(entry))
        return True

    def name_of(self, path: str) -> str | None:
        """The name under which the content at a path of ours was written."""
        found = self._ours(path)
        return next((entry.name for entry in self.all() if _place(entry.name) == found[1]), None) if found else None

    def _ours(self, path: str) -> re.Match[str] | None:
        """Place and digest in a path that `write` could have returned."""
        return _CONTENT.fullmatch(path[len(self._contents) :]) if path.startswith(self._contents) else None

    def _path(self, entry: Entry) -> str:
        return f"{self._contents}{_place(entry.name)}-{entry.digest}-{entry.write}"

    def _elsewhere(self) -> bool:
        """Whether somebody put a link where one of our two directories belongs."""
        return os.path.islink(self._contents[:-1]) or os.path.islink(self._entries[:-1])

    def all(self) -> Iterator[Entry]:
        """Every entry, in no order."""
        with contextlib.suppress(OSError):
            for place in () if self._elsewhere() else os.listdir(self._entries):
                with contextlib.suppress(OSError, ValueError, TypeError):
                    yield Entry(**json.loads(_read(self._entries + place)))


def digest_of(data: bytes) -> str:
    """SHA-256 in hex: what a content is verified with."""
    return hashlib.sha256(data).hexdigest()


def _place(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _read(path: str) -> bytes:
    descriptor = os.open(path, _READING)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "no regular file", path)
        size = status.st_size
        data = os.read(descriptor, size)
        while len(data) < size and (more := os.read(descriptor, size - len(data))):  # 2 GiB and more
            data += more
        return data
    finally:
        os.close(descriptor)


def _verified(path: str, digest: str) -> bytes | None:
    try:
        data = _read(path)
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == digest else None


def _replace(path: str, data: bytes) -> None:
    new = f"{path}.{secrets.token_hex(6)}.tmp"
    try:
        with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        _unlink(new)


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
