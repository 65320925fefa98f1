"""What the adapters that load, convert and compile have in common: libraries that may be missing, tools, versions."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from cachekit import UsageError

F = TypeVar("F", bound=Callable[..., Any])

_COMMIT: Final = re.compile("[0-9a-f]{40}")


def named(name: str) -> Callable[[F], F]:
    """Gives a function the name that it has in keys and statistics, so that no key says in which module it stands."""

    def renamed(function: F) -> F:
        function.__module__, function.__qualname__ = "cachekit_adapters", name
        return function

    return renamed


def needed(module: str) -> Any:
    """The imported module; UsageError that names the extra where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise UsageError(_install_message(module)) from error


def _install_message(module: str) -> str:
    return f"{module.partition('.')[0]} is not installed: pip install 'cachekit-ipfs[loaders]'"


def versions(*distributions: str) -> dict[str, str]:
    """Installed version of each, "" for one that is not here. A build's local suffix (`+cpu`) does not count."""
    return {name: _version(name) for name in distributions}


@functools.cache
def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return ""


def versions_in(python: str, *distributions: str) -> dict[str, str]:
    """The same, in the environment of an interpreter that will run a tool. Raises CalledProcessError where it does not run.

    It is asked once, and again after something was installed where it imports from.
    """
    environment = (python, *distributions)
    known = _known.get(environment)
    if known is None or any(_changed(place) != at for place, at in known[1].items()):
        report = json.loads(run([python, "-c", _ASK, *distributions]).splitlines()[-1])
        known = (report["versions"], {place: _changed(place) for place in report["places"]})
        _known[environment] = known
    return {name: version.partition("+")[0] for name, version in known[0].items()}


def _changed(place: str) -> int:
    try:
        return os.stat(place).st_mtime_ns
    except OSError:
        return 0


_known: dict[tuple[str, ...], tuple[dict[str, str], dict[str, int]]] = {}
# Another interpreter may not have cachekit, so the question brings its own code.
_ASK: Final = """
import json, os, sys
from importlib.metadata import PackageNotFoundError, version
def told(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
places = [place for place in sys.path if os.path.isdir(place)]
print(json.dumps({"versions": {name: told(name) for name in sys.argv[1:]}, "places": places}))
"""


def run(command: Sequence[str], *, directory: Path | None = None) -> str:
    """What the command said on stdout. Raises CalledProcessError with its `stderr`, FileNotFoundError without a tool."""
    done = subprocess.run(
        list(command), cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        raise _failed(subprocess.CalledProcessError(done.returncode, list(command), done.stdout, done.stderr))
    return done.stdout


def _failed(error: subprocess.CalledProcessError) -> subprocess.CalledProcessError:
    """The error with the end of its stderr in the traceback too, where Python (3.11) can say it there."""
    note = getattr(error, "add_note", None)
    if note is not None and error.stderr:
        note("\n".join(error.stderr.splitlines()[-10:]))
    return error


def existing(path: str | os.PathLike[str], what: str) -> Path:
    """`path`, absolute; its own name stays, links and all. UsageError where nothing stands there."""
    absolute = Path(os.path.abspath(path))
    if not absolute.exists():
        raise UsageError(f"{what}: there is nothing at {os.fspath(path)}; pass a path that exists")
    return absolute


def source(name_or_path: str | os.PathLike[str]) -> str | Path:
    """A model: a Path, so that it is keyed by content, where it exists on this machine, and else its name on the hub."""
    if os.path.exists(name_or_path):
        return Path(os.path.abspath(name_or_path))
    if isinstance(name_or_path, Path):
        raise UsageError(f"there is no model at {name_or_path}; pass a path that exists, or a name as a str")
    return os.fspath(name_or_path)


UNKNOWN: Final = ""
"""The commit of a branch that nobody could be asked about."""


def commit(model: str | Path, revision: str | None) -> str | None:
    """The commit that `revision` of a model on the hub is now, so that a branch that moved on is another key.

    The hub is asked; where it does not answer, the machine's own copy; `UNKNOWN` where neither knows: then nothing may be
    kept under the name alone. None for a model on this machine, whose content is its identity.
    """
    if isinstance(model, Path):
        return None
    if revision and _COMMIT.fullmatch(revision):
        return revision
    hub = needed("huggingface_hub")
    try:
        return str(hub.HfApi().model_info(model, revision=revision, timeout=10).sha)
    except Exception:  # each major version of the hub's client raises another HTTP library's errors; none is an answer
        return _commit_here(hub, model, revision)


def _commit_here(hub: Any, model: str, revision: str | None) -> str:
    config = hub.try_to_load_from_cache(model, "config.json", revision=revision)
    return Path(config).parent.name if isinstance(config, str) else UNKNOWN


def spoken(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with plain values for those of a vendor's classes, so that they can be keyed."""
    return {name: _plain(value) for name, value in options.items()}


def _plain(value: Any) -> Any:
    if type(value).__module__.partition(".")[0] == "torch" and type(value).__name__ in ("dtype", "device"):
        return str(value)
    if callable(getattr(value, "to_dict", None)):
        return {"class": type(value).__qualname__, **value.to_dict()}
    return value


def only(directory: Path, made_by: str) -> Path:
    """The one file of `directory`, or `directory` itself where there are several. Raises UsageError where it is empty."""
    entries = sorted(directory.iterdir())
    if not entries:
        raise UsageError(f"{made_by} ended well and wrote nothing; see that its options let it write its output")
    return entries[0] if len(entries) == 1 else directory


def flags(options: Mapping[str, Any]) -> list[str]:
    """Options of a command line: `model_name="x"` is `--model-name x`, True a flag alone, None and False nothing."""
    words: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        flag = f"--{name.replace('_', '-')}"
        many = value if isinstance(value, (list, tuple)) else [value]
        words += [flag] if value is True else [flag, *_texts(many)]
    return words


def _texts(values: Iterable[Any]) -> list[str]:
    return [os.path.abspath(value) if isinstance(value, os.PathLike) else str(value) for value in values]
