"""Which value of each setting wins, and who said so.

`resolve` is a function of the environment it is given, of one TOML file, and, where neither names a directory, of where
this platform has caches. The order: `configure()`, environment, file, legacy variables, CI detection, default. What
stands above (call, context manager, decorator) belongs to a call, not to the process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from cachekit.config.ci import detect_ci, legacy_refusal
from cachekit.config.file import SettingsFile, hint, known, load, search, working_directory
from cachekit.config.settings import TABLE, Settings, Variable
from cachekit.errors import UsageError
from cachekit.files.places import cache_dir, config_dir, data_dir, home

__all__ = ["Origin", "Resolved", "config_dir", "data_dir", "explain", "render_table", "resolve"]

LayerName = Literal["configure", "environment", "file", "legacy", "ci", "default"]

_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
# Set for the test suite (DESIGN §8), never a setting.
_NOT_OURS: Final = frozenset({"CACHEKIT_REQUIRE"})
_SET: Final = "<set>"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: the layer, and a few words naming what decided; a secret is never in them."""

    source: LayerName
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

    source: LayerName
    values: Mapping[str, object]
    detail: Callable[[Variable, object], str]
    where: Callable[[Variable], str]
    base: Path | None = None

    def read(self, variable: Variable, environ: Mapping[str, str]) -> tuple[object, Origin]:
        given = self.values[variable.setting]
        value = variable.read(given, self.where(variable))
        value = _place(value, self.base, environ) if isinstance(value, Path) else value
        return value, Origin(self.source, self.detail(variable, given))


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
    file = search() if toml == "search" else SettingsFile() if toml is None else load(toml)
    layers = (_configured(overrides), _environment(environ), _filed(file))
    refusal = legacy_refusal(environ)
    values, origins = dict[str, Any](), dict[str, Origin]()
    for variable in TABLE:
        # Every layer is read, whichever wins: a bad value is an error wherever it stands.
        given = [layer.read(variable, environ) for layer in layers if variable.setting in layer.values]
        value, origin = given[0] if given else _default(variable, environ, refusal)
        values[variable.setting], origins[variable.setting] = value, origin
    settings = Settings(**values)
    notes = (*file.warnings, *_unknown_variables(environ), *_conflict(settings, origins["ipfs"], refusal))
    return Resolved(settings, MappingProxyType(origins), notes, file.path)


def _configured(overrides: Mapping[str, object]) -> _Layer:
    known(overrides, "configure()")

    def detail(variable: Variable, value: object) -> str:
        text = json.dumps(str(value)) if isinstance(value, (str, Path)) else repr(value)
        return f"configure({variable.setting}={_SET if _secret(variable, value) and value is not None else text})"

    return _Layer("configure", overrides, detail, lambda variable: f"configure({variable.setting}=)")


def _environment(environ: Mapping[str, str]) -> _Layer:
    values = {v.setting: environ[v.name] for v in TABLE if environ.get(v.name, "").strip()}

    def detail(variable: Variable, value: object) -> str:
        return f"{variable.name}={_SET if _secret(variable, value) else value}"

    return _Layer("environment", values, detail, lambda variable: variable.name)


def _filed(file: SettingsFile) -> _Layer:
    return _Layer(
        "file",
        file.values,
        lambda variable, _: f"{file.title} {variable.setting}",
        lambda variable: f"{file.path}: {variable.setting}",
        file.path.parent if file.path else None,
    )


def _place(path: Path, base: Path | None, environ: Mapping[str, str]) -> Path:
    """Absolute, so that a later chdir does not move the cache."""
    if path.parts[:1] == ("~",):
        return home(environ).joinpath(*path.parts[1:])
    if path.is_absolute():
        return path
    start = base or working_directory()
    if start is None:
        raise UsageError(f"{path} is a relative path, and the working directory is gone; write an absolute one")
    return start / path


def _default(variable: Variable, environ: Mapping[str, str], refusal: str | None) -> tuple[object, Origin]:
    if variable.setting == "ipfs" and refusal:
        return "off", Origin("legacy", refusal)
    if variable.setting == "ipfs" and (vendor := detect_ci(environ)):
        return "off", Origin("ci", f"CI detected: {vendor}")
    value = cache_dir() if variable.setting == "dir" else variable.default
    return value, Origin("default", "default")


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    names = {variable.name for variable in TABLE}
    unknown = sorted(name for name in environ if name.startswith("CACHEKIT_") and name not in names | _NOT_OURS)
    return [f"{name} is not a variable of cachekit{hint(name, names)}" for name in unknown]


def _conflict(settings: Settings, origin: Origin, refusal: str | None) -> list[str]:
    if settings.store and origin.source in ("ci", "legacy"):
        return [f"CACHEKIT_STORE is not used, IPFS is off: {origin.detail}; CACHEKIT_IPFS=rw uses it, ro only reads it"]
    if refusal is None or origin.source == "legacy" or settings.ipfs == "off":
        return []
    return [f"{origin.detail} wins over {refusal}, so IPFS is not off; unset one of them"]


def explain(resolved: Resolved) -> list[dict[str, object]]:
    """One row {name, variable, value, source, reason} per setting, fit for JSON; secrets are '<set>' or None."""
    return [_row(variable, getattr(resolved.settings, variable.setting), resolved) for variable in TABLE]


def _row(variable: Variable, value: object, resolved: Resolved) -> dict[str, object]:
    shown = _SET if _secret(variable, value) and value is not None else str(value) if isinstance(value, Path) else value
    return {
        "name": variable.setting,
        "variable": variable.name,
        "value": "forever" if variable.setting == "ttl" and value is None else shown,
        "source": resolved.origins[variable.setting].source,
        "reason": resolved.reason(variable.setting),
    }


def _secret(variable: Variable, value: object) -> bool:
    """Also a URL that bears a name or a password."""
    return variable.secret or re.search(r"://[^/\s]*@", str(value)) is not None


def render(resolved: Resolved) -> tuple[dict[str, str], list[str]]:
    """A line of TOML for each setting that the environment or a file says, by name; and the secrets among them.

    What CI detection or a legacy variable decides is this machine's business, and no line.
    """
    said = [one for one in TABLE if resolved.origins[one.setting].source in ("environment", "file", "configure")]
    found = {one: getattr(resolved.settings, one.setting) for one in said}
    secret = [one.name for one, value in found.items() if _secret(one, value)]
    values = {one.setting: value for one, value in found.items() if one.name not in secret}
    return {name: f"{name} = {_toml(value)}" for name, value in values.items()}, secret


def _toml(value: object) -> str:
    if value is None:
        return '"forever"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # TOML's basic strings, numbers and booleans are written as JSON's.
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def render_table() -> str:
    """The table of settings in markdown, for docs/configuration.md."""
    rows = [f"| `{v.name}` | {v.help} | {v.accepted} | {v.shown} |" for v in TABLE]
    return "\n".join(["| variable | what it decides | accepted | default |", "|---|---|---|---|", *rows])
