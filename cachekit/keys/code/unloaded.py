"""A module that a function imports when it is called: found where it would be imported from, never executed for this.

Before it was imported nobody can say what its names are, so its whole source counts, and that of the own modules it imports.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, Final

from cachekit.files.digests import frame
from cachekit.keys.code.names import Chain, Imported
from cachekit.keys.code.own import is_own_file
from cachekit.keys.code.text import dump_tree, parse, text_digest

_digests: dict[tuple[str, bytes], tuple[bytes, tuple[str, ...]]] = {}
_LIMIT: Final = 1024


def unloaded(name: str, chains: Iterable[Chain] = ()) -> bytes:
    """Bytes of a module that is not in `sys.modules`, and of its submodules that are read; of a foreign one its name."""
    texts, seen, waiting = [], set[str](), [name, *_submodules(name, chains)]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        digest, imported = _found(module)
        texts.append(frame(module.encode(), digest))
        waiting.extend(imported)
    return frame(*sorted(texts))


def is_foreign(name: str) -> bool:
    """Whether a module that is not in `sys.modules` belongs to the standard library or an installed distribution."""
    spec = find(name)
    return name in sys.builtin_module_names or (spec is not None and not _is_own(spec))


def _submodules(name: str, chains: Iterable[Chain]) -> Iterator[str]:
    for chain in chains:
        inner = name
        for part in chain:
            inner = f"{inner}.{part}"
            if find(inner) is None:
                break
            yield inner


def _is_own(spec: ModuleSpec) -> bool:
    if spec.origin is None:  # a namespace package stands in several places
        return any(is_own_file(os.path.join(place, "")) for place in spec.submodule_search_locations or ())
    return spec.has_location and is_own_file(spec.origin)


def _found(name: str) -> tuple[bytes, tuple[str, ...]]:
    spec = find(name)
    if spec is None:
        return b"absent", ()
    if not _is_own(spec):
        return b"foreign", ()
    if spec.origin is None:
        return b"namespace", ()
    try:
        # By its loader: it may stand in a zip file.
        data = spec.loader.get_data(spec.origin)  # type: ignore[union-attr]
    except (OSError, AttributeError, ImportError):
        return b"unreadable", ()
    key = (name, hashlib.sha256(data).digest())
    if key not in _digests:
        if len(_digests) >= _LIMIT:
            _digests.clear()
        _digests[key] = _read(name, data, is_package=spec.submodule_search_locations is not None)
    return _digests[key]


def _read(name: str, data: bytes, *, is_package: bool) -> tuple[bytes, tuple[str, ...]]:
    try:
        tree = parse(data.decode("utf-8", "surrogateescape"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return hashlib.sha256(data).digest(), ()
    package = name if is_package else name.rpartition(".")[0]
    return text_digest(dump_tree(tree)).encode(), tuple(sorted(set(_imports(tree, package))))


def _imports(tree: ast.Module, package: str) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


def find(name: str) -> ModuleSpec | None:
    """Where the module would be imported from; its parent packages are not executed either."""
    path: list[str] | None = None
    spec: ModuleSpec | None = None
    above = ""
    for part in name.split("."):
        above = f"{above}.{part}" if above else part
        loaded = sys.modules.get(above)
        spec = getattr(loaded, "__spec__", None) or PathFinder.find_spec(above, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    return spec


def absolute(imported: Imported, loaded: Mapping[str, Any]) -> str:
    """The full name of a module that is imported in the module `loaded`."""
    level, module = imported
    if not level:
        return module
    package = str(loaded.get("__package__") or "").split(".")
    return ".".join([*package[: len(package) - level + 1], *([module] if module else [])])


def is_submodule(module: types.ModuleType, name: str) -> bool:
    """Whether a package has a module of this name, imported or not."""
    return hasattr(module, "__path__") and find(f"{module.__name__}.{name}") is not None
