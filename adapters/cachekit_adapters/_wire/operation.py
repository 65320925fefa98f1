"""One operation of a server as its wire module knows it, what is kept of its answers, and cachekit's Adapter of it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from cachekit import MISS, Adapter, Reply
from cachekit_adapters._wire.exchange import EVENTS, JSON, Exchange, Head, dumped, opened
from cachekit_adapters._wire.held import NOTHING, Held
from cachekit_adapters._wire.prices import Usage, saving
from cachekit_adapters._wire.sse import Recorded
from cachekit_adapters._wire.versions import ServerInfo

_BARE: Final = Head("", EVENTS, {}, {})
"""Stands for the head of a body that is kept alone."""


class Unfit(Exception):
    """What is stored does not say what was asked for; it is asked again."""


class Streaming(NamedTuple):
    """How an operation streams. `kept` is what `judge` and `fitted` need of a request; the rest as in the wire modules.

    `fitted(events, kept, request)` makes of a stored stream the one that the request asks for. It and `assemble` may raise
    Unfit.
    """

    streams: Callable[[str, Any], bool]
    judge: Callable[[bytes, Any], str]
    usage: Callable[[bytes], Usage]
    about: Callable[[bytes], dict[str, str]]
    assemble: Callable[[bytes, str, Any], Any]
    synthesise: Callable[[Any, Any], list[bytes]]
    kept: Callable[[Any], Any] = lambda _request: None
    fitted: Callable[[bytes, Any, Any], bytes] = lambda events, _kept, _request: events


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation. `routes` are ends of paths with what the wire module calls them; "" is the base URL itself.

    `identity` gives the place and the body that identify a request, None for one that is never cached; `neutral` names
    parameters that do not change the answer. `fitted(content, kept, path, request)` makes what was kept of the route
    `kept` the content for this path and request. `batches` knows how a batch is divided, such as `items`. `headed`: kept
    with a head. `held`: which requests go straight to the server, because of what it holds.
    """

    name: str
    ttl: float
    judge: Callable[[str, Any, Any, Mapping[str, str]], str]
    usage: Callable[[Any, Mapping[str, str]], Usage]
    about: Callable[[Any, Mapping[str, str]], dict[str, str]]
    sampled: Callable[[str, Any], bool]
    routes: Mapping[str, str] = field(default_factory=lambda: {"": ""})
    identity: Callable[[str, Any], tuple[str, Any] | None] = lambda path, request: (path, request)
    neutral: frozenset[str] = frozenset()
    provider: str = ""
    streaming: Streaming | None = None
    fitted: Callable[[bytes, str, str, Any], bytes] | None = None
    batches: Any = None
    server: ServerInfo | None = None
    headed: bool = True
    held: Held = NOTHING

    def streams(self, path: str, request: Any) -> bool:
        return self.streaming is not None and self.streaming.streams(path, request)

    def route(self, path: str, base: str = "") -> tuple[str, str] | None:
        """What comes before the route in `path`, and the wire module's name of it; None where it is no route of ours."""
        path, base = path.rstrip("/"), base.rstrip("/")
        for end, name in self.routes.items():
            if (end and path.endswith(end)) or (not end and path == base):
                return path.removesuffix(end), name
        return None

    def head(self, exchange: Exchange, verdict: str = "") -> bytes:
        """What is kept before a stream, with what its judge will need."""
        kept = None if self.streaming is None else self.streaming.kept(exchange.body)
        return Head(exchange.path, exchange.kind, exchange.headers, exchange.about, kept, verdict).packed()

    def opened(self, data: bytes) -> tuple[Head, bytes]:
        """Head and answer of a kept body. Raises ValueError for what is none."""
        return opened(data) if self.headed else (_BARE, data)

    def reply(self, exchange: Exchange) -> Reply:
        """The Reply of a whole answer, with its verdict."""
        path, request, content, kind, headers, about, body = exchange
        verdict = "" if kind == JSON else "wrong_content_type"
        if body is None:
            try:
                body = json.loads(content)
            except (ValueError, RecursionError):
                verdict = verdict or "not_json"
        verdict = verdict or self.judge(path, request, body, headers)
        about = {**about, **self.about(body, headers)}
        head = Head(path, kind, headers, about, None, verdict).packed() if self.headed else b""
        kept = Recorded(head + content)
        kept.judged = verdict
        return Reply("plain", kept, about, saving(self.usage(body, headers), about.get("model", ""), self.provider))


class Wire(Protocol):
    """A wire whose bodies alone say what there is to know: of a whole answer, and of a stream's bytes."""

    def judge(self, body: Any, /) -> str: ...
    def judge_stream(self, data: bytes, /) -> str: ...
    def usage(self, body: Any, /) -> Usage: ...
    def usage_of_stream(self, data: bytes, /) -> Usage: ...
    def about(self, body: Any, /) -> dict[str, str]: ...
    def about_stream(self, data: bytes, /) -> dict[str, str]: ...
    def sampled(self, request: Mapping[str, Any], /) -> bool: ...
    def assemble(self, data: bytes, /) -> Any: ...
    def synthesise(self, body: Any, /) -> list[bytes]: ...


def streaming(wire: Wire, synthesised: Callable[[Any, Any], list[bytes]] | None = None) -> Streaming:
    """How such a wire streams; `synthesised(body, request)` where the request decides."""
    return Streaming(
        streams=lambda _path, request: bool(request.get("stream")),
        judge=lambda data, _request: wire.judge_stream(data),
        usage=wire.usage_of_stream,
        about=wire.about_stream,
        assemble=lambda data, _path, _request: wire.assemble(data),
        synthesise=synthesised or (lambda body, _request: wire.synthesise(body)),
    )


def bare(wire: Wire, **more: Any) -> Operation:
    """An Operation of such a wire, with `more` of its fields."""
    fields = {
        "judge": lambda _path, _request, body, _headers: wire.judge(body),
        "usage": lambda body, _headers: wire.usage(body),
        "about": lambda body, _headers: wire.about(body),
        "sampled": lambda _path, request: wire.sampled(request),
        "streaming": streaming(wire),
    }
    return Operation(**{**fields, **more})


class Values(Protocol):
    """How a client's own values are taken apart and made; `context` is the client's part of `Wanted`.

    `mark` is what is kept before a stream without a head. `exchange` takes an answer apart, with its content if it is
    `whole`, and is None for what is none. `request` is the
    route and the JSON of the question, where the context is one.
    """

    def exchange(self, operation: Operation, value: Any, /, *, whole: bool) -> Exchange | None: ...
    def request(self, context: Any, /) -> tuple[str, Any] | None: ...
    def whole(self, head: Head, content: bytes, context: Any, /) -> Any: ...
    def stream(self, head: Head, pieces: list[bytes], context: Any, /) -> Any: ...
    def streams(self, value: Any, /) -> bool: ...
    def source(self, value: Any, /) -> Any: ...
    def retold(self, value: Any, pieces: Any, /) -> Any: ...
    def mark(self, stream: Any, /) -> bytes: ...


def adapter(operation: Operation, values: Values) -> Adapter:
    """cachekit's Adapter of an operation whose values are made by `values`."""
    stream_of = operation.streaming

    def capture(value: Any) -> Reply | None:
        exchange = values.exchange(operation, value, whole=True)
        if exchange is None:
            return None
        if exchange.kind == EVENTS and stream_of is not None:
            return finish(operation.head(exchange) + exchange.content)
        return operation.reply(exchange)

    def head_of(stream: Any) -> bytes:
        exchange = values.exchange(operation, stream, whole=False)
        assert exchange is not None
        expected = operation.streams(exchange.path, exchange.body)
        return operation.head(exchange, "" if expected else "unexpected_stream")

    def finish(data: bytes) -> Reply:
        kept = Recorded(data)
        head, content = operation.opened(kept)
        if stream_of is None:
            return Reply("stream", kept, dict(head.about))
        about = {**head.about, **stream_of.about(content)}
        cost = saving(stream_of.usage(content), about.get("model", ""), operation.provider)
        return Reply("stream", kept, about, cost)

    def judge(reply: Reply) -> str:
        kept = reply.body if isinstance(reply.body, Recorded) else Recorded(reply.body)
        if kept.judged is None:
            kept.judged = _verdict(operation, reply.kind, kept)
        return kept.judged

    return Adapter(
        name=operation.name,
        ttl=operation.ttl,
        neutral=operation.neutral,
        capture=capture,
        restore=functools.partial(_restored_or_miss, operation, values),
        judge=judge,
        sampled=functools.partial(operation.sampled, next(iter(operation.routes.values()))),
        streams=values.streams,
        source=values.source,
        retold=values.retold,
        head=head_of if operation.headed else values.mark,
        finish=finish,
    )


def _verdict(operation: Operation, kind: str, kept: bytes) -> str:
    head, content = operation.opened(kept)
    if head.verdict or (kind == "plain" and operation.headed):
        return head.verdict
    if kind == "plain":
        return operation.judge(head.path, None, json.loads(content), head.headers)
    if head.kind != EVENTS or operation.streaming is None:
        return "wrong_content_type"
    return operation.streaming.judge(content, head.request)


def _restored_or_miss(operation: Operation, values: Values, reply: Reply, streamed: bool, context: Any) -> Any:
    try:
        return _restored(operation, values, reply, streamed, context)
    except Unfit:
        return MISS


def _restored(operation: Operation, values: Values, reply: Reply, streamed: bool, context: Any) -> Any:
    """The client's value of a kept answer, for the request in `context`. Raises for what cannot be made of it."""
    head, content = operation.opened(reply.body)
    stream_of, is_stream = operation.streaming, reply.kind == "stream"
    if streamed and is_stream:
        told = content if stream_of is None else stream_of.fitted(content, head.request, _asked(values, context))
        return values.stream(head, _pieces(reply, content) if told is content else [told], context)
    if stream_of is None or not (streamed or is_stream):
        if operation.fitted is not None:
            content = operation.fitted(content, head.path, *(values.request(context) or (head.path, None)))
        return values.whole(head, content, context)
    path, request = values.request(context) or (head.path, None)
    if streamed:
        pieces = stream_of.synthesise(json.loads(content), request)
        return values.stream(head._replace(kind=EVENTS), pieces, context)
    return values.whole(head._replace(kind=JSON), dumped(stream_of.assemble(content, path, request)), context)


def _asked(values: Values, context: Any) -> Any:
    """The JSON of the question, None where it is not known."""
    asked = values.request(context)
    return None if asked is None else asked[1]


def _pieces(reply: Reply, content: bytes) -> list[bytes]:
    """The pieces of a stream as they came, without the head, which is the first or the beginning of it."""
    first, *others = reply.told()
    rest = first[len(reply.body) - len(content) :]
    return [rest, *others] if rest else others


def never(_path: str, _request: Any) -> bool:
    """Of an operation that answers the same question the same way."""
    return False
