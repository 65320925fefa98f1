"""The files that a command makes: whether it made them, a copy for the store, and back where they were.

They come back with no more permissions than they had.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from cachekit.artifacts.output import copy_any, put_path
from cachekit.errors import UNREADABLE, IntegrityError, UsageError
from cachekit.files.digests import Signature, signature
from cachekit.files.temporary import new_name, remove

Look = Mapping[tuple[str, bool], Signature]
"""What was seen of a file or a tree: the signature of each path below it, as it is and where it leads."""
ABOUT: Final = "outcome.json"
"""In an outcome: its status, and the permissions of its outputs."""
Modes = Mapping[str, int]
"""The permissions of a file or a tree, by what stands below it."""


def look(output: Path) -> Look:
    """What changes when anybody writes to a file or a tree; empty where nothing stands."""
    seen: dict[tuple[str, bool], Signature] = {}
    for relative, place in _all(output):
        for follow in (False, True):
            with contextlib.suppress(OSError):  # gone meanwhile, or a link to nothing
                seen[relative, follow] = signature(os.stat(place, follow_symlinks=follow))
    return seen


def collect(outputs: Sequence[Path], kept: Path) -> list[Modes | None]:
    """Copies the outputs into `kept`; their permissions, None for one that is not there. Raises OSError."""
    modes: list[Modes | None] = []
    for number, output in enumerate(outputs):
        if os.path.lexists(output):
            place = kept / "outputs" / str(number)
            place.mkdir(parents=True)
            copy_any(output, place / output.name)
        # An artifact's files are as readable as the store: what they may be elsewhere is content like any other.
        modes.append(_modes(output) if os.path.lexists(output) else None)
    return modes


def place(kept: Path, outputs: Sequence[Path], modes: Sequence[Modes | None]) -> None:
    """Replaces what stands at the outputs. Raises UsageError where one cannot be written."""
    for number, (output, allowed) in enumerate(zip(outputs, modes, strict=True)):
        if allowed is None:
            continue
        try:
            _placed(kept / "outputs" / str(number) / output.name, output, allowed)
        except (OSError, UsageError) as error:
            why = getattr(error.__cause__ or error, "strerror", None) or error
            raise UsageError(f"cannot write the output {str(output)!r} ({why}): name another place") from error


def write_about(kept: Path, status: int, modes: Sequence[Modes | None]) -> None:
    """Puts into an outcome how the command ended, and the permissions of its outputs. Raises OSError."""
    (kept / ABOUT).write_text(json.dumps({"status": status, "modes": modes}), encoding="utf-8")


def read_about(kept: Path, many: int) -> tuple[int, list[Modes | None]]:
    """The status and the permissions of `many` outputs. Raises IntegrityError for what `write_about` did not leave."""
    try:
        about = json.loads((kept / ABOUT).read_text(encoding="utf-8"))
        status, modes = about["status"], list[Modes | None](about["modes"])
        numbers = [number for one in modes if one is not None for number in one.values()]
        if len(modes) != many or any(type(number) is not int for number in (status, *numbers)):
            raise ValueError("there are no numbers for each output")
    except UNREADABLE as error:
        message = f"what was kept of the command cannot be read ({error}); run it with CACHEKIT_MODE=refresh"
        raise IntegrityError(message) from error
    return status, modes


def _placed(source: Path, output: Path, modes: Modes) -> None:
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


def _permit(staged: Path, modes: Modes, allowed: int) -> None:
    # The deepest first: a directory may lose what it takes to reach the things in it.
    for relative, path in sorted(_all(staged), reverse=True):
        if not path.is_symlink():
            path.chmod(modes.get(relative, 0o700 if path.is_dir() else 0o600) & allowed)


def _allowed(directory: Path) -> int:
    """What the umask lets anything new have, seen on a file: to ask for the umask is to change it."""
    descriptor = os.open(directory / "allowed", os.O_CREAT | os.O_WRONLY, 0o777)
    try:
        return os.fstat(descriptor).st_mode & 0o777
    finally:
        os.close(descriptor)


def _modes(output: Path) -> dict[str, int]:
    return {
        relative: path.stat().st_mode & 0o777 for relative, path in _all(output) if not (relative and path.is_symlink())
    }


def _all(root: Path) -> Iterator[tuple[str, Path]]:
    yield "", root
    for above, directories, names in os.walk(root):
        for name in (*directories, *names):
            path = Path(above, name)
            yield path.relative_to(root).as_posix(), path
