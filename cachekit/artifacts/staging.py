"""What stands at a path, before anything is stored of it: a file or a tree, and what in it cannot be kept, by name.

A tree built apart from where it will be seen: out of what a caller made, several files at once, or out of blobs.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from cachekit.artifacts.contents import Contents
from cachekit.artifacts.manifest import EXECUTABLE, PLAIN, File, Manifest
from cachekit.artifacts.portable import DEEPEST, name_problem, too_deep, tree_problem
from cachekit.errors import UsageError
from cachekit.files.copying import Progress, Told, copy, duplicate, take
from cachekit.files.parallel import at_once
from cachekit.files.temporary import make_writable

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


def has_shape(path: Path, manifest: Manifest) -> bool:
    """Whether what stands at `path` has the manifest's names, sizes, modes and links, and no more; no file is read.

    Raises OSError.
    """
    try:
        found = survey(path)
    except UsageError:
        return False
    files = {file.path: (file.size, file.mode) for file in manifest.regular}
    links = {file.path: file.link for file in manifest.files if file.link}
    same = (found.kind, found.files, found.links, found.empty) == (manifest.kind, files, links, manifest.directories)
    return same and not path.is_symlink()


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


def stage_found(found: Survey, staged: Path, about: Mapping[str, str], movable: bool, told: Told | None) -> Manifest:
    """Brings what was found to `staged`, and says what it is."""
    if found.kind == "tree":
        staged.mkdir()
    for path in found.directories:
        (staged / path).mkdir()
    for path, target in found.links.items():
        os.symlink(target, staged / path)
    links = [File(path, 0, PLAIN, "", link=target) for path, target in found.links.items()]
    fill = take if movable else copy
    lock = threading.Lock()

    def one(path: str, go_on: Callable[[], None]) -> File:
        def tell(progress: Progress) -> None:
            go_on()
            if told is not None:
                with lock:
                    told(progress)

        sha256 = fill(found.root / path, staged / path, path or found.name, tell)
        return File(path, os.lstat(staged / path).st_size, found.files[path][1], sha256)

    files = at_once(one, list(found.files), name="cachekit-artifact")
    return Manifest(found.kind, found.name, tuple(sorted(links + files)), found.empty, about=dict(about))


def give_back(found: Survey, staged: Path) -> None:
    """Undoes the moves of `stage_found` where storing failed: what was built is still the caller's. Raises OSError."""
    if staged.is_dir():
        make_writable(staged)
    for path, (_, mode) in found.files.items():
        source, here = found.root / path, staged / path
        if os.path.lexists(source) or not os.path.lexists(here):
            continue
        if os.lstat(here).st_nlink == 1 or not _duplicated(here, source, mode):
            os.rename(here, source)
            os.chmod(source, mode)


def _duplicated(here: Path, source: Path, mode: int) -> bool:
    """False without room for another copy: then the file that is one with a blob moves, and whoever changes it ends that."""
    try:
        duplicate(here, source, mode)
    except OSError:
        source.unlink(missing_ok=True)
        return False
    return True


def stage_blobs(manifest: Manifest, staged: Path, contents: Contents) -> None:
    """Builds the tree of a checked manifest out of blobs that are here."""
    if manifest.kind == "tree":
        staged.mkdir()
    for path in manifest.directories:
        (staged / path).mkdir(parents=True, exist_ok=True)
    for file in manifest.files:
        (staged / file.path).parent.mkdir(parents=True, exist_ok=True)
        if file.link:
            os.symlink(file.link, staged / file.path)
        else:
            contents.expose(file.sha256, staged / file.path, file.mode)
