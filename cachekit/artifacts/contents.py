"""Contents by their SHA-256: `blobs/ab/<sha256>`, read-only, each once.

Whether one is right is known by its signature, as of every file that is digested (`files.digests`). Giving a file another
name changes its signature; whoever does so here says that the bytes stayed, so nobody has to read them again.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cachekit.artifacts.manifest import EXECUTABLE, File
from cachekit.errors import IntegrityError, TierUnavailable
from cachekit.files.copying import duplicate, lasting, link, open_source, sha256_of
from cachekit.files.digests import Signature, known_digest, settled, signature, vouch
from cachekit.files.temporary import ABANDONED, new_name

READ_ONLY: Final = 0o444
EXECUTED: Final = 0o555
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ATTEMPTS: Final = 10


class Contents:
    """The blobs in `directory`. Raises OSError where nothing else is said."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "blobs"
        self.temporaries = directory / "tmp"

    def path(self, sha256: str) -> Path:
        """Where the blob stands, or would. IntegrityError for what is no SHA-256."""
        if not _SHA256.fullmatch(sha256):
            raise IntegrityError(f"not a SHA-256: {sha256[:80]!r}", reason="manifest")
        return self._directory / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Whether the blob is here and right. Its bytes are read where its signature moved; a wrong one is removed."""
        blob = self.path(sha256)
        try:
            if self.vouched(sha256):
                return True
            began, before = time.time_ns(), signature(os.lstat(blob))
            # Others may link it meanwhile: that moves its signature, and not its bytes.
            right = sha256_of(blob, sha256, None) == sha256
        except FileNotFoundError:
            return False
        if not right:
            blob.unlink(missing_ok=True)
        elif settled(before, began):
            self._vouch(sha256, before)
        return right

    def vouched(self, sha256: str) -> Signature | None:
        """The signature of the blob, if it is known without reading that its bytes are right."""
        blob = self.path(sha256)
        try:
            now = signature(os.lstat(blob))
        except FileNotFoundError:
            return None
        return now if known_digest(blob, now) == bytes.fromhex(sha256) else None

    @contextmanager
    def renaming(self, *digests: str) -> Iterator[None]:
        """Around what gives blobs another name or takes one away: their signatures move, and are vouched for anew."""
        before = {sha256: self.vouched(sha256) for sha256 in digests}
        yield
        for sha256, known in before.items():
            # What had to be renamed is: at worst its bytes are read once more.
            with suppress(OSError):
                now = signature(os.lstat(self.path(sha256)))
                if known is not None and known != now and known[:4] == now[:4]:
                    self._vouch(sha256, now)

    def adopt(self, staged: Path, file: File) -> None:
        """Makes a staged file, whose bytes were just digested, one with the blob: the one that is here, or a new one."""
        sha256 = file.sha256
        if file.mode == EXECUTABLE:
            # A blob is not executable, and all names of a file share its mode: this one has to be a file of its own.
            self._make_copy(staged, sha256)
            os.chmod(staged, EXECUTED)
            return
        os.chmod(staged, READ_ONLY)
        for _ in range(_ATTEMPTS):
            try:
                return self._link_either_way(staged, sha256)
            except (FileExistsError, FileNotFoundError):
                continue  # another process stored or removed it just now
        raise TierUnavailable(f"the blob {sha256} comes and goes", reason="io")

    def expose(self, file: File, target: Path) -> None:
        """Makes `target` a name of the blob, or a copy where it cannot be one."""
        with self.renaming(file.sha256):
            if file.mode != EXECUTABLE and link(self.path(file.sha256), target):
                return
        duplicate(self.path(file.sha256), target, EXECUTED if file.mode == EXECUTABLE else READ_ONLY)
        _synchronise(target)

    def publish(self, sha256: str, partial: Path, known: Signature | None) -> None:
        """Moves a complete download in; `known` as `ArtifactStore.publish` says. IntegrityError, and it is removed, if
        its bytes are not those.
        """
        before = signature(os.lstat(partial))
        if known != before and (sha256_of(partial, sha256, None) != sha256 or signature(os.lstat(partial)) != before):
            partial.unlink(missing_ok=True)
            raise IntegrityError(f"what came for {sha256} has other bytes; it was removed")
        self._move_in(partial, sha256)
        lasting(self.path(sha256).parent)

    def drop_unused(self, sha256: str, before: float = math.inf) -> bool:
        """Removes a blob that has no second name, and was last changed `before` (ns); whether there was one."""
        # A second name is another artifact's, or of one that is just being made.
        try:
            status = os.lstat(self.path(sha256))
        except FileNotFoundError:
            return False
        unused = status.st_nlink == 1 and status.st_ctime_ns <= before
        if unused:
            self.path(sha256).unlink(missing_ok=True)
        return unused

    def collect(self, used: Iterable[str], now: int) -> int:
        """Drops the blobs that are not `used`, nor changed within 24 h before `now` (ns); how many that were."""
        names = {path.name for path in self._directory.glob("??/*") if _SHA256.fullmatch(path.name)}
        return sum(self.drop_unused(sha256, now - ABANDONED) for sha256 in names.difference(used))

    def _link_either_way(self, staged: Path, sha256: str) -> None:
        blob = self.path(sha256)
        if not self.has(sha256):
            blob.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if link(staged, blob):
                self._vouch(sha256, signature(os.lstat(blob)))
            else:
                self._make_copy(staged, sha256)
            return
        spare = self.temporaries / new_name()
        with self.renaming(sha256):
            if link(blob, spare):
                os.replace(spare, staged)
                spare.unlink(missing_ok=True)  # a rename between two names of one file does nothing

    def _make_copy(self, staged: Path, sha256: str) -> None:
        if not self.has(sha256):
            copied = self.temporaries / new_name()
            duplicate(staged, copied, READ_ONLY)
            self._move_in(copied, sha256)

    def _move_in(self, temporary: Path, sha256: str) -> None:
        blob = self.path(sha256)
        blob.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(temporary, READ_ONLY)
        _synchronise(temporary)
        if self.has(sha256):
            temporary.unlink()
            return
        os.rename(temporary, blob)
        self._vouch(sha256, signature(os.lstat(blob)))

    def _vouch(self, sha256: str, now: Signature) -> None:
        vouch(self.path(sha256), now, bytes.fromhex(sha256))


def _synchronise(path: Path) -> None:
    with open_source(path, path.name) as stream:
        os.fsync(stream.fileno())
