"""What a function depends on besides what its code reaches: `depends=` names it."""

from __future__ import annotations

import os
import types
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from cachekit.errors import UsageError
from cachekit.files.digests import frame
from cachekit.keys.code.reach import Reach
from cachekit.keys.code.watch import Cell


@dataclass(frozen=True, slots=True)
class Env:
    """An environment variable, by its name: what it is at the call counts."""

    name: str


def env(name: str) -> Env:
    """For `depends=`: the environment variable `name` counts, as it is at the moment of the call."""
    return Env(name)


def check(dependency: Any) -> None:
    """Raises UsageError for what nothing can depend on."""
    if not isinstance(dependency, (str, Path, Env, types.ModuleType, type)) and not callable(dependency):
        raise UsageError(
            "depends= takes the name of a distribution, a module, function or class, cachekit.env(...) or a Path, not "
            f"{type(dependency).__name__}"
        )


def packages_of(dependencies: tuple[Any, ...]) -> frozenset[str]:
    """The packages whose code is followed like own code, because it was named."""
    named = [one for one in dependencies if not isinstance(one, (str, Path, Env))]
    modules = [one.__name__ if isinstance(one, types.ModuleType) else str(one.__module__) for one in named]
    return frozenset(module.partition(".")[0] for module in modules)


def describe(dependency: Any, walk: Reach) -> bytes:
    """What it is now. Raises UsageError for a distribution that is not installed."""
    if isinstance(dependency, Env):
        return frame(b"env", dependency.name.encode(), walk.read(dependency.name, dependency.name, os.environ))
    if isinstance(dependency, str):
        try:
            version = metadata.version(dependency)
        except metadata.PackageNotFoundError:
            raise UsageError(f"depends={dependency!r}: no distribution of that name is installed") from None
        walk.tell("distribution", dependency, version.encode(), version)
        return frame(b"distribution", dependency.encode(), version.encode())
    if isinstance(dependency, Path):
        watched = walk.read("depends", "depends", Cell("depends", types.CellType(dependency)))
        return frame(b"path", watched)
    label = getattr(dependency, "__name__", "depends")
    return frame(b"code", walk.read(label, label, {label: dependency}))
