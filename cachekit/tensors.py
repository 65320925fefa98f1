"""Named tensors in safetensors format, of numpy or torch. The vendors are imported only by who has such tensors."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

from cachekit.errors import CannotEncode, IntegrityError
from cachekit.nameable import cannot

_PLAIN_DTYPES: Final = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
)


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
