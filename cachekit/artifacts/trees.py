"""Whole artifacts: `trees/ab/<digest>/<name>`, each there by one rename, or not at all.

What a tree's signatures were when it was last known to be right stands in `notes/ab/<digest>-<name's digest>.seen`, its
manifest beside it. While they are the same nothing is read again; `.seen` is touched at most once an hour, so its age
tells how long an artifact was not used.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, NamedTuple

from cachekit.artifacts.contents import Blobs
from cachekit.artifacts.manifest import File, Manifest
from cachekit.artifacts.staging import survey
from cachekit.errors import IntegrityError, TierUnavailable, UsageError
from cachekit.files.copying import Told, lasting, link, sha256_of
from cachekit.files.digests import settled, signature
from cachekit.files.temporary import new_name, remove

FROZEN: Final = 0o555
_HOUR: Final = 3600
_ATTEMPTS: Final = 10
_THERE: Final = (errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.ENOENT)
_REMEMBERED: Final = 16


class _Place(NamedTuple):
    """What follows from a manifest alone: where its artifact stands, its note, and what is in it."""

    manifest: Manifest
    path: Path
    note: Path
    places: tuple[str, ...]


class Trees:
    """The artifacts in `directory`. Raises OSError where nothing else is said."""

    def __init__(self, directory: Path, blobs: Blobs, told: Told | None) -> None:
        self._directory = directory
        self._blobs = blobs
        self._told = told
        self._places: dict[int, _Place] = {}

    def path(self, manifest: Manifest) -> Path:
        """Where the artifact stands, or would."""
        return self._place(manifest).path

    def have(self, manifest: Manifest) -> Path | None:
        """The artifact, if it stands there and is right: by signatures; by content, once, where one of them moved."""
        place, known = self._place(manifest), b""
        path = place.path
        try:
            with open(place.note, "rb", buffering=0) as stream:
                known = stream.read()
                if known == _look(path, place.places)[0]:
                    if time.time() - os.fstat(stream.fileno()).st_mtime > _HOUR:
                        os.utime(stream.name)
                    return path
        except (FileNotFoundError, NotADirectoryError):
            pass
        return self._verified(manifest, path, known) if os.path.lexists(path) else None

    def publish(self, manifest: Manifest, staged: Path) -> Path:
        """Makes what was staged visible; where it is already, what is there stays."""
        path = self.path(manifest)
        self.describe(manifest)
        for _ in range(_ATTEMPTS):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with self._renaming(manifest):
                    _appear(staged, path)
            except OSError as error:
                if error.errno not in _THERE:
                    raise
                if self.have(manifest):
                    with self._renaming(manifest):
                        remove(staged)
                    return path
                continue
            # It stands there now, and its files are no longer where they came from: nothing may fail any more.
            with contextlib.suppress(OSError):
                self._remember(manifest, path)
                for above in (path.parent, path.parent.parent, path.parent.parent.parent):
                    lasting(above)
            return path
        raise TierUnavailable(f"the artifact {manifest.name} comes and goes", reason="io")

    def describe(self, manifest: Manifest) -> None:
        """Keeps the manifest for `entries`; a later one of the same content and name replaces it."""
        note = self._note(manifest, manifest.digest, "manifest")
        if not note.exists() or note.read_bytes() != manifest.encode():
            self._blobs.write(note, manifest.encode())

    def discard(self, manifest: Manifest) -> None:
        """Removes the artifact at once, and its notes; its blobs stay."""
        path, gone = self.path(manifest), self._blobs.temporaries / new_name()
        gone.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._renaming(manifest):
            try:
                if stat.S_ISDIR(os.lstat(path).st_mode):
                    os.chmod(path, 0o700)  # else its owner may not move it
                os.rename(path, gone)
            except FileNotFoundError:
                pass
            remove(gone)
        for kind in ("seen", "manifest"):
            self._note(manifest, manifest.digest, kind).unlink(missing_ok=True)
        try:
            path.parent.rmdir()
        except OSError:
            pass  # the same content under another name is still there

    def entries(self) -> Iterator[tuple[Manifest, int]]:
        """(manifest, when it was last used, in ns and to the hour) of every artifact that stands here."""
        for note in sorted((self._directory / "notes").glob("??/*.manifest")):
            try:
                manifest = Manifest.decode(note.read_bytes())
                seen = note.with_suffix(".seen")
                used = os.stat(seen if seen.exists() else note).st_mtime_ns
                os.lstat(self.path(manifest))
            except (OSError, IntegrityError):
                continue  # removed meanwhile, or killed before it was published
            yield manifest, used

    def _verified(self, manifest: Manifest, path: Path, known: bytes) -> Path | None:
        began = time.time_ns()
        try:
            places = self._place(manifest).places
            before, youngest = _look(path, places)
            right = self._agrees(manifest, path, dict(zip(places, known.splitlines(), strict=False)))
            if right and _look(path, places)[0] == before:
                if settled((0, 0, 0, youngest, youngest), began):
                    self._remember(manifest, path)
                return path
        except (FileNotFoundError, NotADirectoryError):
            right = False
        if not right:
            self.discard(manifest)
        return path if right else None

    def _agrees(self, manifest: Manifest, path: Path, known: dict[str, bytes]) -> bool:
        try:
            found = survey(path)
        except UsageError:
            return False
        files = {file.path: (file.size, file.mode) for file in manifest.files if not file.link}
        links = {file.path: file.link for file in manifest.files if file.link}
        shape = (found.kind, found.files, found.links, found.empty)
        if path.is_symlink() or shape != (manifest.kind, files, links, manifest.directories):
            return False
        return all(self._holds(path / file.path, file, known) for file in manifest.files if not file.link)

    def _holds(self, path: Path, file: File, known: dict[str, bytes]) -> bool:
        status = os.lstat(path)
        # One file with a blob that is vouched for has that blob's bytes, whatever its other names were given since.
        if _line(status) == known.get(file.path) or self._blobs.vouched(file.sha256) == signature(status):
            return True
        return sha256_of(path, file.path or path.name, self._told) == file.sha256

    def _renaming(self, manifest: Manifest) -> AbstractContextManager[None]:
        return self._blobs.renaming(*{file.sha256 for file in manifest.files if file.sha256})

    def _remember(self, manifest: Manifest, path: Path) -> None:
        if manifest.kind == "tree":
            os.chmod(path, FROZEN)
        place = self._place(manifest)
        with contextlib.suppress(OSError):  # without the note its files are read once more
            self._blobs.write(place.note, _look(path, place.places)[0])

    def _place(self, manifest: Manifest) -> _Place:
        # A hit of a manifest that was met before should cost its stats, and not its digest.
        found = self._places.get(id(manifest))
        if found is None or found.manifest is not manifest:
            digest = manifest.digest
            note = self._note(manifest, digest, "seen")
            found = _Place(manifest, self._path(manifest, digest), note, tuple(_places(manifest)))
            if len(self._places) >= _REMEMBERED:
                self._places.clear()
            self._places[id(manifest)] = found
        return found

    def _path(self, manifest: Manifest, digest: str) -> Path:
        return self._directory / "trees" / digest[:2] / digest / manifest.name

    def _note(self, manifest: Manifest, digest: str, kind: str) -> Path:
        name = hashlib.sha256(manifest.name.encode()).hexdigest()[:16]
        return self._directory / "notes" / digest[:2] / f"{digest}-{name}.{kind}"


def _look(path: Path, places: Iterable[str]) -> tuple[bytes, int]:
    """The signatures of everything in it, as text, and the youngest change (ns). Nothing is opened."""
    root = os.fspath(path)
    found = [os.lstat(f"{root}/{place}" if place else root) for place in places]
    return b"\n".join(map(_line, found)), max(status.st_ctime_ns for status in found)


def _places(manifest: Manifest) -> list[str]:
    """Everything that the manifest says is there, directories too, in order; "" is the top."""
    places = {"", *manifest.directories}
    for path in (*manifest.directories, *(file.path for file in manifest.files)):
        places.add(path)
        above = path.rpartition("/")[0]
        while above not in places:
            places.add(above)
            above = above.rpartition("/")[0]
    return sorted(places)


def _line(s: os.stat_result) -> bytes:
    return b"%d %d %d %d %d" % (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)


def _appear(staged: Path, path: Path) -> None:
    # For a file a second name: a rename would replace what another process has put there.
    if staged.is_dir() or not link(staged, path):
        os.rename(staged, path)
    else:
        staged.unlink()
