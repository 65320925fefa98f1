"""Value to payload and back. Nothing that is read can run code.

`load(*dump(value))` has the value's type and value, nested ones included, and shares nothing mutable with it; where
that cannot be had, `dump` raises CannotEncode. It is decided by the types, before storing, never by a second decode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import orjson

from cachekit.errors import UNREADABLE, CachekitError, CannotEncode, IntegrityError, UsageError
from cachekit.model import ARTIFACT
from cachekit.values.arrays import dump_array, dump_tensors, is_array, load_array, load_tensors, load_torch
from cachekit.values.instances import cannot, classes_in
from cachekit.values.tagged import Tagger, trimmed

if TYPE_CHECKING:
    from cachekit.model import ArtifactCodec, Codec

Dumped = tuple[str, bytes]
Loader = Callable[[bytes], Any]

# What orjson would write as something else goes to `default`, that is: is refused.
_STRICT: Final = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_LEAVES: Final = frozenset({str, int, bool, type(None)})
_FLOATS: Final = frozenset({float})
_LONG: Final = 16
_MANY: Final = 16_384


class LoadingCodec:
    """A Codec that also hands out the bare function that loads payloads of one name.

    `loaders` are these functions by name. They raise IntegrityError or of `UNREADABLE` for a corrupt payload (that of
    "json" is `orjson.loads`, which raises ValueError); `load` of a codec by name turns that into IntegrityError.
    """

    loaders: Mapping[str, Loader]

    def dump(self, value: Any) -> Dumped:
        raise NotImplementedError

    def load(self, name: str, payload: bytes) -> Any:
        return self.loader(name)(payload)

    def loader(self, name: str) -> Loader:
        try:
            return self.loaders[name]
        except KeyError:
            raise IntegrityError(f"the payload is in {name!r}, which this codec does not read") from None


def keeps_files(choice: str | Codec | ArtifactCodec) -> bool:
    """Whether what is stored by this codec is a file or a directory."""
    if isinstance(choice, str):
        return choice == ARTIFACT
    return callable(getattr(choice, "save", None)) and not callable(getattr(choice, "dump", None))


def check_codec(choice: Any) -> None:
    """Raises UsageError for what is no codec; it names what is."""
    if isinstance(choice, str):
        if choice != ARTIFACT:
            _check_name(choice)
        return
    made = not isinstance(choice, type) and callable(getattr(choice, "load", None))
    if not (made and any(callable(getattr(choice, name, None)) for name in ("dump", "save"))):
        raise UsageError(
            f"codec= takes a name ({', '.join(_DUMPERS)}), an object with dump and load (bytes), or one with save and "
            f"load (files), not {choice!r}"
        )


def codec_for(choice: str | Codec, annotation: Callable[[], object]) -> LoadingCodec:
    """The codec called `choice`, or `choice` itself made to keep the promises above.

    `annotation` gives what the function returns (awaited, for a coroutine function); it is called at most once, when
    an instance of a class is met, and may raise: then no class is known. Raises as `check_codec` does.
    """
    if isinstance(choice, str):
        _check_name(choice)
        return _Builtin(choice, annotation)
    check_codec(choice)
    return _Foreign(choice)


def _check_name(choice: str) -> None:
    if choice not in _DUMPERS:
        raise UsageError(f"there is no codec {choice!r}; there are {', '.join(_DUMPERS)}")


class _Builtin(LoadingCodec):
    """Dumps by one name, loads by all: an entry stays readable when the decorator's `codec=` changes."""

    def __init__(self, choice: str, annotation: Callable[[], object]) -> None:
        self._annotation = annotation
        self._classes: Mapping[str, type] | None = None
        self._tagger = Tagger(self._known_classes)
        self._dump = self._auto if choice == "auto" else _DUMPERS[choice]
        self.loaders = {**_LOADERS, "tagged": self._tagger.load}

    def dump(self, value: Any) -> Dumped:
        try:
            return self._dump(value)
        except RuntimeError as error:  # changed by another thread meanwhile, or nested beyond the stack
            raise CannotEncode(f"the value cannot be walked: {error}", reason="type") from error

    def load(self, name: str, payload: bytes) -> Any:
        # Every hit comes through here: one lookup, and the bare function.
        load = self.loaders.get(name) or self.loader(name)
        try:
            return load(payload)
        except UNREADABLE as error:
            raise IntegrityError(f"the payload is not {name}: {error}") from error

    def _auto(self, value: Any) -> Dumped:
        kind = type(value)
        if kind is str:
            return _text(value)
        if (payload := _json(value)) is not None:
            return "json", payload
        if kind is bytes:
            return "bytes", value
        if is_array(value):
            return "ndarray", dump_array(value)
        return "tagged", self._tagger.dump(value)

    def _known_classes(self) -> Mapping[str, type]:
        if self._classes is None:
            self._classes = classes_in(self._annotation)
        return self._classes


class _Foreign(LoadingCodec):
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

    def loader(self, name: str) -> Loader:
        return partial(self.load, name)


def _json(value: Any) -> bytes | None:
    """`value` as JSON, or None where JSON would change it."""
    # The walk first: orjson 3.13 has no depth limit for tuples and dies of a deep or cyclic one.
    if not _is_lossless(value):
        return None
    try:
        # Refuses depth, big integers, surrogates and keys that are no str: the walk need not.
        return trimmed(orjson.dumps(value, None, _STRICT))
    except orjson.JSONEncodeError:
        return None


def _is_lossless(value: Any) -> bool:
    """Whether the tree holds exact dict, list, str, int, bool, None and finite float only; it may hold itself.

    Told by the types, in one walk, which is most of what storing a value costs: hence the local names and the order of
    the questions.
    """
    if type(value) is not dict and type(value) is not list:
        return type(value) in _LEAVES or (type(value) is float and isfinite(value))
    nodes, leaves, finite = [value], _LEAVES, isfinite
    walked: set[int] | None = None
    for node in nodes:
        if len(nodes) > _MANY:  # or it holds itself: from here on each is walked once
            walked = walked or set()
            if id(node) in walked:
                continue
            walked.add(id(node))
        if type(node) is list and len(node) >= _LONG and _is_uniform(node):
            continue
        for item in node.values() if type(node) is dict else node:
            kind = type(item)
            if kind in leaves:
                continue
            if kind is dict or kind is list:
                nodes.append(item)
            elif kind is not float or not finite(item):
                return False
    return True


def _is_uniform(items: list[Any]) -> bool:
    """Whether a list needs no look at each item. Long ones are mostly of one kind: an embedding costs half."""
    kinds = set(map(type, items))
    # A sum is finite only where all items are; one that overflows says nothing.
    return kinds <= _LEAVES or (kinds == _FLOATS and (isfinite(sum(items)) or all(map(isfinite, items))))


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
    if not is_array(value):
        raise cannot(value, "is not numpy.ndarray")
    return "ndarray", dump_array(value)


_DUMPERS: Final[dict[str, Callable[[Any], Dumped]]] = {
    "auto": _dump_json,
    "json": _dump_json,
    "bytes": _dump_bytes,
    "text": _text,
    "ndarray": _dump_ndarray,
    "safetensors": dump_tensors,
}
_LOADERS: Final[dict[str, Loader]] = {
    "json": orjson.loads,
    "bytes": lambda payload: payload,
    "text": lambda payload: payload.decode("utf-8", "surrogatepass"),
    "ndarray": load_array,
    "safetensors": load_tensors,
    "safetensors-torch": load_torch,
}
