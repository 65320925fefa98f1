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
from cachekit_adapters import hub, tei, tgi
from cachekit_adapters._wire import held, openai
from cachekit_adapters._wire.exchange import ClientAnswer, ClientRequest
from cachekit_adapters._wire.flows import Flow, changed, method
from cachekit_adapters._wire.headers import identifying
from cachekit_adapters._wire.openai.telling import chats, kept
from cachekit_adapters._wire.operation import Operation, adapter, bare
from cachekit_adapters._wire.versions import Versions
from cachekit_adapters.huggingface.values import LINES

_NEUTRAL: Final = frozenset({"stream", "stream_options", "user"})


def _chat_identity(path: str, request: Any) -> tuple[str, Any] | None:
    if not isinstance(request, Mapping):
        return None
    nameless = request.get("model") == "dummy"
    dropped = _NEUTRAL | {"model"} if nameless else _NEUTRAL
    return path, {name: value for name, value in request.items() if name not in dropped}


_CHAT: Final = bare(
    openai,
    name="huggingface.chat",
    ttl=1800,
    routes={"": "/v1/chat/completions"},
    identity=_chat_identity,
    server=tgi.SERVER,
    held=held.CHAT,
    streaming=chats(kept=kept),
)
# The same servers as behind plain HTTP, asked at one URL.
_TEXT: Final = replace(tgi.OPERATION, name="huggingface.text_generation", routes={"": "/"})
_FEATURES: Final = replace(
    tei.OPERATIONS["tei.embed"], name="huggingface.feature_extraction", routes={"": "/embed"}, batches=None
)

CHAT: Final[Adapter] = adapter(_CHAT, LINES)
TEXT_GENERATION: Final[Adapter] = adapter(_TEXT, LINES)
FEATURE_EXTRACTION: Final[Adapter] = adapter(_FEATURES, LINES)

_TASKS: Final = {
    "conversational": (_CHAT, CHAT),
    "text-generation": (_TEXT, TEXT_GENERATION),
    "feature-extraction": (_FEATURES, FEATURE_EXTRACTION),
}


class Task(NamedTuple):
    """One task of a wrapped client."""

    operation: Operation
    answers: Answers
    versions: Versions | None


def wrap(client: Any, **keywords: Any) -> Any:
    """A copy of an InferenceClient or AsyncInferenceClient whose chat, text generation and embeddings are cached.

    Of an HfApi a copy whose metadata is cached: see `hub.wrap`.

    `version="server"` is for a TGI or TEI of one's own: its `/info` is asked which model it has, at most once a minute.
    Other `keywords` are those of `distributed_cache`.
    """
    if hasattr(client, "model_info"):
        return hub.wrap(client, **keywords)
    if not hasattr(client, "_inner_post"):
        raise UsageError(
            f"wrap() knows InferenceClient, AsyncInferenceClient and HfApi, not {type(client).__qualname__}"
        )
    by_server, is_async = keywords.get("version") == "server", hasattr(client, "_get_async_client")
    if by_server:
        del keywords["version"]
    tasks: dict[str, Task] = {}
    for name, (operation, its_adapter) in _TASKS.items():
        server = operation.server if by_server else None
        versions = None if server is None else Versions(server.path, server.read, is_async=is_async, in_turn=True)
        tasks[name] = Task(operation, Answers(its_adapter, **keywords), versions)
    new = copy.copy(client)
    # A copy closes what it opened, and no other does.
    new.exit_stack = type(client.exit_stack)()
    if is_async:
        new._async_client = None
    real = vars(client).get("_inner_post") or functools.partial(_post, new)
    new._inner_post = method(CachedPost(new, real, tasks, is_async).flow, is_async=is_async)
    return new


def _post(client: Any, *args: Any, **kwargs: Any) -> Any:
    """What the client's class says at this moment: a test may have put something in its place after `wrap`."""
    said = type(client)._inner_post
    bound = said.__get__(client) if hasattr(said, "__get__") else said
    return bound(*args, **kwargs)


class CachedPost(NamedTuple):
    """The `_inner_post` of a wrapped client; `real` is the client's own."""

    client: Any
    real: Callable[..., Any]
    tasks: Mapping[str, Task]
    is_async: bool

    def flow(self, request_parameters: Any, *, stream: bool = False) -> Flow:
        """What `_inner_post` does in the place of the client's own."""
        origin = functools.partial(self.real, request_parameters, stream=stream)
        task, request = self.tasks.get(request_parameters.task), _request(request_parameters, self.is_async)
        reason = "" if task is None else task.operation.held.reason(request.body)
        if task is not None and reason:
            task.answers.passed(reason)
            return (yield CallOrigin(origin=origin)).value
        identity = (
            None if task is None else _identity(task.operation, request, _headers(self.client, request_parameters))
        )
        if task is not None and identity is not None and task.versions is not None:
            version = yield from task.versions.of(_server(request), method(self._info, is_async=self.is_async))
            if version is None:
                task.answers.passed("unknown_version")
                return (yield CallOrigin(origin=origin)).value
            identity, request = {**identity, "version": version.text}, request._replace(about=version.about)
        if task is None or identity is None:
            return (yield CallOrigin(origin=origin)).value
        sampled = task.operation.sampled(request.path, request.body)
        wanted = Wanted(stream, request, _server(request), sampled, self.is_async)
        answer = changed(origin, lambda value: ClientAnswer(value, request), is_async=self.is_async)
        value = yield from task.answers.asking(identity, answer, wanted)
        return value.value if isinstance(value, ClientAnswer) else value

    def _info(self, url: str) -> Flow:
        if self.is_async:
            session = (yield CallOrigin(origin=self.client._get_async_client)).value
        else:
            session = importlib.import_module("huggingface_hub.utils").get_session()
        return (yield CallOrigin(origin=functools.partial(session.get, url, headers=self.client.headers))).value


def _request(parameters: Any, is_async: bool) -> ClientRequest:
    path = {"conversational": "/v1/chat/completions", "text-generation": "/"}.get(parameters.task, "/embed")
    return ClientRequest(parameters.url, path, parameters.json, is_async)


def _headers(client: Any, parameters: Any) -> dict[str, Any]:
    """Those that go out; who pays for the request is one of them."""
    cookies = {"cookie": str(sorted(client.cookies.items()))} if isinstance(client.cookies, Mapping) else {}
    return {**cookies, **client.headers, **(parameters.headers or {})}


def _identity(operation: Operation, request: ClientRequest, headers: Mapping[str, Any]) -> dict[str, Any] | None:
    identified = None if request.body is None else operation.identity(request.path, request.body)
    if identified is None:
        return None
    url = urlsplit(request.sent)
    base = f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
    place: dict[str, Any] = {"base": base, "path": url.path.rstrip("/"), "query": url.query}
    said = identifying((name, str(text)) for name, text in headers.items())
    return {**place, **({"headers": said} if said else {}), "body": identified[1]}


def _server(request: ClientRequest) -> str:
    """The server's own URL, without the route that the client added."""
    bare_url = str(request.sent).partition("?")[0].rstrip("/")
    return bare_url.removesuffix("/chat/completions").removesuffix("/v1").rstrip("/")
