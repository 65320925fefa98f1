"""Texts for people who ask why a call hit or missed: short, without secrets, and without any foreign repr."""

from __future__ import annotations

import datetime
import enum
import hashlib
import itertools
import types
import uuid
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from cachekit.errors import CannotKey
from cachekit.files.digests import content_digest
from cachekit.keys.plain import LEAVES
from cachekit.keys.secrets import hidden, names_secret, without_secrets
from cachekit.keys.shapes import fields, revealer

_LONGEST: Final = 400
_LONGEST_TEXT: Final = 120
_NUMBERS: Final = (complex, Decimal, Fraction, uuid.UUID, datetime.date, datetime.timedelta)


def readable(value: Any) -> str:
    """At most 400 characters for people, 120 of a str: secrets as `<secret>`, unknown objects by type, a Path by its content."""
    text = _show(value, 4)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _show(value: Any, depth: int) -> str:
    kind = type(value)
    if kind is str:
        value = without_secrets(value[: 4 * _LONGEST_TEXT])
        return repr(value if len(value) <= _LONGEST_TEXT else value[: _LONGEST_TEXT - 1] + "…")
    if kind is int and value.bit_length() > 256:
        return f"int of {value.bit_length()} bits"
    if kind in LEAVES or kind in _NUMBERS:
        return repr(value) if kind in LEAVES else f"{kind.__name__}({value})"
    if kind in (datetime.datetime, datetime.time):
        return f"{kind.__name__}({value.isoformat()})"
    if kind in (bytes, bytearray, memoryview):
        return f"{kind.__name__} of {len(value)}"
    if revealer(value) is not None:
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
    parts = None if hasattr(kind, "__cachekit_key__") else fields(value)
    if parts is None:
        return f"<{kind.__qualname__}>"
    return f"{kind.__name__}({', '.join(_show_entries(parts[:30], depth, '='))})"


def _show_path(value: Path) -> str:
    try:
        return f"Path(sha256 {hashlib.sha256(content_digest(value, where='path')).hexdigest()[:12]})"
    except CannotKey:
        return "Path(unreadable)"


def _show_items(value: Any, depth: int) -> str:
    items = list(itertools.islice(value, 30))
    secret = hidden(items) if isinstance(value, (list, tuple)) else set[int]()
    texts = ["<secret>" if at in secret else _show(item, depth - 1) for at, item in enumerate(items)]
    if isinstance(value, (set, frozenset)):
        texts.sort()
    brackets = "[]" if isinstance(value, list) else "()" if isinstance(value, tuple) else "{}"
    return brackets[0] + ", ".join(texts) + brackets[1]


def _show_entries(items: list[tuple[Any, Any]], depth: int, between: str) -> list[str]:
    texts = []
    for name, item in items:
        label = name if between == "=" else _show(name, depth - 1)
        texts.append(f"{label}{between}{'<secret>' if names_secret(name) else _show(item, depth - 1)}")
    return texts
