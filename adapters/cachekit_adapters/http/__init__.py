"""Plain HTTP clients, httpx and httpx2: what they POST to the routes of one operation is cached.

    client = wrap(httpx.Client(base_url="http://localhost:8080"), adapter=tei.EMBED)

A request goes out as the client would send it, and a response comes back of the client's own class. Only a 200 is kept;
any other goes to the caller as it came. A hit makes no request, so the client's hooks and its auth do not see one.
"""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Callable
from typing import Any, Final

from cachekit import Adapter, Answers, CallOrigin, Failed, UsageError, Wanted, driven
from cachekit_adapters._wire.batches import divided
from cachekit_adapters._wire.bodies import library_of
from cachekit_adapters._wire.exchange import EVENTS, ClientAnswer
from cachekit_adapters._wire.flows import Flow, method
from cachekit_adapters._wire.operation import Operation
from cachekit_adapters._wire.versions import Versions
from cachekit_adapters.http.batches import Sending
from cachekit_adapters.http.questions import Question, question_of, versioned
from cachekit_adapters.http.values import HTTP, again, kind_of

__all__ = ["HTTP", "wrap"]

_HOMES: Final = frozenset({"tei", "tgi", "opea"})


def wrap(client: Any, *, adapter: Adapter | None = None, **keywords: Any) -> Any:
    """A copy of an httpx or httpx2 client whose POSTs to the adapter's routes are cached.

    `version="server"` asks the server's `/info` which model it has, at most once a minute, and caches nothing where it
    does not say. Other `keywords` are those of `distributed_cache`. Raises UsageError for another kind of client, or
    without an adapter that says what it is used for.
    """
    operation = _operation(adapter)
    if adapter is None or library_of(client) is None:
        raise UsageError(f"wrap() of plain HTTP knows clients of httpx and httpx2, not {type(client).__qualname__}")
    is_async = hasattr(client, "aclose")
    versions = _versions(operation, keywords, is_async=is_async)
    new = copy.copy(client)
    sending = CachedSend(new, operation, Answers(adapter, **keywords), versions, is_async=is_async)
    new.send = method(sending.flow, is_async=is_async)
    return new


def _operation(adapter: Adapter | None) -> Operation:
    home = "" if adapter is None else adapter.name.partition(".")[0]
    operations = importlib.import_module(f"cachekit_adapters.{home}").OPERATIONS if home in _HOMES else {}
    operation = None if adapter is None else operations.get(adapter.name)
    if not isinstance(operation, Operation):
        raise UsageError(
            "a plain HTTP client does not say what it is used for: pass adapter=, one of tei.EMBED, tei.PREDICT, "
            "tei.RERANK, tei.SIMILARITY, tgi.GENERATE, opea.CHAT, opea.TEXT, opea.EMBEDDINGS, opea.RERANKING"
        )
    return operation


def _versions(operation: Operation, keywords: dict[str, Any], *, is_async: bool) -> Versions | None:
    if keywords.get("version") != "server":
        return None
    del keywords["version"]
    server = operation.server
    if server is None:
        raise UsageError(f'version="server": {operation.name}\'s servers do not tell which model they have; name one')
    return Versions(server.path, server.read, is_async=is_async, in_turn=True)


class CachedSend:
    """The `send` of a wrapped client."""

    def __init__(
        self, client: Any, operation: Operation, answers: Answers, versions: Versions | None, *, is_async: bool
    ) -> None:
        self.operation, self.answers, self.versions, self.is_async = operation, answers, versions, is_async
        self.real, self.build, self.base = client.send, client.build_request, client.base_url.path
        self.refused = _refused(library_of(client))

    def flow(self, request: Any, *, stream: bool = False, **options: Any) -> Flow:
        """What `send` does in the place of the client's own (`real`)."""
        question = question_of(self.operation, request, self.base, is_async=self.is_async)
        reason = "" if question is None else self.operation.held.reason(question.request.body)
        if reason:
            self.answers.passed(reason)
            question = None
        if question is not None and self.versions is not None:
            question = yield from self._versioned(question, self.versions)
        if question is None:
            return (yield CallOrigin(origin=functools.partial(self.real, request, stream=stream, **options))).value

        def fetch(request: Any) -> Any:
            return driven(self._fetched(question, request, stream, options), is_async=self.is_async)

        answer = self._answered(question, fetch)
        outcome = yield CallOrigin(self.refused, lambda: driven(answer, is_async=self.is_async))
        if isinstance(outcome, Failed):
            refused: Any = outcome.error
            return again(refused.response, question.request, whole=not stream)
        response = outcome.value
        if stream and response.is_closed:
            return again(response, question.request, whole=False)
        if not stream and not response.is_closed:
            yield from self._read(response)
        return response

    def _versioned(self, question: Question, versions: Versions) -> Flow:
        """The question of this version of the model only; None, which is counted, where the server does not say."""
        version = yield from versions.of(question.server, lambda url: self.real(self.build("GET", url)))
        if version is None:
            self.answers.passed("unknown_version")
        return None if version is None else versioned(question, version)

    def _answered(self, question: Question, fetch: Callable[[Any], Any]) -> Flow:
        """The response to a question, stored or fetched."""
        sent, path, body, _, _ = question.request
        if question.divisible:
            sending = Sending(self.operation, question.request)
            outcome = yield from divided(
                *(self.answers, question.identity, self.operation.batches, path, body),
                lambda part: fetch(sending.request(part)),
                form=sending.form(),
                scope=question.scope,
                is_async=self.is_async,
            )
            return sending.response(outcome)
        streamed, sampled = self.operation.streams(path, body), self.operation.sampled(path, body)
        wanted = Wanted(streamed, question.request, question.scope, sampled, self.is_async)
        value = yield from self.answers.asking(question.identity, functools.partial(fetch, sent), wanted)
        return value.value if isinstance(value, ClientAnswer) else value

    def _fetched(self, question: Question, request: Any, stream: bool, options: dict[str, Any]) -> Flow:
        """What the server says to a request. Raises `refused` for what is no 200."""
        expected = self.operation.streams(question.request.path, question.request.body)
        origin = functools.partial(self.real, request, stream=stream or expected, **options)
        response = (yield CallOrigin(origin=origin)).value
        if response.status_code != 200:
            yield from self._read(response)
            raise self.refused("not a 200", request=response.request, response=response)
        # A stream where none was expected goes on to who asked; anything else is wanted whole.
        if not expected and kind_of(response) != EVENTS:
            yield from self._read(response)
        return ClientAnswer(response, question.request)

    def _read(self, response: Any) -> Flow:
        read, close = (response.aread, response.aclose) if self.is_async else (response.read, response.close)
        outcome = yield CallOrigin(BaseException, read)
        if isinstance(outcome, Failed):
            yield CallOrigin(origin=close)
            raise outcome.error


@functools.cache
def _refused(library: Any) -> Any:
    """What carries a response that is no 200 through the engine, which reads Retry-After from it; never raised outside."""
    return type("Refused", (library.HTTPStatusError,), {})
