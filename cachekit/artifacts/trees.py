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
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, NamedTuple

from cachekit.artifacts.contents import Contents
from cachekit.artifacts.manifest import File, Manifest
from cachekit.artifacts.staging import has_shape
from cachekit.errors import IntegrityError, TierUnavailable
from cachekit.files.copying import Told, lasting, link, sha256_of
from cachekit.files.digests import LINE, Signature, settled, signature
from cachekit.files.temporary import ABANDONED, new_name, remove, replacing

FROZEN: Final = 0o555
_HOUR: Final = 3600
_ATTEMPTS: Final = 10
_THERE: Final = (errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.ENOENT)
_REMEMBERED: Final = 16


class _Place(NamedTuple):
    """What follows from a manifest alone: where its artifact stands, its note, and everything in it, directories too."""

    manifest: Manifest
    path: Path
    seen: Path
    all: tuple[str, ...]

    @property
    def described(self) -> Path:
        return self.seen.with_suffix(".manifest")

    def look(self) -> list[Signature]:
        """The signatures of everything in it. Nothing is opened."""
        return [signature(os.lstat(path)) for path in self.all]


class Trees:
    """The artifacts in `directory`. Raises OSError where nothing else is said."""

    def __init__(self, directory: Path, contents: Contents, told: Told | None) -> None:
        self._directory = directory
        self._contents = contents
        self._told = told
        self._places: dict[int, _Place] = {}

    def have(self, manifest: Manifest) -> Path | None:
        """The artifact, if it stands there and is right: by signatures; by content, once, where one of them moved."""
        place, known = self._place(manifest), b""
        try:
            with open(place.seen, "rb", buffering=0) as stream:
                known = stream.read()
                if known == _text(place.look()):
                    if time.time() - os.fstat(stream.fileno()).st_mtime > _HOUR:
                        os.utime(stream.name)
                    return place.path
        except (FileNotFoundError, NotADirectoryError):
            pass
        return self._verified(place, known) if os.path.lexists(place.path) else None

    def publish(self, manifest: Manifest, staged: Path) -> Path:
        """Makes what was staged visible; where it is already, what is there stays."""
        place = self._place(manifest)
        path = place.path
        self.describe(manifest)
        os.utime(place.described)  # an old one was left by who never came as far: `collect` shall not take it now
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
                self._remember(place)
                for above in (path.parent, path.parent.parent, path.parent.parent.parent):
                    lasting(above)
            return path
        raise TierUnavailable(f"the artifact {manifest.name} comes and goes", reason="io")

    def describe(self, manifest: Manifest) -> None:
        """Keeps the manifest for `entries`; a later one of the same content and name replaces it."""
        note = self._place(manifest).described
        if not note.exists() or note.read_bytes() != manifest.encode():
            self._write(note, manifest.encode())

    def discard(self, manifest: Manifest) -> None:
        """Removes the artifact at once, and its notes; its blobs stay."""
        place, gone = self._place(manifest), self._contents.temporaries / new_name()
        gone.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._renaming(manifest):
            try:
                if stat.S_ISDIR(os.lstat(place.path).st_mode):
                    os.chmod(place.path, 0o700)  # else its owner may not move it
                os.rename(place.path, gone)
            except FileNotFoundError:
                pass
            remove(gone)
        for note in (place.seen, place.described):
            note.unlink(missing_ok=True)
        try:
            place.path.parent.rmdir()
        except OSError:
            pass  # the same content under another name is still there

    def entries(self) -> Iterator[tuple[Manifest, int]]:
        """(manifest, when it was last used, in ns and to the hour) of every artifact that stands here."""
        for note in sorted((self._directory / "notes").glob("??/*.manifest")):
            try:
                manifest = Manifest.decode(note.read_bytes())
                seen = note.with_suffix(".seen")
                used = os.stat(seen if seen.exists() else note).st_mtime_ns
                os.lstat(self._place(manifest).path)
            except (OSError, IntegrityError):
                continue  # removed meanwhile, or killed before it was published
            yield manifest, used

    def collect(self, now: int) -> int:
        """Removes, a day after the last change before `now` (ns), the notes of trees that are not there, and the
        directories of trees that hold none; how many that were.
        """
        gone = 0
        for empty in (self._directory / "trees").glob("??/*"):
            with contextlib.suppress(OSError):  # it holds one
                if _is_old(empty, now):
                    empty.rmdir()
                    gone += 1
        for note in (self._directory / "notes").glob("??/*.manifest"):
            with contextlib.suppress(OSError):  # somebody else is at it
                if _is_old(note, now) and not self._is_there(note):
                    note.with_suffix(".seen").unlink(missing_ok=True)
                    note.unlink()
                    gone += 1
        return gone

    def _is_there(self, note: Path) -> bool:
        try:
            return os.path.lexists(self._place(Manifest.decode(note.read_bytes())).path)
        except IntegrityError:
            return True  # what nobody can read says nothing of any tree

    def _verified(self, place: _Place, known: bytes) -> Path | None:
        began = time.time_ns()
        try:
            before = place.look()
            right = self._is_right(place, dict(zip(place.all, known.splitlines(), strict=False)))
            if right and place.look() == before:
                changed = max(ctime for *_, ctime in before)
                if settled((0, 0, 0, changed, changed), began):
                    self._remember(place)
                return place.path
        except (FileNotFoundError, NotADirectoryError):
            right = False
        if not right:
            self.discard(place.manifest)
        return place.path if right else None

    def _is_right(self, place: _Place, known: dict[str, bytes]) -> bool:
        return has_shape(place.path, place.manifest) and all(
            self._holds(place.path / file.path, file, known) for file in place.manifest.regular
        )

    def _holds(self, path: Path, file: File, known: dict[str, bytes]) -> bool:
        now = signature(os.lstat(path))
        # One file with a blob that is vouched for has that blob's bytes, whatever its other names were given since.
        if LINE % now == known.get(os.fspath(path)) or self._contents.vouched(file.sha256) == now:
            return True
        return sha256_of(path, file.path or path.name, self._told) == file.sha256

    def _renaming(self, manifest: Manifest) -> AbstractContextManager[None]:
        return self._contents.renaming(*{file.sha256 for file in manifest.regular})

    def _remember(self, place: _Place) -> None:
        if place.manifest.kind == "tree":
            os.chmod(place.path, FROZEN)
        with contextlib.suppress(OSError):  # without the note its files are read once more
            self._write(place.seen, _text(place.look()))

    def _write(self, note: Path, text: bytes) -> None:
        with replacing(note, self._contents.temporaries) as new:
            new.write_bytes(text)

    def _place(self, manifest: Manifest) -> _Place:
        # A hit of a manifest that was met before should cost its stats, and not its digest.
        place = self._places.get(id(manifest))
        if place is None or place.manifest is not manifest:
            digest, name = manifest.digest, hashlib.sha256(manifest.name.encode()).hexdigest()[:16]
            path = self._directory / "trees" / digest[:2] / digest / manifest.name
            seen = self._directory / "notes" / digest[:2] / f"{digest}-{name}.seen"
            if len(self._places) >= _REMEMBERED:
                self._places.clear()
            self._places[id(manifest)] = place = _Place(manifest, path, seen, _all(manifest, path))
        return place


def _is_old(path: Path, now: int) -> bool:
    return now - os.lstat(path).st_mtime_ns >= ABANDONED


def _all(manifest: Manifest, top: Path) -> tuple[str, ...]:
    names = {""}
    for name in (*manifest.directories, *(file.path for file in manifest.files)):
        while name not in names:
            names.add(name)
            name = name.rpartition("/")[0]
    return tuple(os.fspath(top / name) for name in sorted(names))


def _text(signatures: list[Signature]) -> bytes:
    return b"\n".join([LINE % one for one in signatures])


def _appear(staged: Path, path: Path) -> None:
    # For a file a second name: a rename would replace what another process has put there.
    if staged.is_dir() or not link(staged, path):
        os.rename(staged, path)
    else:
        staged.unlink()
