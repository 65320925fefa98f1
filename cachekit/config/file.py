"""The settings file: the nearest cachekit.toml, or pyproject.toml with [tool.cachekit]."""

from __future__ import annotations

import importlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cachekit.config.settings import TABLE
from cachekit.errors import UNREADABLE, UsageError
from cachekit.files.locks import of_another_user

_NAMES: Final = tuple(variable.setting for variable in TABLE)


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What a file says: its `values`; its `path`, and `title` for a reason; and what deserves a warning."""

    values: Mapping[str, object] = field(default_factory=dict)
    path: Path | None = None
    title: str = ""
    warnings: tuple[str, ...] = ()


def search() -> SettingsFile:
    """The nearest file that says something of us, from the working directory upwards."""
    warnings: list[str] = []
    here = working_directory()
    for folder in (here, *here.parents) if here else ():
        for path in (folder / "cachekit.toml", folder / "pyproject.toml"):
            # Path.is_file raises where a parent may not be entered.
            if not os.path.isfile(path) or (path.name == "pyproject.toml" and not _mentions_us(path)):
                continue
            if _anybody_wrote(path):
                warnings.append(f"{path} is ignored: everybody may write to its directory, and it is not yours")
                continue
            file = load(path)
            if path.name == "cachekit.toml" or file.values:
                return replace(file, path=path, warnings=tuple(warnings))
    return SettingsFile(warnings=tuple(warnings))


def load(path: Path) -> SettingsFile:
    """What the file at `path` says. UsageError where it cannot be read, or says what we do not know."""
    loads = _toml_parser()
    if loads is None:
        msg = f"{path} is TOML, which Python 3.10 cannot read by itself: pip install tomli, or use CACHEKIT_* variables"
        raise UsageError(msg)
    try:
        document = loads(path.read_text(encoding="utf-8"))
    except (OSError, *UNREADABLE) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if path.name != "pyproject.toml":
        return _checked(path, path.name, document)
    tool = document.get("tool")
    return _checked(path, "pyproject.toml [tool.cachekit]", tool.get("cachekit", {}) if isinstance(tool, dict) else {})


def known(keys: Iterable[str], where: str) -> None:
    """Raises UsageError for a key that is no setting, naming `where` it stands."""
    for key in keys:
        if key not in _NAMES:
            msg = f"{where}: unknown setting {key!r}{hint(key, _NAMES)}; accepted: {', '.join(_NAMES)}"
            raise UsageError(msg)


def hint(word: str, words: Iterable[str]) -> str:
    """', did you mean …?' where one of `words` is close, else nothing."""
    import difflib  # wanted only where something is wrong

    close = difflib.get_close_matches(word, list(words), n=1)
    return f", did you mean {close[0]}?" if close else ""


def working_directory() -> Path | None:
    """None where it was removed."""
    try:
        return Path.cwd()
    except OSError:
        return None


def _mentions_us(path: Path) -> bool:
    """Most projects' pyproject.toml says nothing of us, and must not cost a parse, or an error that is not ours."""
    try:
        text = path.read_bytes()
    except OSError:
        return False
    if _toml_parser() is not None:
        return b"cachekit" in text
    return re.search(rb"\btool\s*\.\s*[\"']?cachekit[\"']?\s*[].]", text) is not None


def _anybody_wrote(path: Path) -> bool:
    """Whether a stranger could have left the file there, in /tmp for one: it may name a daemon to believe."""
    if os.name != "posix":
        return False
    return bool(path.parent.stat().st_mode & stat.S_IWOTH) and path.stat().st_uid != 0 and of_another_user(path.stat())


def _checked(path: Path, title: str, table: object) -> SettingsFile:
    if not isinstance(table, dict):
        raise UsageError(f"{path}: [tool.cachekit] must be a table")
    known(table, str(path))
    return SettingsFile(table, path.absolute(), title)


def _toml_parser() -> Callable[[str], dict[str, Any]] | None:
    for name in ("tomllib", "tomli"):
        try:
            parser: Callable[[str], dict[str, Any]] = importlib.import_module(name).loads
        except ImportError:
            continue
        return parser
    return None
