"""An artifact's content where the caller wants it: a copy of their own, so that writing there never reaches the store."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from cachekit.artifacts.manifest import PLAIN, Manifest
from cachekit.artifacts.staging import has_shape, lay_out
from cachekit.errors import TierError, TierUnavailable, UsageError
from cachekit.files.copying import duplicate
from cachekit.files.digests import file_digest
from cachekit.files.locks import of_another_user
from cachekit.files.sqlite import locked
from cachekit.files.temporary import abandoned, new_name, remove

_PLACING_SECONDS: Final = 3600.0
"""How long somebody else may take to put an artifact at the same place."""
_PREFIX: Final = ".cachekit-"
_OURS: Final = re.compile(r"\.cachekit-[0-9]+-[0-9]+-[0-9a-f]{12}")


def refuse_place(output: Path, cache: Path, inputs: Iterable[Path] = ()) -> None:
    """Raises UsageError where replacing what stands at `output` would take more than an earlier result with it.

    Nothing that is called with an output may lose the directory it runs in, its home, its inputs, or the cache.
    """
    place = _place(output)
    held = [(path, f"the input {os.fspath(path)!r}") for path in inputs if Path(os.path.realpath(path)) != place]
    for find, called in ((Path.cwd, "the working directory"), (Path.home, "your home directory")):
        with contextlib.suppress(OSError, RuntimeError):  # removed meanwhile; a user without a home
            held.append((find(), called))
    what = next((what for path, what in held if Path(os.path.realpath(path)).is_relative_to(place)), "")
    if not what and _overlap(place, Path(os.path.realpath(cache))):
        what = "what cachekit keeps"
    if what:
        raise UsageError(
            f"the output {os.fspath(output)!r} holds {what}, which replacing it would destroy: name another"
        )


def _place(output: Path) -> Path:
    """Where it would stand: links on the way there followed, one that stands there itself not."""
    target = Path(os.path.abspath(output))
    return Path(os.path.realpath(target.parent), target.name)


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


@contextlib.contextmanager
def alone_at(output: Path, locks: Path) -> Iterator[None]:
    """Keeps others out of `output`, as far as that can be had: it saves them trouble, and nothing depends on it."""
    name = hashlib.sha256(os.fsencode(os.path.realpath(output))).hexdigest()[:2]
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, TierError):
            locks.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.enter_context(locked(locks / name, time.monotonic() + _PLACING_SECONDS))
        yield


def put_copy(source: Path, manifest: Manifest, output: Path, store: Path) -> None:
    """Replaces what stands at `output` by the content of `source`: in one rename for a file, in two for a tree.

    Nothing is touched where that is there already. Blocks are shared where the file system can. Raises UsageError where
    `output` cannot be written, or holds the store.
    """
    target = Path(os.path.abspath(output))
    if _overlap(_place(target), Path(os.path.realpath(store))):
        raise UsageError(f"the output {os.fspath(target)!r} is where cachekit keeps its artifacts: name another place")
    if holds(target, manifest):
        return
    with _replacing(output) as beside:
        _sweep(target.parent)
        try:
            lay_out(
                manifest, beside, lambda file, place: _copy(source / file.path, place, executable=file.mode != PLAIN)
            )
        except OSError as error:
            if source.exists():
                raise
            raise TierUnavailable(f"the artifact {manifest.name} was removed meanwhile", reason="incomplete") from error


def holds(target: Path, manifest: Manifest) -> bool:
    """Whether exactly the content of `manifest` stands at `target`; files are read where nobody knows them."""
    try:
        return has_shape(target, manifest) and all(
            file_digest(target / file.path).hex() == file.sha256 for file in manifest.regular
        )
    except (OSError, ValueError):
        return False


def put_path(source: Path, output: Path, *, movable: bool) -> None:
    """Replaces what stands at `output` by what stands at `source`, which is moved if it may be.

    Raises UsageError where `output` cannot be written; what it would take with it is not looked at here.
    """
    source = source.resolve()
    with _replacing(output, f"; the result is at {source}") as beside:
        if not (movable and _moved(source, beside)):
            copy_any(source, beside)


def copy_any(source: Path, target: Path) -> None:
    """A file or a tree, links in it kept, at a place where nothing stands. Raises OSError."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


@contextlib.contextmanager
def _replacing(output: Path, advice: str = "") -> Iterator[Path]:
    """A path beside `output`, for what takes its place when the block succeeds."""
    target = Path(os.path.abspath(output))
    beside = target.parent / f"{_PREFIX}{new_name()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        _replace(beside, target)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(
            f"cannot write the output {os.fspath(output)!r} ({why}): name another place{advice}"
        ) from error
    finally:
        remove(beside)


def _sweep(directory: Path) -> None:
    """Removes copies that a killed process left unfinished here, a day later: no janitor knows where outputs were wanted."""
    with contextlib.suppress(OSError):  # a place that may be written and not listed
        for path in abandoned(directory, time.time_ns(), _PREFIX):
            if _OURS.fullmatch(path.name) and not of_another_user(path.lstat()):
                remove(path)


def _moved(source: Path, target: Path) -> bool:
    try:
        os.rename(source, target)
    except OSError:  # another file system
        return False
    return True


def _copy(source: Path, target: Path, *, executable: bool) -> None:
    with open(target, "xb") as made:  # made as the caller's umask says, then what is executable gets it where readable
        usual = os.fstat(made.fileno()).st_mode & 0o777
    os.unlink(target)
    mode = usual | 0o600
    duplicate(source, target, mode | (mode & 0o444) >> 2 if executable else mode)


def _replace(beside: Path, target: Path) -> None:
    if not target.is_dir() or target.is_symlink():
        if beside.is_dir() and os.path.lexists(target):
            os.unlink(target)
        os.replace(beside, target)
        return
    # What stood there was the caller's: should this process be killed now, nobody ever sweeps it.
    aside = target.parent / f"{_PREFIX}replaced-{new_name()}"
    os.rename(target, aside)
    try:
        os.rename(beside, target)
    except BaseException:
        os.rename(aside, target)
        raise
    # No longer wanted: under the name that is swept, should this process be killed before it is gone.
    with contextlib.suppress(OSError):
        os.rename(aside, beside)
    remove(aside)
