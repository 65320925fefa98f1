"""What a class is: its name, its bases, and its members, methods of own code among them.

Read of the class as it is now, so that one made at run time counts by its fields, and an assigned attribute counts too.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any, Final

from cachekit.files.digests import frame
from cachekit.keys.code.names import Names, names_of
from cachekit.keys.code.own import is_own_class, is_own_function
from cachekit.keys.code.text import parse
from cachekit.keys.secrets import framed_name as named

_MADE: Final = ("__pydantic", "__dataclass", "_abc_")
"""What dataclasses, pydantic and abc write into a class: made of its fields and its source, which count themselves."""

_FIELD: Final = ("name", "default", "default_factory", "init", "repr", "hash", "compare", "kw_only", "metadata")
_DECORATED: Final = ("init", "repr", "eq", "order", "unsafe_hash", "frozen")
"""What is asked of a dataclass; newer Pythons ask more, which its members show."""

_SPECIAL: Final = ("__slots__", "__match_args__", "__total__", "__required_keys__", "__optional_keys__")
_WRITTEN: Final = frozenset(
    {
        *(
            "__module__",
            "__qualname__",
            "__doc__",
            "__dict__",
            "__weakref__",
            "__hash__",
            "__slotnames__",
            "__parameters__",
        ),
        *("__annotations__", "__orig_bases__", "__abstractmethods__", "__firstlineno__", "__static_attributes__"),
        *("__readonly_keys__", "__mutable_keys__", "__type_params__", "__annotations_cache__", "__classcell__"),
        *("__closed__", "__extra_items__", "__conditional_annotations__", "__signature__", "__orig_class__"),
    }
)
"""Attributes that Python, pickle and typing write themselves, some versions more than others."""
_DATA: Final = (str, int, float, bool, type(None), bytes, tuple, list, dict, frozenset)
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
        yield "members", [(name, member.value) for name, member in cls.__members__.items()]
    # Fields in their order: it is that of their arguments.
    yield "annotations", list(_annotations(cls).items())
    if isinstance(own.get("__pydantic_fields__"), dict):
        yield "fields", [(name, *_field_info(field)) for name, field in own["__pydantic_fields__"].items()]
        yield "described", cls.__doc__  # as the schema that a model is shown
    if isinstance(own.get("__dataclass_fields__"), dict):
        yield (
            "fields",
            [[getattr(field, one, None) for one in _FIELD] for field in own["__dataclass_fields__"].values()],
        )
        yield "decorated", [getattr(own.get("__dataclass_params__"), one, None) for one in _DECORATED]
    for name in sorted(own):
        if counts(name, own[name], cls):
            yield name, own[name]


def counts(name: str, member: Any, cls: type) -> bool:
    """Whether a member is the class's own, and not made of something else that counts."""
    if name.startswith(_MADE):
        return False
    if name in _SPECIAL:
        return True
    if (
        isinstance(member, _DESCRIPTORS)
        or type(member).__name__ == "_tuplegetter"
        or (issubclass(cls, enum.Enum) and _made_by_enum(name, member, cls))
    ):
        return False
    function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
    if type(function) is types.FunctionType:
        # What dataclasses and namedtuple write themselves is compiled from text, or is the library's.
        made = name.startswith("__") and function.__code__.co_filename.startswith("<string>")
        return is_own_function(function) and not made
    # Python writes more of these into a class as it is used, pickle and copy among others.
    return not (name.startswith("__") and name.endswith("__")) or (type(member) in _DATA and name not in _WRITTEN)


def _made_by_enum(name: str, member: Any, cls: type[enum.Enum]) -> bool:
    return isinstance(member, cls) or name in cls.__members__ or (name.startswith("_") and name.endswith("_"))


def _annotations(cls: type) -> dict[str, Any]:
    try:
        return inspect.get_annotations(cls)
    except NameError:  # Python 3.14 evaluates them now, and one names what is there for type checkers only
        return {}


def annotated(cls: type) -> Names:
    """What the annotations of a class name that are texts (`from __future__ import annotations`)."""
    texts = [text for text in _annotations(cls).values() if isinstance(text, str)]
    try:
        return names_of(parse(f"lambda: ({', '.join(texts)},)").body[0].value) if texts else Names()  # type: ignore[attr-defined]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Names()


def _field_info(field: Any) -> tuple[Any, ...]:
    """What was said of a pydantic field: as it was set, with its constraints, or as it prints itself."""
    said = getattr(field, "_attributes_set", None)
    if said is None:
        return (repr(field),)
    # pydantic has constraints in records, and some in objects of its own.
    rules = [
        rule if dataclasses.is_dataclass(rule) else (type(rule), getattr(rule, "__dict__", {}))
        for rule in field.metadata
    ]
    return {name: value for name, value in said.items() if name != "annotation"}, field.annotation, rules


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
