"""A real Triton with three models of ours: `python pytriton_app.py HTTP GRPC METRICS VERSION`, in its environment,
and in a directory of its own.

`double`: FP32 x, batched on the first axis, to y = 2x. `upper`: BYTES text to BYTES text. `pair`: INT64 a and FP64 b,
not batched, to their sum and product, FP64 both.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


@batch
def double(x: Any) -> dict[str, Any]:
    return {"y": x * 2}


@batch
def upper(text: Any) -> dict[str, Any]:
    return {"shouted": np.char.upper(text.astype(np.bytes_))}


def pair(requests: Any) -> list[dict[str, Any]]:
    return [{"sum": each["a"] + each["b"], "product": each["a"] * each["b"]} for each in requests]


def tensor(name: str, dtype: Any) -> Any:
    return Tensor(name=name, dtype=dtype, shape=(-1,))


def bind(triton: Any, version: int) -> None:
    triton.bind(
        "double", double, inputs=[tensor("x", np.float32)], outputs=[tensor("y", np.float32)],
        config=ModelConfig(max_batch_size=64), model_version=version,
    )  # fmt: skip
    triton.bind(
        "upper", upper, inputs=[tensor("text", np.bytes_)], outputs=[tensor("shouted", np.bytes_)],
        config=ModelConfig(max_batch_size=64), model_version=version,
    )  # fmt: skip
    triton.bind(
        "pair", pair, inputs=[tensor("a", np.int64), tensor("b", np.float64)],
        outputs=[tensor("sum", np.float64), tensor("product", np.float64)],
        config=ModelConfig(batching=False), model_version=version,
    )  # fmt: skip


def main(http: int, grpc: int, metrics: int, version: int) -> None:
    config = TritonConfig(
        http_address="127.0.0.1", http_port=http, grpc_address="127.0.0.1", grpc_port=grpc, metrics_port=metrics
    )
    # An orderly end takes five seconds; without it shared memory would stay behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Triton(config=config, workspace="triton") as triton:
        bind(triton, version)
        triton.serve()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
