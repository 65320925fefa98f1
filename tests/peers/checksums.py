"""What was provisioned is what lies there: checksums beside every file and environment, in `sha256sum`'s format."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path


def file_intact(file: Path) -> bool:
    """Whether `file` has the checksum recorded beside it."""
    try:
        return beside(file).read_text() == f"{_sha256(file)}  {file.name}\n"
    except OSError:
        return False


def record_file(file: Path) -> None:
    """Record the checksum of `file` beside it."""
    beside(file).write_text(f"{_sha256(file)}  {file.name}\n")


def venv_intact(venv: Path, requirements: Path) -> bool:
    """Whether `venv` was laid completely, from these requirements, and holds the same packages as then."""
    try:
        return beside(venv).read_text() == _told(venv, requirements)
    except OSError:
        return False


def record_venv(venv: Path, requirements: Path) -> None:
    """Record what `venv` was laid from and holds."""
    beside(venv).write_text(_told(venv, requirements))


def beside(path: Path) -> Path:
    """The file with the checksums of `path`; without it, `path` is not complete."""
    return path.with_name(path.name + ".sha256")


def _told(venv: Path, requirements: Path) -> str:
    # An installed package's RECORD holds the checksum of each of its files: hashing those is hashing gigabytes less.
    records = sorted(venv.glob("lib/python*/site-packages/*.dist-info/RECORD"))
    lines = [f"{_sha256(record)}  {record.relative_to(venv.parent)}" for record in records]
    return "\n".join([f"# Python {sys.version.split()[0]}", f"# requirements {_sha256(requirements)}", *lines, ""])


def _sha256(file: Path) -> str:
    state = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            state.update(chunk)
    return state.hexdigest()
