"""Values that JSON alone would change, as JSON with tags: `{"$": [tag, content]}`.

User data is never mistaken for a tag, because a dict that has the key "$" is itself written under the tag "dict".
Only exact types are known; instances of classes only where the function's return annotation names them. They are
rebuilt field by field: no `__init__`, no validator, and no code chosen by the payload.
"""

from __future__ import annotations

import dataclasses
import enum
import io
import math
import struct
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from types import MemberDescriptorType
from typing import Any, Final
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

import orjson

from cachekit.errors import CannotEncode, IntegrityError

DEPTH: Final = 60
"""Nesting that is still stored; each level may take four of orjson's 254."""

TAG: Final = "$"
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1

Classes = Callable[[], Mapping[str, type]]


def cannot(value: object, why: str = "is of a type that would not come back the same") -> CannotEncode:
    kind = type(value)
    return CannotEncode(
        f"a value of {kind.__module__}.{kind.__qualname__} {why}: name its class in the return annotation, "
        "pass codec=, or leave it out with cacheable=",
        reason="type",
    )


def class_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


class Tagger:
    """`classes` gives the classes that may be rebuilt, by `class_name`; it is asked only when an instance is met."""

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        self._dumpers: dict[type, Callable[[Any, int], Any]] = {
            int: lambda v, _: v if _INT_MIN <= v <= _INT_MAX else _tag("int", format(v, "x")),
            float: lambda v, _: v if math.isfinite(v) else _tag("float", struct.pack(">d", v).hex()),
            complex: lambda v, _: _tag("complex", struct.pack(">dd", v.real, v.imag).hex()),
            str: lambda v, _: _dump_text(v),
            bytes: lambda v, _: _tag("bytes", b64encode(v).decode()),
            bytearray: lambda v, _: _tag("bytearray", b64encode(v).decode()),
            Decimal: lambda v, _: _tag("decimal", str(v)),
            UUID: lambda v, _: _tag("uuid", [v.hex, v.is_safe.value]),
            date: lambda v, _: _tag("date", [v.year, v.month, v.day]),
            timedelta: lambda v, _: _tag("timedelta", [v.days, v.seconds, v.microseconds]),
            datetime: lambda v, _: _tag("datetime", [v.year, v.month, v.day, *_clock(v)]),
            time: lambda v, _: _tag("time", _clock(v)),
            list: self._items,
            tuple: lambda v, depth: _tag("tuple", self._items(v, depth)),
            set: lambda v, depth: _tag("set", self._items(v, depth)),
            frozenset: lambda v, depth: _tag("frozenset", self._items(v, depth)),
            dict: self._dump_dict,
        }
        self._loaders: dict[str, Callable[[Any], Any]] = {
            **_LOADERS,
            "tuple": lambda c: tuple(map(self._unpack, c)),
            "set": lambda c: set(map(self._unpack, c)),
            "frozenset": lambda c: frozenset(map(self._unpack, c)),
            "dict": lambda c: {self._unpack(k): self._unpack(v) for k, v in c},
            "object": self._load_object,
        }

    def dump(self, value: Any) -> bytes:
        return orjson.dumps(self._pack(value, 0))

    def load(self, payload: bytes) -> Any:
        try:
            return self._unpack(orjson.loads(payload))
        except IntegrityError:
            raise
        except Exception as error:  # whatever a constructor says about content it never wrote
            raise IntegrityError(f"a tagged value cannot be rebuilt: {type(error).__name__}") from error

    def _pack(self, value: Any, depth: int) -> Any:
        if value is None or value is True or value is False:
            return value
        if depth > DEPTH:
            raise CannotEncode(f"the value contains itself, or nests deeper than {DEPTH}: use codec=", reason="depth")
        dumper = self._dumpers.get(type(value))
        if dumper is not None:
            return dumper(value, depth + 1)
        if (numpy := sys.modules.get("numpy")) is not None and isinstance(value, numpy.generic | numpy.ndarray):
            return _dump_numpy(value, numpy)
        return self._dump_object(value, depth + 1)

    def _items(self, values: Any, depth: int) -> list[Any]:
        return [self._pack(item, depth) for item in values]

    def _dump_dict(self, value: dict[Any, Any], depth: int) -> Any:
        if TAG not in value and all(type(key) is str and _clean(key) for key in value):
            return {key: self._pack(item, depth) for key, item in value.items()}
        return _tag("dict", [[self._pack(key, depth), self._pack(item, depth)] for key, item in value.items()])

    def _dump_object(self, value: Any, depth: int) -> Any:
        cls = type(value)
        name = class_name(cls)
        if self._classes().get(name) is not cls:
            raise cannot(value)
        kind, state = _state(cls, value)
        return _tag("object", [name, kind, self._pack(state, depth)])

    def _load_object(self, content: Any) -> Any:
        name, kind, state = content
        cls = self._classes().get(name)
        if cls is None:
            raise IntegrityError(f"the return annotation no longer names {name}")
        return _build(cls, kind, self._unpack(state))

    def _unpack(self, node: Any) -> Any:
        if type(node) is list:
            return [self._unpack(item) for item in node]
        if type(node) is not dict:
            return node
        if TAG in node:
            name, content = node[TAG]
            return self._loaders[name](content)
        return {key: self._unpack(item) for key, item in node.items()}


def dump_array(value: Any) -> bytes:
    """A numpy.ndarray in .npy format; CannotEncode for a dtype that the format does not bring back."""
    from numpy.lib import format as npy

    dtype = value.dtype
    if dtype.hasobject or dtype.metadata:
        raise cannot(value, f"with dtype {dtype} would not come back the same")
    back = npy.descr_to_dtype(npy.dtype_to_descr(dtype))
    if back != dtype or back.type is not dtype.type or back.isalignedstruct != dtype.isalignedstruct:
        raise cannot(value, f"with dtype {dtype} would not come back the same")
    buffer = io.BytesIO()
    npy.write_array(buffer, value, allow_pickle=False)
    return buffer.getvalue()


def load_array(payload: bytes) -> Any:
    """A fresh numpy.ndarray; IntegrityError for what is none."""
    try:
        from numpy.lib import format as npy

        buffer = io.BytesIO(payload)
        array = npy.read_array(buffer, allow_pickle=False, max_header_size=len(payload) + 1)
    except Exception as error:  # a header can be wrong in every way; numpy can be missing on this machine
        raise IntegrityError(f"an array cannot be rebuilt: {type(error).__name__}") from error
    if buffer.tell() != len(payload):
        raise IntegrityError("an array is followed by something else")
    return array


def _tag(name: str, content: Any) -> dict[str, Any]:
    return {TAG: [name, content]}


def _clean(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _dump_text(text: str) -> Any:
    return text if _clean(text) else _tag("str", b64encode(text.encode("utf-8", "surrogatepass")).decode())


def _clock(value: datetime | time) -> list[Any]:
    return [value.hour, value.minute, value.second, value.microsecond, value.fold, _dump_zone(value.tzinfo)]


def _dump_zone(zone: tzinfo | None) -> Any:
    if zone is None:
        return None
    kind: Any = type(zone)
    if kind is timezone:
        offset, name = zone.utcoffset(None), zone.tzname(None)
        assert offset is not None
        parts = [offset.days, offset.seconds, offset.microseconds]
        return ["fixed", parts, None if name == timezone(offset).tzname(None) else _dump_text(str(name))]
    if isinstance(zone, ZoneInfo) and _by_name(zone):
        return ["zone", zone.key]
    if kind.__module__.startswith("pydantic_core.") and kind.__name__ == "TzInfo":
        return ["pydantic", int(kind.utcoffset(zone, None).total_seconds())]
    raise cannot(zone, "is a timezone that would not come back the same")


def _by_name(zone: ZoneInfo) -> bool:
    try:
        return zone.key is not None and ZoneInfo(zone.key) is zone
    except (LookupError, ValueError, OSError):
        return False


def _load_zone(content: Any) -> tzinfo | None:
    if content is None:
        return None
    if content[0] == "zone":
        return ZoneInfo(content[1])
    if content[0] == "pydantic":
        from pydantic_core import TzInfo

        return TzInfo(content[1])
    offset, name = timedelta(*content[1]), content[2]
    if name is None:
        return timezone(offset)
    return timezone(offset, name if type(name) is str else _load_text(name[TAG][1]))


def _load_text(content: str) -> str:
    return b64decode(content).decode("utf-8", "surrogatepass")


def _load_datetime(c: Any) -> datetime:
    return datetime(*c[:7]).replace(tzinfo=_load_zone(c[8]), fold=c[7])


def _load_time(c: Any) -> time:
    return time(*c[:4]).replace(tzinfo=_load_zone(c[5]), fold=c[4])


def _dump_numpy(value: Any, numpy: Any) -> Any:
    if type(value) is numpy.ndarray:
        return _tag("ndarray", b64encode(dump_array(value)).decode())
    if type(value) is not value.dtype.type or value.dtype.kind not in "biufcMm":
        raise cannot(value)
    return _tag("scalar", b64encode(dump_array(numpy.asarray(value))).decode())


_LOADERS: Final[dict[str, Callable[[Any], Any]]] = {
    "int": lambda c: int(c, 16),
    "float": lambda c: struct.unpack(">d", bytes.fromhex(c))[0],
    "complex": lambda c: complex(*struct.unpack(">dd", bytes.fromhex(c))),
    "str": _load_text,
    "bytes": b64decode,
    "bytearray": lambda c: bytearray(b64decode(c)),
    "decimal": Decimal,
    "uuid": lambda c: UUID(hex=c[0], is_safe=SafeUUID(c[1])),
    "date": lambda c: date(*c),
    "timedelta": lambda c: timedelta(*c),
    "datetime": _load_datetime,
    "time": _load_time,
    "ndarray": lambda c: load_array(b64decode(c)),
    "scalar": lambda c: load_array(b64decode(c))[()],
}


def _state(cls: Any, value: Any) -> tuple[str, Any]:
    """Everything an instance holds, as plain data; CannotEncode where some of it would be lost."""
    kind = _kind(cls)
    if kind == "flag":
        return kind, value.value
    if kind == "enum":
        return kind, value._name_
    if kind == "namedtuple":
        if getattr(value, "__dict__", None) or len(value) != len(cls._fields):
            raise cannot(value, "has attributes beside its fields")
        return kind, [list(cls._fields), list(value)]
    if kind == "dataclass":
        return kind, _fields_of(value, {field.name for field in dataclasses.fields(cls)}, _slots(cls))
    if kind == "pydantic":
        return kind, _pydantic_state(cls, value)
    if kind == "pydantic1":
        return kind, _pydantic1_state(cls, value)
    raise cannot(value)


def _kind(cls: Any) -> str:
    if issubclass(cls, enum.Enum):
        return "flag" if issubclass(cls, enum.Flag) else "enum"
    if issubclass(cls, tuple):
        return "namedtuple" if hasattr(cls, "_fields") else ""
    if dataclasses.is_dataclass(cls):
        return "dataclass"
    if hasattr(cls, "__pydantic_fields_set__"):
        return "pydantic"
    return "pydantic1" if hasattr(cls, "__fields_set__") and hasattr(cls, "__fields__") else ""


def _slots(cls: type) -> set[str]:
    return {name for base in cls.__mro__ for name, at in base.__dict__.items() if type(at) is MemberDescriptorType}


def _fields_of(value: Any, fields: set[str], slots: set[str]) -> dict[str, Any]:
    _blank(type(value), value)
    state = {name: getattr(value, name) for name in sorted(slots) if hasattr(value, name)}
    state.update(getattr(value, "__dict__", {}))
    if state.keys() != fields:
        raise cannot(value, f"has other attributes than its fields ({', '.join(sorted(state.keys() ^ fields))})")
    return state


def _blank(cls: type, value: object = None) -> Any:
    try:
        return object.__new__(cls)
    except TypeError as error:
        raise cannot(value, "keeps state in a built-in base class") from error


def _pydantic_state(cls: Any, value: Any) -> list[Any]:
    fields = set(cls.model_fields)
    if value.__pydantic_private__:
        raise cannot(value, "has private attributes, which would be lost")
    state = _fields_of(value, fields, {name for name in _slots(cls) if not name.startswith("__pydantic_")})
    return [state, sorted(value.__pydantic_fields_set__), value.__pydantic_extra__, value.__pydantic_private__]


def _pydantic1_state(cls: Any, value: Any) -> list[Any]:
    state = dict(value.__dict__)
    open_ended = str(getattr(cls.__config__, "extra", "")).endswith("allow")
    if cls.__private_attributes__ or (not open_ended and state.keys() != cls.__fields__.keys()):
        raise cannot(value, "has attributes beside its fields, which would be lost")
    return [state, sorted(value.__fields_set__)]


def _build(cls: Any, kind: str, state: Any) -> Any:
    _same(cls, _kind(cls), kind)
    if kind == "flag":
        return cls(state)
    if kind == "enum":
        return cls.__members__[state]
    if kind == "namedtuple":
        _same(cls, list(cls._fields), state[0])
        return tuple.__new__(cls, state[1])
    fresh = _blank(cls)
    if kind == "dataclass":
        _same(cls, {field.name for field in dataclasses.fields(cls)}, state.keys())
        for name, item in state.items():
            object.__setattr__(fresh, name, item)
    elif kind == "pydantic":
        _build_pydantic(cls, fresh, state)
    else:
        _same(cls, cls.__fields__.keys(), cls.__fields__.keys() & state[0].keys())
        object.__setattr__(fresh, "__dict__", state[0])
        object.__setattr__(fresh, "__fields_set__", set(state[1]))
    return fresh


def _build_pydantic(cls: Any, fresh: Any, state: Any) -> None:
    values, fields_set, extra, private = state
    _same(cls, set(cls.model_fields), values.keys())
    object.__setattr__(fresh, "__dict__", values)
    object.__setattr__(fresh, "__pydantic_fields_set__", set(fields_set))
    if not getattr(cls, "__pydantic_root_model__", False):
        object.__setattr__(fresh, "__pydantic_extra__", extra)
        object.__setattr__(fresh, "__pydantic_private__", private)


def _same(cls: type, now: object, stored: object) -> None:
    if now != stored:
        raise IntegrityError(f"{class_name(cls)} has other fields than when it was stored")
