"""The platform's places: on Linux those of the XDG specification, elsewhere what the platform has."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest
from platformdirs.macos import MacOS

from cachekit.errors import UsageError
from cachekit.files.places import cache_dir, config_dir, data_dir, home

ROOT = Path(__file__).parents[2]
PLACES = {
    cache_dir: ("XDG_CACHE_HOME", ".cache"),
    config_dir: ("XDG_CONFIG_HOME", ".config"),
    data_dir: ("XDG_DATA_HOME", ".local/share"),
}
NO_HOME = {None: "unset", "": "empty", "rel": "relative"}

linux = pytest.mark.skipif(sys.platform != "linux", reason="the XDG directories are Linux's")
every_place = pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No XDG variable, and a home directory that is nobody's."""
    for variable, _ in PLACES.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/home/ann")


@linux
@every_place
def test_a_place_lies_below_home(place: Callable[[], Path]) -> None:
    """Without a variable: ~/.cache/cachekit, ~/.config/cachekit, ~/.local/share/cachekit."""
    assert place() == Path("/home/ann", PLACES[place][1], "cachekit")


@linux
@every_place
@pytest.mark.parametrize("root", ["/c", "/c/", "/c/../d", "/"])
def test_an_absolute_variable_is_honoured(
    place: Callable[[], Path], root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory that the variable names has one of ours, and no version or vendor between them."""
    monkeypatch.setenv(PLACES[place][0], root)
    assert place() == Path(root) / "cachekit"


@linux
@every_place
@pytest.mark.parametrize("root", ["", " ", "rel", "./c", "../c", "~/c", " /c"])
def test_any_other_value_is_ignored(place: Callable[[], Path], root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is invalid by the specification, and an empty variable is one that is not set."""
    monkeypatch.setenv(PLACES[place][0], root)
    assert place() == Path("/home/ann", PLACES[place][1], "cachekit")


@linux
@every_place
def test_a_place_follows_its_own_variable(place: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the other two places do not move it."""
    for variable, _ in PLACES.values():
        if variable != PLACES[place][0]:
            monkeypatch.setenv(variable, "/elsewhere")
    assert place() == Path("/home/ann", PLACES[place][1], "cachekit")


@linux
@every_place
@pytest.mark.parametrize("variable", NO_HOME, ids=NO_HOME.__getitem__)
def test_without_a_home_variable_the_system_says(
    place: Callable[[], Path], variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$HOME that is missing, empty or relative names no place; the user's entry of the system does."""
    if variable is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", variable)
    assert place() == Path(pwd.getpwuid(os.getuid()).pw_dir, PLACES[place][1], "cachekit")


@every_place
def test_no_home_at_all_is_one_sentence(place: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """UsageError with what to set."""

    def homeless(*_self: object) -> Path:
        raise RuntimeError("could not determine the home directory")

    for kind in ("cache", "config", "data"):
        monkeypatch.setattr(platformdirs.PlatformDirs, f"user_{kind}_path", property(homeless))
    with pytest.raises(UsageError, match="set CACHEKIT_DIR and XDG_CONFIG_HOME, or HOME"):
        place()
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(UsageError, match="no home directory"):
        home({})


def test_another_platform_has_places_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS they lie in ~/Library, where people there look for them."""
    monkeypatch.setattr(platformdirs, "PlatformDirs", MacOS)
    assert cache_dir() == Path("/home/ann/Library/Caches/cachekit")
    assert data_dir() == config_dir() == Path("/home/ann/Library/Application Support/cachekit")


def test_who_needs_no_place_does_not_wait_for_one(tmp_path: Path) -> None:
    """A decorated call with CACHEKIT_DIR set, and without IPFS, leaves platformdirs unloaded."""
    program = (
        "import sys, cachekit\n"
        "f = cachekit.distributed_cache(version='1')(lambda x: x)\n"
        "cachekit.configure(dir=sys.argv[1], ipfs='off')\n"
        "assert f(1) == 1\n"
        "sys.exit('platformdirs' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "cache")]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
