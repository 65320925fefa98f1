"""The content store of artifacts: files and trees of any size, published whole or not at all, read-only where they stand.

A hit compares stat signatures, never bytes. Files are read once, in pieces. What a killed process left is invisible,
and goes with `collect`.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from cachekit.artifacts.contents import Contents
from cachekit.artifacts.manifest import File, Manifest, problem_of
from cachekit.artifacts.output import alone_at, put_copy
from cachekit.artifacts.staging import Survey, bring, give_back, lay_out
from cachekit.artifacts.trees import FROZEN, Trees
from cachekit.errors import IntegrityError, TierError, TierFull, TierUnavailable
from cachekit.files.copying import Progress, Told, degrading, lasting
from cachekit.files.digests import Signature
from cachekit.files.temporary import abandoned, below, new_name, remove, temporary

__all__ = ["ArtifactStore", "Progress"]

_ROOM: Final = 1 << 30
"""Bytes free from which on a scratch directory is made beside the store without looking further."""


class ArtifactStore:
    """Everything below may raise TierError: TierFull without room, TierUnavailable where the system refuses.

    `told` hears of every MiB that is stored or hashed.
    """

    def __init__(self, directory: Path, *, told: Told | None = None) -> None:
        self._directory = directory
        self._told = told
        self._contents = Contents(directory)
        self._trees = Trees(directory, self._contents, told)

    def ingest(self, path: Path, *, about: Mapping[str, str] = {}, own: bool = False) -> Manifest:
        """Stores the file or tree at `path`; with `own` its files may be moved. Raises UsageError for what cannot be kept.

        A link at `path` is followed, and what it leads to is copied even with `own`.
        """
        with degrading("storing an artifact"), temporary(self._contents.temporaries) as stage:
            survey = Survey.of(Path(path))
            movable = own and not os.path.islink(path)
            self._check_room(survey, movable)
            try:
                return self._ingested(survey, stage / "content", about, movable)
            except BaseException:
                if movable:
                    give_back(survey, stage / "content")
                raise

    @degrading("looking for an artifact")
    def have(self, manifest: Manifest) -> Path | None:
        """The read-only path of the artifact, None if it is not here or no longer what it was (it is removed then)."""
        return self._trees.have(manifest)

    def missing(self, manifest: Manifest) -> list[File]:
        """Files whose blobs are not here, each content once."""
        return [file for file in {file.sha256: file for file in manifest.regular}.values() if not self.has(file.sha256)]

    @degrading("looking for a blob")
    def has(self, sha256: str) -> bool:
        """Whether the blob is here and right."""
        return self._contents.has(sha256)

    def blob(self, sha256: str) -> Path:
        """Where the blob stands, read-only, or would. IntegrityError for what is no SHA-256."""
        return self._contents.path(sha256)

    @degrading("making room for a download")
    def partial(self, sha256: str) -> Path:
        """Where a download of this blob grows; always the same, so that it can go on where it stopped."""
        path = self._directory / "partial" / self._contents.path(sha256).name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    @degrading("keeping a download")
    def publish(self, sha256: str, partial: Path, known: Signature | None = None) -> None:
        """Moves a complete download among the blobs. IntegrityError, and it is removed, if its bytes are not those.

        They are not read again where `known`, the signature under which they were last digested, is still that.
        """
        self._contents.publish(sha256, partial, known)

    @degrading("assembling an artifact")
    def assemble(self, manifest: Manifest) -> Path:
        """The artifact, of blobs that are here. IntegrityError if one is missing, or if a name in it could escape."""
        if problem := problem_of(manifest):
            raise IntegrityError(f"a manifest is refused: {problem}", reason="manifest")
        if (there := self._trees.have(manifest)) is not None:
            self._trees.describe(manifest)
            return there
        if absent := self.missing(manifest):
            raise IntegrityError(f"{manifest.name}: the content of {absent[0].path!r} is not here", reason="incomplete")
        with temporary(self._contents.temporaries) as stage:
            lay_out(manifest, stage / "content", self._contents.expose)
            return self._publish(manifest, stage / "content")

    def complete(self, manifest: Manifest, fetch: Callable[[Sequence[File]], None] | None) -> Path:
        """`assemble`, after `fetch` brought the files that are not here; None where nobody can be asked for them."""
        missing = self.missing(manifest)
        if missing and fetch is None:
            raise TierError(f"{len(missing)} files are not on this machine, and IPFS is off", reason="missing_files")
        if missing and fetch is not None:
            fetch(missing)
        return self.assemble(manifest)

    def place(self, manifest: Manifest, output: Path) -> None:
        """Replaces what stands at `output` by a copy of the artifact, unless it is that. UsageError where it cannot.

        Who wants the same place at the same time, in this process or another, waits, and finds it as it should be.
        """
        source = self.have(manifest)
        if source is None:
            raise TierUnavailable(f"the artifact {manifest.name} is not here", reason="incomplete")
        with alone_at(output, self._directory / "places"):
            put_copy(source, manifest, Path(output), self._directory)

    @degrading("making a scratch directory")
    def has_room(self) -> bool:
        """Whether to make things here: not where little is free, and more in the system's temporary directory."""
        from tempfile import gettempdir  # by who builds: not by every call

        free = shutil.disk_usage(self._directory.parent).free
        return free >= _ROOM or free >= shutil.disk_usage(gettempdir()).free

    def new_scratch(self) -> Path:
        """A temporary directory beside the store, so that what is made in it can be moved in. Who asked removes it; what
        a killed process left goes with `collect`.
        """
        path = self._directory / "scratch" / new_name()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
        return path

    def entries(self) -> Iterator[tuple[Manifest, int]]:
        """(manifest, when it was last used: ns since the epoch, to the hour) of every artifact."""
        return self._trees.entries()

    @degrading("removing an artifact")
    def remove(self, digest: str) -> None:
        """Removes the artifact of this content under all its names, and the blobs that no other artifact has."""
        going, staying = list[Manifest](), list[Manifest]()
        for manifest, _ in self._trees.entries():
            (going if manifest.digest == digest else staying).append(manifest)
        for manifest in going:
            self._trees.discard(manifest)
        for sha256 in _digests(going) - _digests(staying):
            self._contents.drop_unused(sha256)

    def volume(self, check: Callable[[], object] = lambda: None) -> int:
        """Bytes that the store occupies, each file once whatever its names; `check` is asked at each, and may raise."""
        sizes: dict[tuple[int, int], int] = {}
        for entry in below(self._directory):
            check()
            try:
                status = os.lstat(entry)
            except OSError:
                continue  # removed meanwhile
            if not stat.S_ISDIR(status.st_mode):
                sizes[status.st_dev, status.st_ino] = status.st_size
        return sum(sizes.values())

    @degrading("cleaning up")
    def collect(self, now: int) -> int:
        """Removes what dead processes left and nothing changed for 24 h before `now` (ns); how many things that were."""
        left = [path for name in ("tmp", "scratch", "partial") for path in abandoned(self._directory / name, now)]
        # `seen` is where an earlier version kept what the digest cache knows.
        for path in (*left, self._directory / "seen"):
            remove(path)
        used = _digests(manifest for manifest, _ in self._trees.entries())
        return len(left) + self._contents.collect(used, now) + self._trees.collect(now)

    def _ingested(self, survey: Survey, staged: Path, about: Mapping[str, str], movable: bool) -> Manifest:
        manifest = bring(survey, staged, about, movable, self._told)
        if self._trees.have(manifest) is None:
            self._adopt(manifest, staged)
            self._publish(manifest, staged)
        else:
            self._trees.describe(manifest)
        return manifest

    def _adopt(self, manifest: Manifest, staged: Path) -> None:
        for file in manifest.regular:
            self._contents.adopt(staged / file.path, file)
        for shard in {self._contents.path(file.sha256).parent for file in manifest.regular}:
            lasting(shard)

    def _publish(self, manifest: Manifest, staged: Path) -> Path:
        for above, _, _ in os.walk(staged, topdown=False):
            lasting(Path(above))
            if Path(above) != staged:  # whose owner could not move it then
                os.chmod(above, FROZEN)
        return self._trees.publish(manifest, staged)

    def _check_room(self, survey: Survey, movable: bool) -> None:
        status = os.statvfs(self._contents.temporaries) if hasattr(os, "statvfs") and not movable else None
        if status is not None and survey.size > status.f_bavail * status.f_frsize:
            raise TierFull(f"no room for {survey.name!r}, which has {survey.size} bytes")


def _digests(manifests: Iterable[Manifest]) -> set[str]:
    return {file.sha256 for manifest in manifests for file in manifest.regular}
