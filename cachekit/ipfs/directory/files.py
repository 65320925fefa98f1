"""Files below one directory that several machines write at once: whole or not there, and none through a link.

There are no locks: a file is written beside its place, forced to the disk, and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from cachekit.errors import IntegrityError, TierError, TierFull, TierUnavailable
from cachekit.files.locks import NO_ROOM
from cachekit.files.parallel import at_once
from cachekit.ipfs.directory.layout import Where

TEMPORARY: Final = ".tmp-"
"""Names with a dot in front are nobody's entries, and most web servers refuse to give them away."""
USED_SECONDS: Final = 24 * 3600.0
"""How exactly it is known when something was last used: a read that marked each use would be a write."""

_AT_ONCE: Final = 8
_FILE_RIGHTS: Final = 0o666
_DIRECTORY_RIGHTS: Final = 0o7777
_OPEN: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_READING: Final = _OPEN | os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
_WRITING: Final = _OPEN | os.O_WRONLY | os.O_CREAT | os.O_EXCL
_REFUSED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_BAD: Final = (errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO)


class Files:
    """The files below `root`, which must be there. Everything raises TierError; nothing here is bounded in time.

    Whoever may read or write `root` itself may so below: what is made gets its rights, whatever the umask.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, where: Where, limit: int, *, use: bool = False) -> bytes | None:
        """The file at `where`, None if there is none; IntegrityError `oversized`, `strange_file` for what is no file.

        With `use` it counts as used, to the day.
        """
        with _told():
            try:
                descriptor = os.open(self._at(where), _READING)
            except FileNotFoundError:
                return None
            with os.fdopen(descriptor, "rb") as file:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise IntegrityError(f"{'/'.join(where)} is no file", reason="strange_file")
                data = file.read(limit + 1)
                if use and time.time() - found.st_mtime > USED_SECONDS:
                    with contextlib.suppress(OSError):  # who may only read leaves it to the others
                        os.utime(descriptor if os.utime in os.supports_fd else self._at(where))
        if len(data) > limit:
            raise IntegrityError(f"{'/'.join(where)} is longer than {limit} bytes", reason="oversized")
        return data

    def put(self, where: Where, data: bytes) -> None:
        """Make `data` the file at `where`, on the disk for good; directories are made as needed."""
        self.put_all([(where, data)], lambda: None)

    def put_all(self, files: Sequence[tuple[Where, bytes]], go_on: Callable[[], None]) -> None:
        """The same for several; what `go_on` raises ends it, and none of them is there."""
        made = list[tuple[Path, Path]]()

        def written(file: tuple[Where, bytes], others_go_on: Callable[[], None]) -> None:
            others_go_on()
            go_on()
            path = self._at(file[0], make=True)
            new = path.with_name(TEMPORARY + secrets.token_hex(16))
            made.append((new, path))
            with os.fdopen(os.open(new, _WRITING, 0o600), "wb") as opened:
                self._share(new, _FILE_RIGHTS)
                opened.write(file[1])
                opened.flush()
                os.fsync(opened.fileno())

        with _told("read_only"):
            try:
                # Each waits for the disk, which takes several at once in hardly more time than one.
                if len(files) > 1:
                    at_once(written, files, name="cachekit-store", workers=_AT_ONCE)
                else:
                    written(files[0], go_on)
                for new, path in made:
                    os.replace(new, path)
            except BaseException:
                for new, _ in made:
                    with contextlib.suppress(OSError):
                        new.unlink()
                raise
            for directory in dict.fromkeys(path.parent for _, path in made):
                _sync(directory)

    def use(self, where: Where, size: int) -> bool:
        """Whether a file of `size` bytes is there that counts as used, to the day, from now on."""
        found = self.found(where)
        if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != size:
            return False
        try:
            if time.time() - found.st_mtime > USED_SECONDS:
                os.utime(self._at(where))
        except OSError:  # another user's, who gave us no right to say so
            return False
        return True

    def found(self, where: Where) -> os.stat_result | None:
        """The stat of what is at `where`, links not followed."""
        with _told():
            try:
                return os.lstat(self._at(where))
            except FileNotFoundError:
                return None

    def entries(self, where: Where) -> list[tuple[str, os.stat_result]]:
        """Name and stat of each file and directory in a directory, in order; links and temporaries are left out."""
        return [(name, found) for name, found in self._scanned(where) if not name.startswith(".")]

    def abandoned(self, where: Where, before: float) -> Iterator[Where]:
        """The temporaries in a directory that nobody has written since `before`, in s since the epoch."""
        for name, found in self._scanned(where):
            if name.startswith(TEMPORARY) and found.st_mtime < before:
                yield (*where, name)

    def remove(self, where: Where) -> None:
        """Remove a file, or a directory with all below it; nothing there is fine."""
        with _told("read_only"), contextlib.suppress(FileNotFoundError):
            path = self._at(where)
            if stat.S_ISDIR(os.lstat(path).st_mode):
                shutil.rmtree(path)
            else:
                path.unlink()

    def _scanned(self, where: Where) -> list[tuple[str, os.stat_result]]:
        with _told():
            found = list[tuple[str, os.stat_result]]()
            try:
                with os.scandir(self._at((*where, "."))) as entries:
                    for entry in entries:
                        with contextlib.suppress(FileNotFoundError):  # somebody else just removed it
                            found.append((entry.name, entry.stat(follow_symlinks=False)))
            except FileNotFoundError:
                return []
        kinds = stat.S_IFREG, stat.S_IFDIR
        return sorted((name, one) for name, one in found if stat.S_IFMT(one.st_mode) in kinds)

    def _share(self, path: Path, rights: int) -> None:
        with contextlib.suppress(OSError):  # some network drives have rights of their own
            path.chmod(stat.S_IMODE(self.root.stat().st_mode) & rights)

    def _at(self, where: Where, *, make: bool = False) -> Path:
        """The path; raises FileNotFoundError, and IntegrityError where a link, or no directory, stands on the way."""
        path = self.root
        for name in where[:-1]:
            path = path / name
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:
                if not make:
                    raise
                with contextlib.suppress(FileExistsError):
                    path.mkdir()
                    self._share(path, _DIRECTORY_RIGHTS)
                    _sync(path.parent)
                mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode) and not make:
                raise FileNotFoundError(errno.ENOENT, "a file on the way", str(path))
            if not stat.S_ISDIR(mode):
                # A member who may write here must not make others read or write elsewhere.
                raise IntegrityError(f"{path} is no directory", reason="strange_file")
        return path / where[-1]


@contextlib.contextmanager
def _told(refused: str = "forbidden") -> Iterator[None]:
    """What the operating system says, in cachekit's words."""
    try:
        yield
    except FileNotFoundError as error:
        raise TierUnavailable(f"the store is gone: {error}", reason="no_store") from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise TierFull(f"no room in the store: {error}") from error
        if error.errno in _REFUSED:
            raise TierError(f"the store refuses it: {error}", reason=refused) from error
        if error.errno in _BAD:
            raise IntegrityError(f"the store has what is no file: {error}", reason="strange_file") from error
        # A mount whose server is gone: EIO, ESTALE, ENOTCONN, EHOSTDOWN, ETIMEDOUT, ...
        raise TierUnavailable(f"the store cannot be read: {error}", reason="disk") from error


def _sync(directory: Path) -> None:
    # Without it a rename may be undone by a power failure, after others were told of it.
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network drives know no such thing
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
