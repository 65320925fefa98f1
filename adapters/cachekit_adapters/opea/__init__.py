"""OPEA's GenAI components over plain HTTP: chat and other text, embeddings, rerankings.

    client = wrap(httpx.Client(base_url="http://localhost:9000"), adapter=opea.CHAT)

What retrieves, writes or observes is not here: its answer depends on what an index holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from cachekit import Adapter
from cachekit_adapters._wire import held, items, openai
from cachekit_adapters._wire.exchange import dumped
from cachekit_adapters._wire.openai.telling import chats, kept
from cachekit_adapters._wire.operation import Operation, adapter, bare, streaming
from cachekit_adapters.http import HTTP
from cachekit_adapters.opea import wire


def identity(path: str, request: Any) -> tuple[str, Any] | None:
    """The request without its documents' random ids and without what does not change the answer."""
    if not isinstance(request, Mapping) or not wire.cacheable(path, request):
        return None
    return path, wire.identity(path, request)


def streams(_path: str, request: Any) -> bool:
    """As `stream` says; a request in OPEA's own shape (`query`) streams unless it says otherwise."""
    return isinstance(request, Mapping) and bool(request.get("stream", "query" in request))


def judge(path: str, request: Any, body: Any, _headers: Mapping[str, str]) -> str:
    return wire.judge(path, request, body)


def fitted(content: bytes, _kept: str, path: str, request: Any) -> bytes:
    """A reranking with the ids of the documents that were asked about."""
    if not path.endswith("/v1/reranking"):
        return content
    body = json.loads(content)
    relabelled = wire.relabel(path, request, body)
    return content if relabelled is body else dumped(relabelled)


_STREAMING: Final = streaming(openai)._replace(streams=streams, judge=lambda data, _request: wire.judge_stream(data))
_CHATTING: Final = chats(streams=streams, judge=lambda data, _request: wire.judge_stream(data), kept=kept)


def _operation(name: str, ttl: float, *routes: str, **more: Any) -> Operation:
    return bare(
        openai,
        name=name,
        ttl=ttl,
        routes={route: route for route in routes},
        judge=judge,
        sampled=wire.sampled,
        identity=identity,
        fitted=fitted,
        **{"streaming": None, **more},
    )


_CHAT: Final = _operation("opea.chat", 1800, "/v1/chat/completions", streaming=_CHATTING, held=held.CHAT)
_TEXT: Final = _operation(
    "opea.text", 3600, "/v1/completions", "/v1/docsum", "/v1/faqgen", "/v1/lvm", streaming=_STREAMING
)
_EMBEDDINGS: Final = _operation("opea.embeddings", 86400, "/v1/embeddings", batches=items)
_RERANKING: Final = _operation("opea.reranking", 86400, "/v1/reranking")

CHAT: Final[Adapter] = adapter(_CHAT, HTTP)
TEXT: Final[Adapter] = adapter(_TEXT, HTTP)
EMBEDDINGS: Final[Adapter] = adapter(_EMBEDDINGS, HTTP)
RERANKING: Final[Adapter] = adapter(_RERANKING, HTTP)

OPERATIONS: Final = {operation.name: operation for operation in (_CHAT, _TEXT, _EMBEDDINGS, _RERANKING)}
