"""What a function's answer depends on in code: itself, and all own code and data that it reaches by the names it reads.

Everything met is a unit, numbered in the order in which it was met, and written once: a unit refers to another one by its
number. So cycles end, and neither a place nor the order of definitions counts. Functions count by source, defaults and
closure, classes by their members, modules by the attributes that are read of them, data by its value at this moment.
"""

from __future__ import annotations

import builtins
import marshal
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cachekit.errors import CannotKey
from cachekit.files.digests import frame
from cachekit.keys.canonical import canonical
from cachekit.keys.code import classes
from cachekit.keys.code.names import Chain, Outer, looks_up
from cachekit.keys.code.own import WHEREABOUTS, is_own_class, is_own_function, is_own_module, lasting
from cachekit.keys.code.shelf import Facts
from cachekit.keys.code.source import documented, facts_of
from cachekit.keys.code.unloaded import absolute, is_foreign, is_submodule, unloaded
from cachekit.keys.code.watch import ABSENT, Cell, Watched, can_change, kind_of
from cachekit.keys.parts import Part, is_unit, short
from cachekit.keys.secrets import is_secret_name, seal
from cachekit.keys.shapes import CONTAINERS, COORDINATING, attributes_of, is_mock


class Reach:
    """One walk. `portable` turns False once a source could not be had; `inputs` are the paths met, with their digests."""

    def __init__(self, packages: frozenset[str] = frozenset()) -> None:
        self.portable = True
        self.packages = packages
        self.inputs: list[tuple[Path, bytes]] = []
        self.parts: list[Part] = []
        self.unfollowed: list[tuple[str, str]] = []
        self.watched: list[Watched] = []
        self.awaited: list[Watched] = []
        self.facts: list[Facts] = []
        self.functions: list[tuple[str, types.CodeType]] = []
        """Module and code of each function met, foreign ones included."""
        self._documented = False
        self._ignore: frozenset[str] = frozenset()
        self._numbers: dict[int, bytes] = {}
        self._above: list[int] = []
        self.met: list[Any] = []
        self._units: list[bytes] = []
        self._read: dict[Any, bytes] = {}

    def of(self, function: types.FunctionType, ignore: frozenset[str] = frozenset()) -> bytes:
        """Bytes of everything that a decorated function reaches; of its own names those in `ignore` are left out."""
        self._ignore = ignore
        self.refer(function)
        return self.finished()

    def finished(self) -> bytes:
        """Bytes of every unit met so far, and of what these meet."""
        while len(self._units) < len(self.met):
            met = self.met[len(self._units)]
            self._units.append(frame(*(self._members(met) if isinstance(met, type) else self._function(met))))
            self._ignore = frozenset()
        return frame(*self._units, *(map(documented, self.met) if self._documented else ()))

    def refer(self, met: Any) -> bytes:
        """What stands for a unit wherever it is read."""
        unit = self._numbers.get(id(met))
        if unit is None:
            unit = self._numbers[id(met)] = frame(b"unit", b"%d" % len(self.met))
            self.met.append(met)
            self._above.append(len(self._units))
        return unit

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
            self.watched.append(Watched(registry, "", len(registry), None))
            return self.value(
                met.__name__, dict(sorted((f"{k.__module__}.{k.__qualname__}", f) for k, f in registry.items()))
            )
        self.functions.append((str(met.__module__), met.__code__))
        # A foreign decorator holds in its closure what it decorates.
        return self.refer(met) if self._counts(met) or met.__closure__ else classes.foreign(met)

    def _counts(self, function: types.FunctionType) -> bool:
        return is_own_function(function) or self._is_named(function.__module__)

    def _is_named(self, module: Any) -> bool:
        """Whether `depends=` names the package that the module stands in."""
        return bool(self.packages) and str(module).partition(".")[0] in self.packages

    def opaque(self, where: str, met: Any) -> bytes:
        """What stands for an object that has no honest value: its class."""
        if issubclass(type(met), threading.local):
            raise CannotKey(f"{where!r} is a threading.local, another one in each thread: pass the value", where)
        if type(met).__module__ not in COORDINATING:
            self.unfollowed.append((where, f"{type(met).__module__}.{type(met).__qualname__}"))
        return frame(b"object", self(type(met)) or classes.named(type(met)))

    def tell(self, kind: str, name: str, data: bytes, place: str = "", *, value: Any = None, home: Any = "") -> None:
        """Notes one thing that counted, for `explain`."""
        unit = len(self._units)
        above = self._above[unit] if is_unit(kind) else unit
        self.parts.append(Part(kind, name, place, value, short(data), str(home or ""), unit, above))

    # -- units ------------------------------------------------------------------------------------------------------

    def _function(self, function: types.FunctionType) -> Iterator[bytes]:
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        if not self._counts(function):
            yield classes.foreign(function)
            yield from (self.read(name, name, Cell(name, cell)) for name, cell in sorted(cells.items()))
            return
        self._watch_home(function)
        facts = facts_of(function)
        self.facts.append(facts)
        self.functions.append((str(function.__module__), function.__code__))
        self.portable = self.portable and facts.portable
        defaults = self._defaults((function.__defaults__, function.__kwdefaults__))
        name = f"{function.__module__}.{function.__qualname__}"
        self.tell("code", name, facts.digest.encode() + defaults, facts.place)
        yield facts.digest.encode()
        yield defaults
        outer, loaded = facts.names.outer, function.__globals__
        for name in sorted({*outer, *({"__class__"} & set(cells))} - self._ignore - WHEREABOUTS):
            use = outer.get(name) or Outer({()})
            if name in cells:
                yield self.read(name, name, Cell(name, cells[name]), use.reads, changes=use.changes)
            else:
                yield self._global(name, loaded, use)
        if looks_up(outer, function.__globals__):
            yield from (self.read(name, name, function.__globals__) for name in lasting(function.__globals__))
        for imported in sorted(facts.names.imports):
            yield from self._imported(absolute(imported, function.__globals__), facts.names.imports[imported])

    def _watch_home(self, function: types.FunctionType) -> None:
        """A reload puts another function in its module's place, and gives the old one, which others hold, new code."""
        home, name = function.__globals__, str(function.__qualname__).partition(".")[0]
        if function is not self.met[0] and callable(home.get(name)):
            self.watched.append(Watched(home, name, home[name], None))

    def _defaults(self, defaults: tuple[Any, ...]) -> bytes:
        if can_change(defaults):
            return self.read("defaults", "defaults", {"defaults": defaults}, ())
        try:
            plain = marshal.dumps(defaults, 2)
        except ValueError:  # a function or a class among them
            return canonical(defaults, where="defaults", describe=self)
        if plain not in self._read:  # most functions of a program have the same few
            self._read[plain] = canonical(defaults, where="defaults")
        return self._read[plain]

    def _global(self, name: str, loaded: dict[str, Any], use: Outer) -> bytes:
        # The functions of a module read many names in common.
        key = (id(loaded), name, use.changes, *use.reads)
        data = self._read.get(key)
        if data is None:
            data = self._read[key] = self.read(name, name, loaded, use.reads, changes=use.changes)
        return data

    def _members(self, cls: type) -> Iterator[bytes]:
        bases = frame(*[self(base) or classes.named(base) for base in cls.__bases__])
        self.tell("class", f"{cls.__module__}.{cls.__qualname__}", bases, home=cls.__module__)
        yield classes.named(cls)
        yield bases
        yield self(type(cls)) or b""  # Python and pydantic rename theirs
        own = cls.__dict__
        self.functions += [(cls.__module__, one.__code__) for one in own.values() if type(one) is types.FunctionType]
        self.watched.append(Watched(own, "", len(own), None))
        for name, member in classes.members(cls):
            mapping = own if own.get(name, ABSENT) is member else {name: member}
            yield self.read(f"{cls.__qualname__}.{name}", name, mapping, ())
        module = sys.modules.get(cls.__module__)
        for name, use in sorted(classes.annotated(cls).outer.items()) if module is not None else ():
            yield self.read(name, name, vars(module), use.reads)

    # -- names ------------------------------------------------------------------------------------------------------

    def read(
        self, label: str, name: str, mapping: Mapping[str, Any], chains: Iterable[Chain] = (), *, changes: bool = False
    ) -> bytes:
        """What a name stands for now; empty where that decides nothing."""
        self._documented = self._documented or name == "__doc__" or any("__doc__" in chain for chain in chains)
        value, chains = mapping.get(name, ABSENT), set(chains)
        if value is ABSENT:
            self.watched.append(Watched(mapping, name, ABSENT, None))
            return b"" if hasattr(builtins, name) else frame(label.encode(), b"absent")
        if changes and not chains and (type(value) in CONTAINERS or type(value).__module__ in COORDINATING):
            return b""
        if type(value) is types.ModuleType:
            self.watched.append(Watched(mapping, name, value, None))
            return frame(label.encode(), self.module(value, chains or {()}, label))
        kind = kind_of(mapping)
        data = self.value(label, value, chains, kind)  # first: what it raises names the variable
        self.watched.append(Watched(mapping, name, value, stamp(value, kind) if can_change(value) else None))
        # By its type, here and below: what a proxy says of itself may raise.
        if not issubclass(type(value), (type, types.FunctionType)):
            self.tell(kind, label, data, value=value, home=mapping.get("__name__") or mapping.get("__module__"))
        return frame(label.encode(), data)

    def module(self, module: types.ModuleType, chains: Iterable[Chain], label: str) -> bytes:
        """The attributes that are read of a module of own code; all of them where that cannot be told."""
        if not is_own_module(module) and not self._is_named(module.__name__):
            return frame(b"module", module.__name__.encode(), *self._replaced(module, chains, label))
        attributes: dict[str, set[Chain]] = {}
        submodules: list[bytes] = []
        for chain in sorted(chains):
            if chain and (chain[0] in module.__dict__ or chain[0] in WHEREABOUTS):
                attributes.setdefault(chain[0], set()).add(chain[1:])
            elif chain and is_submodule(module, chain[0]):
                submodules += self._imported(f"{module.__name__}.{chain[0]}", {chain[1:]})
            else:
                self.watched.append(Watched(module.__dict__, "", len(module.__dict__), None))
                attributes.update(
                    {name: {()} for name in module.__dict__ if not name.startswith("__") or name == "__getattr__"}
                )
        names = sorted(set(attributes) - WHEREABOUTS)
        reads = [self.read(f"{label}.{name}", name, module.__dict__, attributes[name]) for name in names]
        return frame(*reads, *submodules)

    def _replaced(self, module: types.ModuleType, chains: Iterable[Chain], label: str) -> Iterator[bytes]:
        """Attributes of a foreign module in whose place somebody put a mock, or a function of his own."""
        for chain in sorted(chains):
            value = module.__dict__.get(chain[0], ABSENT) if chain else ABSENT
            if type(value) is types.ModuleType:
                yield from self._replaced(value, [chain[1:]], label)
            elif value is not ABSENT:
                self.watched.append(Watched(module.__dict__, chain[0], value, None))
                if is_mock(value) or (type(value) is types.FunctionType and is_own_function(value)):
                    yield self.value(f"{label}.{chain[0]}", value)

    def _imported(self, name: str, chains: set[Chain]) -> Iterator[bytes]:
        """A module named by an import inside a function; it is not executed for this."""
        module = sys.modules.get(name)
        if isinstance(module, types.ModuleType):
            yield frame(name.encode(), self.module(module, chains, name))
        else:
            if is_foreign(name):
                # As if it were loaded: whether somebody imported it already decides no answer.
                yield frame(name.encode(), frame(b"module", name.encode()))
                return
            self.awaited.append(Watched(sys.modules, name, ABSENT, None))
            self.watched.append(self.awaited[-1])
            data = unloaded(name, chains)
            self.tell("module", name, data)
            yield frame(name.encode(), data)

    # -- values -----------------------------------------------------------------------------------------------------

    def value(self, label: str, value: Any, chains: Iterable[Chain] = (), kind: str = "constant") -> bytes:
        """The bytes of data, a reference to code, or the class of what has no honest value and what is read of it."""
        before = len(self.unfollowed)
        if kind == "constant" and issubclass(type(value), Path) and not value.is_file():
            return self._no_file(label, value)
        if type(value) is types.FunctionType:
            data = b"\0" + frame(b"code", self(value) or b"")  # as `canonical` writes it, and most of what is read
        else:
            data = canonical(value, where=label, describe=self, lenient=True)
        own = attributes_of(value) if len(self.unfollowed) > before or type(value) is types.FunctionType else {}
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
