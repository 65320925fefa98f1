"""Canonical bytes of a value: type-tagged, injective, and the same in every process and on every machine.

A plain tree (`plain`) is its sorted JSON text. Everything else is a nest of length-prefixed frames behind a zero byte,
with which no JSON text begins. Secrets stand in neither: an HMAC takes their place.
"""

from __future__ import annotations

import enum
import functools
import re
import types
import typing
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, Final

from cachekit.content import content_digest, frame
from cachekit.errors import CannotKey
from cachekit.framing import cannot_key, framed_name, names_secret, seal
from cachekit.plain import LEAVES, plain
from cachekit.scalars import SCALARS, array
from cachekit.shapes import fields, revealer

Describe = Callable[[types.FunctionType], bytes]

_DEEPEST: Final = 200


def canonical(value: Any, *, where: str, describe: Describe | None = None) -> bytes:
    """Bytes that are equal exactly when type and value are.

    `where` names the argument in the CannotKey raised for what cannot be keyed honestly; `describe` gives the bytes
    that stand for a Python function (without it functions are refused). A `Path` is read: it means its content.
    """
    data = plain(value)
    if data is not None:
        return data
    try:
        return b"\0" + _Encoder(where, describe).encode(value)
    except RecursionError:
        raise cannot_key(where, value, "is nested too deeply") from None


class _Encoder:
    """One walk over one value. `_open` holds the ids of the containers being walked: meeting one again is a cycle."""

    def __init__(self, where: str, describe: Describe | None) -> None:
        self.where = where
        self.describe = describe
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
        return frame(tag, framed_name(cls), *[self.entry(name, item) for name, item in items])

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
    raise encoder.refuse(value)


def _own(encoder: _Encoder, value: Any) -> bytes | None:
    method = getattr(type(value), "__cachekit_key__", None)
    if method is None:
        return None
    return frame(b"own", framed_name(type(value)), encoder.encode(method(value)))


def _callable(encoder: _Encoder, value: Any) -> bytes | None:
    if typing.get_origin(value) is not None:
        return encoder.all(b"alias", (typing.get_origin(value), typing.get_args(value)))
    if isinstance(value, type):
        return frame(b"class", framed_name(value))
    if type(value) is types.FunctionType:
        if encoder.describe is None:
            raise encoder.refuse(value, "is a function, which cannot be keyed here")
        return frame(b"function", encoder.describe(value))
    # A decorated function (ours, lru_cache's) is the function it wraps.
    wrapped = getattr(value, "__wrapped__", None) if callable(value) else None
    if type(wrapped) in (types.FunctionType, types.MethodType, types.BuiltinFunctionType):
        return encoder.encode(wrapped)
    return None


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
    content = value.value if type(value.value) in LEAVES else None
    return frame(b"enum", framed_name(type(value)), encoder.encode((name, content)))


def _record(encoder: _Encoder, value: Any) -> bytes | None:
    found = fields(value)
    return None if found is None else encoder.named(b"record", type(value), found)


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
