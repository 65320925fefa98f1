"""Find, download or build Kubo's `ipfs`. Binaries live in the cache directory, repositories in the data directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from cachekit.daemon_traces import locked
from cachekit.errors import UsageError
from cachekit.files.places import cache_dir, data_dir
from cachekit.kubo_binary import VERSION, Installed, Unavailable, installed, version_of
from cachekit.kubo_release import BUILD_SECONDS, DIST, FETCH_SECONDS, OLDEST, obtain

__all__ = ["VERSION", "Installed", "cache_dir", "data_dir", "install"]


def _quiet(_line: str) -> None:
    """Say nothing."""


def install(
    data_dir: Path,
    *,
    report: Callable[[str], None] = _quiet,
    environ: Mapping[str, str] | None = None,
    dist: str = DIST,
) -> Installed:
    """Get a Kubo that runs: from PATH, installed earlier, the official release, or built with Go.

    `report` hears one line per step that takes time or fails; a build takes minutes. `environ`
    (default: the process's) gives PATH and the XDG directories; `dist` is the release site.
    Raises UsageError, naming the remedy, when every way failed.
    """
    environ = os.environ if environ is None else environ
    home = cache_dir(environ) / "kubo" / VERSION
    ready = _on_path(environ) or installed(home) or installed(data_dir / "kubo" / VERSION)
    if ready:
        return ready
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(home / "lock", FETCH_SECONDS + BUILD_SECONDS):
            # Another process may have installed it while this one waited.
            return installed(home) or obtain(home, report, environ, dist)
    except OSError as error:
        raise UsageError(
            f"Kubo cannot be installed in {home} ({error}); make room there or set XDG_CACHE_HOME."
        ) from error


def _on_path(environ: Mapping[str, str]) -> Installed | None:
    found = shutil.which("ipfs", path=environ.get("PATH", ""))
    if found is None:
        return None
    try:
        version = version_of(Path(found))
    except Unavailable:
        return None
    return Installed(Path(found), version, "path") if _numbers(version) >= OLDEST else None


def _numbers(version: str) -> tuple[int, ...]:
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0,)
