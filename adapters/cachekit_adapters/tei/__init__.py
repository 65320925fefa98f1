"""Text Embeddings Inference, native: texts are kept one by one, and only those that are new are sent.

client = wrap(httpx.Client(base_url="http://localhost:8080"), adapter=tei.EMBED)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cachekit import Adapter
from cachekit_adapters._wire.operation import Operation, adapter
from cachekit_adapters._wire.versions import ServerInfo
from cachekit_adapters.http import HTTP
from cachekit_adapters.tei import wire

_DAY: Final = 86400
SERVER: Final = ServerInfo(wire.INFO, wire.version, wire.about_server)


def identity(path: str, request: Any) -> tuple[str, Any] | None:
    """The request without what does not change its answer."""
    if not isinstance(request, Mapping):
        return None
    neutral = wire.NEUTRAL if path.endswith("/embeddings") else frozenset[str]()
    return path, {name: value for name, value in request.items() if name not in neutral}


def judge(path: str, request: Any, body: Any, _headers: Mapping[str, str]) -> str:
    return wire.judge(path, request, body)


def _operation(name: str, routes: Mapping[str, str]) -> Operation:
    return Operation(
        name=name,
        ttl=_DAY,
        routes=routes,
        judge=judge,
        usage=wire.usage,
        about=wire.about,
        sampled=wire.sampled,
        identity=identity,
        batches=wire,
        server=SERVER,
    )


_EMBED: Final = _operation(
    "tei.embed",
    {
        "/embed": "/embed",
        "/embed_all": "/embed_all",
        "/embed_sparse": "/embed_sparse",
        "/v1/embeddings": "/v1/embeddings",
        "/embeddings": "/v1/embeddings",
        "": "/embed",
    },
)
_PREDICT: Final = _operation("tei.predict", {"/predict": "/predict", "": "/predict"})
_RERANK: Final = _operation("tei.rerank", {"/rerank": "/rerank", "": "/rerank"})
_SIMILARITY: Final = _operation("tei.similarity", {"/similarity": "/similarity", "": "/similarity"})

EMBED: Final[Adapter] = adapter(_EMBED, HTTP)
PREDICT: Final[Adapter] = adapter(_PREDICT, HTTP)
RERANK: Final[Adapter] = adapter(_RERANK, HTTP)
SIMILARITY: Final[Adapter] = adapter(_SIMILARITY, HTTP)

OPERATIONS: Final = {operation.name: operation for operation in (_EMBED, _PREDICT, _RERANK, _SIMILARITY)}
