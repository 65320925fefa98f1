"""The OpenVEX files, asked with go-vex, by which scanners match statements; it is built once, and kept outside the tree."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REQUIRED
from peers.places import home

SECURITY = Path(__file__).parents[2] / "security"
SOURCES = SECURITY / "matching"
OURS = SECURITY / "cachekit.openvex.json"
ALONE = SECURITY / "diskcache.openvex.json"
CVE, GHSA = "CVE-2025-69872", "GHSA-w8v5-vhqr-4h9v"
CACHEKIT, DISKCACHE = "pkg:pypi/cachekit-ipfs@0.1.0", "pkg:pypi/diskcache@5.6.3"
NOT_AFFECTED = "not_affected vulnerable_code_not_in_execute_path\n"

Asked = Callable[..., str]


@pytest.fixture(scope="module")
def asked() -> Asked:
    """What applies, according to a document, to a vulnerability of a product, or of a part of it."""
    written = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))).hexdigest()[:16]
    binary = home() / f"vex-{written}"
    if not binary.exists():
        try:
            binary.parent.mkdir(parents=True, exist_ok=True)
            new = binary.with_suffix(f".{os.getpid()}")
            environ = {**os.environ, "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false"}
            subprocess.run(["go", "build", "-o", new, "."], cwd=SOURCES, env=environ, check=True, timeout=600)
            new.replace(binary)
        except (OSError, subprocess.SubprocessError) as error:
            if "peers" in REQUIRED:
                raise
            pytest.skip(f"go-vex cannot be built here: {error}")
    return lambda *words: (
        subprocess.run([binary, *map(str, words)], check=True, timeout=60, capture_output=True, text=True).stdout
    )


@pytest.mark.parametrize("name", [CVE, GHSA])
def test_who_knows_the_dependencies_is_told_by_our_file(asked: Asked, name: str) -> None:
    """Of the diskcache in cachekit, under both names of the vulnerability."""
    assert asked(OURS, name, CACHEKIT, DISKCACHE) == NOT_AFFECTED


@pytest.mark.parametrize(
    "words",
    [(CVE, "pkg:pypi/other@1", DISKCACHE), (CVE, DISKCACHE), ("CVE-2025-0001", CACHEKIT, DISKCACHE)],
)
def test_our_file_speaks_of_nothing_else(asked: Asked, words: tuple[str, ...]) -> None:
    """Neither of another program's diskcache, nor of another vulnerability."""
    assert asked(OURS, *words) == ""


@pytest.mark.parametrize("name", [CVE, GHSA])
def test_who_sees_packages_only_is_told_by_the_other(asked: Asked, name: str) -> None:
    """An installed environment, where a scanner asks for the package as the product."""
    assert asked(ALONE, name, DISKCACHE) == NOT_AFFECTED
    assert asked(ALONE, name, "pkg:pypi/other@1") == ""
