"""A tree built apart from where it will be seen: out of what a caller made, several files at once, or out of blobs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from cachekit.artifact_blobs import Blobs
from cachekit.artifact_tree import Survey
from cachekit.files.copying import Progress, Told, copy, duplicate, take
from cachekit.files.parallel import at_once
from cachekit.files.temporary import make_writable
from cachekit.manifest import PLAIN, File, Manifest


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


def stage_blobs(manifest: Manifest, staged: Path, blobs: Blobs) -> None:
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
            blobs.expose(file.sha256, staged / file.path, file.mode)
