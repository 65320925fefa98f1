"""Hugging Face's InferenceClient: chat, text generation, embeddings, of the Hub or of a TGI or TEI of one's own.

    client = wrap(InferenceClient(base_url="http://localhost:8080"))

All its methods end in `_inner_post`, which gives bytes, or lines for a stream; the client makes its own types of them,
of kept ones too. The endpoint's URL identifies the model where the client only says "dummy".
"""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from cachekit import Adapter, Answers, CallOrigin, UsageError, Wanted
from cachekit_adapters import tei, tgi
from cachekit_adapters._wire import openai
from cachekit_adapters._wire.flows import Flow, changed, method
from cachekit_adapters._wire.native import Native, Streaming, adapter
from cachekit_adapters._wire.versions import Versions
from cachekit_adapters.huggingface.values import LINES, Came, Posted

_NEUTRAL: Final = frozenset({"stream", "stream_options", "user"})
BILLED: Final = "x-hf-bill-to"


def _chat_identity(path: str, request: Any) -> tuple[str, Any] | None:
    if not isinstance(request, Mapping):
        return None
    nameless = request.get("model") == "dummy"
    dropped = _NEUTRAL | {"model"} if nameless else _NEUTRAL
    return path, {name: value for name, value in request.items() if name not in dropped}


def _chat_sampled(_path: str, request: Any) -> bool:
    return not isinstance(request, Mapping) or openai.sampled(request)


_CHAT: Final = Native(
    name="huggingface.chat",
    ttl=1800,
    routes={"": "/v1/chat/completions"},
    judge=lambda _path, _request, body, _headers: openai.judge(body),
    usage=lambda body, _headers: openai.usage(body),
    about=lambda body, _headers: openai.about(body),
    sampled=_chat_sampled,
    identity=_chat_identity,
    streaming=Streaming(
        streams=lambda _path, request: bool(request.get("stream")),
        judge=lambda data, _request: openai.judge_stream(data),
        usage=openai.usage_of_stream,
        about=openai.about_stream,
        assemble=lambda data, _path, _request: openai.assemble(data),
        synthesise=lambda body, _request: openai.synthesise(body),
    ),
    server=tgi.SERVER,
)
# The same servers as behind plain HTTP, asked at one URL.
_TEXT: Final = replace(tgi.NATIVE, name="huggingface.text_generation", routes={"": "/"})
_FEATURES: Final = replace(
    tei.OPERATIONS["tei.embed"], name="huggingface.feature_extraction", routes={"": "/embed"}, parts=None
)

CHAT: Final[Adapter] = adapter(_CHAT, LINES)
TEXT_GENERATION: Final[Adapter] = adapter(_TEXT, LINES)
FEATURE_EXTRACTION: Final[Adapter] = adapter(_FEATURES, LINES)

_OPERATIONS: Final = {
    "conversational": (_CHAT, CHAT),
    "text-generation": (_TEXT, TEXT_GENERATION),
    "feature-extraction": (_FEATURES, FEATURE_EXTRACTION),
}


class Operation(NamedTuple):
    """One task of a wrapped client."""

    native: Native
    answers: Answers
    versions: Versions | None


def wrap(client: Any, **keywords: Any) -> Any:
    """A copy of an InferenceClient or AsyncInferenceClient whose chat, text generation and embeddings are cached.

    `version="server"` is for a TGI or TEI of one's own: its `/info` is asked which model it has, at most once a minute.
    Other `keywords` are those of `distributed_cache`.
    """
    if not hasattr(client, "_inner_post"):
        raise UsageError(f"wrap() knows InferenceClient and AsyncInferenceClient, not {type(client).__qualname__}")
    by_server, is_async = keywords.get("version") == "server", hasattr(client, "_get_async_client")
    if by_server:
        del keywords["version"]
    operations: dict[str, Operation] = {}
    for task, (native, adapter_) in _OPERATIONS.items():
        told = native.server if by_server else None
        versions = None if told is None else Versions(told.path, told.read, is_async=is_async, in_turn=True)
        operations[task] = Operation(native, Answers(adapter_, **keywords), versions)
    new = copy.copy(client)
    # A copy closes what it opened, and no other does.
    new.exit_stack = type(client.exit_stack)()
    if is_async:
        new._async_client = None
    new._inner_post = method(CachedPost(new, new._inner_post, operations, is_async).flow, is_async=is_async)
    return new


class CachedPost(NamedTuple):
    """The `_inner_post` of a wrapped client; `real` is the client's own."""

    client: Any
    real: Callable[..., Any]
    operations: Mapping[str, Operation]
    is_async: bool

    def flow(self, request_parameters: Any, *, stream: bool = False) -> Flow:
        """What `_inner_post` does in the place of the client's own."""
        origin = functools.partial(self.real, request_parameters, stream=stream)
        operation, posted = self.operations.get(request_parameters.task), _posted(request_parameters, self.is_async)
        identity = None if operation is None else _identity(operation.native, posted, self.client)
        if operation is not None and identity is not None and operation.versions is not None:
            version = yield from operation.versions.of(_server(posted.url), method(self._info, is_async=self.is_async))
            if version is None:
                operation.answers.passed("unknown_version")
                return (yield CallOrigin(origin=origin)).value
            identity, posted = {**identity, "version": version.text}, posted._replace(about=version.about)
        if operation is None or identity is None:
            return (yield CallOrigin(origin=origin)).value
        sampled = operation.native.sampled(posted.path, posted.body)
        wanted = Wanted(stream, posted, _server(posted.url), sampled, self.is_async)
        came = changed(origin, lambda value: Came(value, posted), is_async=self.is_async)
        value = yield from operation.answers.asking(identity, came, wanted)
        return value.value if isinstance(value, Came) else value

    def _info(self, url: str) -> Flow:
        if self.is_async:
            session = (yield CallOrigin(origin=self.client._get_async_client)).value
        else:
            session = importlib.import_module("huggingface_hub.utils").get_session()
        return (yield CallOrigin(origin=functools.partial(session.get, url, headers=self.client.headers))).value


def _posted(parameters: Any, is_async: bool) -> Posted:
    path = {"conversational": "/v1/chat/completions", "text-generation": "/"}.get(parameters.task, "/embed")
    return Posted(parameters.url, path, parameters.json, is_async)


def _identity(native: Native, posted: Posted, client: Any) -> dict[str, Any] | None:
    identified = None if posted.body is None else native.identity(posted.path, posted.body)
    if identified is None:
        return None
    parts = urlsplit(posted.url)
    base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    billed = {name.lower(): text for name, text in client.headers.items()}.get(BILLED)
    return {"base": base, "path": parts.path.rstrip("/"), "query": parts.query, "tenant": billed, "body": identified[1]}


def _server(url: str) -> str:
    """The server's own URL, without the route that the client added."""
    bare = url.partition("?")[0].rstrip("/")
    return bare.removesuffix("/chat/completions").removesuffix("/v1").rstrip("/")
