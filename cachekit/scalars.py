"""Canonical bytes of values that hold no others: text, numbers, instants, buffers, arrays.

Each stands behind a tag, so that `1`, `1.0`, `True` and `"1"` differ, and is written by what it is, never by a repr
that depends on a Python version.
"""

from __future__ import annotations

import datetime
import hashlib
import struct
import sys
import types
import uuid
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from cachekit.content import frame

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
    types.ModuleType: _text("module", lambda value: str(value.__name__)),
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
