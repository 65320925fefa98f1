"""Canonical bytes of a value: type-tagged, injective, and the same in every process and on every machine.

A plain tree (`plain`) is its sorted JSON text. Everything else is a nest of length-prefixed frames behind a zero byte,
with which no JSON text begins. Secrets stand in neither: an HMAC takes their place.

What an object is, told by its shape rather than by its class: a record with fields, or a secret in a wrapper.

The libraries that define such classes are neither imported nor needed.

Canonical bytes of values that hold no others: text, numbers, instants, buffers, arrays.

Each stands behind a tag, so that `1`, `1.0`, `True` and `"1"` differ, and is written by what it is, never by a repr
that depends on a Python version.
"""

from __future__ import annotations

import contextvars
import dataclasses
import datetime
import enum
import functools
import hashlib
import re
import struct
import sys
import types
import typing
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any, Final, Protocol

from cachekit.errors import CannotKey
from cachekit.files.digests import content_digest, frame
from cachekit.keys.classes import parts_of
from cachekit.keys.plain import plain
from cachekit.keys.secrets import cannot_key, framed_name, names_secret, seal

_SECRET_TYPES: Final = frozenset({"SecretStr", "SecretBytes", "Secret"})


def revealer(value: Any) -> Callable[[], Any] | None:
    """The method that gives what a wrapper like pydantic's SecretStr hides; None for anything else."""
    cls = type(value)
    if any(base.__name__ in _SECRET_TYPES for base in cls.__mro__) and hasattr(cls, "get_secret_value"):
        method: Callable[[], Any] = value.get_secret_value
        return method
    return None


def fields(value: Any) -> list[tuple[str, Any]] | None:
    """The named parts of a dataclass, a pydantic model (1 or 2) or a named tuple; None for anything else."""
    cls = type(value)
    if dataclasses.is_dataclass(cls):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(cls) if hasattr(value, f.name)]
    if isinstance(value, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
        return list(zip(cls._fields, value, strict=False))
    if not (hasattr(cls, "__pydantic_core_schema__") or hasattr(cls, "__fields_set__")):
        return None
    # pydantic 2 keeps cached properties beside the fields and extras apart; 1 keeps fields and extras together.
    declared = cls.__dict__.get("__pydantic_fields__", value.__dict__)
    extra = getattr(value, "__pydantic_extra__", None) or {}
    return sorted([*((name, value.__dict__[name]) for name in declared if name in value.__dict__), *extra.items()])


def leftover(value: Any, declared: set[str]) -> list[tuple[str, Any]]:
    """What an instance holds that is none of its fields; what a cached_property made of them is left out."""
    cls = type(value)
    held = dict(getattr(value, "__dict__", {}))
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        held |= {
            name: getattr(value, name) for name in ([slots] if isinstance(slots, str) else slots) if _has(value, name)
        }
    held |= getattr(value, "__pydantic_private__", None) or {}
    made = {
        name for base in cls.__mro__ for name, one in vars(base).items() if isinstance(one, functools.cached_property)
    }
    return sorted(
        (name, one) for name, one in held.items() if name not in declared | made and not name.startswith("__")
    )


def _has(value: Any, name: str) -> bool:
    return not name.startswith("__") and hasattr(value, name)


_WIDE: Final = 4096


def _bytes(value: bytes | bytearray) -> bytes:
    tag = type(value).__name__.encode()
    if len(value) > _WIDE:
        return frame(tag + b"#", hashlib.sha256(value).digest())
    return frame(tag, bytes(value))


def _memory(value: memoryview) -> bytes:
    content = hashlib.sha256(value.tobytes()).digest()
    return frame(b"memoryview", value.format.encode(), repr(value.shape).encode(), content)


def _zone(zone: datetime.tzinfo | None, value: datetime.datetime | None) -> str:
    if zone is None:
        return ""
    return str(getattr(zone, "key", None) or getattr(zone, "zone", None) or zone.tzname(value))


def _moment(value: datetime.datetime | datetime.time) -> bytes:
    day = value if isinstance(value, datetime.datetime) else None
    tag = b"time" if day is None else b"datetime"
    return frame(tag, value.isoformat().encode(), b"%d" % value.fold, _zone(value.tzinfo, day).encode())


def _text(tag: str, render: Callable[[Any], str]) -> Callable[[Any], bytes]:
    return lambda value: frame(tag.encode(), render(value).encode("utf-8", "surrogatepass"))


SCALARS: Final[dict[type, Callable[[Any], bytes]]] = {
    str: _text("str", str),
    int: _text("int", hex),
    float: _text("float", float.__repr__),
    bool: _text("bool", repr),
    type(None): _text("None", repr),
    type(...): _text("Ellipsis", repr),
    bytes: _bytes,
    bytearray: _bytes,
    memoryview: _memory,
    complex: lambda value: frame(b"complex", struct.pack(">dd", value.real, value.imag)),
    Decimal: _text("Decimal", str),
    Fraction: _text("Fraction", lambda value: f"{value.numerator:x}/{value.denominator:x}"),
    datetime.datetime: _moment,
    datetime.time: _moment,
    datetime.date: _text("date", datetime.date.isoformat),
    datetime.timedelta: _text("timedelta", lambda value: f"{value.days},{value.seconds},{value.microseconds}"),
    uuid.UUID: _text("UUID", lambda value: str(value.hex)),
}


def array(value: Any) -> bytes | None:
    """Bytes of a numpy array or scalar; None for what is neither. ValueError where its buffer is not its value."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return None
    is_array = type(value) is numpy.ndarray
    special = isinstance(value, numpy.ndarray) and not is_array  # a masked array's mask is not in its bytes
    if special or value.dtype.hasobject or value.dtype.kind not in "biufcSUMmV":
        raise ValueError("is an array of objects or of a special class")
    kind = repr(value.dtype.descr if value.dtype.fields else value.dtype.str).encode()
    if not is_array:
        return frame(b"scalar", kind, value.tobytes())
    flat = numpy.ascontiguousarray(value).reshape(-1)
    content = flat.view("u1") if flat.nbytes else b""
    return frame(b"ndarray", kind, repr(tuple(value.shape)).encode(), hashlib.sha256(content).digest())


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
        return data
    try:
        return b"\0" + _Encoder(where, describe, lenient).encode(value)
    except RecursionError:
        raise cannot_key(where, value, "is nested too deeply") from None


class _Encoder:
    """One walk over one value. `_open` holds the ids of the containers being walked: meeting one again is a cycle."""

    def __init__(self, where: str, describe: Describe | None, lenient: bool) -> None:
        self.where = where
        self.describe = describe
        self.lenient = lenient and describe is not None
        self._open: set[int] = set()

    def refuse(self, value: Any, why: str = "cannot be keyed") -> CannotKey:
        return cannot_key(self.where, value, why)

    def encode(self, value: Any) -> bytes:
        known = SCALARS.get(type(value))
        if known is not None:
            return known(value)
        if id(value) in self._open or len(self._open) > _DEEPEST:
            raise self.refuse(value, "refers to itself or is nested too deeply")
        self._open.add(id(value))
        try:
            return _COMPOSITES.get(type(value), _other)(self, value)
        finally:
            self._open.discard(id(value))

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
        return frame(b"dict", *sorted(self.entry(name, item) for name, item in value.items()))

    def members(self, value: frozenset[Any] | set[Any]) -> bytes:
        return frame(type(value).__name__.encode(), *sorted(self.encode(item) for item in value))


_COMPOSITES: Final[dict[type, Callable[[_Encoder, Any], bytes]]] = {
    list: lambda encoder, value: encoder.all(b"list", value),
    tuple: lambda encoder, value: encoder.all(b"tuple", value),
    dict: _Encoder.mapping,
    OrderedDict: lambda encoder, value: encoder.named(b"ordered", OrderedDict, value.items()),
    set: _Encoder.members,
    frozenset: _Encoder.members,
    range: lambda encoder, value: encoder.all(b"range", (value.start, value.stop, value.step)),
    slice: lambda encoder, value: encoder.all(b"slice", (value.start, value.stop, value.step)),
    re.Pattern: lambda encoder, value: encoder.all(b"pattern", (value.pattern, value.flags)),
    functools.partial: lambda encoder, value: encoder.all(b"partial", (value.func, value.args, value.keywords)),
    types.MethodType: lambda encoder, value: encoder.all(b"method", (value.__self__, value.__func__)),
    types.BuiltinFunctionType: lambda encoder, value: encoder.all(b"builtin", (value.__self__, value.__qualname__)),
    types.MethodDescriptorType: lambda encoder, value: encoder.all(b"descriptor", (value.__objclass__, value.__name__)),
}


def _other(encoder: _Encoder, value: Any) -> bytes:
    """What is recognised by its shape, most explicit first."""
    for rule in (_own, _callable, _array, _secret, _enumerated, _record, _located):
        data = rule(encoder, value)
        if data is not None:
            return data
    if encoder.lenient and encoder.describe is not None:
        return encoder.describe.opaque(encoder.where, value)
    raise encoder.refuse(value)


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
        return frame(b"context", value.name.encode(), encoder.encode(value.get(None)))
    if (functions := parts_of(value)) is not None:
        return encoder.all(type(value).__name__.encode(), functions)
    return _wrapper(encoder, value)


def _wrapper(encoder: _Encoder, value: Any) -> bytes | None:
    """A decorated function is the function that it wraps, and what the wrapper holds besides."""
    wrapped = getattr(value, "__wrapped__", None) if callable(value) else None
    if wrapped is None:
        return None
    target = getattr(value, "_self_target", None)
    if target is not None:
        version = target.policy.version
        return frame(b"cached", version.encode()) if version is not None else encoder.encode(wrapped)
    if isinstance(value, functools._lru_cache_wrapper):
        return frame(b"remembering", encoder.encode(wrapped))
    state = {name: held for name, held in vars(value).items() if name not in _COPIED}
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
