"""A command and what identifies it, before anything of it runs."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from cachekit.errors import CannotKey, UsageError
from cachekit.files.digests import content_digest, write_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What runs, and what counts besides the program and its arguments.

    Args:
        argv: the program and its arguments.
        cwd: where it runs; None for here. That does not count: `where` does, a text.
        inputs: files and trees that count by content; absolute.
        outputs: files and trees that it makes; absolute.
        environment: the variables that count, with their values; None for one that is not set.
        account: who asks, where that decides the answer; never a secret.
        terminal: whether standard output and standard error are terminals.
        failures: whether an outcome with another status than 0 is kept.
    """

    argv: tuple[str, ...]
    cwd: str | None = None
    where: str = ""
    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)
    account: str = ""
    terminal: tuple[bool, bool] = (False, False)
    failures: bool = False

    def identity(self, program: Any, stdin: Given | None) -> dict[str, Any]:
        """What the key is made of: as it is written, files by content; where outputs lie is the caller's own business."""
        some = {
            "program": program,
            "stdin": None if stdin is None else stdin.digest,
            "cwd": self.where,
            "account": self.account,
            "terminal": list(self.terminal) if any(self.terminal) else None,
            "failures": self.failures,
        }
        return {
            "command": list(self.argv),
            "inputs": list(self.inputs),
            # What a manifest tells of the call is for the team; the values may be passwords.
            "environment": {name: _digest(value) for name, value in self.environment.items()},
            "outputs": [path.name for path in self.outputs],
            **{name: value for name, value in some.items() if value},
        }


def _digest(value: str | None) -> str | None:
    return None if value is None else hashlib.sha256(os.fsencode(value)).hexdigest()


class Given(NamedTuple):
    """Standard input, read to its end: the digest of its bytes, and a file that has them."""

    digest: str
    file: BinaryIO

    @classmethod
    def read(cls, pieces: Iterable[bytes]) -> Given:
        """Takes in all `pieces`, in constant memory; who asked closes `file`."""
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the caller closes it
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
            write_all(file, piece)
        return cls(digest.hexdigest(), file)


def argv_of(argv: Sequence[Any]) -> tuple[str, ...]:
    """A command as a list. Raises UsageError for a text, which only a shell could take apart, and for an empty one."""
    if isinstance(argv, (str, bytes)):
        raise UsageError("a command is a list such as ['ls', '-l'], not a text; for a shell say ['sh', '-c', text]")
    found = tuple(os.fsdecode(word) if isinstance(word, (bytes, os.PathLike)) else word for word in argv)
    what = [
        type(word).__name__ if type(word) is not str else "NUL"
        for word in found
        if type(word) is not str or "\0" in word
    ]
    if not found or what:
        raise UsageError(
            f"a command is a list of texts and paths, and this {f'has {what[0]} in it' if what else 'is empty'}"
        )
    return found


def readable(text: str | os.PathLike[str], called: str) -> Path:
    """The absolute path of an input. Raises UsageError where its content cannot be had; `called` names it there."""
    path = named(called, text)
    if not os.path.exists(path):
        raise UsageError(f"{called} {os.fspath(text)} does not exist")
    try:
        content_digest(path, where=called)
    except CannotKey as error:
        why = error.__cause__
        raise UsageError(f"{called} {os.fspath(text)} cannot be read ({why}): it counts by its content") from error
    return path


def named(called: str, text: str | os.PathLike[str]) -> Path:
    """The absolute path of a file or a directory. Raises UsageError for an empty one."""
    if not os.fspath(text):
        raise UsageError(f"{called} takes the path of a file or a directory")
    return Path(os.path.abspath(text))
