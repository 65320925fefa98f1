"""Canonical bytes of a value: type-tagged, injective, and the same in every process and on every machine.

A plain tree (`plain`) is its sorted JSON text. Everything else is a nest of length-prefixed frames behind a zero byte,
with which no JSON text begins. Secrets stand in neither: an HMAC takes their place.
"""

from __future__ import annotations

import contextvars
import enum
import functools
import re
import string
import types
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, Final, Protocol

from cachekit.errors import CannotKey, UsageError
from cachekit.files.digests import content_digest, frame
from cachekit.keys.code.classes import parts_of
from cachekit.keys.plain import ordered, plain
from cachekit.keys.secrets import cannot_key, framed_name, names_secret, seal
from cachekit.keys.shapes import REDUCIBLE, SCALARS, array, fields, is_mock, leftover, revealer


class Describe(Protocol):
    """What stands for code that is met in a value, and for an object that has no honest value."""

    inputs: list[tuple[Path, bytes]]

    def __call__(self, met: Any, /) -> bytes | None: ...
    def opaque(self, where: str, met: Any, /) -> bytes: ...


_DEEPEST: Final = 200


def canonical(value: Any, *, where: str, describe: Describe | None = None, lenient: bool = False) -> bytes:
    """Bytes that are equal exactly when type and value are.

    `where` names the argument in the CannotKey raised for what cannot be keyed honestly; `describe` gives the bytes
    that stand for code (without it functions are refused), and with `lenient` those for an object without an honest
    value. A `Path` is read: it means its content.
    """
    data = plain(value)
    if data is not None:
        return ordered(value, data) if lenient else data
    try:
        return b"\0" + _Encoder(where, describe, lenient).encode(value)
    except RecursionError:
        raise cannot_key(where, value, "is nested too deeply") from None


class _Encoder:
    """One walk over one value. `_open` holds the containers being walked, by id: meeting one again is a cycle."""

    def __init__(self, where: str, describe: Describe | None, lenient: bool) -> None:
        self.where = where
        self.describe = describe
        self.lenient = lenient and describe is not None
        self._open: dict[int, int] = {}

    def refuse(self, value: Any, why: str = "cannot be keyed") -> CannotKey:
        return cannot_key(self.where, value, why)

    def encode(self, value: Any) -> bytes:
        known = SCALARS.get(type(value))
        if known is not None:
            return known(value)
        if self.lenient and id(value) in self._open:
            return frame(b"cycle", b"%d" % self._open[id(value)])
        if id(value) in self._open or len(self._open) > _DEEPEST:
            raise self.refuse(value, "refers to itself or is nested too deeply")
        self._open[id(value)] = len(self._open)
        try:
            return _COMPOSITES.get(type(value), _other)(self, value)
        finally:
            del self._open[id(value)]

    def all(self, tag: bytes, values: Iterable[Any]) -> bytes:
        return frame(tag, *[self.encode(item) for item in values])

    def named(self, tag: bytes, cls: type, items: Iterable[tuple[Any, Any]]) -> bytes:
        return frame(tag, self.kind(cls), *[self.entry(name, item) for name, item in items])

    def kind(self, cls: type) -> bytes:
        """Which class it is: what its own code says, or its name."""
        return (None if self.describe is None else self.describe(cls)) or framed_name(cls)

    def entry(self, name: Any, value: Any) -> bytes:
        data = self.encode(value)
        return frame(self.encode(name), seal(data) if names_secret(name) else data)

    def mapping(self, value: Mapping[Any, Any]) -> bytes:
        """In the order of names: callers write keywords in any. Code that holds a mapping may go through it in its own."""
        entries = [self.entry(name, item) for name, item in value.items()]
        return frame(b"dict", *(entries if self.lenient else sorted(entries)))

    def members(self, value: frozenset[Any] | set[Any]) -> bytes:
        return frame(type(value).__name__.encode(), *sorted(self.encode(item) for item in value))


_COMPOSITES: Final[dict[type, Callable[[_Encoder, Any], bytes]]] = {
    list: lambda encoder, value: encoder.all(b"list", value),
    tuple: lambda encoder, value: encoder.all(b"tuple", value),
    dict: _Encoder.mapping,
    types.MappingProxyType: lambda encoder, value: frame(b"proxy", encoder.mapping(value)),
    types.SimpleNamespace: lambda encoder, value: frame(
        b"namespace", encoder.mapping(dict(sorted(vars(value).items())))
    ),
    deque: lambda encoder, value: encoder.all(b"deque", (value.maxlen, *value)),
    Counter: lambda encoder, value: frame(b"counter", encoder.mapping(value)),
    defaultdict: lambda encoder, value: frame(
        b"defaultdict", encoder.encode(value.default_factory), encoder.mapping(value)
    ),
    string.Template: lambda encoder, value: frame(b"template", encoder.encode(value.template)),
    OrderedDict: lambda encoder, value: encoder.named(b"ordered", OrderedDict, value.items()),
    set: _Encoder.members,
    frozenset: _Encoder.members,
    range: lambda encoder, value: encoder.all(b"range", (value.start, value.stop, value.step)),
    slice: lambda encoder, value: encoder.all(b"slice", (value.start, value.stop, value.step)),
    re.Pattern: lambda encoder, value: encoder.all(b"pattern", (value.pattern, value.flags)),
    functools.partial: lambda encoder, value: encoder.all(b"partial", (value.func, value.args, value.keywords)),
    types.MethodType: lambda encoder, value: encoder.all(b"method", (value.__self__, value.__func__)),
    types.BuiltinFunctionType: lambda encoder, value: encoder.all(b"builtin", (value.__self__, value.__qualname__)),
    type(re.compile("").sub): lambda encoder, value: encoder.all(b"builtin", (value.__self__, value.__qualname__)),
    types.MethodDescriptorType: lambda encoder, value: encoder.all(b"descriptor", (value.__objclass__, value.__name__)),
}


def _other(encoder: _Encoder, value: Any) -> bytes:
    if not encoder.lenient or encoder.describe is None:
        data = _by_shape(encoder, value)
        if data is None:
            raise encoder.refuse(value)
        return data
    try:
        return _by_shape(encoder, value) or _held_by(encoder, value, encoder.describe)
    except (UsageError, RecursionError):
        raise
    except (
        Exception
    ):  # a proxy outside of its context raises whatever it is asked: `explain` says that it is not followed
        return encoder.describe.opaque(encoder.where, value)


def _by_shape(encoder: _Encoder, value: Any) -> bytes | None:
    """What is recognised by its shape, most explicit first."""
    if is_mock(value):
        raise CannotKey(f"{encoder.where!r} holds a mock: nothing is read or stored", encoder.where, "mocked")
    rules = (_own, _callable, _array, _secret, _enumerated, _record, _located, _reduced)
    return next((data for rule in rules if (data := rule(encoder, value)) is not None), None)


def _held_by(encoder: _Encoder, value: Any, describe: Describe) -> bytes:
    """An object that says nothing of itself: of own code by all that it holds, else by its class."""
    kind, content = describe(type(value)), _held(value)
    inside = [] if content is None else [encoder.encode(content)]
    held = leftover(value, set()) if kind is not None else []
    if not (inside or (kind is not None and (held or hasattr(value, "__dict__")))):
        return describe.opaque(encoder.where, value)
    return frame(b"instance", encoder.kind(type(value)), *inside, *[encoder.entry(name, one) for name, one in held])


def _own(encoder: _Encoder, value: Any) -> bytes | None:
    method = getattr(type(value), "__cachekit_key__", None)
    if method is None:
        return None
    return frame(b"own", encoder.kind(type(value)), encoder.encode(method(value)))


def _callable(encoder: _Encoder, value: Any) -> bytes | None:
    if typing.get_origin(value) is not None:
        return encoder.all(b"alias", (typing.get_origin(value), typing.get_args(value)))
    if isinstance(value, type):
        return frame(b"class", encoder.kind(value))
    if type(value) in (types.FunctionType, types.ModuleType):
        data = None if encoder.describe is None else encoder.describe(value)
        if data is None and type(value) is types.FunctionType:
            raise encoder.refuse(value, "is a function, which cannot be keyed here")
        data = data or value.__name__.encode()
        return frame(b"code", data)
    if type(value).__module__ == "typing":
        return frame(b"typing", repr(value).encode())
    if isinstance(value, contextvars.ContextVar):
        return frame(b"context", value.name.encode(), _current(encoder, value))
    if (functions := parts_of(value)) is not None:
        return encoder.all(type(value).__name__.encode(), functions)
    return _wrapper(encoder, value)


def _current(encoder: _Encoder, value: contextvars.ContextVar[Any]) -> bytes:
    try:
        return encoder.encode(value.get())
    except LookupError:
        return b""


def _wrapper(encoder: _Encoder, value: Any) -> bytes | None:
    """A decorated function is the function that it wraps, and what the wrapper holds besides."""
    is_proxy = any(base.__name__ == "ObjectProxy" for base in type(value).__mro__)  # wrapt's, of data too
    wrapped = getattr(value, "__wrapped__", None) if callable(value) or is_proxy else None
    if wrapped is None:
        return None
    target = getattr(value, "_self_target", None)
    if target is not None:
        version = target.policy.version
        return frame(b"cached", version.encode()) if version is not None else encoder.encode(wrapped)
    if isinstance(value, functools._lru_cache_wrapper):
        return frame(b"remembering", encoder.encode(wrapped))
    state = {name: held for name, held in getattr(value, "__dict__", {}).items() if name not in _COPIED}
    own = getattr(value, "_self_wrapper", None)
    return frame(b"wrapper", encoder.kind(type(value)), encoder.encode((wrapped, own, state)))


_COPIED: Final = frozenset((*functools.WRAPPER_ASSIGNMENTS, "__wrapped__", "__type_params__", "__annotate__"))
"""What functools.wraps takes over from the function that is wrapped."""


def _array(encoder: _Encoder, value: Any) -> bytes | None:
    try:
        return array(value)
    except ValueError as error:
        raise encoder.refuse(value, str(error)) from None


def _secret(encoder: _Encoder, value: Any) -> bytes | None:
    reveal = revealer(value)
    return None if reveal is None else frame(b"hidden", framed_name(type(value)), seal(encoder.encode(reveal())))


def _enumerated(encoder: _Encoder, value: Any) -> bytes | None:
    if not isinstance(value, enum.Enum):
        return None
    # A flag's combined name differs between Python versions, its number does not; a member's value may be anything.
    name = None if isinstance(value, enum.Flag) else value.name
    return frame(b"enum", encoder.kind(type(value)), encoder.encode(name), _content(encoder, value.value))


def _content(encoder: _Encoder, value: Any) -> bytes:
    try:
        return encoder.encode(value)
    except CannotKey:  # the member's name says which one it is
        return b""


def _record(encoder: _Encoder, value: Any) -> bytes | None:
    named = fields(value)
    if named is None:
        return None
    data = encoder.named(b"record", type(value), [*named, *leftover(value, {name for name, _ in named})])
    return data if isinstance(value, tuple) or (held := _held(value)) is None else frame(data, encoder.encode(held))


def _held(value: Any) -> Any:
    """What a record holds besides its fields, because its class is a container too."""
    kinds: tuple[Any, ...] = (dict, list, set, frozenset, str, int, float, bytes)
    return next((kind(value) for kind in kinds if isinstance(value, kind)), None)


def _located(encoder: _Encoder, value: Any) -> bytes | None:
    if isinstance(value, Path):
        digest = content_digest(value, where=encoder.where)
        # Whoever builds a key wants to know later whether it is still so.
        if (inputs := getattr(encoder.describe, "inputs", None)) is not None:
            inputs.append((value, digest))
        return digest
    if isinstance(value, PurePath):
        return frame(b"purepath", type(value).__name__.encode(), str(value).encode("utf-8", "surrogatepass"))
    return None


def _reduced(encoder: _Encoder, value: Any) -> bytes | None:
    """Values of the standard library that say how they are made again, and what pydantic adapts to."""
    kind = type(value)
    if kind.__module__ in REDUCIBLE or (issubclass(kind, BaseException) and kind.__module__ == "builtins"):
        return frame(b"reduced", framed_name(kind), encoder.all(b"made", value.__reduce_ex__(2)[1:]))
    if kind.__name__ == "TypeAdapter" and kind.__module__.startswith("pydantic."):
        return frame(b"adapter", encoder.encode(value._type))
    return frame(b"struct", encoder.encode(value.format)) if kind.__module__ == "_struct" else None
