"""Arrays as bytes and back: one in .npy format without pickle, tensors by name (numpy or torch) in safetensors format.

Neither vendor is imported to store a value: whoever has an array has imported it.
"""

from __future__ import annotations

import io
import json
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

from cachekit.errors import CannotEncode, IntegrityError
from cachekit.values.instances import cannot

_PLAIN_DTYPES: Final = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
)


def is_array(value: Any) -> bool:
    """Whether it is exactly a numpy.ndarray, of no subclass."""
    return (numpy := sys.modules.get("numpy")) is not None and type(value) is numpy.ndarray


def is_numpy(value: Any) -> bool:
    """Whether it is any array or scalar of numpy's."""
    return (numpy := sys.modules.get("numpy")) is not None and isinstance(value, numpy.generic | numpy.ndarray)


def dump_array(value: Any) -> bytes:
    """A numpy.ndarray in .npy format; CannotEncode for a dtype that the format does not bring back."""
    from numpy.lib import format as npy

    dtype = value.dtype
    if dtype.hasobject or dtype.metadata:
        raise cannot(value, f"with dtype {dtype} would not come back the same")
    back = npy.descr_to_dtype(npy.dtype_to_descr(dtype))
    if back != dtype or back.type is not dtype.type or back.isalignedstruct != dtype.isalignedstruct:
        raise cannot(value, f"with dtype {dtype} would not come back the same")
    buffer = io.BytesIO()
    npy.write_array(buffer, value, allow_pickle=False)
    return buffer.getvalue()


def dump_scalar(value: Any) -> bytes:
    """A numpy scalar of a plain number type, or an instant, in the format of an array without dimensions."""
    numpy = sys.modules["numpy"]
    if type(value) is not value.dtype.type or value.dtype.kind not in "biufcMm":
        raise cannot(value)
    return dump_array(numpy.asarray(value))


def load_array(payload: bytes) -> Any:
    """A fresh numpy.ndarray; IntegrityError for what is none."""
    try:
        from numpy.lib import format as npy

        buffer = io.BytesIO(payload)
        array = npy.read_array(buffer, allow_pickle=False, max_header_size=len(payload) + 1)
    except Exception as error:  # a header can be wrong in every way; numpy can be missing on this machine
        raise IntegrityError(f"an array cannot be rebuilt: {type(error).__name__}") from error
    if buffer.tell() != len(payload):
        raise IntegrityError("an array is followed by something else")
    return array


def dump_tensors(value: Any) -> tuple[str, bytes]:
    """dict[str, ndarray | torch.Tensor], one kind throughout. Order is kept in the metadata: safetensors sorts."""
    if type(value) is not dict or not all(type(name) is str for name in value) or "__metadata__" in value:
        raise cannot(value, "is not a dict of tensors by name (`__metadata__` is none)")
    name, save, tensors = _framework(value)
    try:
        metadata = {"order": json.dumps(list(value), ensure_ascii=False, separators=(",", ":"))}
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
    return name in _PLAIN_DTYPES and array.dtype.isnative and numpy.dtype(name).type is array.dtype.type


def load_tensors(payload: bytes) -> dict[str, Any]:
    from safetensors.numpy import load

    loaded = _ordered(payload, load)
    return {name: item if item.flags.writeable else item.copy() for name, item in loaded.items()}


def load_torch(payload: bytes) -> dict[str, Any]:
    from safetensors.torch import load

    return _ordered(payload, load)


def _ordered(payload: bytes, load: Callable[[bytes], dict[str, Any]]) -> dict[str, Any]:
    try:
        (length,) = struct.unpack_from("<Q", payload)
        order = json.loads(json.loads(payload[8 : 8 + length])["__metadata__"]["order"])
        tensors = load(payload)
        return {name: tensors[name] for name in order}
    except Exception as error:  # safetensors has its own exception, numpy others; a missing library is a miss too
        raise IntegrityError(f"tensors cannot be rebuilt: {type(error).__name__}") from error
