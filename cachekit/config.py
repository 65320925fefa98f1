"""Which value of each setting wins, and who said so.

`resolve` is a function of the environment it is given and of one TOML file; this is the only place that looks at
either. The order: `configure()`, environment, file, legacy variables, CI detection, default. What stands above (call,
context manager, decorator) belongs to a call, not to the process.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from cachekit.ci import detect_ci, legacy_refusal
from cachekit.errors import UsageError
from cachekit.settings_table import TABLE, Settings, Variable, seconds

__all__ = ["Origin", "Resolved", "Settings", "config_dir", "data_dir", "explain", "render_table", "resolve", "seconds"]

Source = Literal["configure", "environment", "file", "legacy", "ci", "default"]

_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
_NAMES: Final = tuple(variable.setting for variable in TABLE)
# Set for the test suite (DESIGN §8), never a setting.
_NOT_OURS: Final = frozenset({"CACHEKIT_REQUIRE"})
_SET: Final = "<set>"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: the layer, and a few words naming what decided; a secret is never in them."""

    source: Source
    detail: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """The settings, who decided each of them, the TOML file that was read, and what deserves a warning."""

    settings: Settings
    origins: Mapping[str, Origin]
    warnings: tuple[str, ...] = ()
    file: Path | None = None

    def reason(self, setting: str) -> str:
        """What decided `setting`, such as 'CACHEKIT_IPFS=off' or 'CI detected: GITHUB_ACTIONS'."""
        return self.origins[setting].detail


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one source says; `detail` and `where` name a setting in it for a reason and for an error."""

    source: Source
    values: Mapping[str, object]
    detail: Callable[[Variable, object], str]
    where: Callable[[Variable], str]
    base: Path | None = None


@dataclass(frozen=True, slots=True)
class _File:
    values: Mapping[str, object] = field(default_factory=dict)
    path: Path | None = None
    title: str = ""
    warnings: tuple[str, ...] = ()


def resolve(
    environ: Mapping[str, str],
    *,
    overrides: Mapping[str, object] = _NOTHING,
    toml: Path | Literal["search"] | None = "search",
) -> Resolved:
    """The settings that hold, with their origins.

    `overrides` are `configure()`'s, by setting name; `toml` is a file that must exist, None for no file, or "search":
    the nearest cachekit.toml or pyproject.toml with [tool.cachekit], from the working directory upwards.
    Raises UsageError for a bad value in any layer, a winning one or not, and for an unknown key.
    """
    file = _search() if toml == "search" else _File() if toml is None else _load(toml)
    layers = (_configured(overrides), _environment(environ), _filed(file))
    refusal = legacy_refusal(environ)
    values, origins = dict[str, Any](), dict[str, Origin]()
    for variable in TABLE:
        said = [(_read(layer, variable, environ), layer) for layer in layers if variable.setting in layer.values]
        if said:
            values[variable.setting], layer = said[0]
            detail = layer.detail(variable, layer.values[variable.setting])
            origins[variable.setting] = Origin(layer.source, detail)
        else:
            values[variable.setting], origins[variable.setting] = _default(variable, environ, refusal)
    settings = Settings(**values)
    notes = (*file.warnings, *_unknown_variables(environ), *_conflict(settings, origins["ipfs"], refusal))
    return Resolved(settings, MappingProxyType(origins), notes, file.path)


def _configured(overrides: Mapping[str, object]) -> _Layer:
    _known(overrides, "configure()")

    def detail(variable: Variable, value: object) -> str:
        text = json.dumps(str(value)) if isinstance(value, (str, Path)) else repr(value)
        return f"configure({variable.setting}={_SET if variable.secret and value is not None else text})"

    return _Layer("configure", overrides, detail, lambda variable: f"configure({variable.setting}=)")


def _environment(environ: Mapping[str, str]) -> _Layer:
    values = {v.setting: environ[v.name] for v in TABLE if environ.get(v.name, "").strip()}

    def detail(variable: Variable, value: object) -> str:
        return f"{variable.name}={_SET if variable.secret else value}"

    return _Layer("environment", values, detail, lambda variable: variable.name)


def _filed(file: _File) -> _Layer:
    return _Layer(
        "file",
        file.values,
        lambda variable, _: f"{file.title} {variable.setting}",
        lambda variable: f"{file.path}: {variable.setting}",
        file.path.parent if file.path else None,
    )


def _read(layer: _Layer, variable: Variable, environ: Mapping[str, str]) -> object:
    value = variable.read(layer.values[variable.setting], layer.where(variable))
    return _place(value, layer.base, environ) if isinstance(value, Path) else value


def _place(path: Path, base: Path | None, environ: Mapping[str, str]) -> Path:
    """Absolute, so that a later chdir does not move the cache."""
    if path.parts[:1] == ("~",):
        return _home(environ).joinpath(*path.parts[1:])
    if path.is_absolute():
        return path
    start = base or _working_directory()
    if start is None:
        msg = f"{path} is a relative path, and the working directory is gone; write an absolute one"
        raise UsageError(msg)
    return start / path


def _default(variable: Variable, environ: Mapping[str, str], refusal: str | None) -> tuple[object, Origin]:
    if variable.setting == "ipfs" and refusal:
        return "off", Origin("legacy", refusal)
    if variable.setting == "ipfs" and (vendor := detect_ci(environ)):
        return "off", Origin("ci", f"CI detected: {vendor}")
    value = _xdg(environ, "XDG_CACHE_HOME", ".cache") if variable.setting == "dir" else variable.default
    return value, Origin("default", "default")


def _known(keys: Iterable[str], where: str) -> None:
    for key in keys:
        if key not in _NAMES:
            msg = f"{where}: unknown setting {key!r}{_hint(key, _NAMES)}; accepted: {', '.join(_NAMES)}"
            raise UsageError(msg)


def _hint(word: str, words: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(words), n=1)
    return f", did you mean {close[0]}?" if close else ""


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    names = {variable.name for variable in TABLE}
    unknown = sorted(name for name in environ if name.startswith("CACHEKIT_") and name not in names | _NOT_OURS)
    return [f"{name} is not a variable of cachekit{_hint(name, names)}" for name in unknown]


def _conflict(settings: Settings, origin: Origin, refusal: str | None) -> list[str]:
    if refusal is None or origin.source == "legacy" or settings.ipfs == "off":
        return []
    return [f"{origin.detail} wins over {refusal}, so IPFS is not off; unset one of them"]


def _search() -> _File:
    warnings: list[str] = []
    here = _working_directory()
    for folder in (here, *here.parents) if here else ():
        for path in (folder / "cachekit.toml", folder / "pyproject.toml"):
            # Path.is_file raises where a parent may not be entered.
            if not os.path.isfile(path) or (path.name == "pyproject.toml" and not _mentions_us(path)):
                continue
            if _anybody_wrote(path):
                warnings.append(f"{path} is ignored: everybody may write to its directory, and it is not yours")
                continue
            file = _load(path)
            if path.name == "cachekit.toml" or file.values:
                return _File(file.values, path, file.title, tuple(warnings))
    return _File(warnings=tuple(warnings))


def _working_directory() -> Path | None:
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
    return bool(path.parent.stat().st_mode & stat.S_IWOTH) and path.stat().st_uid not in (0, os.getuid())


def _load(path: Path) -> _File:
    loads = _toml_parser()
    if loads is None:
        msg = f"{path} is TOML, which Python 3.10 cannot read by itself: pip install tomli, or use CACHEKIT_* variables"
        raise UsageError(msg)
    try:
        document = loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read: {error}"
        raise UsageError(msg) from error
    if path.name != "pyproject.toml":
        return _file(path, path.name, document)
    tool = document.get("tool")
    return _file(path, "pyproject.toml [tool.cachekit]", tool.get("cachekit", {}) if isinstance(tool, dict) else {})


def _file(path: Path, title: str, table: object) -> _File:
    if not isinstance(table, dict):
        msg = f"{path}: [tool.cachekit] must be a table"
        raise UsageError(msg)
    _known(table, f"{path}")
    return _File(table, path.absolute(), title)


def _toml_parser() -> Callable[[str], dict[str, Any]] | None:
    for name in ("tomllib", "tomli"):
        try:
            parser: Callable[[str], dict[str, Any]] = importlib.import_module(name).loads
        except ImportError:
            continue
        return parser
    return None


def config_dir(environ: Mapping[str, str]) -> Path:
    """Where the credential lies: $XDG_CONFIG_HOME/cachekit or ~/.config/cachekit. Nothing is created."""
    return _xdg(environ, "XDG_CONFIG_HOME", ".config")


def data_dir(environ: Mapping[str, str]) -> Path:
    """What must survive a cleared cache: $XDG_DATA_HOME/cachekit or ~/.local/share/cachekit. Nothing is created."""
    return _xdg(environ, "XDG_DATA_HOME", ".local/share")


def _xdg(environ: Mapping[str, str], name: str, below_home: str) -> Path:
    said = environ.get(name, "")
    # The XDG specification: a relative path is invalid and must be ignored.
    root = Path(said) if Path(said).is_absolute() else _home(environ) / below_home
    return root / "cachekit"


def _home(environ: Mapping[str, str]) -> Path:
    if environ.get("HOME"):
        return Path(environ["HOME"])
    try:
        return Path.home()
    except RuntimeError as error:
        msg = "there is no home directory; set CACHEKIT_DIR and XDG_CONFIG_HOME, or HOME"
        raise UsageError(msg) from error


def explain(resolved: Resolved) -> list[dict[str, object]]:
    """One row {name, variable, value, source, reason} per setting, fit for JSON; secrets are '<set>' or None."""
    return [_row(variable, getattr(resolved.settings, variable.setting), resolved) for variable in TABLE]


def _row(variable: Variable, value: object, resolved: Resolved) -> dict[str, object]:
    shown = _SET if variable.secret and value is not None else str(value) if isinstance(value, Path) else value
    return {
        "name": variable.setting,
        "variable": variable.name,
        "value": "forever" if variable.setting == "ttl" and value is None else shown,
        "source": resolved.origins[variable.setting].source,
        "reason": resolved.reason(variable.setting),
    }


def render_table() -> str:
    """The table of settings in markdown, for docs/configuration.md."""
    rows = [f"| `{v.name}` | {v.help} | {v.accepted} | {v.shown} |" for v in TABLE]
    return "\n".join(["| variable | what it decides | accepted | default |", "|---|---|---|---|", *rows])
