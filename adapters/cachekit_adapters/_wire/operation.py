"""One operation of a server as cachekit's Adapter: what its wire format says, and how an SDK's values are made of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from cachekit import Adapter, Reply, Saving
from cachekit_adapters._wire import prices
from cachekit_adapters._wire.prices import Usage
from cachekit_adapters._wire.sse import Recorded


class Wire(Protocol):
    """What a wire module knows: of a whole answer, and of a stream's bytes."""

    def judge(self, body: Any, /) -> str: ...
    def judge_stream(self, data: bytes, /) -> str: ...
    def usage(self, body: Any, /) -> Usage: ...
    def usage_of_stream(self, data: bytes, /) -> Usage: ...
    def about(self, body: Any, /) -> dict[str, str]: ...
    def about_stream(self, data: bytes, /) -> dict[str, str]: ...
    def sampled(self, request: Mapping[str, Any], /) -> bool: ...
    def assemble(self, data: bytes, /) -> Any: ...
    def synthesise(self, body: Any, /) -> list[bytes]: ...


class Values(NamedTuple):
    """How an SDK's values are taken apart and made. `plain(value)` gives its wire JSON, None for what is none;
    `restored(body, context)` the value of wire JSON, `stream(pieces, context)` a stream of it.
    """

    plain: Callable[[Any], Any]
    restored: Callable[[Any, Any], Any]
    stream: Callable[[list[bytes], Any], Any]
    streams: Callable[[Any], bool]
    source: Callable[[Any], Any]
    retold: Callable[[Any, Any], Any]


def operation(
    name: str,
    wire: Wire,
    values: Values,
    *,
    ttl: float | None,
    neutral: frozenset[str],
    provider: str = "",
    sampled: Callable[[Mapping[str, Any]], bool] | None = None,
    synthesised: Callable[[Any, Any], list[bytes]] | None = None,
) -> Adapter:
    """The Adapter of one operation. `neutral` names parameters that do not change the answer.

    `sampled` and `synthesised(body, context)` replace what the wire says where the operation or the request decides.
    """

    made = synthesised or (lambda body, _context: wire.synthesise(body))

    def capture(value: Any) -> Reply | None:
        body = values.plain(value)
        if body is None:
            return None
        about = wire.about(body)
        data = Recorded(dumped(body))
        data.judged = wire.judge(body)
        return Reply("plain", data, about, saving(wire.usage(body), about.get("model", ""), provider))

    def finish(data: bytes) -> Reply:
        data = Recorded(data)
        about = wire.about_stream(data)
        return Reply("stream", data, about, saving(wire.usage_of_stream(data), about.get("model", ""), provider))

    def judge(reply: Reply) -> str:
        data = reply.body if isinstance(reply.body, Recorded) else Recorded(reply.body)
        if data.judged is None:
            data.judged = wire.judge_stream(data) if reply.kind == "stream" else wire.judge(json.loads(data))
        return data.judged

    def restore(reply: Reply, streamed: bool, context: Any) -> Any:
        if streamed:
            pieces = list(reply.told()) if reply.kind == "stream" else made(json.loads(reply.body), context)
            return values.stream(pieces, context)
        return values.restored(wire.assemble(reply.body) if reply.kind == "stream" else reply.body, context)

    return Adapter(
        name=name,
        ttl=ttl,
        neutral=neutral,
        capture=capture,
        restore=restore,
        judge=judge,
        sampled=wire.sampled if sampled is None else sampled,
        streams=values.streams,
        source=values.source,
        retold=values.retold,
        finish=finish,
    )


def dumped(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def saving(usage: Usage, model: str, provider: str) -> Saving:
    """What serving the answer again saves; the cost by the price table that `use_prices` named, else nothing."""
    table = prices.current()
    cost = table.cost(model, usage, provider) if table is not None else None
    return Saving(usage.input, usage.output, cost or 0.0)


def never(_request: Mapping[str, Any]) -> bool:
    """Of an operation that answers the same question the same way."""
    return False
