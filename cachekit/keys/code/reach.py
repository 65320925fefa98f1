"""What a function's answer depends on in code: itself, and all own code and data that it reaches by the names it reads.

Everything met is a unit, numbered in the order in which it was met, and written once: a unit refers to another one by its
number. So cycles end, and neither a place nor the order of definitions counts. Functions count by source, defaults and
closure, classes by their members, modules by the attributes that are read of them, data by its value at this moment.
"""

from __future__ import annotations

import builtins
import sys
import threading
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from cachekit.errors import CannotKey
from cachekit.files.digests import frame
from cachekit.keys.canonical import canonical
from cachekit.keys.code import classes
from cachekit.keys.code.names import Chain, Imported, Outer
from cachekit.keys.code.own import is_own_class, is_own_function, is_own_module
from cachekit.keys.code.source import documented, facts_of
from cachekit.keys.code.watch import ABSENT, Cell, Watched, can_change, kind_of
from cachekit.keys.secrets import is_secret_name, seal
from cachekit.keys.shapes import is_mock

_WHEREABOUTS: Final = frozenset(
    {
        *("__name__", "__file__", "__package__", "__spec__", "__loader__"),
        *("__path__", "__builtins__", "__cached__"),
    }
)
"""Module attributes that say where the code stands: a key depends on no path."""

_CONTAINERS: Final = (list, dict, set, deque, Counter, OrderedDict, defaultdict)
"""What a function changes in place as a record of its calls."""

_COORDINATING: Final = frozenset(
    {
        *("_thread", "threading", "asyncio.locks", "asyncio.queues", "queue", "_queue", "logging"),
        *("multiprocessing.synchronize", "multiprocessing.queues"),
    }
)
"""Locks, events, queues and loggers: they decide when, or what is told, never the answer."""


class Part(NamedTuple):
    """One thing that counted: what kind of thing, its name, where it stands (`file:line`, "" for data), and its value."""

    kind: str
    name: str
    place: str
    value: Any


class Reach:
    """One walk. `portable` turns False once a source could not be had; `inputs` are the paths met, with their digests."""

    def __init__(self, packages: frozenset[str] = frozenset()) -> None:
        self.portable = True
        self.packages = packages
        self.inputs: list[tuple[Path, bytes]] = []
        self.parts: list[Part] = []
        self.unfollowed: list[tuple[str, str]] = []
        self.watched: list[Watched] = []
        self.functions: list[tuple[str, types.CodeType]] = []
        """Module and code of each function met, foreign ones included."""
        self._documented = False
        self._ignore: frozenset[str] = frozenset()
        self._numbers: dict[int, int] = {}
        self._met: list[Any] = []
        self._units: list[bytes] = []

    def of(self, function: types.FunctionType, ignore: frozenset[str] = frozenset()) -> bytes:
        """Bytes of everything that a decorated function reaches; of its own names those in `ignore` are left out."""
        self._ignore = ignore
        self.refer(function)
        return self.finished()

    def closure_of(self, function: types.FunctionType, ignore: frozenset[str]) -> bytes:
        """Bytes of what tells two closures of one definition apart: all that counts where a version says the rest."""
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        used = facts_of(function).names.outer
        reads = [
            self.read(name, name, Cell(name, cell), used[name].reads, changes=used[name].changes)
            for name, cell in cells
            if name in used and name not in ignore
        ]
        return frame(*reads, self.finished())

    def finished(self) -> bytes:
        """Bytes of every unit met so far, and of what these meet."""
        while len(self._units) < len(self._met):
            met = self._met[len(self._units)]
            self._units.append(frame(*(self._members(met) if isinstance(met, type) else self._function(met))))
            self._ignore = frozenset()
        return frame(*self._units, *(map(_docs, self._met) if self._documented else ()))

    def refer(self, met: Any) -> bytes:
        """What stands for a unit wherever it is read."""
        number = self._numbers.get(id(met))
        if number is None:
            number = self._numbers[id(met)] = len(self._met)
            self._met.append(met)
        return frame(b"unit", b"%d" % number)

    def __call__(self, met: Any) -> bytes | None:
        """For `canonical`: what stands for code that is met in a value; None for what is no code of ours."""
        if isinstance(met, type):
            return self.refer(met) if is_own_class(met) or self._is_named(met.__module__) else None
        if type(met) is types.ModuleType:
            return self.module(met, [()], met.__name__)
        if type(met) is not types.FunctionType:
            return None
        if is_mock(getattr(met, "mock", None)):  # what create_autospec makes of a function
            raise CannotKey(f"{met.__name__!r} is a mock: nothing is read or stored", met.__name__, "mocked")
        registry = getattr(met, "registry", None)
        if isinstance(registry, Mapping) and hasattr(met, "dispatch"):  # functools.singledispatch
            return self.value(
                met.__name__, {f"{kind.__module__}.{kind.__qualname__}": f for kind, f in registry.items()}
            )
        is_own = is_own_function(met) or self._is_named(met.__module__)
        self.functions.append((str(met.__module__), met.__code__))
        return self.refer(met) if is_own else classes.foreign(met)

    def _is_named(self, module: Any) -> bool:
        """Whether `depends=` names the package that the module stands in."""
        return bool(self.packages) and str(module).partition(".")[0] in self.packages

    def opaque(self, where: str, met: Any) -> bytes:
        """What stands for an object that has no honest value: its class."""
        if issubclass(type(met), threading.local):
            raise CannotKey(
                f"{where!r} is a threading.local: each thread has a value of its own; pass the value", where
            )
        if type(met).__module__ not in _COORDINATING:
            self.unfollowed.append((where, f"{type(met).__module__}.{type(met).__qualname__}"))
        return frame(b"object", self(type(met)) or classes.named(type(met)))

    # -- units ------------------------------------------------------------------------------------------------------

    def _function(self, function: types.FunctionType) -> Iterator[bytes]:
        facts = facts_of(function)
        self.functions.append((str(function.__module__), function.__code__))
        self.portable = self.portable and facts.portable
        self.parts.append(Part("code", f"{function.__module__}.{function.__qualname__}", facts.place, facts.digest))
        yield facts.digest.encode()
        defaults = (function.__defaults__, function.__kwdefaults__)
        if can_change(defaults):
            yield self.read("defaults", "defaults", {"defaults": defaults}, ())
        else:
            yield canonical(defaults, where="defaults", describe=self)
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        outer = facts.names.outer
        for name in sorted({*outer, *({"__class__"} & set(cells))} - self._ignore - _WHEREABOUTS):
            mapping = Cell(name, cells[name]) if name in cells else function.__globals__
            use = outer.get(name) or Outer({()})
            yield self.read(name, name, mapping, use.reads, changes=use.changes)
        for imported in sorted(facts.names.imports):
            yield from self._imported(_absolute(imported, function.__globals__), facts.names.imports[imported])

    def _members(self, cls: type) -> Iterator[bytes]:
        self.parts.append(Part("class", f"{cls.__module__}.{cls.__qualname__}", "", None))
        yield classes.named(cls)
        yield frame(*[self(base) or classes.named(base) for base in cls.__bases__])
        yield self(type(cls)) or classes.named(type(cls))
        own = cls.__dict__
        self.functions += [(cls.__module__, one.__code__) for one in own.values() if type(one) is types.FunctionType]
        self.watched.append(Watched(own, "", len(own), None))
        for name, member in classes.members(cls):
            mapping = own if own.get(name, ABSENT) is member else {name: member}
            yield self.read(f"{cls.__qualname__}.{name}", name, mapping, ())

    # -- names ------------------------------------------------------------------------------------------------------

    def read(
        self, label: str, name: str, mapping: Mapping[str, Any], chains: Iterable[Chain] = (), *, changes: bool = False
    ) -> bytes:
        """What a name stands for now; empty where that decides nothing."""
        self._documented = self._documented or name == "__doc__" or any("__doc__" in chain for chain in chains)
        value, chains = mapping.get(name, ABSENT), set(chains)
        if value is ABSENT:
            return b"" if hasattr(builtins, name) else frame(label.encode(), b"absent")
        if changes and not chains and (type(value) in _CONTAINERS or type(value).__module__ in _COORDINATING):
            return b""
        if type(value) is types.ModuleType:
            self.watched.append(Watched(mapping, name, value, None))
            return frame(label.encode(), self.module(value, chains or {()}, label))
        kind = kind_of(mapping)
        self.watched.append(Watched(mapping, name, value, stamp(value, kind) if can_change(value) else None))
        return frame(label.encode(), self.value(label, value, chains, kind))

    def module(self, module: types.ModuleType, chains: Iterable[Chain], label: str) -> bytes:
        """The attributes that are read of a module of own code; all of them where that cannot be told."""
        if not is_own_module(module) and not self._is_named(module.__name__):
            return frame(b"module", module.__name__.encode())
        attributes: dict[str, set[Chain]] = {}
        submodules: list[bytes] = []
        for chain in sorted(chains):
            if chain and (chain[0] in module.__dict__ or chain[0] in _WHEREABOUTS):
                attributes.setdefault(chain[0], set()).add(chain[1:])
            elif chain and _is_submodule(module, chain[0]):
                submodules += self._imported(f"{module.__name__}.{chain[0]}", {chain[1:]})
            else:
                attributes.update({name: {()} for name in module.__dict__ if not name.startswith("__")})
        names = sorted(set(attributes) - _WHEREABOUTS)
        reads = [self.read(f"{label}.{name}", name, module.__dict__, attributes[name]) for name in names]
        return frame(*reads, *submodules)

    def _imported(self, name: str, chains: set[Chain]) -> Iterator[bytes]:
        """A module named by an import inside a function; it is not executed for this."""
        module = sys.modules.get(name)
        if isinstance(module, types.ModuleType):
            yield frame(name.encode(), self.module(module, chains, name))
        else:
            from cachekit.keys.code.unloaded import is_foreign, unloaded

            if is_foreign(name):
                # As if it were loaded: whether somebody imported it already decides no answer.
                yield frame(name.encode(), frame(b"module", name.encode()))
                return
            self.parts.append(Part("module", name, "", None))
            yield frame(name.encode(), unloaded(name))

    # -- values -----------------------------------------------------------------------------------------------------

    def value(self, label: str, value: Any, chains: Iterable[Chain] = (), kind: str = "constant") -> bytes:
        """The bytes of data, a reference to code, or the class of what has no honest value and what is read of it."""
        before = len(self.unfollowed)
        if kind == "constant" and issubclass(type(value), Path) and not value.is_file():
            return self._no_file(label, value)
        data = canonical(value, where=label, describe=self, lenient=True)
        # By its type, here and below: what a proxy says of itself may raise.
        if not issubclass(type(value), (type, types.FunctionType)):
            self.parts.append(Part(kind, label, "", value))
        own = _attributes(value) if len(self.unfollowed) > before else {}
        names = sorted({chain[0] for chain in chains if chain and chain[0] in own})
        attributes = [self.read(f"{label}.{name}", name, own) for name in names]
        data = frame(data, *attributes) if attributes else data
        return seal(data) if is_secret_name(label.rpartition(".")[2]) else data

    def _no_file(self, label: str, path: Path) -> bytes:
        """A path of a module or class where no file stands: a directory is too much to be read for every key."""
        if path.exists():
            self.unfollowed.append((label, "a directory; depends= has its content count"))
            return frame(b"directory")
        return frame(b"nowhere", str(path).encode("utf-8", "surrogatepass"))


def _is_submodule(module: types.ModuleType, name: str) -> bool:
    from cachekit.keys.code.unloaded import find

    return hasattr(module, "__path__") and find(f"{module.__name__}.{name}") is not None


def _attributes(value: Any) -> dict[str, Any]:
    try:
        own = vars(value)
    except Exception:  # a proxy outside of its context, or an object without attributes: there is nothing to be read
        return {}
    return own if type(own) is dict else {}


def _docs(met: Any) -> bytes:
    """The docstrings of a unit, for code that reads them."""
    text = documented(met) if type(met) is types.FunctionType else str(met.__doc__)
    return text.encode("utf-8", "surrogatepass")


def stamp(value: Any, kind: str) -> bytes:
    """What tells whether a value changed in place since: its bytes, and those of the code it holds."""
    walk = _Stamping()
    return frame(walk.value("", value, (), kind), walk.finished())


class _Stamping(Reach):
    """A walk that watches nothing."""

    def read(
        self, label: str, name: str, mapping: Mapping[str, Any], chains: Iterable[Chain] = (), *, changes: bool = False
    ) -> bytes:
        return b""


def _absolute(imported: Imported, loaded: Mapping[str, Any]) -> str:
    level, module = imported
    if not level:
        return module
    package = str(loaded.get("__package__") or "").split(".")
    return ".".join([*package[: len(package) - level + 1], *([module] if module else [])])
