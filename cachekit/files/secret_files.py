"""Small private files that hold a secret: one line, 0600, made once by whichever process comes first."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cachekit.errors import UsageError
from cachekit.files.locks import of_another_user

_LARGEST: Final = 4096


def read_or_create(path: Path, make: Callable[[], str]) -> str:
    """The text in the file at `path`, which is filled with what `make` gives where it is missing.

    Processes that create it at once agree on one text. Raises UsageError for a file that others can read or that
    belongs to another user than root, and where it cannot be created. Root's file may be a group's to read.
    """
    try:
        found = _read_private(path)
        if found is None:
            _create_private(path, make())
            found = _read_private(path)
    except OSError as error:
        message = f"{path} cannot be used ({error.strerror}); set CACHEKIT_SECRET_FILE to a file of yours"
        raise UsageError(message) from error
    return found or ""


def _read_private(path: Path) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        # What systemd, Kubernetes and Docker hand to a service is root's, and a group's to read (an ACL shows as one).
        lent = found.st_uid == 0 and of_another_user(found)
        if not stat.S_ISREG(found.st_mode) or (of_another_user(found) and not lent):
            raise UsageError(f"{path} is not a file of yours; it holds a secret and must be")
        if os.name == "posix" and stat.S_IMODE(found.st_mode) & (0o027 if lent else 0o077):
            raise UsageError(f"others can read {path}, which holds a secret; run `chmod 600 {path}`, or replace it")
        return file.read(_LARGEST).decode("ascii", errors="replace").strip()


def _create_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, never replaces what another process has put there meanwhile.
        os.link(name, path)
    except FileExistsError:
        return
    finally:
        os.unlink(name)
