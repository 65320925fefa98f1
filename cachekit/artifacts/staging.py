"""An artifact before it is stored: what stands at a path, and the same built where nobody sees it yet.

What cannot be kept is refused by its name before anything is stored of the rest.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from cachekit.artifacts.manifest import EXECUTABLE, PLAIN, File, Manifest
from cachekit.artifacts.portable import DEEPEST, TOO_DEEP, name_problem, tree_problem
from cachekit.errors import UsageError
from cachekit.files.copying import CALLERS, Progress, Told, copy, duplicate, take
from cachekit.files.parallel import at_once

_KINDS: Final = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(slots=True)
class Survey:
    """`root` is where the content stands, `name` what the caller calls it; `files` are path → (size, mode), `links`
    path → target, `directories` all of them. Paths are relative; a single file's is "". `blobs` are files that stand
    elsewhere: path → where.
    """

    root: Path
    name: str
    kind: Literal["file", "tree"] = "tree"
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)
    blobs: dict[str, Path] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for size, _ in self.files.values())

    @property
    def empty(self) -> tuple[str, ...]:
        """Directories without entries, sorted."""
        above = {path.rpartition("/")[0] for path in (*self.files, *self.links, *self.directories)}
        return tuple(sorted(path for path in self.directories if path not in above))

    @classmethod
    def of(cls, path: Path) -> Survey:
        """What stands at `path`; a link there is followed, links below are kept. Raises UsageError, with the name, and
        OSError for what is no fault of the path.
        """
        try:
            root = path.resolve(strict=True)
            survey = cls(root, os.path.basename(os.path.abspath(path)))
            if problem := name_problem(survey.name):
                raise _refused(survey.name, problem)
            survey._walk("", root.stat())
        except (OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno not in CALLERS:
                raise
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"{os.fspath(path)!r} cannot be stored as an artifact ({why}): return a path that is there"
            ) from error
        leaves = (*survey.files, *survey.links)
        if survey.kind == "tree" and (problem := tree_problem(leaves, survey.directories, survey.links)):
            raise UsageError(f"{survey.name!r} cannot be stored as an artifact: {problem}")
        return survey

    def _walk(self, path: str, status: os.stat_result) -> None:
        if path.count("/") >= DEEPEST:
            raise _refused(f"{path[:80]}…", TOO_DEEP)
        if stat.S_ISREG(status.st_mode):
            self.kind = self.kind if path else "file"
            self.files[path] = (status.st_size, EXECUTABLE if status.st_mode & stat.S_IXUSR else PLAIN)
        elif stat.S_ISLNK(status.st_mode):
            blob = _blob(self.root, path)
            if blob is None:
                self.links[path] = os.readlink(self.root / path)
            else:
                self.blobs[path] = blob
                self._walk(path, blob.stat())
        elif stat.S_ISDIR(status.st_mode):
            self.directories += [path] if path else []
            for name in sorted(os.listdir(self.root / path)):
                below = f"{path}/{name}" if path else name
                if problem := name_problem(name):
                    raise _refused(below, problem)
                self._walk(below, os.lstat(self.root / below))
        else:
            what = next((what for is_kind, what in _KINDS if is_kind(status.st_mode)), "no file")
            raise _refused(path or self.name, f"is {what}")


def _blob(root: Path, path: str) -> Path | None:
    """The file that a link in a snapshot of huggingface_hub stands for: its contents lie beside all snapshots of the repo."""
    if root.parent.name != "snapshots":
        return None
    target = Path(os.path.realpath(root / path))
    beside = os.path.realpath(root.parent.parent / "blobs")
    return target if os.fspath(target.parent) == beside and target.is_file() else None


def _refused(path: str, why: str) -> UsageError:
    return UsageError(f"{path!r} {why}: it cannot be stored as part of an artifact; leave it out or name it otherwise")


def has_shape(path: Path, manifest: Manifest) -> bool:
    """Whether what stands at `path` has the manifest's names, sizes, modes and links, and no more; no file is read.

    Raises OSError.
    """
    try:
        survey = Survey.of(path)
    except UsageError:
        return False
    files = {file.path: (file.size, file.mode) for file in manifest.regular}
    links = {file.path: file.link for file in manifest.files if file.link}
    same = (survey.kind, survey.files, survey.links, survey.empty)
    return same == (manifest.kind, files, links, manifest.directories) and not path.is_symlink()


def lay_out(manifest: Manifest, target: Path, fill: Callable[[File, Path], None]) -> None:
    """Makes at `target` what a checked manifest says: directories and links here, each file by `fill`."""
    if manifest.kind == "tree":
        target.mkdir()
    for path in manifest.directories:
        (target / path).mkdir(parents=True, exist_ok=True)
    for file in manifest.files:
        place = target / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.link:
            os.symlink(file.link, place)
        else:
            fill(file, place)


def bring(survey: Survey, staged: Path, about: Mapping[str, str], movable: bool, told: Told | None) -> Manifest:
    """Brings what was surveyed to `staged`, several files at once, and says what it is."""
    if survey.kind == "tree":
        staged.mkdir()
    for path in survey.directories:
        (staged / path).mkdir()
    for path, target in survey.links.items():
        os.symlink(target, staged / path)
    links = [File(path, 0, PLAIN, "", link=target) for path, target in survey.links.items()]
    fill = take if movable else copy
    lock = threading.Lock()

    def one(path: str, go_on: Callable[[], None]) -> File:
        def tell(progress: Progress) -> None:
            go_on()
            if told is not None:
                with lock:
                    told(progress)

        blob = survey.blobs.get(path)
        source, bringing = (survey.root / path, fill) if blob is None else (blob, copy)
        sha256 = bringing(source, staged / path, path or survey.name, tell)
        return File(path, os.lstat(staged / path).st_size, survey.files[path][1], sha256)

    files = at_once(one, list(survey.files), name="cachekit-artifact")
    return Manifest(survey.kind, survey.name, tuple(sorted(links + files)), survey.empty, about=dict(about))


def give_back(survey: Survey, staged: Path) -> None:
    """Undoes the moves of `bring` where storing failed: what was built is still the caller's. Raises OSError."""
    for path, (_, mode) in survey.files.items():
        source, here = survey.root / path, staged / path
        if os.path.lexists(source) or not os.path.lexists(here):
            continue
        if os.lstat(here).st_nlink == 1 or not _duplicated(here, source, mode):
            os.chmod(here.parent, 0o700)
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
