"""Values that JSON alone would change, as JSON with tags, `{"$": [tag, content]}`, and back.

Text, integers and floats get a tag only where JSON could not carry them. User data is never mistaken for a tag, because a
dict that has the key "$" is itself written under the tag "dict". Only exact types are known; instances of classes only
where the function's return annotation names them. They are rebuilt field by field: no `__init__`, no validator, and no
code chosen by the payload.
"""

from __future__ import annotations

import math
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

import orjson

from cachekit.errors import CannotEncode, IntegrityError
from cachekit.values.arrays import dump_array, dump_scalar, is_array, is_numpy, load_array
from cachekit.values.instances import build, cannot, class_name, state_of

TAG: Final = "$"
DEPTH: Final = 60
"""Nesting that is still stored; each level may take four of orjson's 254."""
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1


def tagged(name: str, content: Any) -> dict[str, Any]:
    return {TAG: [name, content]}


def is_clean(text: str) -> bool:
    """Whether UTF-8, and so JSON, can carry the text: it has no lone surrogates."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _dump_text(text: str) -> Any:
    return text if is_clean(text) else tagged("str", b64encode(text.encode("utf-8", "surrogatepass")).decode())


def _load_text(content: str) -> str:
    return b64decode(content).decode("utf-8", "surrogatepass")


def dump_numpy(value: Any) -> Any:
    """Any array or scalar of numpy's; CannotEncode for one that would not come back the same."""
    if is_array(value):
        return tagged("ndarray", b64encode(dump_array(value)).decode())
    return tagged("scalar", b64encode(dump_scalar(value)).decode())


def _clock(value: datetime | time) -> list[Any]:
    return [value.hour, value.minute, value.second, value.microsecond, value.fold, _dump_zone(value.tzinfo)]


def _load_datetime(content: Any) -> datetime:
    return datetime(*content[:7]).replace(tzinfo=_load_zone(content[8]), fold=content[7])


def _load_time(content: Any) -> time:
    return time(*content[:4]).replace(tzinfo=_load_zone(content[5]), fold=content[4])


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


DUMPERS: Final[dict[type, Callable[[Any], Any]]] = {
    int: lambda v: v if _INT_MIN <= v <= _INT_MAX else tagged("int", format(v, "x")),
    float: lambda v: v if math.isfinite(v) else tagged("float", struct.pack(">d", v).hex()),
    complex: lambda v: tagged("complex", struct.pack(">dd", v.real, v.imag).hex()),
    str: _dump_text,
    bytes: lambda v: tagged("bytes", b64encode(v).decode()),
    bytearray: lambda v: tagged("bytearray", b64encode(v).decode()),
    Decimal: lambda v: tagged("decimal", str(v)),
    UUID: lambda v: tagged("uuid", [v.hex, v.is_safe.value]),
    date: lambda v: tagged("date", [v.year, v.month, v.day]),
    timedelta: lambda v: tagged("timedelta", [v.days, v.seconds, v.microseconds]),
    datetime: lambda v: tagged("datetime", [v.year, v.month, v.day, *_clock(v)]),
    time: lambda v: tagged("time", _clock(v)),
}
"""By exact type: what stands for a value of it in JSON."""

LOADERS: Final[dict[str, Callable[[Any], Any]]] = {
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
"""By tag: the value its content stands for. They raise whatever they like for content that no dumper wrote."""


def trimmed(dumped: bytes) -> bytes:
    """A copy that takes what its length says: what orjson returns keeps the kilobytes that it was written into."""
    return b"".join((dumped, b""))  # bytes(dumped) would be the same object


class Tagger:
    """`classes` gives the classes that may be rebuilt, by `class_name`; it is asked only when an instance is met."""

    def __init__(self, classes: Callable[[], Mapping[str, type]]) -> None:
        self._classes = classes
        self._dumpers: dict[type, Callable[[Any, int], Any]] = {
            list: self._items,
            tuple: lambda v, depth: tagged("tuple", self._items(v, depth)),
            set: lambda v, depth: tagged("set", self._items(v, depth)),
            frozenset: lambda v, depth: tagged("frozenset", self._items(v, depth)),
            dict: self._dump_dict,
        }
        self._loaders: dict[str, Callable[[Any], Any]] = {
            **LOADERS,
            "tuple": lambda c: tuple(map(self._unpack, c)),
            "set": lambda c: set(map(self._unpack, c)),
            "frozenset": lambda c: frozenset(map(self._unpack, c)),
            "dict": lambda c: {self._unpack(k): self._unpack(v) for k, v in c},
            "object": self._load_object,
        }

    def dump(self, value: Any) -> bytes:
        """Raises CannotEncode for what would not come back the same."""
        return trimmed(orjson.dumps(self._pack(value, 0)))

    def load(self, payload: bytes) -> Any:
        """Raises IntegrityError for what no `dump` wrote, or not of the classes as they are now."""
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
        kind = type(value)
        if (leaf := DUMPERS.get(kind)) is not None:
            return leaf(value)
        if (dumper := self._dumpers.get(kind)) is not None:
            return dumper(value, depth + 1)
        return dump_numpy(value) if is_numpy(value) else self._dump_object(value, depth + 1)

    def _items(self, values: Any, depth: int) -> list[Any]:
        return [self._pack(item, depth) for item in values]

    def _dump_dict(self, value: dict[Any, Any], depth: int) -> Any:
        if TAG not in value and all(type(key) is str and is_clean(key) for key in value):
            return {key: self._pack(item, depth) for key, item in value.items()}
        return tagged("dict", [[self._pack(key, depth), self._pack(item, depth)] for key, item in value.items()])

    def _dump_object(self, value: Any, depth: int) -> Any:
        cls = type(value)
        name = class_name(cls)
        if self._classes().get(name) is not cls:
            raise cannot(value)
        kind, state = state_of(cls, value)
        return tagged("object", [name, kind, self._pack(state, depth)])

    def _load_object(self, content: Any) -> Any:
        name, kind, state = content
        cls = self._classes().get(name)
        if cls is None:
            raise IntegrityError(f"the return annotation no longer names {name}")
        return build(cls, kind, self._unpack(state))

    def _unpack(self, node: Any) -> Any:
        if type(node) is list:
            return [self._unpack(item) for item in node]
        if type(node) is not dict:
            return node
        if TAG in node:
            name, content = node[TAG]
            return self._loaders[name](content)
        return {key: self._unpack(item) for key, item in node.items()}
