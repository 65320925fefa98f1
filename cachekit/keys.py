"""Which call is this? From a function and its arguments to a `Key` (DESIGN §5): no wrong hit, ever.

A digest holds, each part length-prefixed: the function and its version, the constants and closure it reads at the
moment of the call, the namespace, the sample, and the arguments by name.
"""

from __future__ import annotations

import hashlib
import inspect
import marshal
import string
import types
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from cachekit.canonical import canonical, frame, is_secret_name, plain, readable, seal
from cachekit.effects import coordinates, written_only
from cachekit.errors import UsageError
from cachekit.model import Key, Policy
from cachekit.sources import module_name, plain_globals, source_digest

if TYPE_CHECKING:
    from hashlib import _Hash

Arguments = tuple[Any, ...]
Part = tuple[str, str]

_PLAIN: Final = frozenset({str, int, float, bool, type(None), bytes, complex})
_LANE: Final = frozenset({str, int, float, bool, type(None)})
_LANE_LIMIT: Final = 65_536
_PREFIX_LIMIT: Final = 64
_OTHER: Final = ...
"""Stands in `state()` for a value that is not plain: marshal knows it, and it equals no plain value."""


def lane_safe(tree: Any) -> bool:
    """Whether `marshal.dumps(tree, 2)` tells this tree from every other: exact dict (str or int keys), list, tuple,
    str, int, float, bool and None only. A tree of more than 65536 containers and mixed items, or a cyclic one, is not.
    """
    nodes, lane = [tree], _LANE
    for node in nodes:
        kind = type(node)
        if kind is dict:
            for name, item in node.items():
                if type(name) is not str and type(name) is not int:
                    return False
                if type(item) is not str and type(item) not in lane:
                    nodes.append(item)
        elif kind is list or kind is tuple:
            if not lane.issuperset(map(type, node)):
                nodes.extend(node)
        elif kind not in lane:
            return False
        if len(nodes) > _LANE_LIMIT:
            return False
    return True


def _is_plain(value: Any) -> bool:
    return type(value) in _PLAIN or (type(value) is tuple and all(map(_is_plain, value)))


class _Describer:
    """Bytes for functions met inside a key. `portable` turns False once a source could not be had."""

    def __init__(self) -> None:
        self.portable = True
        self._open: list[types.FunctionType] = []

    def __call__(self, function: types.FunctionType) -> bytes:
        if function in self._open:
            return frame(b"recursion", b"%d" % self._open.index(function))
        self._open.append(function)
        try:
            return frame(self.identity(function, None), *self._surroundings(function))
        finally:
            self._open.pop()

    def identity(self, function: Any, version: str | None) -> bytes:
        """Module, qualified name, and what the code is: the version given, or the source."""
        if isinstance(function, types.FunctionType):
            names = (module_name(function, version is not None), function.__qualname__)
        else:
            names = (str(function.__module__), str(function.__qualname__))
        return frame(*(name.encode() for name in names), self._version(function, version))

    def _version(self, function: Any, version: str | None) -> bytes:
        if version is not None:
            return frame(b"version", version.encode())
        if not isinstance(function, types.FunctionType):
            self.portable = False
            return frame(b"opaque")
        digest, portable = source_digest(function)
        self.portable = self.portable and portable
        return frame(b"source" if portable else b"code", digest.encode())

    def _surroundings(self, function: types.FunctionType) -> Iterator[bytes]:
        """What decides a function's answer besides its code and arguments."""
        where = function.__name__
        defaults = (function.__defaults__, function.__kwdefaults__)
        yield canonical(defaults, where=where, describe=self)
        yield canonical(_constants(function, plain_globals(function), frozenset()), where=where)
        for name, cell in _cells(function, frozenset()):
            yield self.closure(name, cell)

    def closure(self, name: str, cell: types.CellType) -> bytes:
        try:
            value = cell.cell_contents
        except ValueError:
            return frame(name.encode(), b"empty")
        return _named(name, value, self)


def _named(name: str, value: Any, describe: _Describer) -> bytes:
    data = canonical(value, where=name, describe=describe)
    return frame(name.encode(), seal(data) if is_secret_name(name) else data)


def _constants(function: types.FunctionType, names: tuple[str, ...], ignore: frozenset[str]) -> dict[str, Any]:
    loaded = function.__globals__
    return {name: loaded[name] for name in names if name in loaded and name not in ignore and _is_plain(loaded[name])}


def _cells(function: types.FunctionType, ignore: frozenset[str]) -> list[tuple[str, types.CellType]]:
    pairs = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    ignore = ignore | written_only(function)
    # `__class__`, the cell of super(), is the class the function stands in: its qualified name says it.
    return [(name, cell) for name, cell in pairs if name not in ignore and name != "__class__" and not _neutral(cell)]


def _neutral(cell: types.CellType) -> bool:
    try:
        return coordinates(cell.cell_contents)
    except ValueError:
        return False


def _content(cell: types.CellType) -> Any:
    try:
        value = cell.cell_contents
    except ValueError:
        return _OTHER
    return value if _is_plain(value) else _OTHER


class _Binder:
    """Binds as Python does, by hand: Signature.bind costs several times as much as the rest of the key."""

    def __init__(self, function: Any) -> None:
        # The signature of this very function: a wrapper may fill in defaults that differ from what it wraps.
        self.signature = inspect.signature(function, follow_wrapped=False)
        self.keyword = frozenset[str]()
        self.positional: tuple[str, ...] = ()
        self.defaults: dict[str, Any] = {}
        self.extra_args = self.extra_kwargs = ""
        for name, parameter in self.signature.parameters.items():
            self._add(name, parameter)
        self._count = len(self.signature.parameters)
        self._loose = bool(self.extra_args or self.extra_kwargs)

    def _add(self, name: str, parameter: inspect.Parameter) -> None:
        kind = parameter.kind
        if kind is kind.VAR_POSITIONAL:
            self.extra_args, self.defaults[name] = name, ()
        elif kind is kind.VAR_KEYWORD:
            self.extra_kwargs = name
        else:
            if kind is not kind.KEYWORD_ONLY:
                self.positional = (*self.positional, name)
            if kind is not kind.POSITIONAL_ONLY:
                self.keyword |= {name}
            if parameter.default is not parameter.empty:
                self.defaults[name] = parameter.default

    def __call__(self, args: Arguments, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        bound = self.defaults.copy()
        if args:
            bound.update(zip(self.positional, args, strict=False))
            if kwargs and not kwargs.keys().isdisjoint(self.positional[: len(args)]):
                return self._general(args, kwargs)
        if self.keyword.issuperset(kwargs):
            bound.update(kwargs)
        elif not self.extra_kwargs:
            return self._general(args, kwargs)
        if self._loose:
            self._gather(bound, args, kwargs)
        elif len(args) > len(self.positional):
            return self._general(args, kwargs)
        return bound if len(bound) == self._count else self._general(args, kwargs)

    def _gather(self, bound: dict[str, Any], args: Arguments, kwargs: Mapping[str, Any]) -> None:
        if self.extra_args:
            bound[self.extra_args] = args[len(self.positional) :]
        elif len(args) > len(self.positional):
            bound.clear()  # incomplete: the general way raises what Python raises
        if self.extra_kwargs:
            bound.update((name, value) for name, value in kwargs.items() if name in self.keyword)
            bound[self.extra_kwargs] = {name: value for name, value in kwargs.items() if name not in self.keyword}

    def _general(self, args: Arguments, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)


class Keyer:
    """Builds the keys of one decorated function. Reads `version, ignore, key, sample, tags` of the policy.

    Constructing one does no I/O: the source is read for the first key. Safe to share between threads. Raises
    UsageError for a tag template that is more than plain names of parameters, or that would write out a secret.
    """

    def __init__(
        self, function: Callable[..., Any], *, policy: Policy, namespace: str | Callable[[], str] = ""
    ) -> None:
        while isinstance(function, (classmethod, staticmethod)):
            function = function.__func__
        self._function: Any = function
        self._policy = policy
        self._namespace = namespace
        self._bind = _Binder(function)
        self._python = function if isinstance(function, types.FunctionType) else None
        self._closure = _cells(self._python, policy.ignore) if self._python else []
        self._names: tuple[str, ...] | None = None
        self._identity: tuple[bytes, bool] | None = None
        self._prefixes: dict[tuple[bytes, str, int], _Hash] = {}
        self.name = f"{function.__module__}.{function.__qualname__}"
        for template in policy.tags:
            self._check_template(template)

    def bind(self, args: Arguments, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name, defaults applied; equal for calls that Python binds alike. Raises TypeError as Python."""
        return self._bind(args, kwargs)

    @property
    def fast(self) -> bool:
        """Whether `state()` says everything about the state now. Cells can be rebound: ask for each call."""
        return not self._unplain()

    def state(self) -> tuple[object, ...]:
        """The plain constants the function reads and its closure, at this moment; `...` where a value is not plain."""
        names = self._global_names()
        if not names and not self._closure:
            return ()
        loaded = self._function.__globals__
        values = [loaded.get(name, _OTHER) for name in names]
        found = [value if type(value) in _PLAIN or _is_plain(value) else _OTHER for value in values]
        return (*found, *[_content(cell) for _, cell in self._closure])

    def key(
        self, args: Arguments, kwargs: Mapping[str, Any], *, namespace: str | None = None, sample: int | None = None
    ) -> Key:
        """The key of one call. Raises CannotKey, which names the argument; TypeError where the call itself would."""
        space = self._space(namespace)
        describe = _Describer()
        digest = self._prefix(space, self._policy.sample if sample is None else sample).copy()
        digest.update(frame(*[describe.closure(name, cell) for name, cell in self._unplain()]))
        digest.update(self._arguments(self.bind(args, kwargs), describe))
        return Key(space, digest.digest(), self.name, self._shareable(describe))

    def explain(
        self, args: Arguments, kwargs: Mapping[str, Any], *, namespace: str | None = None, sample: int | None = None
    ) -> Key:
        """The same key with `parts`: readable texts, secrets as `<secret>`. Raises as `key` does."""
        key = self.key(args, kwargs, namespace=namespace, sample=sample)
        index = self._policy.sample if sample is None else sample
        parts = [*self._own_parts(), ("namespace", key.namespace), *([("sample", str(index))] if index else [])]
        bound = self.bind(args, kwargs)
        parts += [(f"argument {name}", _text(name, value)) for name, value in self._identifying(bound).items()]
        return Key(key.namespace, key.digest, key.function, key.shareable, tuple(parts))

    def tags(self, bound: Mapping[str, Any]) -> tuple[str, ...]:
        """The policy's tags with the arguments filled in. `bound` is what `bind` gave."""
        names = {**bound, **bound.get(self._bind.extra_kwargs, {})}
        try:
            return tuple(template.format_map(names) for template in self._policy.tags)
        except KeyError as error:
            raise UsageError(f"a tag of {self.name} names {error.args[0]!r}, which this call does not pass") from None

    def _check_template(self, template: str) -> None:
        try:
            fields = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
        except ValueError as error:
            raise UsageError(f"tag {template!r} of {self.name} is not a template: {error}") from None
        for name, layout, conversion in fields:
            known = name in self._bind.signature.parameters or self._bind.extra_kwargs
            if layout or conversion or not str(name).isidentifier() or not known:
                raise UsageError(f"tag {template!r} of {self.name}: {{{name}}} must be the plain name of a parameter")
            if is_secret_name(str(name)):
                raise UsageError(f"tag {template!r} of {self.name} would write out a secret: name another parameter")

    def _space(self, namespace: str | None) -> str:
        if namespace is not None:
            return namespace
        return self._namespace() if callable(self._namespace) else self._namespace

    def _global_names(self) -> tuple[str, ...]:
        if self._names is None:
            found = plain_globals(self._python) if self._python else ()
            left_out = self._policy.ignore | (written_only(self._python) if self._python else frozenset())
            self._names = tuple(name for name in found if name not in left_out)
        return self._names

    def _unplain(self) -> list[tuple[str, types.CellType]]:
        return [(name, cell) for name, cell in self._closure if _content(cell) is _OTHER] if self._closure else []

    def _prefix(self, namespace: str, sample: int) -> _Hash:
        state = self.state()
        # Typed bytes, because 1, 1.0 and True are one dict key.
        memo = (marshal.dumps(cast("Any", state), 2), namespace, sample)
        known = self._prefixes.get(memo)
        if known is None:
            if len(self._prefixes) >= _PREFIX_LIMIT:
                self._prefixes.clear()
            known = self._prefixes[memo] = self._start(state, namespace, sample)
        return known

    def _start(self, state: tuple[object, ...], namespace: str, sample: int) -> _Hash:
        names = self._global_names()
        labels = [*names, *(name for name, _ in self._closure)]
        known = list(zip(labels, state, strict=True))
        constants = {name: value for name, value in known[: len(names)] if value is not _OTHER}
        cells = [(name, value) for name, value in known[len(names) :] if value is not _OTHER]
        describe = _Describer()
        parts = [canonical(constants, where="constants"), *[_named(name, value, describe) for name, value in cells]]
        # Without a sample the digest is what it was before anybody sampled.
        index = [b"%d" % sample] if sample else []
        identity = self._who()[0]
        return hashlib.sha256(frame(b"cachekit key v1", identity, frame(*parts), namespace.encode(), *index))

    def _who(self) -> tuple[bytes, bool]:
        if self._identity is None:
            describe = _Describer()
            identity = describe.identity(self._function, self._policy.version)
            self._identity = (identity, describe.portable)
        return self._identity

    def _shareable(self, describe: _Describer) -> bool:
        return self._policy.version is not None or (self._who()[1] and describe.portable)

    def _identifying(self, bound: dict[str, Any]) -> dict[str, Any]:
        """What of the arguments counts, by name: without the ignored, or what `key=` made of them."""
        if self._policy.key is not None:
            return {"key": self._policy.key(types.MappingProxyType(bound))}
        ignore = self._policy.ignore
        if not ignore:
            return bound
        kept = {name: value for name, value in bound.items() if name not in ignore}
        extra = self._bind.extra_kwargs
        if extra in kept:
            kept[extra] = {name: value for name, value in kept[extra].items() if name not in ignore}
        return kept

    def _arguments(self, bound: dict[str, Any], describe: _Describer) -> bytes:
        kept = self._identifying(bound)
        tag = b"key" if self._policy.key is not None else b"call"
        data = plain(kept)
        if data is not None:
            return frame(tag, b"plain", data)
        # One by one, so that a refusal names the argument, and **kwargs by their own names.
        return frame(tag, b"named", *[self._argument(name, kept[name], describe) for name in sorted(kept)])

    def _argument(self, name: str, value: Any, describe: _Describer) -> bytes:
        if name != self._bind.extra_kwargs or self._policy.key is not None:
            return _named(name, value, describe)
        return frame(name.encode(), *[_named(inner, value[inner], describe) for inner in sorted(value)])

    def _own_parts(self) -> list[Part]:
        version = self._policy.version
        digest = "" if version is not None or self._python is None else source_digest(self._python)[0][:12]
        parts = [("function", self.name), ("version", version if version is not None else f"source {digest}")]
        if self._python is not None:
            constants = _constants(self._python, self._global_names(), self._policy.ignore)
            parts += [(f"constant {name}", _text(name, value)) for name, value in constants.items()]
        return parts + [(f"closure {name}", self._cell_text(name, cell)) for name, cell in self._closure]

    @staticmethod
    def _cell_text(name: str, cell: types.CellType) -> str:
        try:
            return _text(name, cell.cell_contents)
        except ValueError:
            return "<empty>"


def _text(name: str, value: Any) -> str:
    return "<secret>" if is_secret_name(name) else readable(value)
