"""What a value is by its shape: scalars and arrays as bytes, records by their fields and whatever else they hold.

Each scalar stands behind a tag, so that `1`, `1.0`, `True` and `"1"` differ, and is written by what it is, never by a repr
that depends on a Python version. The libraries that define records are neither imported nor needed.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import struct
import sys
import types
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from cachekit.files.digests import frame

_SECRET_TYPES: Final = frozenset({"SecretStr", "SecretBytes", "Secret"})


REDUCIBLE: Final = frozenset({"operator", "datetime", "zoneinfo", "array", "collections", "ipaddress"})
"""Modules of the standard library whose objects are values: they say how they are made again."""


CONTAINERS: Final = (list, dict, set, deque, Counter, OrderedDict, defaultdict, types.ModuleType)
"""What a function changes in place as a record of its calls."""

COORDINATING: Final = frozenset(
    {
        *("_thread", "threading", "asyncio.locks", "asyncio.queues", "queue", "_queue", "logging"),
        *("multiprocessing.synchronize", "multiprocessing.queues"),
    }
)
"""Locks, events, queues and loggers: they decide when, or what is told, never the answer."""


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


def is_mock(value: Any) -> bool:
    """Whether it is a stand-in of unittest.mock."""
    mock = sys.modules.get("unittest.mock")
    return mock is not None and isinstance(value, mock.NonCallableMock)


def attributes_of(value: Any) -> dict[str, Any]:
    try:
        own = vars(value)
    except Exception:  # a proxy outside of its context, or an object without attributes: there is nothing to be read
        return {}
    return own if type(own) is dict else {}


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
    datetime.timezone: _text("timezone", repr),
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
