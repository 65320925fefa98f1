"""numpy arrays and scalars as bytes and back, in .npy format without pickle.

numpy is never imported to store a value: whoever has an array has imported it.
"""

from __future__ import annotations

import io
import sys
from typing import Any

from cachekit.errors import IntegrityError
from cachekit.nameable import cannot


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
