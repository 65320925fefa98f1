"""KServe v2 (OVMS, Triton, MLServer) as tritonclient speaks it: what identifies an inference, and results as bytes.

A tensor is name, datatype, shape and little-endian bytes (BYTES: each element after its length, 4 bytes), whether it
travels as JSON or in the binary form; so both forms are one identity. Nothing is sampled and nothing streams.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cachekit_adapters._wire.exchange import mapping, parsed, refusing

# They say how a request is carried, not what it asks.
NEUTRAL = frozenset({"priority", "timeout"})
_CODES = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
    "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_REGION = "shared_memory_region"
# How the data travels; `data` says what it is.
_CARRIAGE = frozenset({"binary_data_size"})


def identity(
    model_name: str,
    version: str,
    inputs: Sequence[Any],
    outputs: Sequence[Any] | None,
    parameters: Mapping[str, object] | None,
) -> dict[str, object]:
    """What an `infer` call asks: plain values, a tensor's data as bytes.

    `inputs` and `outputs` are tritonclient's (`InferInput`, `InferRequestedOutput`). The request's id, priority,
    timeout and compression are not in it. Raises ValueError for an input in shared memory, which the call does not hold.
    """
    return {
        "model": model_name,
        "version": version,
        "inputs": [_tensor(each._get_tensor(), each._get_binary_data()) for each in inputs],
        "outputs": [_plain(each._get_tensor()) for each in outputs or ()],
        "parameters": {name: value for name, value in (parameters or {}).items() if name not in NEUTRAL},
    }


def cacheable(inputs: Iterable[Any], outputs: Iterable[Any] | None, sequence_id: int | str = 0) -> bool:
    """Whether a reply depends on the call alone, and is all in it: no sequence, whose state the server keeps and each
    call moves on, and no shared memory."""
    tensors = [each._get_tensor() for each in (*inputs, *(outputs or ()))]
    return sequence_id in (0, "") and not any(_REGION in tensor.get("parameters", ()) for tensor in tensors)


def judge(result: Any) -> str:
    """ "" where an `InferResult` may be stored, else error_in_200 or incomplete (an output without all of its data)."""
    response, buffer = result.get_response(), _buffer(result)
    if not isinstance(response, Mapping) or "error" in response:
        return "error_in_200" if isinstance(response, Mapping) else "incomplete"
    try:
        sizes = _binary_sizes(response.get("outputs"))
    except ValueError:
        return "incomplete"
    return "" if sizes and sum(size or 0 for size in sizes) == len(buffer) else "incomplete"


def encode(result: Any, request_id: str = "") -> tuple[bytes, int]:
    """An `InferResult` as a reply's body, and the length of its JSON header; `request_id` is left out of it."""
    response = result.get_response()
    if request_id and response.get("id") == request_id:
        response = {name: value for name, value in response.items() if name != "id"}
    header = json.dumps(response).encode()
    return header + _buffer(result), len(header)


@refusing
def rebuild(data: bytes, header_length: int, request_id: str = "") -> Any:
    """The `tritonclient.http.InferResult`, which the asyncio client returns too, of what `encode` gave.

    With `request_id`, the reply bears it, as a live one would. Raises ValueError where `data` is not a whole result.
    """
    from tritonclient.http import InferResult

    header, buffer = data[:header_length], data[header_length:]
    response = mapping(parsed(header))
    if len(header) != header_length:
        raise ValueError("not a stored result")
    if request_id:
        header = json.dumps({**response, "id": request_id}).encode()
    sizes = _binary_sizes(response.get("outputs"))
    if sum(size or 0 for size in sizes) != len(buffer):
        raise ValueError("a stored result without all of its data")
    binary = any(size is not None for size in sizes)
    return InferResult.from_response_body(header + buffer, header_length=len(header) if binary else None)


def about(result: Any) -> dict[str, str]:
    """`model` and `model_version` of an `InferResult`, where the server tells them."""
    response = result.get_response()
    named = {"model": response.get("model_name"), "model_version": response.get("model_version")}
    return {name: str(value) for name, value in named.items() if value not in (None, "")}


# -- inside ------------------------------------------------------------------------------------


def _buffer(result: Any) -> bytes:
    # A result of JSON alone has no such attribute.
    return bytes(getattr(result, "_buffer", b""))


def _binary_sizes(outputs: object) -> list[int | None]:
    """How many bytes of each output lie behind the header, None for one in it. Raises ValueError for what are none."""
    if not isinstance(outputs, list):
        raise ValueError("a result without outputs")
    return [_binary_size(mapping(output)) for output in outputs]


def _binary_size(tensor: Mapping[str, Any]) -> int | None:
    if "name" not in tensor:
        raise ValueError("an output without a name")
    size = mapping(tensor.get("parameters") or {}).get("binary_data_size")
    if type(size) is int and size >= 0:
        return size
    if "data" not in tensor:
        raise ValueError("an output without data")
    return None


def _tensor(tensor: Mapping[str, Any], raw: bytes | None) -> dict[str, object]:
    parameters = tensor.get("parameters") or {}
    if _REGION in parameters:
        raise ValueError(f"the input {tensor['name']!r} lies in shared memory: it cannot be cached")
    datatype = str(tensor["datatype"])
    return {
        "name": str(tensor["name"]),
        "datatype": datatype,
        "shape": [int(length) for length in tensor["shape"]],
        "data": _packed(datatype, tensor.get("data")) if raw is None else bytes(raw),
        "parameters": {name: value for name, value in parameters.items() if name not in _CARRIAGE},
    }


def _packed(datatype: str, data: object) -> object:
    """The bytes of a tensor given as JSON; what no server would take, as it is."""
    if data is None:
        return None
    flat = list(_flat(data))
    if datatype == "BYTES" and all(isinstance(each, str) for each in flat):
        encoded = [str(each).encode() for each in flat]
        return b"".join(struct.pack("<I", len(each)) + each for each in encoded)
    # struct takes True for 1, and 1 for True; a server tells them apart.
    fitting = datatype in _CODES and all(isinstance(each, bool) == (datatype == "BOOL") for each in flat)
    try:
        return struct.pack(f"<{len(flat)}{_CODES[datatype]}", *flat) if fitting else data
    except (struct.error, OverflowError):
        return data


def _flat(data: object) -> Iterable[Any]:
    """The elements, row by row: a server takes nested lists as well as a flat one."""
    if not isinstance(data, (list, tuple)):
        return (data,)
    if not any(isinstance(each, (list, tuple)) for each in data):
        return data
    return [each for row in data for each in _flat(row)]


def _plain(tensor: Mapping[str, Any]) -> dict[str, object]:
    # A copy: the caller may change the object after the call.
    return {**tensor, "parameters": dict(tensor.get("parameters") or {})}
