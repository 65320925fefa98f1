"""Responses of httpx and httpx2 as an operation's values: taken apart, made of kept bytes, and again while they come."""

from __future__ import annotations

import importlib
import json
from datetime import timedelta
from typing import Any, Final

from cachekit_adapters._wire import bodies
from cachekit_adapters._wire.exchange import ClientAnswer, ClientRequest, Exchange, Head, dumped
from cachekit_adapters._wire.operation import Operation

_KEPT: Final = frozenset(
    {
        *("x-prompt-tokens", "x-generated-tokens", "x-compute-type", "x-compute-time", "x-compute-characters"),
        *("x-compute-tokens", "x-total-time", "x-validation-time", "x-tokenization-time", "x-queue-time"),
        *("x-inference-time", "x-time-per-token"),
    }
)
"""Headers that come back with a kept answer, besides its content type: what it took. Others are of one exchange."""


class Responses:
    """Values of one HTTP operation: responses; and of a function that returns the parsed answer, that."""

    def exchange(self, operation: Operation, value: Any, *, whole: bool) -> Exchange | None:
        if isinstance(value, ClientAnswer):
            response, (_, path, body, _, about) = value
        elif isinstance(value, (list, dict)):
            return Exchange(_path(operation), None, dumped(value), about={"library": "json"})
        elif bodies.library_of(value) is not None and hasattr(value, "iter_bytes"):
            response, (path, body) = value, _question(operation, value)
            about = {"library": bodies.library_of(value).__name__}
        else:
            return None
        content = response.content if whole else b""
        return Exchange(path, body, content, kind_of(response), kept_headers(response), about)

    def request(self, context: Any) -> tuple[str, Any] | None:
        return (context.path, context.body) if isinstance(context, ClientRequest) else None

    def whole(self, head: Head, content: bytes, context: Any) -> Any:
        if not isinstance(context, ClientRequest) and head.about.get("library") == "json":
            return json.loads(content)
        return _made(head, context, content=content)

    def stream(self, head: Head, pieces: list[bytes], context: Any) -> Any:
        return _made(head, context, pieces=pieces)

    def streams(self, value: Any) -> bool:
        response = _response(value)
        return hasattr(response, "iter_bytes") and not response.is_closed

    def source(self, value: Any) -> Any:
        return bodies.Source(_response(value))

    def retold(self, value: Any, pieces: Any) -> Any:
        """The response again, reading its body from `pieces`."""
        return _again(
            _response(value), stream=bodies.body(_response(value), pieces, is_async=hasattr(pieces, "__anext__"))
        )

    def mark(self, _stream: Any) -> bytes:
        return b""


HTTP: Final = Responses()
_AT_ONCE: Final = timedelta(0)


def kind_of(response: Any) -> str:
    """The content type without its parameters."""
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def kept_headers(response: Any) -> dict[str, str]:
    return {name: text for name, text in response.headers.items() if name.lower() in _KEPT}


def again(response: Any, request: ClientRequest, *, whole: bool) -> Any:
    """A read response as a new one, yet to be read unless `whole`."""
    if whole:
        return _again(response, content=response.content)
    return _again(response, stream=bodies.body(response, [response.content], is_async=request.is_async))


def _again(old: Any, **body: Any) -> Any:
    headers = [(name, text) for name, text in old.headers.multi_items() if name.lower() not in bodies.GONE]
    new = bodies.library_of(old).Response(old.status_code, headers=headers, extensions=old.extensions, **body)
    new.request, new.history = old.request, old.history
    return settled(new)


def _made(head: Head, context: Any, *, pieces: list[bytes] | None = None, content: bytes | None = None) -> Any:
    """A response of what was kept; what a decorated function gets has a request as well."""
    if isinstance(context, ClientRequest):
        request, is_async = context.sent, context.is_async
    else:
        request, is_async = _imagined(head), context == "async"
    body = {"content": content} if pieces is None else {"stream": bodies.body(request, pieces, is_async=is_async)}
    headers = {"content-type": head.kind, **head.headers}
    return settled(bodies.library_of(request).Response(200, headers=headers, request=request, **body))


def settled(response: Any) -> Any:
    """With `elapsed`, which a response that came over no wire lacks."""
    response.elapsed = _AT_ONCE
    return response


def _path(operation: Operation) -> str:
    """The wire module's name of a route that nobody can tell."""
    return next(iter(operation.routes.values()))


def _question(operation: Operation, response: Any) -> tuple[str, Any]:
    """Route and JSON of the request that a response answers, as far as they can be told."""
    route = operation.route(response.request.url.path)
    try:
        body = json.loads(response.request.content)
    except (ValueError, RuntimeError):
        body = None
    return (_path(operation) if route is None else route[1]), body


def _imagined(head: Head) -> Any:
    """A request for a response that nobody asked for."""
    name = head.about.get("library")
    library = importlib.import_module(name if name in bodies.LIBRARIES else "httpx")
    return library.Request("POST", f"http://localhost{head.path}")


def _response(value: Any) -> Any:
    return value.value if isinstance(value, ClientAnswer) else value
