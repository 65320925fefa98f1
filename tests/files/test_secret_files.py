"""Small private files that hold a secret: which are believed to be private."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachekit.errors import UsageError
from cachekit.files.secret_files import read_or_create

SERVICE, STRANGER = 54321, 54322
ROOT_ONLY = pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root can be somebody else")


@contextlib.contextmanager
def service() -> Iterator[None]:
    """As a user with a group of its own."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(SERVICE)
    os.seteuid(SERVICE)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user reaches, as /run/credentials and a mounted secret are."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield Path(made)


def never() -> str:
    raise AssertionError("it is there already")


def lent(place: Path, owner: int, mode: int) -> Path:
    path = place / "secret"
    path.write_text("the secret\n")
    os.chown(path, owner, SERVICE)
    path.chmod(mode)
    return path


@ROOT_ONLY
@pytest.mark.parametrize("mode", [0o440, 0o640])
def test_what_root_lends_a_service_is_read(place: Path, mode: int) -> None:
    """A secret as systemd, Kubernetes and Docker hand it over: root's, and readable by the service's group."""
    path = lent(place, 0, mode)
    (place / "link").symlink_to(path)
    with service():
        assert read_or_create(place / "link", never) == "the secret"


@ROOT_ONLY
@pytest.mark.parametrize(
    ("owner", "mode", "why"),
    [
        (0, 0o444, "others can read"),
        (0, 0o460, "others can read"),
        (STRANGER, 0o440, "not a file of yours"),
        (SERVICE, 0o440, "others can read"),
    ],
)
def test_what_is_not_private_is_refused(place: Path, owner: int, mode: int, why: str) -> None:
    """Everybody's file, one that its group may write, another user's, and one's own that a group reads."""
    path = lent(place, owner, mode)
    with service(), pytest.raises(UsageError, match=why):
        read_or_create(path, never)
