"""Which classes a codec may rebuild: those that the function's return annotation names, and no others.

So no payload chooses what is built; and a value of a class that is not named is refused with that remedy.
"""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Callable, Iterable
from typing import Any

from cachekit.errors import CannotEncode


def class_name(cls: type) -> str:
    """How a payload refers to a class: `module:qualified name`."""
    return f"{cls.__module__}:{cls.__qualname__}"


def cannot(value: object, why: str = "is of a type that would not come back the same") -> CannotEncode:
    """The refusal to store a value: it shows the type and the remedies, never the value."""
    kind = type(value)
    return CannotEncode(
        f"a value of {kind.__module__}.{kind.__qualname__} {why}: name its class in the return annotation, "
        "pass codec=, or leave it out with cacheable=",
        reason="type",
    )


def classes_in(annotation: Callable[[], object]) -> dict[str, type]:
    """The classes an annotation names, directly or in the fields of those it names, by `class_name`.

    Two classes of one name (made by a function called twice) cannot be told apart: neither is known.
    """
    found: dict[type, None] = {}
    try:
        todo: list[Any] = [annotation()]
    except Exception:  # evaluating somebody's annotation runs somebody's code
        return {}
    seen: list[Any] = []
    while todo:
        hint = todo.pop()
        if any(hint is other for other in seen):
            continue
        seen.append(hint)
        todo += _inside(hint)
        if isinstance(hint, type):
            found[hint] = None
            todo += _of_fields(hint)
    names = [class_name(cls) for cls in found]
    return {class_name(cls): cls for cls in found if names.count(class_name(cls)) == 1}


def _inside(hint: Any) -> Iterable[Any]:
    if isinstance(hint, list | tuple):
        return hint
    if isinstance(hint, enum.Enum):
        return [type(hint)]
    parts = [typing.get_origin(hint), *typing.get_args(hint)]
    parts += [getattr(hint, name, None) for name in ("__supertype__", "__bound__", "__constraints__", "__value__")]
    return [part for part in parts if part is not None and not isinstance(part, str | bytes | int)]


def _of_fields(cls: Any) -> list[Any]:
    try:
        if hasattr(cls, "__pydantic_fields_set__"):
            return [field.annotation for field in cls.model_fields.values()]
        if hasattr(cls, "__fields_set__"):
            return [field.outer_type_ for field in cls.__fields__.values()]
        if dataclasses.is_dataclass(cls) or hasattr(cls, "_fields") or hasattr(cls, "__total__"):
            return list(typing.get_type_hints(cls).values())
    except Exception:  # evaluating somebody's annotation runs somebody's code
        return []
    return []
