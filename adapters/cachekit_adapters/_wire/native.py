"""Servers that are asked without an SDK: one operation as its wire module knows it, and what is kept of an answer.

A kept body begins with one line of JSON, the head: what of the headers and of the request the bytes behind it need.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from cachekit import Adapter, Reply
from cachekit_adapters._wire.operation import dumped, saving
from cachekit_adapters._wire.prices import Usage
from cachekit_adapters._wire.versions import ServerInfo

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"


class Told(NamedTuple):
    """A whole answer and the question. `path` is the wire module's route, `about` what is known besides the answer."""

    path: str
    request: Any
    content: bytes
    kind: str = JSON
    headers: Mapping[str, str] = {}
    about: Mapping[str, str] = {}


class Head(NamedTuple):
    """What is kept before an answer. `kind` is its content type, `request` what judging a stream needs of the question."""

    path: str
    kind: str
    headers: Mapping[str, str]
    about: Mapping[str, str]
    request: Any = None
    verdict: str = ""

    def packed(self) -> bytes:
        return dumped(self._asdict()) + b"\n"


class Streaming(NamedTuple):
    """How an operation streams. `kept` is what `judge` needs of a request; the rest as in the wire modules."""

    streams: Callable[[str, Any], bool]
    judge: Callable[[bytes, Any], str]
    usage: Callable[[bytes], Usage]
    about: Callable[[bytes], dict[str, str]]
    assemble: Callable[[bytes, str, Any], Any]
    synthesise: Callable[[Any, Any], list[bytes]]
    kept: Callable[[Any], Any] = lambda _request: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """One operation. `routes` are ends of paths with what the wire module calls them; "" is the base URL itself.

    `identity` gives the place and the body that identify a request, None for one that is never cached.
    `fitted(content, kept, path, request)` makes what was kept of the route `kept` the content for this path and request.
    `parts` divides batches, as `items` does.
    """

    name: str
    ttl: float
    routes: Mapping[str, str]
    judge: Callable[[str, Any, Any, Mapping[str, str]], str]
    usage: Callable[[Any, Mapping[str, str]], Usage]
    about: Callable[[Any, Mapping[str, str]], dict[str, str]]
    sampled: Callable[[str, Any], bool]
    identity: Callable[[str, Any], tuple[str, Any] | None]
    streaming: Streaming | None = None
    fitted: Callable[[bytes, str, str, Any], bytes] = lambda content, _kept, _path, _request: content
    parts: Any = None
    server: ServerInfo | None = None

    def streams(self, path: str, request: Any) -> bool:
        return self.streaming is not None and self.streaming.streams(path, request)

    def route(self, path: str, base: str = "") -> tuple[str, str] | None:
        """What comes before the route in `path`, and the wire module's name of it; None where it is no route of ours."""
        path, base = path.rstrip("/"), base.rstrip("/")
        for end, name in self.routes.items():
            if (end and path.endswith(end)) or (not end and path == base):
                return path.removesuffix(end), name
        return None

    def head(self, told: Told, verdict: str = "") -> Head:
        """The head of `told`, a stream's with what its judge will need."""
        kept = None if self.streaming is None else self.streaming.kept(told.request)
        return Head(told.path, told.kind, told.headers, told.about, kept, verdict)


class Values(Protocol):
    """How a client's own values are taken apart and made; `context` is the client's part of `Wanted`."""

    def told(self, native: Native, value: Any, /) -> Told | None: ...
    def request(self, context: Any, /) -> tuple[str, Any] | None: ...
    def whole(self, head: Head, content: bytes, context: Any, /) -> Any: ...
    def stream(self, head: Head, pieces: list[bytes], context: Any, /) -> Any: ...
    def streams(self, value: Any, /) -> bool: ...
    def source(self, value: Any, /) -> Any: ...
    def head(self, native: Native, value: Any, /) -> Head: ...
    def retold(self, value: Any, pieces: Any, /) -> Any: ...


def plain(native: Native, told: Told) -> Reply:
    """The Reply of a whole answer; its verdict stands in its head."""
    try:
        body, verdict = json.loads(told.content), ""
    except (ValueError, RecursionError):
        body, verdict = None, "not_json"
    if told.kind != JSON:
        verdict = "wrong_content_type"
    verdict = verdict or native.judge(told.path, told.request, body, told.headers)
    about = {**told.about, **native.about(body, told.headers)}
    cost = saving(native.usage(body, told.headers), about.get("model", ""), "")
    head = Head(told.path, told.kind, told.headers, about, None, verdict)
    return Reply("plain", head.packed() + told.content, about, cost)


def opened(data: bytes) -> tuple[Head, bytes]:
    """Head and answer of a kept body. Raises ValueError or TypeError for what is none."""
    line, end, body = data.partition(b"\n")
    if not end:
        raise ValueError("the head is cut off")
    return Head(**json.loads(line)), body


def adapter(native: Native, values: Values) -> Adapter:
    """cachekit's Adapter of an operation whose values are made by `values`."""

    def capture(value: Any) -> Reply | None:
        told = values.told(native, value)
        if told is None:
            return None
        if told.kind == EVENTS and native.streaming is not None:
            return finish(native.head(told).packed() + told.content)
        return plain(native, told)

    def finish(data: bytes) -> Reply:
        head, said = opened(data)
        if native.streaming is None:
            return Reply("stream", data, dict(head.about))
        about = {**head.about, **native.streaming.about(said)}
        return Reply("stream", data, about, saving(native.streaming.usage(said), about.get("model", ""), ""))

    def judge(reply: Reply) -> str:
        head, said = opened(reply.body)
        if reply.kind == "plain" or head.verdict:
            return head.verdict
        if head.kind != EVENTS or native.streaming is None:
            return "wrong_content_type"
        return native.streaming.judge(said, head.request)

    def restore(reply: Reply, streamed: bool, context: Any) -> Any:
        return restored(native, values, reply, streamed, context)

    return Adapter(
        name=native.name,
        ttl=native.ttl,
        capture=capture,
        restore=restore,
        judge=judge,
        sampled=lambda arguments: native.sampled(next(iter(native.routes.values())), arguments),
        streams=values.streams,
        source=values.source,
        head=lambda value: values.head(native, value).packed(),
        retold=values.retold,
        finish=finish,
    )


def restored(native: Native, values: Values, reply: Reply, streamed: bool, context: Any) -> Any:
    """The client's value of a kept answer, for the request in `context`. Raises for what cannot be made of it."""
    head, said = opened(reply.body)
    path, request = values.request(context) or (head.path, None)
    if streamed and reply.kind == "stream":
        return values.stream(head, _told(reply), context)
    if native.streaming is None or (reply.kind == "plain" and not streamed):
        return values.whole(head, native.fitted(said, head.path, path, request), context)
    if streamed:
        pieces = native.streaming.synthesise(json.loads(said), request)
        return values.stream(head._replace(kind=EVENTS), pieces, context)
    body = dumped(native.streaming.assemble(said, path, request))
    return values.whole(head._replace(kind=JSON), body, context)


def _told(reply: Reply) -> list[bytes]:
    """The pieces of a stream as they came; the first, or its first line, is the head."""
    first, *others = reply.told()
    rest = first.partition(b"\n")[2]
    return [rest, *others] if rest else others
