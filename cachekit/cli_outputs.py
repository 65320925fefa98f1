"""The files that a command makes: whether it made them, and back where they were, with no more permissions than they had."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from cachekit.artifacts.output import copy_any, put_path
from cachekit.errors import UsageError
from cachekit.files.digests import Signature, signature
from cachekit.files.temporary import new_name, remove

Look = Mapping[tuple[str, bool], Signature]
_MODES: Final = "modes.json"


def look(output: Path) -> Look:
    """What changes when anybody writes to a file or a tree; empty where nothing stands."""
    seen: dict[tuple[str, bool], Signature] = {}
    for relative, place in _all(output):
        for follow in (False, True):
            with contextlib.suppress(OSError):  # gone meanwhile, or a link to nothing
                seen[relative, follow] = signature(os.stat(place, follow_symlinks=follow))
    return seen


def collect(outputs: Sequence[Path], kept: Path) -> None:
    """Copies the outputs into `kept`, and notes their permissions there. Raises OSError."""
    for number, output in enumerate(outputs):
        place = kept / "outputs" / str(number)
        place.mkdir(parents=True)
        copy_any(output, place / output.name)
    # An artifact's files are as readable as the store: what they may be elsewhere is content like any other.
    (kept / _MODES).write_text(json.dumps([_modes(output) for output in outputs]), encoding="utf-8")


def place(kept: Path, outputs: Sequence[Path]) -> None:
    """Replaces what stands at the outputs. Raises UsageError where one cannot be written."""
    modes = json.loads((kept / _MODES).read_text(encoding="utf-8"))
    for number, output in enumerate(outputs):
        try:
            _placed(kept / "outputs" / str(number) / output.name, output, modes[number])
        except (OSError, UsageError) as error:
            why = getattr(error.__cause__ or error, "strerror", None) or error
            raise UsageError(f"cannot write the output {str(output)!r} ({why}): name another place") from error


def _placed(source: Path, output: Path, modes: Mapping[str, int]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    # Nobody else looks in before the permissions are what they were.
    private = output.parent / f".cachekit-{new_name()}"
    private.mkdir(mode=0o700)
    try:
        staged = private / "output"
        copy_any(source, staged)
        _permit(staged, modes, _allowed(private))
        put_path(staged, output, movable=True)
    finally:
        remove(private)


def _permit(staged: Path, modes: Mapping[str, int], allowed: int) -> None:
    # The deepest first: a directory may lose what it takes to reach the things in it.
    for relative, found in sorted(_all(staged), reverse=True):
        if not found.is_symlink():
            found.chmod(modes.get(relative, 0o700 if found.is_dir() else 0o600) & allowed)


def _allowed(directory: Path) -> int:
    """What the umask lets anything new have, seen on a file: to ask for the umask is to change it."""
    descriptor = os.open(directory / "allowed", os.O_CREAT | os.O_WRONLY, 0o777)
    try:
        return os.fstat(descriptor).st_mode & 0o777
    finally:
        os.close(descriptor)


def _modes(output: Path) -> dict[str, int]:
    return {
        relative: found.stat().st_mode & 0o777
        for relative, found in _all(output)
        if not (relative and found.is_symlink())
    }


def _all(root: Path) -> Iterator[tuple[str, Path]]:
    yield "", root
    for above, directories, names in os.walk(root):
        for name in (*directories, *names):
            found = Path(above, name)
            yield found.relative_to(root).as_posix(), found
