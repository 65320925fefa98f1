"""A Kubo binary on disk: which version it is, and whether it is still the one that was put there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from cachekit.files.digests import LINE, signature, stream_digest
from cachekit.files.temporary import replacing

VERSION: Final = "0.43.0"


@dataclass(frozen=True)
class Installed:
    """A Kubo binary that ran: `how` is "path", "installed", "downloaded" or "built"."""

    path: Path
    version: str
    how: str


class Unavailable(Exception):
    """One way to get Kubo does not work here; the next is tried."""


def version_of(binary: Path) -> str:
    """What `binary` says its version is; Unavailable where it does not run."""
    with tempfile.TemporaryDirectory(prefix="cachekit-") as nowhere:
        # With the user's repository in sight, `ipfs version` would ask the user's daemon.
        environ = {**os.environ, "IPFS_PATH": str(Path(nowhere, "repo")), "IPFS_TELEMETRY": "off"}
        return run([str(binary), "version", "-n"], Path(nowhere), 60, environ).strip()


def run(command: list[str], directory: Path, seconds: float, environ: Mapping[str, str]) -> str:
    """What `command` printed; Unavailable where it cannot be run, fails, or takes longer."""
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
        raise Unavailable(str(error)) from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise Unavailable(f"`{' '.join(command[:3])}` failed: {said[-1]}")
    return done.stdout


def installed(home: Path) -> Installed | None:
    """The binary in `home`, where it is there and as it was put there."""
    binary = home / "ipfs"
    try:
        intact = _matches_record(binary)
    except OSError:
        return None
    return Installed(binary, VERSION, "installed") if intact and os.access(binary, os.X_OK) else None


def write_record(binary: Path, digest: str) -> None:
    """Writes down beside `binary` what it is."""
    # `sha256sum -c` reads this file: it skips lines that begin with #.
    with replacing(binary.with_name("ipfs.sha256")) as new:
        new.write_text(f"{digest}  ipfs\n# {_signature(binary)}\n")


def sha256(file: Path) -> str:
    """In hexadecimal digits."""
    return digest_of(file, "sha256")


def digest_of(file: Path, algorithm: str) -> str:
    """In hexadecimal digits."""
    with file.open("rb") as stream:
        return stream_digest(stream, algorithm=partial(hashlib.new, algorithm)).hex()


def _matches_record(binary: Path) -> bool:
    digest, known = _read_record(binary)
    # Hashing 90 MB costs a tenth of a second; an unchanged file need not be hashed again.
    if digest and known == _signature(binary):
        return True
    if not digest or digest != sha256(binary):
        return False
    with contextlib.suppress(OSError):
        write_record(binary, digest)
    return True


def _read_record(binary: Path) -> tuple[str, str]:
    lines = [*binary.with_name("ipfs.sha256").read_text(errors="replace").splitlines(), "", ""]
    return lines[0].partition(" ")[0], lines[1].removeprefix("# ")


def _signature(file: Path) -> str:
    return (LINE % signature(file.stat())).decode()
