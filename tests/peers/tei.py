"""A STAND-IN for Text Embeddings Inference, which no package index has: its published openapi.json (1.9), a real model.

The vectors are all-MiniLM-L6-v2's, computed by `docs/examples/embeddings.py`. `/predict` and `/rerank` are cosines of
those vectors, no real classifier's or reranker's. Each text is embedded alone, so a vector does not depend on the batch
it came in; in the real server its low bits may. Unlike the real server, one process answers every kind of request.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .scripted import Reply, Request, Scripted, scripted_server
from .servers import Missing
from .shapes import json_reply

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_LABELS = {"positive": "I love it, it is wonderful.", "negative": "I hate it, it is terrible."}
_KINDS = {"embedding": "/embed", "classifier": "/predict", "reranker": "/rerank"}
_BATCH, _TOKENS = 32, 256


class _Refused(Exception):
    """A request that the server does not carry out: status, text and error_type."""


@contextlib.contextmanager
def tei_server(*, kind: str = "embedding", model_sha: str | None = "1" * 40) -> Iterator[Scripted]:
    """`/embed`, `/predict`, `/rerank`, `/similarity`, `/v1/embeddings`, `/info`, `/health`, and `/` as `kind` says.

    `kind` is "embedding", "classifier" or "reranker". More than 32 texts are refused with 413, none with 400, and with
    413 one of more than 256 tokens without `truncate`. Raises servers.Missing without the model's weights.
    """
    root, encoder = _KINDS[kind], _encoder()
    with scripted_server(lambda request: _answer(request, encoder, root, _info(kind, model_sha))) as server:
        yield server


def _encoder() -> Any:
    examples = str(Path(__file__).parents[2] / "docs" / "examples")
    if examples not in sys.path:
        sys.path.append(examples)
    try:
        import embeddings  # pyright: ignore[reportMissingImports] - on the path since two lines

        return embeddings.load()
    except ImportError as error:
        raise Missing(f"{error}; the stand-in for TEI computes with the example's model") from error


def _info(kind: str, model_sha: str | None) -> dict[str, Any]:
    labels = list(_LABELS) if kind == "classifier" else ["LABEL_0"]
    classifier = {
        "id2label": {str(at): label for at, label in enumerate(labels)},
        "label2id": {label: at for at, label in enumerate(labels)},
    }
    return {
        "model_id": MODEL, "model_sha": model_sha, "model_dtype": "float32", "served_model_name": MODEL,
        "model_type": {kind: {"pooling": "mean"} if kind == "embedding" else classifier},
        "max_concurrent_requests": 512, "max_input_length": _TOKENS, "max_batch_tokens": 16384,
        "max_batch_requests": None, "max_client_batch_size": _BATCH, "auto_truncate": False,
        "tokenization_workers": 2, "version": "1.9.3", "sha": None, "docker_label": "sha-peer",
    }  # fmt: skip


def _answer(request: Request, encoder: Any, root: str, info: dict[str, Any]) -> Reply:
    path = request.path.partition("?")[0]
    if path in ("/health", "/info"):
        return Reply() if path == "/health" else json_reply(info)
    handler = _HANDLERS.get(root if path == "/" else path)
    if handler is None:
        return Reply(404)
    try:
        texts = _Texts(encoder, request.json())
        told = handler(texts, texts.body)
    except _Refused as refused:
        status, text, error_type = refused.args
        return json_reply({"error": text, "error_type": error_type}, status)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Reply(422, f"Failed to deserialize the JSON body: {error}".encode(), kind="text/plain; charset=utf-8")
    return json_reply(told, 200, texts.headers())


class _Texts:
    """The texts of one request, `embedded` and counted."""

    def __init__(self, encoder: Any, body: dict[str, Any]) -> None:
        self.encoder, self.body, self.tokens, self.characters = encoder, body, 0, 0

    def embedded(self, texts: Sequence[str], *, normalize: bool = True) -> Any:
        import numpy as np

        if not texts:
            raise _Refused(400, "`inputs` cannot be empty", "Empty")
        if len(texts) > _BATCH:
            raise _Refused(413, f"batch size {len(texts)} > maximum allowed batch size {_BATCH}", "Validation")
        for text in texts:
            self._count(text)
        rows = [self.encoder.encode([text])[0] if normalize else self._raw(text) for text in texts]
        return np.array(rows)

    def _count(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is no string")
        found = self.encoder.tokenizer.encode(text)
        # The tokenizer cuts at its limit; what it cut is in `overflowing`.
        if found.overflowing and not self.body.get("truncate"):
            raise _Refused(413, f"`inputs` must have less than {_TOKENS} tokens", "Validation")
        self.tokens += sum(found.attention_mask)
        self.characters += len(text)

    def _raw(self, text: str) -> Any:
        """The mean of the token vectors, before it is scaled to length 1."""
        import numpy as np

        encoding = self.encoder.tokenizer.encode(text)
        mask = np.array([encoding.attention_mask], np.float32)
        hidden = self.encoder._embedded(np.array([encoding.ids]))
        for layer in range(6):
            hidden = self.encoder._layer(f"encoder.layer.{layer}", hidden, mask)
        return hidden[0].mean(axis=0)

    def headers(self) -> dict[str, str]:
        times = ("compute", "total", "tokenization", "queue", "inference")
        return {
            "x-compute-type": "cpu", "x-compute-characters": str(self.characters),
            "x-compute-tokens": str(self.tokens), **{f"x-{name}-time": "1" for name in times},
        }  # fmt: skip


def _embed(texts: _Texts, body: dict[str, Any]) -> Any:
    given = body["inputs"]
    vectors = texts.embedded([given] if isinstance(given, str) else given, normalize=body.get("normalize", True))
    return [_listed(vector) for vector in _shortened(vectors, body.get("dimensions"))]


def _shortened(vectors: Any, dimensions: int | None) -> Any:
    import numpy as np

    if dimensions is None:
        return vectors
    cut = vectors[:, :dimensions]
    return cut / np.linalg.norm(cut, axis=1, keepdims=True)


def _listed(vector: Any) -> list[float]:
    # The shortest decimal that is this float32, as the real server writes it.
    return [float(str(value)) for value in vector]


def _openai(texts: _Texts, body: dict[str, Any]) -> Any:
    given = body["input"]
    vectors = _shortened(texts.embedded([given] if isinstance(given, str) else given), body.get("dimensions"))
    base64 = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": at, "embedding": _base64(vector) if base64 else _listed(vector)}
        for at, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": texts.tokens, "total_tokens": texts.tokens}
    return {"object": "list", "data": data, "model": MODEL, "usage": usage}


def _base64(vector: Any) -> str:
    import base64

    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _predict(texts: _Texts, body: dict[str, Any]) -> Any:
    given = body["inputs"]
    batched = isinstance(given, list) and not all(isinstance(each, str) for each in given)
    # A bare list of two strings is one pair, not two texts.
    items = given if batched else [given]
    joined = [each if isinstance(each, str) else " ".join(each) for each in items]
    vectors, labels = texts.embedded(joined), texts.encoder.encode(list(_LABELS.values()))
    # One product per text: of a matrix at once, the low bits would depend on the batch.
    told = [_predictions(labels @ vector * 10, bool(body.get("raw_scores"))) for vector in vectors]
    return told if batched else told[0]


def _predictions(scores: Any, raw: bool) -> list[dict[str, Any]]:
    powers = [math.exp(score) for score in scores]
    values = [float(score) if raw else power / sum(powers) for score, power in zip(scores, powers, strict=True)]
    found = sorted(zip(values, _LABELS, strict=True), reverse=True)
    return [{"score": value, "label": label} for value, label in found]


def _rerank(texts: _Texts, body: dict[str, Any]) -> Any:
    query, given = body["query"], body["texts"]
    asked = texts.encoder.encode([query])[0]
    scores = [float(vector @ asked) * 10 - 5 for vector in texts.embedded(given)]
    ranks = [_rank(at, score, given[at], body) for at, score in enumerate(scores)]
    return sorted(ranks, key=lambda rank: -rank["score"])


def _rank(at: int, score: float, text: str, body: dict[str, Any]) -> dict[str, Any]:
    rank = {"index": at, "score": score if body.get("raw_scores") else 1 / (1 + math.exp(-score))}
    return {**rank, "text": text} if body.get("return_text") else rank


def _similarity(texts: _Texts, body: dict[str, Any]) -> Any:
    source, sentences = body["inputs"]["source_sentence"], body["inputs"]["sentences"]
    vectors = texts.embedded([source, *sentences])
    return _listed(vectors[1:] @ vectors[0])


_HANDLERS = {
    "/embed": _embed,
    "/predict": _predict,
    "/rerank": _rerank,
    "/similarity": _similarity,
    "/v1/embeddings": _openai,
    "/embeddings": _openai,
}
