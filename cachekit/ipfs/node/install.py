"""Getting Kubo's `ipfs`: found, downloaded and verified, or built from its sources with Go.

Binaries live in the cache directory, repositories in the data directory.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import platform
import shutil
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final

from cachekit.errors import UsageError
from cachekit.files.digests import stream_digest
from cachekit.files.places import cache_dir, data_dir
from cachekit.files.temporary import replacing
from cachekit.ipfs.kubo.answers import OLDEST, dotted, numbers
from cachekit.ipfs.node.binary import (
    VERSION,
    Installed,
    Unavailable,
    installed,
    run,
    version_of,
    write_record,
)
from cachekit.ipfs.node.process import locked

__all__ = ["VERSION", "Installed", "cache_dir", "data_dir", "install"]

DIST: Final = "https://dist.ipfs.tech"
_FETCH_SECONDS: Final = 600.0
_BUILD_SECONDS: Final = 1800.0
_MODULE: Final = f"github.com/ipfs/kubo@v{VERSION}"
_MEMBER: Final = "kubo/ipfs"
_STALL_SECONDS: Final = 10.0
_LARGEST_BYTES: Final = 512 << 20
_REMEDY: Final = (
    f"put Kubo >= {dotted(OLDEST)} on PATH (https://docs.ipfs.tech/install/command-line), or install Go, and try again."
)


def install(
    data_dir: Path,
    *,
    report: Callable[[str], None] = lambda _line: None,
    environ: Mapping[str, str] | None = None,
    dist: str = DIST,
) -> Installed:
    """Get a Kubo that runs: from PATH, installed earlier, the official release, or built with Go.

    `report` hears one line per step that takes time or fails; a build takes minutes. `environ`
    (default: the process's) gives PATH; `dist` is the release site.
    Raises UsageError, naming the remedy, when every way failed.
    """
    environ = os.environ if environ is None else environ
    home = cache_dir() / "kubo" / VERSION
    ready = _on_path(environ) or installed(home) or installed(data_dir / "kubo" / VERSION)
    if ready:
        return ready
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(home / "lock", _FETCH_SECONDS + _BUILD_SECONDS):
            # Another process may have installed it while this one waited.
            return installed(home) or _obtain(home, report, environ, dist)
    except OSError as error:
        raise UsageError(
            f"Kubo cannot be installed in {home} ({error}); make room there or set XDG_CACHE_HOME."
        ) from error


def _on_path(environ: Mapping[str, str]) -> Installed | None:
    binary = shutil.which("ipfs", path=environ.get("PATH", ""))
    if binary is None:
        return None
    try:
        version = version_of(Path(binary))
        recent = numbers(version) >= OLDEST
    except (Unavailable, ValueError):
        return None
    return Installed(Path(binary), version, "path") if recent else None


def _obtain(home: Path, report: Callable[[str], None], environ: Mapping[str, str], dist: str) -> Installed:
    """Puts a binary of `VERSION` into `home`. UsageError with every reason where no way leads there."""
    reasons = []
    for how, ways in (("downloaded", _download), ("built", _build)):
        try:
            with replacing(home / "ipfs") as new:
                ways(new, report, environ, dist)
                _accept(new)
            write_record(home / "ipfs")
        except Unavailable as error:
            reasons.append(f"not {how}: {error}")
            report(reasons[-1])
        else:
            return Installed(home / "ipfs", VERSION, how)
    raise UsageError(f"no Kubo here ({'; '.join(reasons)}): {_REMEDY}")


def _accept(new: Path) -> None:
    new.chmod(0o755)
    version = version_of(new)
    if version != VERSION:
        raise Unavailable(f"it says version {version}, not {VERSION}")


def _download(new: Path, report: Callable[[str], None], _environ: Mapping[str, str], dist: str) -> None:
    name = f"kubo_v{VERSION}_{_platform()}.tar.gz"
    url = f"{dist}/kubo/v{VERSION}/{name}"
    report(f"downloading {url}")
    with tempfile.TemporaryDirectory(prefix=".download-", dir=new.parent) as aside:
        archive, checksum = Path(aside, name), Path(aside, "sha512")
        # The small file first: where the site is out of reach, that shows at once.
        _fetch(f"{url}.sha512", checksum)
        _fetch(url, archive)
        expected = checksum.read_text(errors="replace").split()[:1]
        if expected != [_sha512(archive)]:
            raise Unavailable(f"{name} does not have the published sha512")
        _extract(archive, new)


def _sha512(archive: Path) -> str:
    with archive.open("rb") as stream:
        return stream_digest(stream, algorithm=hashlib.sha512).hex()


def _platform() -> str:
    machine = platform.machine().lower()
    architecture = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(machine)
    if architecture is None:
        raise Unavailable(f"there is no official release for {machine}")
    return f"{platform.system().lower()}-{architecture}"


def _fetch(url: str, target: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=_STALL_SECONDS) as source, target.open("wb") as sink:  # noqa: S310 - https
            _copy(source, sink)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{url}: {error}") from error


def _extract(archive: Path, new: Path) -> None:
    try:
        with tarfile.open(archive, "r:gz") as tar, new.open("wb") as sink:
            member = tar.getmember(_MEMBER)
            # extractfile follows links inside the archive; only a plain file is the program.
            source = tar.extractfile(member) if member.isfile() else None
            if source is None:
                raise Unavailable(f"{_MEMBER} in {archive.name} is not a plain file")
            _copy(source, sink)
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise Unavailable(f"{archive.name} cannot be unpacked: {error}") from error


def _copy(source: IO[bytes], sink: IO[bytes]) -> None:
    copied = 0
    while chunk := source.read(1 << 20):
        copied += len(chunk)
        if copied > _LARGEST_BYTES:
            raise Unavailable(f"it is larger than {_LARGEST_BYTES} bytes")
        sink.write(chunk)


def _build(new: Path, report: Callable[[str], None], environ: Mapping[str, str], _dist: str) -> None:
    go = shutil.which("go", path=environ.get("PATH", ""))
    if go is None:
        raise Unavailable("there is no Go toolchain on PATH")
    report(f"building {_MODULE} with {go}; this takes a few minutes")
    # A go.work above the current directory would change what is built.
    settings = {**environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    module = run([go, "mod", "download", "-json", _MODULE], new.parent, _FETCH_SECONDS, settings)
    try:
        source = Path(json.loads(module)["Dir"])
    except (ValueError, KeyError) as error:
        raise Unavailable(f"`go mod download` did not name the sources of {_MODULE}") from error
    command = [go, "build", "-tags", "nofuse", "-trimpath", "-o", str(new.absolute()), "./cmd/ipfs"]
    run(command, source, _BUILD_SECONDS, settings)
