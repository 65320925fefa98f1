"""Responses of httpx and httpx2: taken apart, made again of kept bytes, and retold while they come."""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

from cachekit_adapters._wire.native import Head, Native, Told
from cachekit_adapters._wire.operation import dumped

LIBRARIES: Final = frozenset({"httpx", "httpx2"})
_KEPT: Final = frozenset(
    {
        *("x-prompt-tokens", "x-generated-tokens", "x-compute-type", "x-compute-time", "x-compute-characters"),
        *("x-compute-tokens", "x-total-time", "x-validation-time", "x-tokenization-time", "x-queue-time"),
        *("x-inference-time", "x-time-per-token"),
    }
)
"""Headers that come back with a kept answer, besides its content type: what it took. Others are of one exchange."""
_GONE: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers of how the bytes came; the bytes here are decoded."""


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
        if library_of(value) is not None and hasattr(value, "iter_bytes"):
            asked_path, request = _question(native, value, path)
            return _told(value, asked_path, request, {"library": value_root(value)})
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
        return unread(asked, {"content-type": head.kind, **head.headers}, pieces)

    def streams(self, value: Any) -> bool:
        response = value.response if isinstance(value, Came) else value
        return hasattr(response, "iter_bytes") and not response.is_closed

    def source(self, native: Native, value: Any) -> Any:
        response = value.response if isinstance(value, Came) else value
        if isinstance(value, Came):
            asked, about = (value.asked.path, value.asked.body), value.asked.about
            is_async = value.asked.is_async
        else:
            asked, about = _question(native, value, next(iter(native.routes.values()))), {"library": value_root(value)}
            is_async = hasattr(response.stream, "__aiter__") and not hasattr(response.stream, "__iter__")
        verdict = "" if native.streams(*asked) else "unexpected_stream"
        told = Told(asked[0], asked[1], b"", kind_of(response), kept_headers(response), about)
        head = native.head(told, verdict).packed()
        return _aread(head, response) if is_async else _read(head, response)

    def retold(self, value: Any, pieces: Any) -> Any:
        """The response again, reading its body from `pieces`, the first of which is the head."""
        old = value.response if isinstance(value, Came) else value
        headers = [(name, text) for name, text in old.headers.multi_items() if name.lower() not in _GONE]
        library, is_async = importlib.import_module(str(library_of(old))), hasattr(pieces, "__anext__")
        body = _body(library, pieces, is_async=is_async, headed=True)
        new = library.Response(old.status_code, headers=headers, stream=body, extensions=old.extensions)
        new.request, new.history = old.request, old.history
        return settled(new)


HTTP: Final = Responses()


def library_of(value: Any) -> str | None:
    """httpx or httpx2, whichever this client or response is of, or None."""
    roots = (kind.__module__.partition(".")[0] for kind in type(value).__mro__)
    return next((root for root in roots if root in LIBRARIES), None)


def value_root(value: Any) -> str:
    return str(library_of(value))


def kind_of(response: Any) -> str:
    """The content type without its parameters."""
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def kept_headers(response: Any) -> dict[str, str]:
    return {name: text for name, text in response.headers.items() if name.lower() in _KEPT}


def unread(asked: Asked, headers: Any, pieces: list[bytes]) -> Any:
    """A response whose body is yet to be read, in these pieces."""
    body = _body(asked.library, pieces, is_async=asked.is_async, headed=False)
    return settled(asked.library.Response(200, headers=headers, stream=body, request=asked.request))


def again(response: Any, asked: Asked, *, whole: bool) -> Any:
    """A read response as a new one, yet to be read unless `whole`."""
    headers = [(name, text) for name, text in response.headers.multi_items() if name.lower() not in _GONE]
    given: dict[str, Any] = {"content": response.content}
    if not whole:
        given = {"stream": _body(asked.library, [response.content], is_async=asked.is_async, headed=False)}
    new = asked.library.Response(response.status_code, headers=headers, extensions=response.extensions, **given)
    new.request, new.history = response.request, response.history
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
    library = importlib.import_module(name if name in LIBRARIES else "httpx")
    return Asked(library.Request("POST", f"http://localhost{head.path}"), head.path, None, library, context == "async")


def _read(head: bytes, response: Any) -> Iterator[bytes]:
    try:
        yield head
        yield from response.iter_bytes() if _encoded(response) else response.iter_raw()
    finally:
        response.close()


def _encoded(response: Any) -> bool:
    """Whether decoding is needed; the new response goes through its own decoder once more, and each takes its time."""
    return "content-encoding" in response.headers


async def _aread(head: bytes, response: Any) -> AsyncIterator[bytes]:
    try:
        yield head
        async for piece in response.aiter_bytes() if _encoded(response) else response.aiter_raw():
            yield piece
    finally:
        await response.aclose()


def _body(library: Any, pieces: Any, *, is_async: bool, headed: bool) -> Any:
    base = library.AsyncByteStream if is_async else library.SyncByteStream
    return type("Body", (_AsyncBody if is_async else _Body, base), {})(pieces, headed)


class _Body:
    """The bytes of a response; `headed`: its first piece is ours."""

    def __init__(self, pieces: Any, headed: bool) -> None:
        self._pieces, self._headed = iter(pieces), headed

    def __iter__(self) -> Iterator[bytes]:
        self._behead()
        yield from self._pieces

    def close(self) -> None:
        # Where nothing was read, the source has not begun: what has not begun would close nothing behind it.
        self._behead()
        getattr(self._pieces, "close", lambda: None)()

    def _behead(self) -> None:
        if self._headed:
            self._headed = False
            next(self._pieces, None)


class _AsyncBody:
    def __init__(self, pieces: Any, headed: bool) -> None:
        self._pieces: Any = pieces if hasattr(pieces, "__anext__") else _each(pieces)
        self._headed = headed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await self._behead()
        async for piece in self._pieces:
            yield piece

    async def aclose(self) -> None:
        await self._behead()
        await self._pieces.aclose()

    async def _behead(self) -> None:
        if self._headed:
            self._headed = False
            await anext(self._pieces, None)


async def _each(pieces: Any) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
