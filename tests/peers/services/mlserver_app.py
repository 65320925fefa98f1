"""A real MLServer with the models of `pytriton_app`: `python mlserver_app.py HTTP GRPC VERSION`, in its environment."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse


class Peer(MLModel):
    async def load(self) -> bool:
        return True

    def answer(self, *outputs: Any) -> InferenceResponse:
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=list(outputs))


class Double(Peer):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        return self.answer(NumpyCodec.encode_output("y", (x * 2).astype(np.float32)))


class Upper(Peer):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        text = StringCodec.decode_input(payload.inputs[0])
        return self.answer(StringCodec.encode_output("shouted", [each.upper() for each in text]))


class Pair(Peer):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        results = {"sum": given["a"] + given["b"], "product": given["a"] * given["b"]}
        return self.answer(*[NumpyCodec.encode_output(name, value) for name, value in results.items()])


async def main(http: int, grpc: int, version: str) -> None:
    settings = Settings(
        host="127.0.0.1", http_port=http, grpc_port=grpc, metrics_endpoint=None, parallel_workers=0, debug=False
    )
    models = {"double": Double, "upper": Upper, "pair": Pair}
    await MLServer(settings).start(
        [
            ModelSettings(name=name, implementation=kind, parameters=ModelParameters(version=version))
            for name, kind in models.items()
        ]
    )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
