"""A Kubo binary on disk: which version it is, and whether it is still the one that was put there."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cachekit.files.digests import Signature, file_digest, signature
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
        return run([str(binary), "version", "-n"], Path(nowhere), 60, environment(Path(nowhere, "repo"))).strip()


def environment(repo: Path) -> dict[str, str]:
    """What a binary runs in: no other repository in sight, no telemetry, no credential, no service manager of ours."""
    # Kubo tells a service manager itself when it is ready; what is the manager's child here is not Kubo.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CACHEKIT_", "NOTIFY_SOCKET"))}
    return {**kept, "IPFS_PATH": str(repo), "IPFS_TELEMETRY": "off"}


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
        raise Unavailable(f"`{' '.join(command[:3])}` failed: {last_line(done.stderr)}")
    return done.stdout


def last_line(text: str) -> str:
    """What a program said last, for an error."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


def installed(home: Path) -> Installed | None:
    """The binary in `home`, where it is there and as it was put there."""
    binary = home / "ipfs"
    try:
        intact = _record(binary).read_text(errors="replace").partition(" ")[0] == _digest(
            binary, signature(binary.stat())
        )
    except (OSError, ValueError):
        return None
    return Installed(binary, VERSION, "installed") if intact and os.access(binary, os.X_OK) else None


@functools.lru_cache(maxsize=4)
def _digest(binary: Path, _known: Signature) -> str:
    # A hundred megabytes, and looked for again and again.
    return file_digest(binary).hex()


def write_record(binary: Path) -> None:
    """Writes down beside `binary` what it is, for `installed` and for `sha256sum -c`."""
    with replacing(_record(binary)) as new:
        new.write_text(f"{file_digest(binary).hex()}  ipfs\n")


def _record(binary: Path) -> Path:
    return binary.with_name("ipfs.sha256")
