"""Find, download or build Kubo's `ipfs`. Binaries live in the cache directory, repositories in the data directory."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cachekit.daemon import locked
from cachekit.errors import UsageError

VERSION = "0.43.0"
_OLDEST = (0, 30)
_DIST = "https://dist.ipfs.tech"
_MODULE = f"github.com/ipfs/kubo@v{VERSION}"
_MEMBER = "kubo/ipfs"
_STALL_SECONDS = 10.0
_LARGEST_BYTES = 512 << 20
_FETCH_SECONDS = 600.0
_BUILD_SECONDS = 1800.0
_REMEDY = (
    f"put Kubo >= {_OLDEST[0]}.{_OLDEST[1]} on PATH "
    "(https://docs.ipfs.tech/install/command-line), or install Go, and try again."
)


@dataclass(frozen=True)
class Installed:
    """A Kubo binary that ran: `how` is "path", "installed", "downloaded" or "built"."""

    path: Path
    version: str
    how: str


class _Unavailable(Exception):
    """One way to get Kubo does not work here; the next is tried."""


def data_dir(environ: Mapping[str, str]) -> Path:
    """Where repositories live: `$XDG_DATA_HOME/cachekit`, by default `~/.local/share/cachekit`."""
    return _xdg(environ, "XDG_DATA_HOME", ".local/share")


def cache_dir(environ: Mapping[str, str]) -> Path:
    """Where binaries live: `$XDG_CACHE_HOME/cachekit`, by default `~/.cache/cachekit`."""
    return _xdg(environ, "XDG_CACHE_HOME", ".cache")


def _xdg(environ: Mapping[str, str], name: str, default: str) -> Path:
    base = environ.get(name, "")
    # The XDG specification: a relative path is invalid and ignored.
    if os.path.isabs(base):
        return Path(base, "cachekit")
    return Path(environ.get("HOME") or Path.home(), default, "cachekit")


def _quiet(_line: str) -> None:
    """Say nothing."""


def install(
    data_dir: Path,
    *,
    report: Callable[[str], None] = _quiet,
    environ: Mapping[str, str] | None = None,
    dist: str = _DIST,
) -> Installed:
    """Get a Kubo that runs: from PATH, installed earlier, the official release, or built with Go.

    `report` hears one line per step that takes time or fails; a build takes minutes. `environ`
    (default: the process's) gives PATH and the XDG directories; `dist` is the release site.
    Raises UsageError, naming the remedy, when every way failed.
    """
    environ = os.environ if environ is None else environ
    home = cache_dir(environ) / "kubo" / VERSION
    ready = _on_path(environ) or _installed(home) or _installed(data_dir / "kubo" / VERSION)
    if ready:
        return ready
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(home / "lock", _FETCH_SECONDS + _BUILD_SECONDS):
            # Another process may have installed it while this one waited.
            return _installed(home) or _obtain(home, report, environ, dist)
    except OSError as error:
        raise UsageError(
            f"Kubo cannot be installed in {home} ({error}); make room there or set XDG_CACHE_HOME."
        ) from error


def _on_path(environ: Mapping[str, str]) -> Installed | None:
    found = shutil.which("ipfs", path=environ.get("PATH", ""))
    if found is None:
        return None
    try:
        version = _version_of(Path(found))
    except _Unavailable:
        return None
    return Installed(Path(found), version, "path") if _numbers(version) >= _OLDEST else None


def _numbers(version: str) -> tuple[int, ...]:
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0,)


def _version_of(binary: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="cachekit-") as nowhere:
        # With the user's repository in sight, `ipfs version` would ask the user's daemon.
        environ = {**os.environ, "IPFS_PATH": str(Path(nowhere, "repo")), "IPFS_TELEMETRY": "off"}
        return _run([str(binary), "version", "-n"], Path(nowhere), 60, environ).strip()


def _run(command: list[str], directory: Path, seconds: float, environ: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=environ,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Unavailable(str(error)) from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise _Unavailable(f"`{' '.join(command[:3])}` failed: {said[-1]}")
    return done.stdout


# -- installed earlier -------------------------------------------------------------------------


def _installed(home: Path) -> Installed | None:
    binary = home / "ipfs"
    try:
        intact = _matches_record(binary)
    except OSError:
        return None
    return Installed(binary, VERSION, "installed") if intact and os.access(binary, os.X_OK) else None


def _matches_record(binary: Path) -> bool:
    digest, signature = _read_record(binary)
    # Hashing 90 MB costs a tenth of a second; an unchanged file need not be hashed again.
    if digest and signature == _signature(binary):
        return True
    if not digest or digest != _sha256(binary):
        return False
    with contextlib.suppress(OSError):
        _write_record(binary, digest)
    return True


def _read_record(binary: Path) -> tuple[str, str]:
    lines = [*binary.with_name("ipfs.sha256").read_text(errors="replace").splitlines(), "", ""]
    return lines[0].partition(" ")[0], lines[1].removeprefix("# ")


def _write_record(binary: Path, digest: str) -> None:
    # `sha256sum -c` reads this file: it skips lines that begin with #.
    with _beside(binary.with_name("ipfs.sha256")) as new:
        new.write_text(f"{digest}  ipfs\n# {_signature(binary)}\n")


def _signature(file: Path) -> str:
    found = file.stat()
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _sha256(file: Path) -> str:
    return _digest(file, "sha256")


def _digest(file: Path, algorithm: str) -> str:
    state = hashlib.new(algorithm)
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            state.update(chunk)
    return state.hexdigest()


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A temporary path in the target's directory that replaces it when the block succeeds."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    os.close(descriptor)
    new = Path(name)
    try:
        yield new
        os.replace(new, target)
    finally:
        new.unlink(missing_ok=True)


# -- downloaded or built -----------------------------------------------------------------------


def _obtain(home: Path, report: Callable[[str], None], environ: Mapping[str, str], dist: str) -> Installed:
    reasons = []
    for how, ways in (("downloaded", _download), ("built", _build)):
        try:
            with _beside(home / "ipfs") as new:
                ways(new, report, environ, dist)
                _accept(new)
            _write_record(home / "ipfs", _sha256(home / "ipfs"))
        except _Unavailable as error:
            reasons.append(f"not {how}: {error}")
            report(reasons[-1])
        else:
            return Installed(home / "ipfs", VERSION, how)
    raise UsageError(f"no Kubo here ({'; '.join(reasons)}): {_REMEDY}")


def _accept(new: Path) -> None:
    new.chmod(0o755)
    version = _version_of(new)
    if version != VERSION:
        raise _Unavailable(f"it says version {version}, not {VERSION}")


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
        if expected != [_digest(archive, "sha512")]:
            raise _Unavailable(f"{name} does not have the published sha512")
        _extract(archive, new)


def _platform() -> str:
    machine = platform.machine().lower()
    architecture = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(machine)
    if architecture is None:
        raise _Unavailable(f"there is no official release for {machine}")
    return f"{platform.system().lower()}-{architecture}"


def _fetch(url: str, target: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=_STALL_SECONDS) as source, target.open("wb") as sink:  # noqa: S310 - https
            _copy(source, sink)
    except (OSError, http.client.HTTPException) as error:
        raise _Unavailable(f"{url}: {error}") from error


def _extract(archive: Path, new: Path) -> None:
    try:
        with tarfile.open(archive, "r:gz") as tar, new.open("wb") as sink:
            member = tar.getmember(_MEMBER)
            # extractfile follows links inside the archive; only a plain file is the program.
            source = tar.extractfile(member) if member.isfile() else None
            if source is None:
                raise _Unavailable(f"{_MEMBER} in {archive.name} is not a plain file")
            _copy(source, sink)
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise _Unavailable(f"{archive.name} cannot be unpacked: {error}") from error


def _copy(source: IO[bytes], sink: IO[bytes]) -> None:
    copied = 0
    while chunk := source.read(1 << 20):
        copied += len(chunk)
        if copied > _LARGEST_BYTES:
            raise _Unavailable(f"it is larger than {_LARGEST_BYTES} bytes")
        sink.write(chunk)


def _build(new: Path, report: Callable[[str], None], environ: Mapping[str, str], _dist: str) -> None:
    go = shutil.which("go", path=environ.get("PATH", ""))
    if go is None:
        raise _Unavailable("there is no Go toolchain on PATH")
    report(f"building {_MODULE} with {go}; this takes a few minutes")
    # A go.work above the current directory would change what is built.
    settings = {**environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    told = _run([go, "mod", "download", "-json", _MODULE], new.parent, _FETCH_SECONDS, settings)
    try:
        source = Path(json.loads(told)["Dir"])
    except (ValueError, KeyError) as error:
        raise _Unavailable(f"`go mod download` did not name the sources of {_MODULE}") from error
    command = [go, "build", "-tags", "nofuse", "-trimpath", "-o", str(new.absolute()), "./cmd/ipfs"]
    _run(command, source, _BUILD_SECONDS, settings)
