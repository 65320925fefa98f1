"""Canonical bytes of a value: type-tagged, injective, and the same in every process and on every machine.

A tree of JSON's own types is its sorted JSON text. Everything else is a nest of length-prefixed frames behind a zero
byte, with which no JSON text begins. Secrets stand in neither: an HMAC takes their place.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import hashlib
import hmac
import itertools
import math
import os
import re
import stat
import struct
import sys
import time
import types
import typing
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any, Final

import orjson

from cachekit.errors import CannotKey

Describe = Callable[[types.FunctionType], bytes]

# Passthrough makes orjson refuse what it would otherwise flatten into somebody else's text.
_OPTIONS: Final = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_LEAVES: Final = frozenset({str, int, float, bool, type(None)})
_SURE: Final = _LEAVES - {float}  # orjson writes null for NaN and infinity
_DEEPEST: Final = 200
_WIDE: Final = 4096
_MANY: Final = 65_536
_TICK_NS: Final = 10_000_000
_MEMO_LIMIT: Final = 65_536
_SECRET_ENDINGS: Final = (
    *("apikey", "accesskey", "privatekey", "secretkey", "token", "authorization", "password", "passwd", "passphrase"),
    *("secret", "credential", "credentials", "cookie"),
)
_SECRET_TYPES: Final = frozenset({"SecretStr", "SecretBytes", "Secret"})
_SECRET_DOMAIN: Final = b"cachekit secret v1"
_harmless: set[str] = set()
_files: dict[str, tuple[tuple[int, ...], bytes]] = {}


def is_secret_name(name: str) -> bool:
    """Whether a parameter, header or field of this name carries a secret: case, `-` and `_` do not matter."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "").endswith(_SECRET_ENDINGS)


def frame(*parts: bytes) -> bytes:
    """Join parts so that no byte can move from one to its neighbour."""
    pieces = [len(parts).to_bytes(4, "big")]
    for part in parts:
        pieces += (len(part).to_bytes(8, "big"), part)
    return b"".join(pieces)


def seal(data: bytes) -> bytes:
    """What stands in for a secret's canonical bytes: equal secrets agree on every machine, the text cannot be read."""
    return frame(b"secret", hmac.digest(_SECRET_DOMAIN, data, "sha256"))


def plain(value: Any) -> bytes | None:
    """JSON text of a tree of exactly dict (str keys), list, str, int (64 bit), finite float, bool, None; else None."""
    # The walk comes first: orjson 3.13 has no depth limit for tuples in tuples, and overruns its buffer.
    if not _is_plain(value):
        return None
    try:
        return orjson.dumps(value, None, _OPTIONS)
    except TypeError:
        return None


def _is_plain(value: Any) -> bool:
    # Written for speed: local names, the commonest type first. orjson refuses a dict's name that only equals a str.
    nodes, harmless, leaves = [value], _harmless, _LEAVES
    for node in nodes:
        if type(node) is dict:
            for name, item in node.items():
                if name not in harmless and not _learn(name):
                    return False
                if type(item) is not str and type(item) not in _SURE:
                    nodes.append(item)
        elif type(node) is list:
            kinds = set(map(type, node))
            if not kinds <= leaves:
                nodes.extend(node)
            elif float in kinds and not all(math.isfinite(item) for item in node if type(item) is float):
                return False
        elif type(node) is float:
            if not math.isfinite(node):
                return False
        elif type(node) not in leaves:
            return False
        if len(nodes) > _MANY:
            return _is_plain_at_length(value)
    return True


def _is_plain_at_length(value: Any) -> bool:
    """The same for a large tree, depth first with the open containers noted, so that a cycle ends."""
    open_ids: set[int] = set()
    todo: list[tuple[Any, bool]] = [(value, True)]
    while todo:
        node, entering = todo.pop()
        if type(node) not in (dict, list):
            if type(node) not in _LEAVES or (type(node) is float and not math.isfinite(node)):
                return False
        elif not entering:
            open_ids.discard(id(node))
        elif id(node) in open_ids or (type(node) is dict and not all(map(_learn, node))):
            return False
        else:
            open_ids.add(id(node))
            todo.append((node, False))
            todo.extend((item, True) for item in (node.values() if type(node) is dict else node))
    return True


def _learn(name: Any) -> bool:
    if type(name) is not str or is_secret_name(name):
        return False
    if len(_harmless) > _MEMO_LIMIT:
        _harmless.clear()
    _harmless.add(name)
    return True


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
        raise _refusal(where, value, "is nested too deeply") from None


def _refusal(where: str, value: Any, why: str) -> CannotKey:
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    remedy = f"leave it out with ignore=({where!r},), say what identifies the call with key="
    remedy += ", or give the class a __cachekit_key__ method"
    return CannotKey(f"{where!r} holds a value of type {name} that {why}: {remedy}", where)


def _class_name(cls: type) -> bytes:
    return frame(cls.__module__.encode(), cls.__qualname__.encode())


class _Encoder:
    """One walk over one value. `_open` holds the ids of the containers being walked: meeting one again is a cycle."""

    def __init__(self, where: str, describe: Describe | None) -> None:
        self.where = where
        self.describe = describe
        self._open: set[int] = set()

    def refuse(self, value: Any, why: str = "cannot be keyed") -> CannotKey:
        return _refusal(self.where, value, why)

    def encode(self, value: Any) -> bytes:
        known = _SCALARS.get(type(value))
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
        return frame(tag, _class_name(cls), *[self.entry(name, item) for name, item in items])

    def entry(self, name: Any, value: Any) -> bytes:
        data = self.encode(value)
        return frame(self.encode(name), seal(data) if _names_secret(name) else data)

    def mapping(self, value: Mapping[Any, Any]) -> bytes:
        return frame(b"dict", *sorted(self.entry(name, item) for name, item in value.items()))

    def members(self, value: frozenset[Any] | set[Any]) -> bytes:
        return frame(type(value).__name__.encode(), *sorted(self.encode(item) for item in value))


def _names_secret(name: Any) -> bool:
    text = bytes(name).decode("latin-1") if type(name) is bytes else name
    return isinstance(text, str) and is_secret_name(text)


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


_SCALARS: Final[dict[type, Callable[[Any], bytes]]] = {
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
    types.ModuleType: _text("module", lambda value: str(value.__name__)),
}

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
    return frame(b"own", _class_name(type(value)), encoder.encode(method(value)))


def _callable(encoder: _Encoder, value: Any) -> bytes | None:
    if typing.get_origin(value) is not None:
        return encoder.all(b"alias", (typing.get_origin(value), typing.get_args(value)))
    if isinstance(value, type):
        return frame(b"class", _class_name(value))
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
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return None
    is_array = type(value) is numpy.ndarray
    special = isinstance(value, numpy.ndarray) and not is_array  # a masked array's mask is not in its bytes
    if special or value.dtype.hasobject or value.dtype.kind not in "biufcSUMmV":
        raise encoder.refuse(value, "is an array of objects or of a special class")
    kind = repr(value.dtype.descr if value.dtype.fields else value.dtype.str).encode()
    if not is_array:
        return frame(b"scalar", kind, value.tobytes())
    flat = numpy.ascontiguousarray(value).reshape(-1)
    content = flat.view("u1") if flat.nbytes else b""
    return frame(b"ndarray", kind, repr(tuple(value.shape)).encode(), hashlib.sha256(content).digest())


def _reveal(value: Any) -> Any | None:
    if any(cls.__name__ in _SECRET_TYPES for cls in type(value).__mro__) and hasattr(type(value), "get_secret_value"):
        return value.get_secret_value
    return None


def _secret(encoder: _Encoder, value: Any) -> bytes | None:
    reveal = _reveal(value)
    return None if reveal is None else frame(b"hidden", _class_name(type(value)), seal(encoder.encode(reveal())))


def _enumerated(encoder: _Encoder, value: Any) -> bytes | None:
    if not isinstance(value, enum.Enum):
        return None
    # A flag's combined name differs between Python versions, its number does not; a member's value may be anything.
    name = None if isinstance(value, enum.Flag) else value.name
    content = value.value if type(value.value) in _LEAVES else None
    return frame(b"enum", _class_name(type(value)), encoder.encode((name, content)))


def _record(encoder: _Encoder, value: Any) -> bytes | None:
    found = _fields(value)
    return None if found is None else encoder.named(b"record", type(value), found)


def _fields(value: Any) -> list[tuple[str, Any]] | None:
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


def _located(encoder: _Encoder, value: Any) -> bytes | None:
    if isinstance(value, Path):
        return content_digest(value, where=encoder.where)
    if isinstance(value, PurePath):
        return frame(b"purepath", type(value).__name__.encode(), str(value).encode("utf-8", "surrogatepass"))
    return None


def content_digest(path: Path, *, where: str) -> bytes:
    """Canonical bytes of what stands at `path`, a file or a tree; its own name does not count. Raises CannotKey."""
    try:
        return _content(os.fspath(path), ())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        message = f"{where!r} is a path whose content cannot be read ({why}): pass one that exists, or a str"
        raise CannotKey(f"{message}, or leave it out with ignore=({where!r},) or key=", where) from error


def _content(path: str, above: tuple[tuple[int, int], ...]) -> bytes:
    status = os.stat(path)
    identity = (status.st_dev, status.st_ino)
    if stat.S_ISREG(status.st_mode):
        return frame(b"file", _file(path, status))
    if not stat.S_ISDIR(status.st_mode):
        raise ValueError("neither a file nor a directory")
    if identity in above:
        raise ValueError("a link leads back to a directory above it")
    names = sorted(os.fsencode(name) for name in os.listdir(path))
    contents = [_content(os.path.join(path, os.fsdecode(name)), (*above, identity)) for name in names]
    return frame(b"tree", hashlib.sha256(frame(*names, *contents)).digest())


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _file(path: str, status: os.stat_result) -> bytes:
    key, signature = os.path.abspath(path), _signature(status)
    known = _files.get(key)
    if known is not None and known[0] == signature:
        return known[1]
    for _ in range(3):
        began = time.time_ns()
        with open(path, "rb") as stream:
            signature = _signature(os.fstat(stream.fileno()))
            digest = _hash_stream(stream)
            after = _signature(os.fstat(stream.fileno()))
        if after == signature:
            break
    else:
        raise ValueError("it changes while it is read")
    # A write within the clock's tick of the hashing would leave the signature as it is.
    if began - max(signature[3], signature[4]) >= _TICK_NS:
        if len(_files) >= _MEMO_LIMIT:
            _files.clear()
        _files[key] = (signature, digest)
    return digest


def _hash_stream(stream: typing.BinaryIO) -> bytes:
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return digest.digest()


def readable(value: Any) -> str:
    """At most 120 characters for people: secrets as `<secret>`, unknown objects by type, a Path by its content."""
    text = _show(value, 4)
    return text if len(text) <= 120 else text[:119] + "…"


def _show(value: Any, depth: int) -> str:
    kind = type(value)
    if kind is str:
        return repr(value[:120])
    if kind is int and value.bit_length() > 256:
        return f"int of {value.bit_length()} bits"
    if kind in _LEAVES or kind in (complex, Decimal, Fraction, uuid.UUID, datetime.date, datetime.timedelta):
        return repr(value) if kind in _LEAVES else f"{kind.__name__}({value})"
    if kind in (datetime.datetime, datetime.time):
        return f"{kind.__name__}({value.isoformat()})"
    if kind in (bytes, bytearray, memoryview):
        return f"{kind.__name__} of {len(value)}"
    if _reveal(value) is not None:
        return "<secret>"
    return _show_nested(value, depth)


def _show_nested(value: Any, depth: int) -> str:
    kind = type(value)
    if depth == 0:
        return "…"
    if kind in (list, tuple, set, frozenset):
        return _show_items(value, depth)
    if kind in (dict, OrderedDict):
        return "{" + ", ".join(_show_entries(list(value.items())[:30], depth, ": ")) + "}"
    if isinstance(value, enum.Enum):
        return f"{kind.__name__}.{value.name}"
    if isinstance(value, Path):
        return _show_path(value)
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    fields = None if hasattr(kind, "__cachekit_key__") else _fields(value)
    if fields is None:
        return f"<{kind.__qualname__}>"
    return f"{kind.__name__}({', '.join(_show_entries(fields[:30], depth, '='))})"


def _show_path(value: Path) -> str:
    try:
        return f"Path(sha256 {hashlib.sha256(content_digest(value, where='path')).hexdigest()[:12]})"
    except CannotKey:
        return "Path(unreadable)"


def _show_items(value: Any, depth: int) -> str:
    # Header lists are pairs: a name that is secret hides its neighbour.
    if len(value) == 2 and isinstance(value, (list, tuple)) and _names_secret(value[0]):
        texts = [_show(value[0], depth - 1), "<secret>"]
    else:
        texts = [_show(item, depth - 1) for item in itertools.islice(value, 30)]
    if isinstance(value, (set, frozenset)):
        texts.sort()
    brackets = "[]" if isinstance(value, list) else "()" if isinstance(value, tuple) else "{}"
    return brackets[0] + ", ".join(texts) + brackets[1]


def _show_entries(items: list[tuple[Any, Any]], depth: int, between: str) -> list[str]:
    texts = []
    for name, item in items:
        label = name if between == "=" else _show(name, depth - 1)
        texts.append(f"{label}{between}{'<secret>' if _names_secret(name) else _show(item, depth - 1)}")
    return texts
