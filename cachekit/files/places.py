"""Where things live: this platform's places for a cache, for data and for settings, and the cache directory itself.

A place is only named. The cache directory is made, recognised or refused; nothing of one that is not ours is touched.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cachekit.errors import TierUnavailable, UsageError
from cachekit.files.locks import of_another_user

FORMAT: Final = 1
_STAMP: Final = "cachekit-format"
_TAG: Final = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This file is a cache directory tag created by cachekit. See https://bford.info/cachedir/\n"
)
_OURS: Final = (
    r"(cache|ledger|index|outbox)\.db(-wal|-shm|-journal|\.corrupt-\d+)?|outbox\.lock|generation|leases|kubo|hits(-\d+)?|"
    rf"CACHEDIR\.TAG|\.gitignore|\.?{_STAMP}(-[0-9a-f-]+)?|(digests|notes)\.corrupt-\d+"
)
_VALUES: Final = "[0-9a-f]{2}"
_INSIDE: Final = {
    "artifacts": f"{_VALUES}|tmp|scratch|partial|places|notes|trees|seen",
    "digests": f"{_VALUES}|tmp",
    "notes": f"{_VALUES}|tmp",
}
"""What lies in directories whose own names others might give to theirs."""
_HOMELESS: Final = "there is no home directory; set CACHEKIT_DIR and XDG_CONFIG_HOME, or HOME"


def config_dir() -> Path:
    """Where the credential lies: $XDG_CONFIG_HOME/cachekit or ~/.config/cachekit on Linux."""
    return _place("user_config_path")


def data_dir() -> Path:
    """What must survive a cleared cache: $XDG_DATA_HOME/cachekit or ~/.local/share/cachekit on Linux."""
    return _place("user_data_path")


def cache_dir() -> Path:
    """What can be had again: $XDG_CACHE_HOME/cachekit or ~/.cache/cachekit on Linux."""
    return _place("user_cache_path")


def _place(kind: str) -> Path:
    # Imported where it is wanted: whoever sets CACHEKIT_DIR and does without IPFS needs none of them.
    from platformdirs import PlatformDirs

    try:
        return Path(getattr(PlatformDirs("cachekit", appauthor=False), kind))
    except RuntimeError as error:
        raise UsageError(_HOMELESS) from error


def home(environ: Mapping[str, str]) -> Path:
    """$HOME, or what the system says: what `~` stands for. UsageError where neither says one."""
    if environ.get("HOME"):
        return Path(environ["HOME"])
    try:
        return Path.home()
    except RuntimeError as error:
        raise UsageError(_HOMELESS) from error


def prepare(directory: Path) -> None:
    """Makes `directory` (0700, with CACHEDIR.TAG and .gitignore) or accepts it as ours.

    Raises UsageError for a directory that is somebody else's, has other contents or a newer format, and
    TierUnavailable where it cannot be made or written.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(directory)
        stamp = directory / _STAMP
        # What lost power while it was written is empty, and says nothing.
        if number := _number(stamp):
            _check_format(directory, number)
            return
        _check_ours(directory)
        directory.chmod(0o700)
        (directory / "CACHEDIR.TAG").write_text(_TAG, encoding="ascii")
        (directory / ".gitignore").write_text("*\n", encoding="ascii")
        from cachekit.files.temporary import replacing  # not at import: it brings shutil and secrets along

        with replacing(stamp) as new:  # another process may be reading it
            new.write_text(f"{FORMAT}\n", encoding="ascii")
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{directory} is not a directory; set CACHEKIT_DIR to one that cachekit may own") from error
    except OSError as error:
        raise TierUnavailable(f"cannot use the cache directory {directory}: {error}", reason="directory") from error


def set_aside(directory: Path) -> list[Path]:
    """What of the cache directory was corrupt, and stands beside what took its place."""
    return sorted(path for path in directory.glob("*.corrupt-*") if re.fullmatch(_OURS, path.name))


def _check_owner(directory: Path) -> None:
    status = directory.stat()
    if of_another_user(status):
        raise UsageError(f"{directory} belongs to another user; set CACHEKIT_DIR to a directory of your own")
    if os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o022 and (directory / _STAMP).exists():
        raise UsageError(f"others may write {directory}; run `chmod 700 {directory}` and look at what it holds")


def _check_format(directory: Path, number: str) -> None:
    if number != str(FORMAT):
        raise UsageError(
            f"{directory} has cache format {number!r} and this cachekit reads {FORMAT}; "
            "upgrade cachekit, or set CACHEKIT_DIR to another directory"
        )


def _number(stamp: Path) -> str:
    try:
        return stamp.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return ""


def _check_ours(directory: Path) -> None:
    # Two processes may be making it at once, or somebody removed it while processes worked in it: what they write
    # before the stamp is not foreign. Nor is Kubo, which `cachekit node install` puts into the default directory,
    # perhaps before any cache was there.
    foreign = next((name for name in sorted(os.listdir(directory)) if not _is_ours(directory, name)), None)
    if foreign is not None and not _number(directory / _STAMP):
        raise UsageError(
            f"{directory} holds files that are not cachekit's ({foreign!r}, for one); nothing was touched. "
            "Set CACHEKIT_DIR to an empty directory"
        )


def _is_ours(directory: Path, name: str) -> bool:
    inside = _VALUES if re.fullmatch(_VALUES, name) else _INSIDE.get(name)
    if inside is None:
        return re.fullmatch(_OURS, name) is not None
    try:
        return all(re.fullmatch(inside, found) for found in os.listdir(directory / name))
    except OSError:  # a file, or gone
        return not (directory / name).exists()
