"""What an object is, told by its shape rather than by its class: a record with fields, or a secret in a wrapper.

The libraries that define such classes are neither imported nor needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

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
