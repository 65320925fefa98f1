"""A module that a function imports when it is called: found where it would be imported from, never executed for this.

What is read of it counts by its source, and so does what that reads of the own modules it imports.
"""

from __future__ import annotations

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
from cachekit.keys.code.slices import Reads, Sliced, Wanted
from cachekit.keys.code.text import parse, text_digest

_modules: dict[tuple[str, bytes], Sliced | None] = {}
_LIMIT: Final = 1024


def unloaded(name: str, chains: Iterable[Chain] = ()) -> bytes:
    """Bytes of what is read of a module that is not in `sys.modules`, and of what it imports; of a foreign one its name."""
    chains = list(chains)
    whole = not chains or () in chains
    found: dict[str, tuple[Wanted, bytes]] = {}
    waiting: Reads = [(name, None if whole else frozenset(chain[0] for chain in chains))]
    waiting += [(inner, None) for inner in _submodules(name, chains)]
    while waiting:
        module, names = waiting.pop()
        before = found[module][0] if module in found else frozenset[str]()
        names = None if names is None or before is None else names | before
        if module not in found or names != before:
            data, reads = _found(module, names)
            found[module] = names, data
            waiting.extend(reads)
    return frame(*[frame(module.encode(), data) for module, (_, data) in sorted(found.items())])


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


def _found(name: str, wanted: Wanted) -> tuple[bytes, Reads]:
    spec = find(name)
    if spec is None:
        return b"absent", []
    if not _is_own(spec):
        return b"foreign", []
    if spec.origin is None:
        inside = [] if wanted is None else [f"{name}.{one}" for one in sorted(wanted)]
        return b"namespace", [(one, None) for one in inside if find(one) is not None]
    data = _source(spec)
    if data is None:
        return b"unreadable", []
    module = _sliced(name, spec, data)
    if module is None:
        return hashlib.sha256(data).digest(), []
    text, reads = module.of(wanted, name)
    return text_digest(text).encode(), reads


def _source(spec: ModuleSpec) -> bytes | None:
    try:
        # By its loader: it may stand in a zip file.
        return bytes(spec.loader.get_data(spec.origin))  # type: ignore[union-attr]
    except (OSError, AttributeError, ImportError):
        return None


def _sliced(name: str, spec: ModuleSpec, data: bytes) -> Sliced | None:
    key = (name, hashlib.sha256(data).digest())
    if key not in _modules:
        if len(_modules) >= _LIMIT:
            _modules.clear()
        package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
        try:
            _modules[key] = Sliced(parse(data.decode("utf-8", "surrogateescape")), package, _look)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            _modules[key] = None
    return _modules[key]


def _look(name: str) -> Sliced | bool | None:
    """A module of own code by its source, None for any other that there is, False where none is."""
    spec = find(name)
    if spec is None:
        return False
    data = _source(spec) if spec.origin is not None and _is_own(spec) else None
    return None if data is None else _sliced(name, spec, data)


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
