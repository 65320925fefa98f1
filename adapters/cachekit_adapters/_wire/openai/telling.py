"""Whether a stored chat is told as it was asked for: with its usage where somebody wants it, without its chunk elsewhere.

A plain answer has its usage; a stream has one only on request (`include_usage`), in a chunk without choices, over which
those stumble who did not ask for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cachekit_adapters._wire import openai
from cachekit_adapters._wire.exchange import readable
from cachekit_adapters._wire.operation import Streaming, Unfit, streaming
from cachekit_adapters._wire.sse import blocks, data_of, json_events

ASKED: Final = b": include_usage\n\n"
"""A comment before a stream whose caller asked for usage; no reader of events sees it."""


def chats(**more: Any) -> Streaming:
    """How chats stream, with `more` fields of Streaming."""
    fields: dict[str, Any] = {"assemble": lambda data, _path, _request: assembled(data), "fitted": fitted, **more}
    return streaming(openai, _synthesised)._replace(**fields)


def _synthesised(body: Any, request: Any) -> list[bytes]:
    """A plain answer as a stream; with usage only where the request asks for it, as a server would."""
    return openai.synthesise(body, include_usage=wants_usage(request))


def kept(request: Any) -> Any:
    """What the head of a stream says of the question."""
    return {"stream_options": {"include_usage": True}} if wants_usage(request) else None


def wants_usage(request: Any) -> bool:
    """Whether a request for a stream asks for a chunk of usage."""
    options = request.get("stream_options") if isinstance(request, Mapping) else None
    return isinstance(options, Mapping) and bool(options.get("include_usage"))


def fitted(content: bytes, kept: Any, request: Any) -> bytes:
    """The events for `request` (None: not known). `kept` is what the head knows of the one that was recorded.

    Raises Unfit where usage is wanted that the server was not asked for.
    """
    asked = content.startswith(ASKED) or wants_usage(kept)
    if request is None or asked == wants_usage(request):
        return content
    if asked:
        return _without_usage(content)
    if not _has_usage(content):
        raise Unfit
    return content


def assembled(data: bytes) -> Any:
    """The plain answer that a stream amounts to. Raises Unfit where it lacks the usage that a server would have told."""
    body = openai.assemble(data)
    if not openai.is_response(body) and not isinstance(body.get("usage"), Mapping):
        raise Unfit
    return body


def _has_usage(content: bytes) -> bool:
    return any(openai.usage(chunk) != openai.usage(None) for _, chunk in json_events(content))


def _without_usage(content: bytes) -> bytes:
    parts = blocks(content)
    told = [block for block in parts if b'"usage"' not in block or not _is_usage_alone(readable(data_of(block)))]
    return content if len(told) == len(parts) else b"".join(told)


def _is_usage_alone(chunk: Any) -> bool:
    return isinstance(chunk, Mapping) and chunk.get("choices") == [] and isinstance(chunk.get("usage"), Mapping)
