"""Contents by their SHA-256: `blobs/ab/<sha256>`, read-only, each once.

Beside each stands what its signature was when its bytes were last known to be right (`seen/ab/<sha256>`). Giving a file
another name changes its signature; whoever does so here notes the new one, so nobody has to read the bytes again.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cachekit.artifacts.manifest import EXECUTABLE
from cachekit.errors import IntegrityError, TierUnavailable
from cachekit.files.copying import duplicate, lasting, link, open_source, sha256_of
from cachekit.files.digests import Signature, settled, signature
from cachekit.files.temporary import new_name, replacing

READ_ONLY: Final = 0o444
EXECUTED: Final = 0o555
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ATTEMPTS: Final = 10


class Blobs:
    """The blobs in `directory`. Raises OSError where nothing else is said."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.temporaries = directory / "tmp"

    def path(self, sha256: str, root: str = "blobs") -> Path:
        """Where the blob stands, or would. IntegrityError for what is no SHA-256."""
        if not _SHA256.fullmatch(sha256):
            raise IntegrityError(f"not a SHA-256: {sha256[:80]!r}", reason="manifest")
        return self._directory / root / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Whether the blob is here and right. Its bytes are read where its signature moved; a wrong one is removed."""
        blob = self.path(sha256)
        try:
            if self.vouched(sha256):
                return True
            began, before = time.time_ns(), signature(os.lstat(blob))
            right = sha256_of(blob, sha256, None) == sha256
        except FileNotFoundError:
            return False
        if not right:
            self.drop(sha256)
        elif settled(before, began):
            self._note(sha256, before)
        return right

    def vouched(self, sha256: str) -> Signature | None:
        """The signature of the blob, if it is the one under which its bytes were known to be right."""
        try:
            now = signature(os.lstat(self.path(sha256)))
            return now if self.path(sha256, "seen").read_bytes() == _line(now) else None
        except FileNotFoundError:
            return None

    @contextmanager
    def renaming(self, *digests: str) -> Iterator[None]:
        """Around what gives blobs another name or takes one away: their signatures move, and are noted anew."""
        before = {sha256: self.vouched(sha256) for sha256 in digests}
        yield
        for sha256, known in before.items():
            try:
                now = signature(os.lstat(self.path(sha256)))
            except FileNotFoundError:
                continue
            if known is not None and known != now and known[:4] == now[:4]:
                # Without the note its bytes are read once more; without room for it, what was moved has moved.
                with suppress(OSError):
                    self._note(sha256, now)

    def adopt(self, staged: Path, sha256: str, mode: int) -> None:
        """Makes a staged file, whose bytes were just digested, one with the blob: the one that is here, or a new one."""
        if mode == EXECUTABLE:
            # A blob is not executable, and all names of a file share its mode: this one has to be a file of its own.
            self._make_copy(staged, sha256)
            os.chmod(staged, EXECUTED)
            return
        os.chmod(staged, READ_ONLY)
        for _ in range(_ATTEMPTS):
            try:
                if self._link_either_way(staged, sha256):
                    return
            except (FileExistsError, FileNotFoundError):
                continue  # another process stored or removed it just now
        raise TierUnavailable(f"the blob {sha256} comes and goes", reason="io")

    def expose(self, sha256: str, target: Path, mode: int) -> None:
        """Makes `target` a name of the blob, or a copy where it cannot be one."""
        with self.renaming(sha256):
            if mode != EXECUTABLE and link(self.path(sha256), target):
                return
        duplicate(self.path(sha256), target, EXECUTED if mode == EXECUTABLE else READ_ONLY)
        with open_source(target, target.name) as stream:
            os.fsync(stream.fileno())

    def publish(self, sha256: str, partial: Path, known: Signature | None) -> None:
        """Moves a complete download in; `known` as `ArtifactStore.publish` says. IntegrityError, and it is removed, if
        its bytes are not those.
        """
        blob, before = self.path(sha256), signature(os.lstat(partial))
        if known != before and (sha256_of(partial, sha256, None) != sha256 or signature(os.lstat(partial)) != before):
            partial.unlink(missing_ok=True)
            raise IntegrityError(f"what came for {sha256} has other bytes; it was removed")
        self._move_in(partial, blob)
        lasting(blob.parent)

    def drop(self, sha256: str) -> None:
        """Removes the blob; files that are one with it stay."""
        self.path(sha256).unlink(missing_ok=True)
        self.path(sha256, "seen").unlink(missing_ok=True)

    def all(self) -> Iterator[Path]:
        """Every blob."""
        return (self._directory / "blobs").glob("??/*")

    def write(self, path: Path, data: bytes) -> None:
        """A small file, whole or not at all."""
        with replacing(path, self.temporaries) as new:
            new.write_bytes(data)

    def _link_either_way(self, staged: Path, sha256: str) -> bool:
        if not self.has(sha256):
            self._make(staged, sha256)
            return True
        spare = self.temporaries / new_name()
        with self.renaming(sha256):
            if link(self.path(sha256), spare):
                os.replace(spare, staged)
                spare.unlink(missing_ok=True)  # a rename between two names of one file does nothing
        return True

    def _make(self, staged: Path, sha256: str) -> None:
        blob = self.path(sha256)
        blob.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if link(staged, blob):
            self._note(sha256, signature(os.lstat(blob)))
        else:
            self._make_copy(staged, sha256)

    def _make_copy(self, staged: Path, sha256: str) -> None:
        if not self.has(sha256):
            copied = self.temporaries / new_name()
            duplicate(staged, copied, READ_ONLY)
            self._move_in(copied, self.path(sha256))

    def _move_in(self, temporary: Path, blob: Path) -> None:
        blob.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(temporary, READ_ONLY)
        with open_source(temporary, blob.name) as stream:
            os.fsync(stream.fileno())
        if self.has(blob.name):
            temporary.unlink()
            return
        os.rename(temporary, blob)
        self._note(blob.name, signature(os.lstat(blob)))

    def _note(self, sha256: str, known: Signature) -> None:
        self.write(self.path(sha256, "seen"), _line(known))


def _line(known: Signature) -> bytes:
    return " ".join(map(str, known)).encode()
