"""What HfApi returns as JSON and back: the SDK's own types, field by field, without their `__init__`.

Only classes of huggingface_hub are rebuilt, and no code that a payload chose runs.
"""

from __future__ import annotations

import importlib
import json
from datetime import datetime
from typing import Any, Final

_TAG: Final = "$"
_LIBRARY: Final = "huggingface_hub"


class Unkept(Exception):
    """A value that would not come back the same."""


def dumped(value: Any) -> bytes:
    """JSON of a value. Raises Unkept for one that holds what is neither JSON's nor the SDK's."""
    return json.dumps(_plain(value), separators=(",", ":")).encode()


def loaded(content: bytes) -> Any:
    """The value again. Raises Unkept where this SDK has no such class, and ValueError for what is no JSON."""
    return _value(json.loads(content))


def _plain(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_plain(item) for item in value]
    if kind is datetime:
        return {_TAG: "datetime", "text": value.isoformat()}
    if kind is dict:
        return _mapping(value)
    if _ours(kind):
        items = _mapping(dict(value)) if isinstance(value, dict) else None
        return {_TAG: f"{kind.__module__}:{kind.__qualname__}", "items": items, "fields": _mapping(vars(value))}
    raise Unkept(f"{kind.__module__}.{kind.__qualname__}")


def _mapping(value: dict[Any, Any]) -> dict[str, Any]:
    if _TAG in value or not all(type(name) is str for name in value):
        raise Unkept("a dict whose names are not plain texts")
    return {name: _plain(item) for name, item in value.items()}


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_value(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if _TAG not in plain:
        return {name: _value(item) for name, item in plain.items()}
    if plain[_TAG] == "datetime":
        return datetime.fromisoformat(plain["text"])
    made = _made(_class(plain[_TAG]))
    if plain["items"] is not None:
        made.update(_value(plain["items"]))
    vars(made).update(_value(plain["fields"]))
    return made


def _made(kind: Any) -> Any:
    return dict.__new__(kind) if issubclass(kind, dict) else object.__new__(kind)


def _class(name: str) -> Any:
    module, _, qualified = name.partition(":")
    if module.partition(".")[0] != _LIBRARY or "." in qualified:
        raise Unkept(name)
    try:
        kind = getattr(importlib.import_module(module), qualified)
    except (ImportError, AttributeError):
        raise Unkept(name) from None
    if not isinstance(kind, type) or not _ours(kind):
        raise Unkept(name)
    return kind


def _ours(kind: type) -> bool:
    """Whether an instance is what its attributes and items say: a class of the SDK without state in built-in bases."""
    bases = [base for base in kind.__mro__ if base is not object and base.__module__.partition(".")[0] != _LIBRARY]
    return kind.__module__.partition(".")[0] == _LIBRARY and all(base is dict for base in bases)
