"""What may be wrong on this machine, and what to do about each."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from cachekit.config import resolve
from cachekit.errors import CachekitError, TierError, UsageError
from cachekit.files.locks import NO_LOCKS, has_locks
from cachekit.files.places import prepare

if TYPE_CHECKING:
    from cachekit.cache.cache import Cache
    from cachekit.config.resolve import Resolved
    from cachekit.ipfs.sharing import Team

State = Literal["ok", "note", "failed"]

_RECOMMENDED: Final = (0, 43)
_LITTLE: Final = 64 << 20
"""Bytes free below which writes are about to fail."""
_EPOCH: Final = 1_704_067_200
"""2024-01-01: no clock that is right shows less, and entries made by one that does expire at once elsewhere."""
_SECONDS: Final = 5.0
_AS_IT_SAYS: Final = "do as it says"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `remedy` is what to do, empty where nothing is."""

    check: str
    state: State
    text: str
    remedy: str = ""


def examine(environ: Mapping[str, str], opened: Callable[[], Cache]) -> list[Finding]:
    """Every check that can be made; `opened` gives the cache. The directory and the credential are made if missing."""
    try:
        resolved = resolve.resolve(environ)
    except UsageError as error:
        return [Finding("settings", "failed", str(error), "correct the setting that it names")]
    findings = [*_settings(resolved), *_adapters(), _clock(), *_locks(), _directory(resolved)]
    if findings[-1].state == "failed":
        return findings
    findings += [_space(resolved), *map(_disk_file, _databases(resolved)), *_aside(resolved)]
    try:
        cache = opened()
    except CachekitError as error:
        check = "credential" if "SECRET" in str(error) else "cache"
        return [*findings, Finding(check, "failed", str(error), _AS_IT_SAYS)]
    return [*findings, *_team(cache, resolved)]


def _settings(resolved: Resolved) -> Iterator[Finding]:
    for warning in resolved.warnings:
        yield Finding("settings", "failed", warning, "`cachekit env --explain` shows which value holds")
    if not resolved.warnings:
        yield Finding("settings", "ok", "no conflicts")


def _adapters() -> Iterator[Finding]:
    """Those that other distributions bring; none is imported."""
    from importlib.metadata import entry_points

    for entry in sorted(entry_points(group="cachekit.adapters"), key=lambda entry: entry.name):
        source = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unknown distribution"
        yield Finding("adapter", "ok", f"{entry.name}: {entry.value}, of {source}")


def _clock() -> Finding:
    if time.time() >= _EPOCH:
        return Finding("clock", "ok", "plausible")
    return Finding("clock", "failed", "the clock shows a time before 2024", "set the clock: a TTL depends on it")


def _locks() -> Iterator[Finding]:
    if not has_locks():
        yield Finding(
            "locks", "note", NO_LOCKS, "processes do not wait for each other's origin; nothing is wrong by it"
        )


def _directory(resolved: Resolved) -> Finding:
    directory = resolved.settings.dir
    try:
        prepare(directory)
        mode = stat.S_IMODE(directory.stat().st_mode)
    except (CachekitError, OSError) as error:
        return Finding("directory", "failed", str(error), "set CACHEKIT_DIR to a directory that cachekit may own")
    if os.name == "posix" and mode & 0o077:
        text = f"others may look into {directory} (mode {mode:o})"
        return Finding("directory", "note", text, f"chmod 700 {directory}, where that is not meant")
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        return Finding("directory", "failed", f"{directory} cannot be written", f"chmod 700 {directory}")
    return Finding("directory", "ok", str(directory))


def _space(resolved: Resolved) -> Finding:
    free = shutil.disk_usage(resolved.settings.dir).free
    text = f"{free >> 20} MiB free, the limit of the cache is {resolved.settings.size_limit >> 20} MiB"
    if free < _LITTLE:
        return Finding("space", "failed", text, "make room, or set CACHEKIT_DIR to another file system")
    if free < resolved.settings.size_limit:
        return Finding("space", "note", text, "a smaller CACHEKIT_SIZE_LIMIT keeps the cache from filling the disk")
    return Finding("space", "ok", text)


def _databases(resolved: Resolved) -> list[Path]:
    here = resolved.settings.dir
    others = [here / name for name in ("ledger.db", "index.db", "outbox.db") if (here / name).exists()]
    return [here / "cache.db", *others]


def _aside(resolved: Resolved) -> Iterator[Finding]:
    for path in sorted(resolved.settings.dir.glob("*.corrupt-*")):
        yield Finding(
            "disk file", "failed", f"{path} was corrupt and set aside", "look why the disk lost it; delete it"
        )


def _disk_file(path: Path) -> Finding:
    if not path.exists():
        return Finding("disk file", "ok", "none yet")
    # Read-only and not through the tier, which would set a corrupt file aside before anybody looked at it.
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_SECONDS)) as connection:
            verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        verdict = str(error)
    if verdict == "ok":
        return Finding("disk file", "ok", f"{path} opens and is whole")
    return Finding("disk file", "failed", f"{path}: {verdict}", "delete it: what it held is computed again")


def _team(cache: Cache, resolved: Resolved) -> Iterator[Finding]:
    if resolved.settings.ipfs == "off":
        yield _credential_alone(resolved)
        yield Finding("daemon", "ok", f"not asked, IPFS is off: {resolved.reason('ipfs')}")
    elif cache.team is None:
        yield Finding("daemon", "failed", cache.status()["ipfs"].reason, "repair what the reason names")
    else:
        yield _credential(cache.team)
        daemon = _daemon(cache.team, must=resolved.settings.ipfs != "auto")
        yield daemon
        if daemon.text.startswith("Kubo"):
            yield _namespaces(cache.team, resolved.settings.namespace)


def _credential(team: Team) -> Finding:
    if team.credential.writes:
        return Finding("credential", "ok", "reads and writes")
    remedy = "for writing, use the owner's credential in CACHEKIT_SECRET"
    return Finding("credential", "note", "only reads: what this machine stores stays here", remedy)


def _credential_alone(resolved: Resolved) -> Finding:
    from cachekit.ipfs.credential import load_credential
    from cachekit.ipfs.sharing import credential_file

    settings = resolved.settings
    try:
        path = settings.secret_file or credential_file()
        if not settings.secret and not path.exists():
            return Finding("credential", "ok", "none yet; made when IPFS is first used")
        load_credential(settings.secret, path)
    except (CachekitError, OSError) as error:
        return Finding("credential", "failed", str(error), _AS_IT_SAYS)
    return Finding("credential", "ok", "can be read")


def _daemon(team: Team, *, must: bool) -> Finding:
    from cachekit.ipfs.kubo.answers import numbers

    try:
        version = team.transport.version()
    except TierError as error:
        remedy = "`cachekit node start` starts one; CACHEKIT_IPFS_API names another; CACHEKIT_IPFS=off does without"
        return Finding("daemon", "failed" if must else "note", f"{team.api}: {error}", remedy)
    text = f"Kubo {version} at {team.api}"
    if numbers(version) < _RECOMMENDED:
        return Finding("daemon", "note", text, "0.43 is recommended; `cachekit node install` gets one")
    return Finding("daemon", "ok", text)


def _namespaces(team: Team, namespace: str) -> Finding:
    from cachekit.ipfs.index.index import ROOT

    try:
        listed = team.transport.list(ROOT, timeout=_SECONDS) or []
    except TierError as error:
        return Finding("namespaces", "failed", f"the index cannot be listed: {error}", "ask again; restart the daemon")
    spaces = {name for name, _, _ in listed}
    if not spaces:
        return Finding("namespaces", "ok", "the daemon holds no entries yet")
    if team.credential.namespace_id(namespace) in spaces:
        return Finding("namespaces", "ok", f"the daemon holds entries of {namespace!r} under this secret")
    text = f"other namespaces are there ({len(spaces)}), none under this secret and the name {namespace!r}"
    return Finding(
        "namespaces", "note", text, "where you expected hits, compare CACHEKIT_SECRET and CACHEKIT_NAMESPACE"
    )
