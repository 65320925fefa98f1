"""Where things live that are not the cache itself: the XDG directories, and home. Nothing is created here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cachekit.errors import UsageError


def config_dir(environ: Mapping[str, str]) -> Path:
    """Where the credential lies: $XDG_CONFIG_HOME/cachekit or ~/.config/cachekit."""
    return _xdg(environ, "XDG_CONFIG_HOME", ".config")


def data_dir(environ: Mapping[str, str]) -> Path:
    """What must survive a cleared cache: $XDG_DATA_HOME/cachekit or ~/.local/share/cachekit."""
    return _xdg(environ, "XDG_DATA_HOME", ".local/share")


def cache_dir(environ: Mapping[str, str]) -> Path:
    """What can be had again: $XDG_CACHE_HOME/cachekit or ~/.cache/cachekit."""
    return _xdg(environ, "XDG_CACHE_HOME", ".cache")


def _xdg(environ: Mapping[str, str], name: str, below_home: str) -> Path:
    said = environ.get(name, "")
    # The XDG specification: a relative path is invalid and must be ignored.
    root = Path(said) if Path(said).is_absolute() else home(environ) / below_home
    return root / "cachekit"


def home(environ: Mapping[str, str]) -> Path:
    """$HOME, or what the system says. UsageError where neither does."""
    if environ.get("HOME"):
        return Path(environ["HOME"])
    try:
        return Path.home()
    except RuntimeError as error:
        msg = "there is no home directory; set CACHEKIT_DIR and XDG_CONFIG_HOME, or HOME"
        raise UsageError(msg) from error
