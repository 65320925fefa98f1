"""OPEA's GenAI components over plain HTTP: chat and other text, embeddings, rerankings.

    client = wrap(httpx.Client(base_url="http://localhost:9000"), adapter=opea.CHAT)

What retrieves, writes or observes is not here: its answer depends on what an index holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from cachekit import Adapter
from cachekit_adapters._wire import items
from cachekit_adapters._wire.native import Native, Streaming, adapter
from cachekit_adapters._wire.operation import dumped
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


_STREAMING: Final = Streaming(
    streams=streams,
    judge=lambda data, _request: wire.judge_stream(data),
    usage=wire.usage_of_stream,
    about=wire.about_stream,
    assemble=lambda data, _path, _request: wire.assemble(data),
    synthesise=lambda body, _request: wire.synthesise(body),
)


def _native(name: str, ttl: float, *routes: str, streaming: Streaming | None = None, parts: Any = None) -> Native:
    return Native(
        name=name,
        ttl=ttl,
        routes={route: route for route in routes},
        judge=judge,
        usage=wire.usage,
        about=wire.about,
        sampled=wire.sampled,
        identity=identity,
        streaming=streaming,
        fitted=fitted,
        parts=parts,
    )


class _Parts:
    """How OpenAI-shaped embeddings are divided, and what of OPEA's is not."""

    split = staticmethod(wire.split)
    ask = staticmethod(items.ask)
    take = staticmethod(items.take)
    merge = staticmethod(items.merge)


_CHAT: Final = _native("opea.chat", 1800, "/v1/chat/completions", streaming=_STREAMING)
_TEXT: Final = _native(
    "opea.text", 3600, "/v1/completions", "/v1/docsum", "/v1/faqgen", "/v1/lvm", streaming=_STREAMING
)
_EMBEDDINGS: Final = _native("opea.embeddings", 86400, "/v1/embeddings", parts=_Parts)
_RERANKING: Final = _native("opea.reranking", 86400, "/v1/reranking")

CHAT: Final[Adapter] = adapter(_CHAT, HTTP)
TEXT: Final[Adapter] = adapter(_TEXT, HTTP)
EMBEDDINGS: Final[Adapter] = adapter(_EMBEDDINGS, HTTP)
RERANKING: Final[Adapter] = adapter(_RERANKING, HTTP)

OPERATIONS: Final = {native.name: native for native in (_CHAT, _TEXT, _EMBEDDINGS, _RERANKING)}
