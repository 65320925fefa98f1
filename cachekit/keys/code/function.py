"""What a decorated function is besides its arguments: its name, its version or all that its code reaches, its codec."""

from __future__ import annotations

import functools
import hashlib
import os
import types
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cachekit.errors import CannotKey, UsageError
from cachekit.files.digests import frame
from cachekit.keys.canonical import canonical
from cachekit.keys.code.reach import Reach, stamp
from cachekit.keys.code.shelf import keep, recall
from cachekit.keys.code.source import facts_of, module_name
from cachekit.keys.code.watch import Cell, Watch, Watched, can_change, reloaded
from cachekit.keys.parts import Part, Settings, Sketch, Trait, of_arguments, of_part, short
from cachekit.keys.plain import plain
from cachekit.keys.secrets import is_secret_name, seal
from cachekit.model import ARTIFACT, Policy

if TYPE_CHECKING:
    from hashlib import _Hash

    from cachekit.model import Key

_PREFIX_LIMIT: Final = 64


class Code:
    """What the walk over one function gave, and the digests of its calls."""

    def __init__(self, identity: bytes, walk: Reach, held: tuple[Any, ...]) -> None:
        self.portable, self.inputs = walk.portable, tuple(walk.inputs)
        self.parts: list[Part] = walk.parts
        self.unfollowed = walk.unfollowed
        self.functions = walk.functions
        watched = [*walk.watched, *_held(held), *reloaded(walk.met)]
        self.watch = Watch(watched, stamp)
        self.nothing_read = not watched
        self._watched, self.awaited = watched, walk.awaited
        self._identity = identity
        self._prefixes: dict[tuple[str, int], _Hash] = {}

    @functools.cached_property
    def traits(self) -> dict[str, Trait]:
        """What is remembered of the code, by `kind name`; of two modules' names the second by that of its own."""
        found: dict[str, Trait] = {}
        for part in self.parts:
            name = f"{part.kind} {part.name}"
            found[name if name not in found else f"{part.kind} {part.home}.{part.name}"] = of_part(part)
        return found

    @functools.cached_property
    def traits_id(self) -> str:
        """Equal for code that is the same."""
        return short("".join(f"{name} {trait.digest};" for name, trait in self.traits.items()).encode())

    def digest(
        self, identifying: dict[str, Any], namespace: str, sample: int, *, extra: str | None
    ) -> tuple[bytes, bool, tuple[tuple[Path, bytes], ...], bytes | None]:
        """The digest of a call, whether other machines can compute the same, the paths that count by content, and the
        JSON of what identifies the call, where it is plain.

        `extra` names the parameter that takes any keywords; None where what identifies the call is not its arguments.
        Raises CannotKey, which names the argument.
        """
        digest = self._prefix(namespace, sample).copy()
        tag = b"key" if extra is None else b"call"
        data = plain(identifying)
        if data is not None:
            digest.update(frame(tag, b"plain", data))
            return digest.digest(), self.portable, self.inputs, data
        walk = Reach()
        # One by one, so that a refusal names the argument, and **kwargs by their own names.
        texts = [_argument(name, identifying[name], walk, extra=name == extra) for name in sorted(identifying)]
        digest.update(frame(tag, b"named", *texts, walk.finished()))
        return digest.digest(), self.portable and walk.portable, (*self.inputs, *walk.inputs), None

    def sketch(self, key: Key, arguments: dict[str, Any], said: bytes | None, settings: Settings) -> Sketch:
        """What is remembered of a call. `said` is the JSON of its arguments, where that is known; else they count."""
        data = said or plain(arguments)
        # What cannot be copied cheaply is looked at now: it may be another one when somebody asks.
        return Sketch(key, self, data or of_arguments(arguments, encoded), settings)

    def as_imported(self, before: Code) -> None:
        """The call keeps its key where nothing happened since `before` but that the function imported its modules."""
        awaited = set(map(id, before.awaited))
        if awaited and Watch([one for one in before._watched if id(one) not in awaited], stamp).same():
            self._identity = before._identity

    def _prefix(self, namespace: str, sample: int) -> _Hash:
        """The digest of everything but the arguments; to be copied."""
        known = self._prefixes.get((namespace, sample))
        if known is None:
            if len(self._prefixes) >= _PREFIX_LIMIT:
                self._prefixes.clear()
            # Without a sample the digest is what it was before anybody sampled.
            index = [b"%d" % sample] if sample else []
            parts = frame(b"cachekit key v2", self._identity, namespace.encode(), *index)
            known = self._prefixes[namespace, sample] = hashlib.sha256(parts)
        return known


def _held(held: tuple[Any, ...]) -> list[Watched]:
    """What a partial or a bound method adds: it stands in the key as an argument, and the lane does not see it."""
    return (
        [Watched({"held": held}, "held", held, stamp(held, "constant") if can_change(held) else None)] if held else []
    )


def _argument(name: str, value: Any, reach: Reach, *, extra: bool) -> bytes:
    if extra:
        return frame(name.encode(), *[_argument(one, value[one], reach, extra=False) for one in sorted(value)])
    data = canonical(value, where=name, describe=reach)
    # With an encoding for every text that can be a keyword.
    return frame(name.encode("utf-8", "surrogatepass"), seal(data) if is_secret_name(name) else data)


def encoded(value: Any) -> bytes:
    """The bytes of an argument by itself; of what cannot be keyed the name of its class."""
    data = plain(value)
    if data is not None:
        return data
    walk = Reach()
    try:
        return canonical(value, where="argument", describe=walk, lenient=True) + walk.finished()
    except CannotKey:
        return type(value).__qualname__.encode()


def code_of(function: Any, policy: Policy, held: tuple[Any, ...]) -> Code:
    """One walk over the function as it is now. Raises CannotKey for what must not be identified by less than it is."""
    walk = Reach(_named_packages(policy))
    names = [str(getattr(function, "__module__", "")), str(getattr(function, "__qualname__", ""))]
    code = b""
    if isinstance(function, types.FunctionType):
        names[0] = module_name(function)
        recall(function)
    if policy.version is not None:
        python = isinstance(function, types.FunctionType)
        code = frame(b"version", policy.version.encode(), _closure_of(function, policy.ignore, walk) if python else b"")
    elif isinstance(function, types.FunctionType):
        # The annotation of what comes back is read by codecs.
        code = frame(b"code", walk.of(function, policy.ignore), facts_of(function).returns.encode())
    else:
        walk.portable = False
    if policy.depends:
        code = frame(code, *[describe(one, walk) for one in policy.depends], walk.finished())
    if walk.facts:
        keep(function, walk.facts)
    return Code(frame(*(name.encode() for name in names), code, _codec(policy)), walk, held)


def _closure_of(function: types.FunctionType, ignore: frozenset[str], walk: Reach) -> bytes:
    """Bytes of what tells two closures of one definition apart: all that counts where a version says the rest."""
    if not function.__closure__:
        return frame(walk.finished())
    cells = zip(function.__code__.co_freevars, function.__closure__, strict=True)
    used = facts_of(function).names.outer
    reads = [
        walk.read(name, name, Cell(name, cell), used[name].reads, changes=used[name].changes)
        for name, cell in cells
        if name in used and name not in ignore
    ]
    return frame(*reads, walk.finished())


def _named_packages(policy: Policy) -> frozenset[str]:
    return packages_of(policy.depends) if policy.depends else frozenset()


def _codec(policy: Policy) -> bytes:
    """What the stored form of a value depends on. Codecs by name read each other's entries, but for files."""
    codec = policy.codec
    if isinstance(codec, str):
        return codec.encode() if codec == ARTIFACT else b""
    walk = Reach()
    data = walk.value("codec", codec), walk.value("codec", getattr(codec, "__dict__", {}))
    return frame(*data, b"" if policy.version is not None else walk.finished())


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
