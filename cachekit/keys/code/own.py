"""Which code is the user's own: neither the standard library, nor an installed distribution, nor cachekit itself.

An editable install is own code: its files stand where its author edits them.
"""

from __future__ import annotations

import functools
import os
import site
import sys
import sysconfig
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cachekit.keys.code import carried

_FROZEN: Final = "<frozen"
_PACKAGES: Final = ("cachekit", "cachekit_adapters")
SCRIPT: Final = ("__main__", "__mp_main__")
"""A script or a notebook; the second is the same script in a spawned worker."""

WHEREABOUTS: Final = frozenset(
    ("__name__", "__file__", "__package__", "__spec__", "__loader__", "__path__", "__builtins__", "__cached__")
)
"""Module attributes that say where the code stands: a key depends on no path."""


@functools.cache
def _foreign_places() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    named = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    named += [*getattr(site, "getsitepackages", list)(), site.getusersitepackages()]
    named.append(str(Path(__file__).parents[2]))
    return tuple({f"{place}{os.sep}" for name in named for place in (os.path.abspath(name), os.path.realpath(name))})


@functools.lru_cache(maxsize=4096)
def is_own_file(filename: str) -> bool:
    """Whether code of this file counts. A name that is no file (`<stdin>`, a notebook's cell, exec'ed text) is own."""
    if filename.startswith(_FROZEN):
        return False
    if filename.startswith("<"):
        return True
    return not os.path.abspath(filename).startswith(_foreign_places())


def is_own_function(function: types.FunctionType) -> bool:
    return is_own_file(function.__code__.co_filename) and not carried.is_foreign(function.__code__)


def is_own_class(cls: type) -> bool:
    """Whether a class counts: of an own module, or made at run time by a foreign one, which does not hold it."""
    if cls.__flags__ & _IMMUTABLE:
        return False
    name = _module_of(cls)
    if name in SCRIPT:  # a worker that was sent a script's class has another program's script
        return True
    module = sys.modules.get(name)
    return is_own_module(module) or not (name.partition(".")[0] in _PACKAGES or _is_held(cls, module))


def _is_held(cls: type, module: Any) -> bool:
    """Whether its module has the class: what `make_dataclass` or a metaclass makes says that it stands in theirs."""
    held: Any = module
    for name in cls.__qualname__.split("."):
        if name == "<locals>":
            return True
        held = getattr(held, "__dict__", {}).get(name)
    return held is cls


_IMMUTABLE: Final = 1 << 8
"""Py_TPFLAGS_IMMUTABLETYPE: a class written in C, whatever module it claims."""


def is_own_module(module: Any) -> bool:
    """Whether a module counts. One that is not in `sys.modules` any more, or has no file, was made at run time."""
    name = str(getattr(module, "__name__", ""))
    if name in sys.builtin_module_names or name.partition(".")[0] in _PACKAGES:
        return False
    filename = getattr(module, "__file__", None)
    if filename is None and getattr(module, "__spec__", None) is not None and name != "__main__":
        # A namespace package has no file, and its parts stand somewhere all the same.
        return any(is_own_file(os.path.join(str(place), "")) for place in getattr(module, "__path__", ()))
    return filename is None or is_own_file(str(filename))


def _module_of(cls: type) -> str:
    module = cls.__dict__.get("__module__", "")
    return module if isinstance(module, str) else ""


def lasting(loaded: Mapping[str, Any]) -> list[str]:
    """The names of a module or notebook, without what IPython writes into it for each cell."""
    kept = {"In", "Out"} if "get_ipython" in loaded else set[str]()
    return sorted(name for name in loaded if not name.startswith("_") and name not in kept)
