"""What a class is: its name, its bases, and its members, methods of own code among them.

Read of the class as it is now, so that one made at run time counts by its fields, and an assigned attribute counts too.
"""

from __future__ import annotations

import enum
import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any, Final

from cachekit.files.digests import frame
from cachekit.keys.code.own import is_own_class, is_own_function
from cachekit.keys.secrets import framed_name as named

_MADE: Final = ("__pydantic", "__dataclass", "_abc_")
"""What dataclasses, pydantic and abc write into a class: made of its fields and its source, which count themselves."""

_FIELD: Final = ("default", "default_factory", "init", "kw_only")
_DESCRIPTORS: Final = (
    *(types.MemberDescriptorType, types.GetSetDescriptorType, types.WrapperDescriptorType),
    *(types.MethodDescriptorType, types.BuiltinFunctionType, types.ClassMethodDescriptorType),
)


def foreign(function: types.FunctionType) -> bytes:
    """Which function of the standard library or an installed distribution it is."""
    return frame(b"foreign", str(function.__module__).encode(), function.__qualname__.encode())


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """What decides how the class and its instances behave, by name, in the order of names."""
    own = cls.__dict__
    if issubclass(cls, enum.Enum):
        yield "members", {name: member.value for name, member in cls.__members__.items()}
    yield "annotations", _annotations(cls)
    if isinstance(own.get("__pydantic_fields__"), dict):
        yield "fields", {name: _field_info(field) for name, field in own["__pydantic_fields__"].items()}
    if isinstance(own.get("__dataclass_fields__"), dict):
        fields = own["__dataclass_fields__"]
        yield "fields", {name: [getattr(field, one, None) for one in _FIELD] for name, field in fields.items()}
    for name in sorted(own):
        if counts(name, own[name], cls):
            yield name, own[name]


def counts(name: str, member: Any, cls: type) -> bool:
    """Whether a member is the class's own, and not made of something else that counts."""
    if name.startswith(_MADE):
        return False
    if isinstance(member, _DESCRIPTORS) or (issubclass(cls, enum.Enum) and _made_by_enum(name, member, cls)):
        return False
    function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
    if type(function) is types.FunctionType:
        # What dataclasses and namedtuple write themselves is compiled from text, or is the library's.
        return is_own_function(function) and not function.__code__.co_filename.startswith("<string>")
    # Python writes more of these into a class as it is used, pickle and copy among others.
    return not (name.startswith("__") and name.endswith("__"))


def _made_by_enum(name: str, member: Any, cls: type[enum.Enum]) -> bool:
    return isinstance(member, cls) or name in cls.__members__ or (name.startswith("_") and name.endswith("_"))


def _annotations(cls: type) -> dict[str, Any]:
    try:
        return inspect.get_annotations(cls)
    except NameError:  # Python 3.14 evaluates them now, and one names what is there for type checkers only
        return {}


def _field_info(field: Any) -> Any:
    """What was said of a pydantic field: as it was set, or as it prints itself."""
    said = getattr(field, "_attributes_set", None)
    return {name: value for name, value in said.items() if name != "annotation"} if said is not None else repr(field)


def parts_of(member: Any) -> tuple[Any, ...] | None:
    """The functions in a descriptor of the standard library; None for anything else."""
    if isinstance(member, (classmethod, staticmethod)):
        return (member.__func__,)
    if isinstance(member, property):
        return (member.fget, member.fset, member.fdel)
    if isinstance(member, functools.cached_property):
        return (member.func,)
    if isinstance(member, functools.partialmethod):
        return (member.func, member.args, member.keywords)
    return None


__all__ = ["foreign", "is_own_class", "members", "named", "parts_of"]
