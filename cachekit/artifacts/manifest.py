"""What an artifact is made of, file by file. Canonical JSON; what is decoded cannot name anything outside its tree.

The codec called `path`: a Manifest to a payload and back. The files themselves are the artifact store's.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from cachekit.artifacts.portable import name_problem, tree_problem
from cachekit.errors import UNREADABLE, CannotEncode, IntegrityError
from cachekit.files.digests import frame
from cachekit.model import ARTIFACT
from cachekit.values.codecs import Loader, LoadingCodec

PLAIN: Final = 0o644
EXECUTABLE: Final = 0o755
_VERSION: Final = 1
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_CID: Final = re.compile(r"[0-9A-Za-z]{0,128}")


class File(NamedTuple):
    """A file or a link. `size` in bytes; `mode` is `PLAIN` or `EXECUTABLE`; a link has no size, sha256 nor cid."""

    path: str
    size: int
    mode: int
    sha256: str
    cid: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A file (one entry, whose path is "") or a tree (entries sorted by path; `directories` are those without entries).

    `sealed` says whether the cids are of encrypted content. `about` is how it came to be: function, version, machine, …
    """

    kind: Literal["file", "tree"]
    name: str
    files: tuple[File, ...]
    directories: tuple[str, ...] = ()
    sealed: bool = True
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def regular(self) -> list[File]:
        """The files that are no links."""
        return [file for file in self.files if not file.link]

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the content: not of the name, the cids, or how it came to be."""
        files = [frame(f.path.encode(), b"%o" % f.mode, f.sha256.encode(), f.link.encode()) for f in self.files]
        parts = (self.kind.encode(), frame(*files), frame(*(path.encode() for path in self.directories)))
        return hashlib.sha256(frame(b"artifact", *parts)).hexdigest()

    def encode(self) -> bytes:
        """Canonical JSON, UTF-8."""
        shape = {
            "about": dict(self.about),
            "directories": self.directories,
            "files": self.files,
            "kind": self.kind,
            "name": self.name,
            "sealed": self.sealed,
            "version": _VERSION,
        }
        return json.dumps(shape, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """The manifest that `encode` wrote; IntegrityError for everything else, and for names that could escape."""
        try:
            shape = json.loads(data)
            files = tuple(File(*row) for row in shape["files"])
            directories = tuple(shape["directories"])
            found = cls(shape["kind"], shape["name"], files, directories, shape["sealed"], shape["about"])
            well_formed = _is_well_formed(found) and found.encode() == data
        except UNREADABLE as error:
            raise IntegrityError(f"not a manifest: {type(error).__name__}", reason="manifest") from error
        problem = problem_of(found) if well_formed else "not in its canonical form"
        if problem:
            raise IntegrityError(f"a manifest is refused: {problem}", reason="manifest")
        return found


def problem_of(manifest: Manifest) -> str:
    """Why what the manifest names cannot be had on every system, in a few words; "" where nothing stands against it."""
    if problem := name_problem(manifest.name):
        return f"{manifest.name!r} {problem}"
    if manifest.kind == "file":
        alone = len(manifest.files) == 1 and not manifest.directories
        return "" if alone and not manifest.files[0].path and not manifest.files[0].link else "it is no single file"
    paths = [file.path for file in manifest.files]
    links = {file.path: file.link for file in manifest.files if file.link}
    if paths != sorted(paths) or list(manifest.directories) != sorted(set(manifest.directories)):
        return "its entries are not in order"
    return tree_problem(paths, manifest.directories, links)


def _is_well_formed(found: Manifest) -> bool:
    about: Any = found.about
    texts = [found.name, *found.directories, *about.keys(), *about.values()]
    kinds = found.kind in ("file", "tree") and type(found.sealed) is bool and type(about) is dict
    return kinds and all(type(text) is str for text in texts) and all(map(_is_entry, found.files))


def _is_entry(file: File) -> bool:
    if any(type(text) is not str for text in (file.path, file.sha256, file.cid, file.link)):
        return False
    if (
        type(file.size) is not int
        or file.size < 0
        or type(file.mode) is not int
        or file.mode not in (PLAIN, EXECUTABLE)
    ):
        return False
    if file.link:
        return (file.size, file.mode, file.sha256, file.cid) == (0, PLAIN, "", "")
    return bool(_SHA256.fullmatch(file.sha256) and _CID.fullmatch(file.cid))


@functools.lru_cache(maxsize=16)
def _decoded(payload: bytes) -> Manifest:
    # A warm hit decodes one manifest again and again, and checking each name in it costs more than all the rest.
    return Manifest.decode(payload)


class PathCodec(LoadingCodec):
    """What a decorated function built, as its Manifest."""

    loaders: Mapping[str, Loader] = {ARTIFACT: _decoded}

    def dump(self, value: Any) -> tuple[str, bytes]:
        if not isinstance(value, Manifest):
            raise CannotEncode(f"{type(value).__name__} is no artifact", reason="type")
        return ARTIFACT, value.encode()
