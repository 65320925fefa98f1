"""Responses of httpx and httpx2 as an operation's values: taken apart, made of kept bytes, and again while they come."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

from cachekit_adapters._wire import bodies
from cachekit_adapters._wire.native import Head, Native, Told
from cachekit_adapters._wire.operation import dumped

_KEPT: Final = frozenset(
    {
        *("x-prompt-tokens", "x-generated-tokens", "x-compute-type", "x-compute-time", "x-compute-characters"),
        *("x-compute-tokens", "x-total-time", "x-validation-time", "x-tokenization-time", "x-queue-time"),
        *("x-inference-time", "x-time-per-token"),
    }
)
"""Headers that come back with a kept answer, besides its content type: what it took. Others are of one exchange."""


class Asked(NamedTuple):
    """A request on its way. `path` is the wire module's route, `body` its JSON; `about` what is known of the server."""

    request: Any
    path: str
    body: Any
    library: Any
    is_async: bool
    about: Mapping[str, str] = {}


class Came(NamedTuple):
    """The client's response to a request."""

    response: Any
    asked: Asked


class Responses:
    """Values of one HTTP operation: responses; and of a function that returns the parsed answer, that."""

    def told(self, native: Native, value: Any) -> Told | None:
        if isinstance(value, Came):
            asked, response = value.asked, value.response
            return _told(response, asked.path, asked.body, asked.about)
        path = next(iter(native.routes.values()))
        if bodies.library_of(value) is not None and hasattr(value, "iter_bytes"):
            asked_path, request = _question(native, value, path)
            return _told(value, asked_path, request, {"library": str(bodies.library_of(value))})
        if isinstance(value, (list, dict)):
            return Told(path, None, dumped(value), about={"library": "json"})
        return None

    def request(self, context: Any) -> tuple[str, Any] | None:
        return (context.path, context.body) if isinstance(context, Asked) else None

    def whole(self, head: Head, content: bytes, context: Any) -> Any:
        if not isinstance(context, Asked) and head.about.get("library") == "json":
            return json.loads(content)
        asked = context if isinstance(context, Asked) else _imagined(head, context)
        headers = {"content-type": head.kind, **head.headers}
        return settled(asked.library.Response(200, headers=headers, content=content, request=asked.request))

    def stream(self, head: Head, pieces: list[bytes], context: Any) -> Any:
        asked = context if isinstance(context, Asked) else _imagined(head, context)
        headers, stream = (
            {"content-type": head.kind, **head.headers},
            bodies.body(asked.library, pieces, is_async=asked.is_async),
        )
        return settled(asked.library.Response(200, headers=headers, stream=stream, request=asked.request))

    def streams(self, value: Any) -> bool:
        response = value.response if isinstance(value, Came) else value
        return hasattr(response, "iter_bytes") and not response.is_closed

    def source(self, value: Any) -> Any:
        if isinstance(value, Came):
            return bodies.source(value.response, is_async=value.asked.is_async)
        stream = value.stream
        return bodies.source(value, is_async=hasattr(stream, "__aiter__") and not hasattr(stream, "__iter__"))

    def head(self, native: Native, value: Any) -> Head:
        if isinstance(value, Came):
            response, asked, about = value.response, (value.asked.path, value.asked.body), value.asked.about
        else:
            response, asked = value, _question(native, value, next(iter(native.routes.values())))
            about = {"library": str(bodies.library_of(value))}
        verdict = "" if native.streams(*asked) else "unexpected_stream"
        return native.head(Told(*asked, b"", kind_of(response), kept_headers(response), about), verdict)

    def retold(self, value: Any, pieces: Any) -> Any:
        """The response again, reading its body from `pieces`."""
        old = value.response if isinstance(value, Came) else value
        library = importlib.import_module(str(bodies.library_of(old)))
        return _again(old, library, stream=bodies.body(library, pieces, is_async=hasattr(pieces, "__anext__")))


HTTP: Final = Responses()


def kind_of(response: Any) -> str:
    """The content type without its parameters."""
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def kept_headers(response: Any) -> dict[str, str]:
    return {name: text for name, text in response.headers.items() if name.lower() in _KEPT}


def again(response: Any, asked: Asked, *, whole: bool) -> Any:
    """A read response as a new one, yet to be read unless `whole`."""
    if whole:
        return _again(response, asked.library, content=response.content)
    stream = bodies.body(asked.library, [response.content], is_async=asked.is_async)
    return _again(response, asked.library, stream=stream)


def _again(old: Any, library: Any, **body: Any) -> Any:
    headers = [(name, text) for name, text in old.headers.multi_items() if name.lower() not in bodies.GONE]
    new = library.Response(old.status_code, headers=headers, extensions=old.extensions, **body)
    new.request, new.history = old.request, old.history
    return settled(new)


def settled(response: Any) -> Any:
    """With `elapsed`, which a response that came over no wire lacks."""
    response.elapsed = timedelta(0)
    return response


def _told(response: Any, path: str, request: Any, about: Mapping[str, str]) -> Told:
    return Told(path, request, response.content, kind_of(response), kept_headers(response), about)


def _question(native: Native, response: Any, default: str) -> tuple[str, Any]:
    """Route and JSON of the request that a response answers, as far as they can be told."""
    found = native.route(response.request.url.path)
    try:
        body = json.loads(response.request.content)
    except (ValueError, RuntimeError):
        body = None
    return (default if found is None else found[1]), body


def _imagined(head: Head, context: Any) -> Asked:
    """A request for a response that nobody asked for: what a decorated function gets has one too."""
    name = head.about.get("library")
    library = importlib.import_module(name if name in bodies.LIBRARIES else "httpx")
    return Asked(library.Request("POST", f"http://localhost{head.path}"), head.path, None, library, context == "async")
