"""The cache directory: made, recognised, refused."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cachekit.errors import UsageError
from cachekit.files.places import prepare


def test_the_directory_is_ours_alone(tmp_path: Path) -> None:
    """0700, with CACHEDIR.TAG and .gitignore."""
    prepare(tmp_path / "made")
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    assert {"CACHEDIR.TAG", ".gitignore"} <= {p.name for p in (tmp_path / "made").iterdir()}
    prepare(tmp_path / "made")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A directory of a later cachekit is left alone, with a sentence."""
    prepare(tmp_path / "made")
    (tmp_path / "made" / "cachekit-format").write_text("99\n")
    with pytest.raises(UsageError, match="99"):
        prepare(tmp_path / "made")
