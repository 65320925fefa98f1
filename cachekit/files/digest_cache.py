"""What was read of files outlives the process: `digests/ab/<sha256 of its name>`, one small file each.

An entry is believed only under the very name it was written for, which its checksum covers; anything else is no entry.
So nothing has to be durable, and a torn, foreign or forged-by-accident file costs one reading. The digest of a large file
stands under its path, and is believed for its stat signature only.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from cachekit.files import digests
from cachekit.files.digests import LINE, Signature
from cachekit.files.frames import CHECKED, checksum, frame, place_of
from cachekit.files.temporary import abandoned, replacing
from cachekit.model import NANOSECONDS, Mode

UNUSED: Final = 30 * 24 * 3600 * NANOSECONDS
"""Nanoseconds without use after which `collect` removes an entry."""
_DAY: Final = 24 * 3600 * NANOSECONDS
_FORMAT: Final = b"cachekit digest 1"


class Digests:
    """What is known in `directory`. `mode` says whether a call made here and now may read and write there.

    No call raises OSError: where the directory cannot be had, files are read in each process.
    """

    def __init__(self, directory: Path, mode: Callable[[], Mode]) -> None:
        self._directory = directory
        self._temporaries = directory / "tmp"
        self._mode = mode

    def open(self) -> Digests:
        """From now on file digests are looked up and kept here; whoever opened last has them."""
        digests.keep_in(self)
        return self

    def close(self) -> None:
        """No longer, if it was here."""
        digests.release(self)

    def get(self, path: str, known: Signature) -> bytes | None:
        """The digest of the file at the absolute `path`, if it was kept under the signature that the file has now."""
        body = self.read(os.fsencode(path), 1 << 10) if telling(known) else None
        return body[-CHECKED:] if body is not None and body[:-CHECKED] == frame(_FORMAT, LINE % known) else None

    def put(self, path: str, known: Signature, digest: bytes) -> None:
        """Keeps the digest of the file at the absolute `path`; `known` was settled when its reading began."""
        if telling(known):
            self.write(os.fsencode(path), frame(_FORMAT, LINE % known) + digest)

    def read(self, name: bytes, longest: int) -> bytes | None:
        """The bytes that were kept under `name`, if they are whole and at most `longest`."""
        if self._mode() == "off":
            return None
        try:
            with open(self._place(name), "rb", buffering=0) as stream:
                data, used = stream.read(longest + CHECKED), os.fstat(stream.fileno()).st_mtime_ns
        except OSError:  # not there, or not to be read: the caller reads its own file then
            return None
        body = data[:-CHECKED]
        if data[-CHECKED:] != checksum(name, body):
            return None
        self._note_use(name, used)
        return body

    def write(self, name: bytes, body: bytes) -> None:
        """Keeps bytes under `name`, where the mode lets it."""
        if not self._may_write():
            return
        try:
            with replacing(self._place(name), self._temporaries) as new:
                new.write_bytes(body + checksum(name, body))
        except OSError:  # no room, no permission: this process remembers it all the same
            self._set_aside()

    def collect(self, now: int) -> int:
        """Removes entries not used for 30 days before `now` (ns), and what dead processes left; how many that were."""
        removed = 0
        try:
            unused = [path for path in self._directory.glob("??/*") if now - path.stat().st_mtime_ns >= UNUSED]
            for path in (*unused, *abandoned(self._temporaries, now)):
                path.unlink(missing_ok=True)
                removed += 1
        except OSError:
            pass  # somebody else is at it, or it cannot be written: the next time
        return removed

    def _set_aside(self) -> None:
        # A file where the directory should be would keep every process from it for good.
        if self._directory.is_file():
            aside = self._directory.with_name(f"{self._directory.name}.corrupt-{time.time_ns()}")
            with suppress(OSError):
                self._directory.rename(aside)
                logging.getLogger("cachekit").warning("%s was no directory; set aside as %s", self._directory, aside)

    def _place(self, name: bytes) -> Path:
        return self._directory / place_of(name)

    def _note_use(self, name: bytes, used: int) -> None:
        if time.time_ns() - used >= _DAY and self._may_write():
            try:
                os.utime(self._place(name))
            except OSError:
                pass  # removed meanwhile, or read-only: it is as old as it looks

    def _may_write(self) -> bool:
        return self._mode() in ("on", "refresh")


def telling(known: Signature) -> bool:
    """Whether a signature tells one content from another for longer than a process lives."""
    # Times in whole seconds come from a file system that keeps no finer ones, or from an image built with set times:
    # there another content of the same size can have the same signature. On Windows the last instant is the creation's.
    return os.name == "posix" and known[4] % NANOSECONDS != 0
