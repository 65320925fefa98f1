"""Value to payload and back. Nothing that is read can run code.

`load(*dump(value))` has the value's type and value, nested ones included, and shares nothing mutable with it; where
that cannot be had, `dump` raises CannotEncode. It is decided by the types, before storing, never by a second decode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from cachekit.arrays import dump_array, is_array, load_array
from cachekit.errors import CachekitError, CannotEncode, IntegrityError, UsageError
from cachekit.lossless import is_lossless
from cachekit.model import ARTIFACT
from cachekit.nameable import cannot, classes_in
from cachekit.tagged import Tagger
from cachekit.tensors import dump_tensors, load_tensors, load_torch

if TYPE_CHECKING:
    from cachekit.protocols import ArtifactCodec, Codec

Dumped = tuple[str, bytes]
# What orjson would write as something else goes to `default`, that is: is refused.
_STRICT: Final = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


class LoadingCodec(Protocol):
    """A Codec that also hands out the bare function that loads payloads of one name.

    The bare function raises whatever it likes for a corrupt payload (`loader("json")` is `orjson.loads`, which raises
    ValueError); `load` turns that into IntegrityError.
    """

    def dump(self, value: Any) -> tuple[str, bytes]: ...
    def load(self, name: str, payload: bytes) -> Any: ...
    def loader(self, name: str) -> Callable[[bytes], Any]: ...


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
        # Every hit comes through here: one lookup, and the bare function.
        load = self._loaders.get(name) or self.loader(name)
        try:
            return load(payload)
        except (ValueError, TypeError) as error:
            raise IntegrityError(f"the payload is not {name}: {error}") from error

    def loader(self, name: str) -> Callable[[bytes], Any]:
        try:
            return self._loaders[name]
        except KeyError:
            raise IntegrityError(f"the payload is in {name!r}, which this codec does not read") from None

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
    if not is_lossless(value):
        return None
    try:
        # Refuses depth, big integers, surrogates and keys that are no str: the walk need not.
        return orjson.dumps(value, None, _STRICT)
    except orjson.JSONEncodeError:
        return None


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
_LOADERS: Final[dict[str, Callable[[bytes], Any]]] = {
    "json": orjson.loads,
    "bytes": lambda payload: payload,
    "text": lambda payload: payload.decode("utf-8", "surrogatepass"),
    "ndarray": load_array,
    "safetensors": load_tensors,
    "safetensors-torch": load_torch,
}
