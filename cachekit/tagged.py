"""Values that JSON alone would change, as JSON with tags: `{"$": [tag, content]}`.

User data is never mistaken for a tag, because a dict that has the key "$" is itself written under the tag "dict".
Only exact types are known; instances of classes only where the function's return annotation names them. They are
rebuilt field by field: no `__init__`, no validator, and no code chosen by the payload.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from cachekit.arrays import is_numpy
from cachekit.errors import CannotEncode, IntegrityError
from cachekit.instances import build, state_of
from cachekit.leaves import DUMPERS, LOADERS, TAG, dump_numpy, is_clean, tagged
from cachekit.nameable import cannot, class_name

DEPTH: Final = 60
"""Nesting that is still stored; each level may take four of orjson's 254."""

Classes = Callable[[], Mapping[str, type]]


class Tagger:
    """`classes` gives the classes that may be rebuilt, by `class_name`; it is asked only when an instance is met."""

    def __init__(self, classes: Classes) -> None:
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
        return orjson.dumps(self._pack(value, 0))

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
