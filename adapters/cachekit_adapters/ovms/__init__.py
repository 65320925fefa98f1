"""KServe v2 (OVMS, Triton, MLServer) through tritonclient's HTTP clients: `infer`, JSON and binary, sync and asyncio.

from cachekit_adapters import ovms, wrap

client = wrap(InferenceServerClient("localhost:8000"))  # of tritonclient.http, or of tritonclient.http.aio
@distributed_cache(adapter=ovms.INFER)                  # or a function of your own that returns an InferResult

OVMS's /v3 is OpenAI's API: `cachekit_adapters.openai`. A batch is one answer: the protocol has no items.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from struct import Struct
from struct import error as struct_error
from typing import Any, Final

from cachekit import (
    Adapter,
    Answers,
    CacheMiss,
    CallOrigin,
    Event,
    Failed,
    Reply,
    UsageError,
    Wanted,
    current_mode,
    mode,
    tell,
)
from cachekit_adapters._wire.flows import Flow, changed, method
from cachekit_adapters.ovms import wire
from cachekit_adapters.ovms.calls import ASKED_BY, NEUTRAL, Inference, call_of, endpoint

METADATA_SECONDS: Final = 60.0
"""How long `version="server"` takes the server's word for the versions that it serves."""

_DOOR: Final = "_cachekit_door"
_LENGTH: Final = Struct("<I")
_REFUSED: Final = "refused"
"""In what is known `about` an answer: why it is not worth keeping. Nothing that is kept has it."""


# -- the operations -------------------------------------------------------------------------------------------------


def _is_result(value: Any) -> bool:
    """Whether it is a result of the HTTP clients: gRPC's tells a protobuf message."""
    tell = getattr(value, "get_response", None)
    return tell is not None and isinstance(tell(), dict)


def _capture(value: Any) -> Reply | None:
    if not _is_result(value):
        return None
    call = ASKED_BY.get(value)
    body, length = wire.encode(value, call.request_id if call is not None else "")
    about = wire.about(value)
    refused = wire.judge(value)
    if call is not None and call.surprised_by(about.get("model_version")):
        refused = refused or "unexpected_version"
    if refused:
        about[_REFUSED] = refused
    return Reply("plain", _LENGTH.pack(length) + body, about)


def _restore(reply: Reply, _streamed: bool, context: Any) -> Any:
    """Raises ValueError for a body that is not a whole result."""
    try:
        (length,) = _LENGTH.unpack_from(reply.body)
    except struct_error as error:
        raise ValueError("not a stored result") from error
    return wire.rebuild(reply.body[_LENGTH.size :], length, context or "")


def _judge(reply: Reply) -> str:
    return reply.about.get(_REFUSED, "")


INFER: Final = Adapter(name="ovms.infer", ttl=86400, neutral=NEUTRAL, capture=_capture, restore=_restore, judge=_judge)
"""One inference. Nothing is sampled, and nothing streams."""

METADATA: Final = Adapter(
    name="ovms.metadata",
    ttl=METADATA_SECONDS,
    capture=lambda metadata: Reply("plain", json.dumps(metadata).encode()) if isinstance(metadata, dict) else None,
    restore=lambda reply, _streamed, _context: json.loads(reply.body),
    judge=lambda reply: "" if json.loads(reply.body).get("versions") else "no_versions",
)
"""What a server says of a model; `version="server"` asks for it."""


# -- the client -----------------------------------------------------------------------------------------------------


class CachedInfer:
    """What stands between a wrapped client and the server. It keeps the client that was wrapped, whose end closes."""

    def __init__(self, client: Any, keywords: Mapping[str, Any]) -> None:
        self.client, self.base, self.own = client, endpoint(client), vars(client).get("infer")
        by_server = keywords.get("version") == "server"
        kept = {name: value for name, value in keywords.items() if name != "version" or not by_server}
        self.answers = Answers(**{"adapter": INFER, **kept})
        about = {"ttl": METADATA_SECONDS, "share": False, "namespace": kept.get("namespace")}
        self.metadata = Answers(METADATA, **about) if by_server else None
        self.outdated: set[tuple[Any, Any]] = set()

    def real(self, client: Any, infer: Callable[..., Any]) -> Callable[..., Any]:
        """`infer` without a cache: the class's, or one that somebody gave the client."""
        return self.own if self.own is not None else functools.partial(infer, client)

    def heard(self, call: Inference, result: Any) -> Any:
        """Notes by what call a live result came, and whether the model was redeployed since the server was asked."""
        if not _is_result(result):
            return result
        if call.surprised_by(wire.about(result).get("model_version")):
            self.outdated.add(call.model)
        ASKED_BY[result] = call
        return result

    def metadata_block(self, call: Inference) -> AbstractContextManager[None]:
        """The block to ask for metadata in: what was seen to be outdated is asked for again."""
        if call.model not in self.outdated or current_mode() != "on":
            return nullcontext()
        self.outdated.discard(call.model)
        return mode("refresh")


def wrap(client: Any, **keywords: Any) -> Any:
    """A client of the same class whose `infer` is cached; the one passed in stays as it was. They share connections.

    `client` is a `tritonclient.http.InferenceServerClient`, or the one of `tritonclient.http.aio`. `keywords` are keywords of
    `distributed_cache`; `version="server"` puts the versions that the server serves into the key, asked for once a minute.
    Raises UsageError for gRPC's client, and for `stale_while_revalidate` with the blocking client.
    """
    kind: Any = getattr(type(client), "_cachekit_base", type(client))
    if not any(each.__module__.startswith("tritonclient.http") for each in kind.__mro__):
        raise UsageError("wrap() knows tritonclient's HTTP clients; use one, or decorate a function of your own")
    if keywords.get("stale_while_revalidate") and not _is_async(kind):
        raise UsageError(
            "stale_while_revalidate= asks again from another thread, and tritonclient.http is for one; "
            "use tritonclient.http.aio"
        )
    door = CachedInfer(client, keywords)
    copy = object.__new__(_kind(kind))
    vars(copy).update({name: value for name, value in vars(client).items() if name != "infer"})
    setattr(copy, _DOOR, door)
    return copy


@functools.cache
def _kind(base: Any) -> Any:
    """A subclass whose `infer` goes through the door. Its end closes nothing: the client it was made of does that."""
    real = base.infer

    def flow(self: Any, *args: Any, **kwargs: Any) -> Flow:
        door: CachedInfer = getattr(self, _DOOR)
        return _inferred(self, door, functools.partial(door.real(self, real), *args, **kwargs), args, kwargs)

    def close(self: Any) -> Any:
        self._closed = True
        return getattr(self, _DOOR).client.close()

    infer = functools.wraps(real)(method(flow, is_async=_is_async(base)))
    methods = {"infer": infer, "close": close, "__del__": lambda _self: None}
    body = {**methods, "_cachekit_base": base}
    names = {name: getattr(base, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(base.__name__, (base,), {**names, **body})


def _is_async(kind: Any) -> bool:
    return inspect.iscoroutinefunction(kind.infer)


def _inferred(client: Any, door: CachedInfer, real: Callable[[], Any], args: Any, kwargs: Any) -> Flow:
    call = call_of(client, door.base, args, kwargs)
    if call is not None and door.metadata is not None and current_mode() != "off":
        call = yield from _versioned(client, door, door.metadata, call)
    if call is None:
        return (yield CallOrigin(origin=real)).value
    is_async = _is_async(type(client))
    origin = changed(real, functools.partial(door.heard, call), is_async=is_async)
    return (yield from door.answers.asking(call.identity, origin, call.wanted._replace(is_async=is_async)))


def _versioned(client: Any, door: CachedInfer, metadata: Answers, call: Inference) -> Flow:
    """The call with the server's versions in its key, None where the server does not tell them."""
    ask = functools.partial(client.get_model_metadata, **call.metadata)
    wanted = Wanted(False, None, str(call.place["base"]), is_async=_is_async(type(client)))
    with door.metadata_block(call):
        answer = yield CallOrigin(Exception, functools.partial(metadata.call, call.place, ask, wanted))
    if isinstance(answer, Failed):
        if isinstance(answer.error, CacheMiss):
            raise answer.error
        # The call itself goes to the server, and shows what is wrong with it.
        tell(Event("error", INFER.name, "adapter", type(answer.error).__name__, error=answer.error))
        return None
    versions = answer.value.get("versions") if isinstance(answer.value, dict) else None
    return call.at(tuple(str(version) for version in versions)) if versions else None
