"""The n-th operation on the file system or on SQLite fails, once, as the system would make it fail."""

from __future__ import annotations

import builtins
import errno
import io
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

FILES: Final = (
    "open",
    "read",
    "write",
    "fsync",
    "replace",
    "rename",
    "link",
    "unlink",
    "mkdir",
    "stat",
    "lstat",
    "scandir",
)
FILES_TOO: Final = ("chmod", "utime", "rmdir", "listdir", "fstat", "lseek", "ftruncate")


class Fault:
    """Counts the operations in `place`, and lets number `at` fail (0: none); `failed` says which one that was."""

    def __init__(self, place: Path, at: int, number: int = errno.EIO) -> None:
        self.place = str(place)
        self.at = at
        self.number = number
        self.seen = 0
        self.failed = ""
        self.resting = False

    @contextmanager
    def peace(self) -> Iterator[None]:
        """Nothing fails or counts meanwhile: what a function of the user's does is his own."""
        self.resting = True
        try:
            yield
        finally:
            self.resting = False

    def pass_by(self, what: str, error: Callable[[], Exception]) -> None:
        """Raises `error()` where this is the operation that fails."""
        if self.resting:
            return
        self.seen += 1
        if self.seen == self.at:
            self.failed = what
            raise error()

    def os_error(self) -> OSError:
        return OSError(self.number, os.strerror(self.number))

    def concerns(self, given: object) -> bool:
        """Whether an operation's first argument is a descriptor of ours to fail with, or lies in `place`."""
        if isinstance(given, int):
            return given > 2
        return isinstance(given, (str, bytes, os.PathLike)) and os.fsdecode(given).startswith(self.place)


@contextmanager
def failing_files(fault: Fault) -> Iterator[None]:
    """The file system fails, wherever Python asks it: `os`, `open` and what is built on them."""
    before = {name: getattr(os, name) for name in (*FILES, *FILES_TOO)}
    opener = builtins.open
    for name, real in before.items():
        setattr(os, name, _watched(fault, f"os.{name}", real))
    builtins.open = io.open = _watched(fault, "open", opener)
    try:
        yield
    finally:
        builtins.open = io.open = opener
        for name, real in before.items():
            setattr(os, name, real)


@contextmanager
def failing_statements(fault: Fault) -> Iterator[None]:
    """SQLite fails: at connecting, and at each statement of a connection that is made meanwhile."""

    def error() -> Exception:
        return sqlite3.OperationalError("disk I/O error")

    class Failing(sqlite3.Connection):
        def execute(self, statement: str, *rest: Any) -> sqlite3.Cursor:
            fault.pass_by(statement, error)
            return super().execute(statement, *rest)

        def executescript(self, script: str) -> sqlite3.Cursor:
            fault.pass_by(script, error)
            return super().executescript(script)

    before = sqlite3.connect

    def connect(*given: Any, **named: Any) -> sqlite3.Connection:
        fault.pass_by("connect", error)
        return before(*given, factory=Failing, **named)

    sqlite3.connect = connect
    try:
        yield
    finally:
        sqlite3.connect = before


def _watched(fault: Fault, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def watched(*given: Any, **named: Any) -> Any:
        if given and fault.concerns(given[0]):
            fault.pass_by(f"{name} {given[0]!r}", fault.os_error)
        return real(*given, **named)

    return watched
