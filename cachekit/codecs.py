"""Value to payload and back. Nothing that is read can run code.

`load(*dump(value))` has the value's type and value, nested ones included, and shares nothing mutable with it; where
that cannot be had, `dump` raises CannotEncode. It is decided by the types, before storing, never by a second decode.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import isfinite
from typing import Any, Final, Protocol

import orjson

from cachekit.errors import CachekitError, CannotEncode, IntegrityError, UsageError
from cachekit.tagged import Tagger, cannot, class_name, dump_array, load_array

if typing.TYPE_CHECKING:
    from cachekit.protocols import Codec

Dumped = tuple[str, bytes]
_LEAVES: Final = frozenset({str, int, bool, type(None)})
_FLOATS: Final = frozenset({float})
_JSON: Final = _LEAVES | {float, dict, list}
_LONG: Final = 16
# What orjson would write as something else goes to `default`, that is: is refused.
_STRICT: Final = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_SAFE_DTYPES: Final = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
)


class LoadingCodec(Protocol):
    """A Codec that also hands out the bare function that loads payloads of one name.

    The bare function raises whatever it likes for a corrupt payload (`loader("json")` is `orjson.loads`, which raises
    ValueError); `load` turns that into IntegrityError.
    """

    def dump(self, value: Any) -> tuple[str, bytes]: ...
    def load(self, name: str, payload: bytes) -> Any: ...
    def loader(self, name: str) -> Callable[[bytes], Any]: ...


def codec_for(choice: str | Codec, annotation: Callable[[], object]) -> LoadingCodec:
    """The codec called `choice`, or `choice` itself made to keep the promises above.

    `annotation` gives what the function returns (awaited, for a coroutine function); it is called at most once, when
    an instance of a class is met, and may raise: then no class is known. UsageError names the accepted names.
    """
    if not isinstance(choice, str):
        if callable(getattr(choice, "dump", None)) and callable(getattr(choice, "load", None)):
            return _Foreign(choice)
        raise UsageError(f"codec= takes a name ({', '.join(_DUMPERS)}) or an object with dump and load, not {choice!r}")
    if choice not in _DUMPERS:
        raise UsageError(f"there is no codec {choice!r}; there are {', '.join(_DUMPERS)}")
    return _Builtin(choice, annotation)


class _Builtin:
    """Dumps by one name, loads by all: an entry stays readable when the decorator's `codec=` changes."""

    def __init__(self, choice: str, annotation: Callable[[], object]) -> None:
        self._annotation = annotation
        self._classes: Mapping[str, type] | None = None
        self._tagger = Tagger(self._known_classes)
        self._dump = self._auto if choice == "auto" else _DUMPERS[choice]
        self._loaders: dict[str, Callable[[bytes], Any]] = {**_LOADERS, "tagged": self._tagger.load}

    def dump(self, value: Any) -> Dumped:
        try:
            return self._dump(value)
        except RuntimeError as error:  # changed by another thread meanwhile, or nested beyond the stack
            raise CannotEncode(f"the value cannot be walked: {error}", reason="type") from error

    def load(self, name: str, payload: bytes) -> Any:
        try:
            return self.loader(name)(payload)
        except (ValueError, TypeError) as error:
            raise IntegrityError(f"the payload is not {name}: {error}") from error

    def loader(self, name: str) -> Callable[[bytes], Any]:
        try:
            return self._loaders[name]
        except KeyError:
            raise IntegrityError(f"the payload is in {name!r}, which this codec does not read") from None

    def _auto(self, value: Any) -> Dumped:
        kind = type(value)
        if kind is bytes:
            return "bytes", value
        if kind is str:
            return _text(value)
        if kind in _JSON and (payload := _json(value)) is not None:
            return "json", payload
        if (numpy := sys.modules.get("numpy")) is not None and kind is numpy.ndarray:
            return "ndarray", dump_array(value)
        return "tagged", self._tagger.dump(value)

    def _known_classes(self) -> Mapping[str, type]:
        if self._classes is None:
            self._classes = classes_in(self._annotation)
        return self._classes


class _Foreign:
    """Somebody else's codec: what goes wrong in it is a value not stored, or a miss, never the caller's trouble."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def dump(self, value: Any) -> Dumped:
        try:
            name, payload = self._codec.dump(value)
        except CannotEncode:
            raise
        except Exception as error:  # a foreign codec may raise anything
            raise CannotEncode(f"{self._codec!r} could not dump: {error}", reason="codec") from error
        if type(name) is not str or type(payload) is not bytes:
            raise CannotEncode(f"{self._codec!r} must dump (str, bytes)", reason="codec")
        return name, payload

    def load(self, name: str, payload: bytes) -> Any:
        try:
            return self._codec.load(name, payload)
        except CachekitError:
            raise
        except Exception as error:  # a foreign codec may raise anything
            raise IntegrityError(f"{self._codec!r} could not load {name!r}: {error}") from error

    def loader(self, name: str) -> Callable[[bytes], Any]:
        return partial(self.load, name)


def _json(value: Any) -> bytes | None:
    """`value` as JSON, or None where JSON would change it."""
    # The walk first: orjson 3.13 has no depth limit for tuples and dies of a deep or cyclic one.
    if not _is_json(value):
        return None
    try:
        # Refuses depth, big integers, surrogates and keys that are no str: the walk need not.
        return orjson.dumps(value, option=_STRICT)
    except orjson.JSONEncodeError:
        return None


def _is_json(value: Any) -> bool:
    todo: list[Any] = [value]
    seen: set[int] = set()
    for node in todo:
        kind = type(node)
        if kind is dict or kind is list:
            if id(node) in seen:
                continue
            seen.add(id(node))
        if kind is dict:
            todo += node.values()
        elif kind is list:
            # Long lists are mostly of one kind, and then need no look at each item: an embedding costs a third.
            if len(node) < _LONG or not _is_uniform(node):
                todo += node
        elif kind not in _LEAVES and not (kind is float and isfinite(node)):
            return False
    return True


def _is_uniform(items: list[Any]) -> bool:
    kinds = set(map(type, items))
    return kinds <= _LEAVES or (kinds == _FLOATS and all(map(isfinite, items)))


def _dump_json(value: Any) -> Dumped:
    if (payload := _json(value)) is None:
        raise cannot(value, "holds what JSON would change")
    return "json", payload


def _dump_bytes(value: Any) -> Dumped:
    if type(value) is not bytes:
        raise cannot(value, "is not bytes")
    return "bytes", value


def _text(value: Any) -> Dumped:
    if type(value) is not str:
        raise cannot(value, "is not str")
    return "text", value.encode("utf-8", "surrogatepass")


def _dump_ndarray(value: Any) -> Dumped:
    if (numpy := sys.modules.get("numpy")) is None or type(value) is not numpy.ndarray:
        raise cannot(value, "is not numpy.ndarray")
    return "ndarray", dump_array(value)


def _dump_safetensors(value: Any) -> Dumped:
    """dict[str, ndarray | torch.Tensor], one kind throughout. Order is kept in the metadata: safetensors sorts."""
    if type(value) is not dict or not all(type(name) is str for name in value) or "__metadata__" in value:
        raise cannot(value, "is not a dict of tensors by name (`__metadata__` is none)")
    name, save, tensors = _framework(value)
    try:
        metadata = {"order": orjson.dumps(list(value)).decode()}
        return name, save(tensors, metadata=metadata)
    except Exception as error:  # safetensors has no base class for what it refuses (shared memory, reserved names)
        raise CannotEncode(f"safetensors refuses the value: {error}; use another codec=", reason="type") from error


def _framework(value: dict[str, Any]) -> tuple[str, Callable[..., bytes], dict[str, Any]]:
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if torch is not None and value and all(type(item) is torch.Tensor for item in value.values()):
        if any(t.requires_grad or t.device.type != "cpu" or t.layout != torch.strided for t in value.values()):
            raise cannot(value, "has a tensor that is not dense, detached and on the CPU")
        from safetensors.torch import save as save_torch

        return "safetensors-torch", save_torch, {name: item.contiguous() for name, item in value.items()}
    if numpy is None or not all(type(item) is numpy.ndarray and _is_safe(item, numpy) for item in value.values()):
        raise cannot(value, "has an item that is no array of a plain number type")
    from safetensors.numpy import save

    # asarray, not ascontiguousarray, which would turn a scalar into a vector.
    return "safetensors", save, {name: numpy.asarray(item, order="C") for name, item in value.items()}


def _is_safe(array: Any, numpy: Any) -> bool:
    name = array.dtype.name
    return name in _SAFE_DTYPES and array.dtype.isnative and numpy.dtype(name).type is array.dtype.type


def _load_safetensors(payload: bytes) -> dict[str, Any]:
    from safetensors.numpy import load

    loaded = _ordered(payload, load)
    return {name: item if item.flags.writeable else item.copy() for name, item in loaded.items()}


def _load_torch(payload: bytes) -> dict[str, Any]:
    from safetensors.torch import load

    return _ordered(payload, load)


def _ordered(payload: bytes, load: Callable[[bytes], dict[str, Any]]) -> dict[str, Any]:
    try:
        (length,) = struct.unpack_from("<Q", payload)
        order = orjson.loads(orjson.loads(payload[8 : 8 + length])["__metadata__"]["order"])
        tensors = load(payload)
        return {name: tensors[name] for name in order}
    except Exception as error:  # safetensors has its own exception, numpy others; a missing library is a miss too
        raise IntegrityError(f"tensors cannot be rebuilt: {type(error).__name__}") from error


_DUMPERS: Final[dict[str, Callable[[Any], Dumped]]] = {
    "auto": _dump_json,
    "json": _dump_json,
    "bytes": _dump_bytes,
    "text": _text,
    "ndarray": _dump_ndarray,
    "safetensors": _dump_safetensors,
}
_LOADERS: Final[dict[str, Callable[[bytes], Any]]] = {
    "json": orjson.loads,
    "bytes": lambda payload: payload,
    "text": lambda payload: payload.decode("utf-8", "surrogatepass"),
    "ndarray": load_array,
    "safetensors": _load_safetensors,
    "safetensors-torch": _load_torch,
}


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
            todo += _fields(hint)
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


def _fields(cls: Any) -> list[Any]:
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
