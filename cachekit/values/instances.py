"""Instances of classes as plain data and back, field by field: no `__init__`, no validator.

Enums, named tuples, dataclasses and pydantic models (1 and 2), of the classes that the function's return annotation
names and of no others: so no payload chooses what is built. What an instance holds beside its fields would be lost, so it
is refused; fields that changed since a value was stored make it a miss.
"""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Callable, Iterable
from types import MemberDescriptorType
from typing import Any

from cachekit.errors import CannotEncode, IntegrityError


def class_name(cls: type) -> str:
    """How a payload refers to a class: `module:qualified name`; a script's module has another name in a spawned worker."""
    return f"{cls.__module__}:{cls.__qualname__}".replace("__mp_main__:", "__main__:")


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
    try:
        hints: list[Any] = [annotation()]
    except Exception:  # evaluating somebody's annotation runs somebody's code
        return {}
    for hint in hints:
        inner = [*_inside(hint), *(_of_fields(hint) if isinstance(hint, type) else ())]
        hints += [new for new in inner if not any(new is other for other in hints)]
    classes = {hint: class_name(hint) for hint in hints if isinstance(hint, type)}
    names = list(classes.values())
    return {name: cls for cls, name in classes.items() if names.count(name) == 1}


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


def state_of(cls: Any, value: Any) -> tuple[str, Any]:
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


def build(cls: Any, kind: str, state: Any) -> Any:
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
