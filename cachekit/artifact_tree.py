"""What stands at a path, before anything is stored of it: a file or a tree, and what in it cannot be kept, by name."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from cachekit.errors import UsageError
from cachekit.manifest import EXECUTABLE, PLAIN
from cachekit.portable import DEEPEST, name_problem, too_deep, tree_problem

_KINDS: Final = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(slots=True)
class Survey:
    """`root` is where the content stands, `name` what the caller calls it; `files` are path → (size, mode), `links`
    path → target, `directories` all of them. Paths are relative; a single file's is "".
    """

    root: Path
    name: str
    kind: Literal["file", "tree"] = "tree"
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for size, _ in self.files.values())

    @property
    def empty(self) -> tuple[str, ...]:
        """Directories without entries, sorted."""
        above = {path.rpartition("/")[0] for path in (*self.files, *self.links, *self.directories)}
        return tuple(sorted(path for path in self.directories if path not in above))


def survey(path: Path) -> Survey:
    """Walks what stands at `path`; a link there is followed, links below are kept. Raises UsageError, with the name."""
    try:
        root = path.resolve(strict=True)
        found = Survey(root, os.path.basename(os.path.abspath(path)))
        if problem := name_problem(found.name):
            raise _refused(found.name, problem)
        _walk(found, "", root.stat())
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{os.fspath(path)!r} cannot be stored as an artifact ({why}): return a path that is there"
        ) from error
    if found.kind == "tree" and (problem := tree_problem((*found.files, *found.links), found.directories, found.links)):
        raise UsageError(f"{found.name!r} cannot be stored as an artifact: {problem}")
    return found


def _walk(found: Survey, path: str, status: os.stat_result) -> None:
    if path.count("/") >= DEEPEST:
        raise _refused(f"{path[:80]}…", too_deep())
    if stat.S_ISREG(status.st_mode):
        found.kind = found.kind if path else "file"
        found.files[path] = (status.st_size, EXECUTABLE if status.st_mode & stat.S_IXUSR else PLAIN)
    elif stat.S_ISLNK(status.st_mode):
        found.links[path] = os.readlink(found.root / path)
    elif stat.S_ISDIR(status.st_mode):
        found.directories += [path] if path else []
        for name in sorted(os.listdir(found.root / path)):
            below = f"{path}/{name}" if path else name
            if problem := name_problem(name):
                raise _refused(below, problem)
            _walk(found, below, os.lstat(found.root / below))
    else:
        what = next((what for is_kind, what in _KINDS if is_kind(status.st_mode)), "no file")
        raise _refused(path or found.name, f"is {what}")


def _refused(path: str, why: str) -> UsageError:
    return UsageError(f"{path!r} {why}: it cannot be stored as part of an artifact; leave it out or name it otherwise")
