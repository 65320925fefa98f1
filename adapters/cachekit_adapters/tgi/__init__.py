"""Text Generation Inference, native: `/generate`, `/generate_stream` and the base URL, three ways to one answer.

    client = wrap(httpx.Client(base_url="http://localhost:8080"), adapter=tgi.GENERATE)

Its chat routes are OpenAI's: wrap that SDK, or the Hugging Face client.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from cachekit import Adapter
from cachekit_adapters._wire.exchange import dumped
from cachekit_adapters._wire.operation import Operation, Streaming, adapter
from cachekit_adapters._wire.versions import ServerInfo
from cachekit_adapters.http import HTTP
from cachekit_adapters.tgi import wire

_ONLY_WHOLE: Final = ("best_of", "decoder_input_details")
"""Parameters that the server refuses for a stream: with them the routes are no longer alike."""


def identity(path: str, request: Any) -> tuple[str, Any] | None:
    """One place for all routes; `stream` only says how the answer is told."""
    if not isinstance(request, Mapping):
        return None
    parameters = request.get("parameters")
    whole_only = isinstance(parameters, Mapping) and any(parameters.get(name) for name in _ONLY_WHOLE)
    alike = not (whole_only and wire.streams(path, request))
    body = {name: value for name, value in request.items() if name != "stream"}
    return "/generate" if alike else "/generate_stream", body


def kept(request: Any) -> Any:
    """What judging a stream needs of its request, and nothing of what was asked."""
    parameters = request.get("parameters") if isinstance(request, Mapping) else None
    limit = parameters.get("max_new_tokens") if isinstance(parameters, Mapping) else None
    return {"parameters": {"max_new_tokens": limit}}


def fitted(content: bytes, kept_of: str, path: str, _request: Any) -> bytes:
    """The base URL gives a list of one, the other routes what is in it."""
    if (kept_of == "/") == (path == "/"):
        return content
    body = json.loads(content)
    return dumped([body] if path == "/" else body[0])


SERVER: Final = ServerInfo(wire.INFO, wire.version, wire.about_server)
STREAMING: Final = Streaming(
    streams=wire.streams,
    judge=wire.judge_stream,
    usage=wire.usage_of_stream,
    about=wire.about_stream,
    assemble=wire.assemble,
    synthesise=wire.synthesise,
    kept=kept,
)
OPERATION: Final = Operation(
    name="tgi.generate",
    ttl=3600,
    routes={"/generate_stream": "/generate_stream", "/generate": "/generate", "": "/"},
    judge=wire.judge,
    usage=wire.usage,
    about=wire.about,
    sampled=wire.sampled,
    identity=identity,
    streaming=STREAMING,
    fitted=fitted,
    server=SERVER,
)
GENERATE: Final[Adapter] = adapter(OPERATION, HTTP)

OPERATIONS: Final = {OPERATION.name: OPERATION}
