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
from cachekit_adapters._wire.flows import Flow, method
from cachekit_adapters._wire.native import EVENTS, Native
from cachekit_adapters._wire.versions import Versions
from cachekit_adapters.http.batches import Sending
from cachekit_adapters.http.questions import Question, question_of, versioned
from cachekit_adapters.http.values import HTTP, Came, again, kind_of

__all__ = ["HTTP", "wrap"]

_HOMES: Final = frozenset({"tei", "tgi", "opea"})


def wrap(client: Any, *, adapter: Adapter | None = None, **keywords: Any) -> Any:
    """A copy of an httpx or httpx2 client whose POSTs to the adapter's routes are cached.

    `version="server"` asks the server's `/info` which model it has, at most once a minute, and caches nothing where it
    does not say. Other `keywords` are those of `distributed_cache`. Raises UsageError for another kind of client, or
    without an adapter that says what it is used for.
    """
    native, library = _native(adapter), library_of(client)
    if adapter is None or library is None:
        raise UsageError(f"wrap() of plain HTTP knows clients of httpx and httpx2, not {type(client).__qualname__}")
    is_async = hasattr(client, "aclose")
    versions = _versions(native, keywords, is_async=is_async)
    found = copy.copy(client)
    found.send = method(CachedSend(found, native, Answers(adapter, **keywords), versions).flow, is_async=is_async)
    return found


def _native(adapter: Adapter | None) -> Native:
    home = "" if adapter is None else adapter.name.partition(".")[0]
    operations = importlib.import_module(f"cachekit_adapters.{home}").OPERATIONS if home in _HOMES else {}
    native = None if adapter is None else operations.get(adapter.name)
    if not isinstance(native, Native):
        raise UsageError(
            "a plain HTTP client does not say what it is used for: pass adapter=, one of tei.EMBED, tei.PREDICT, "
            "tei.RERANK, tei.SIMILARITY, tgi.GENERATE, opea.CHAT, opea.TEXT, opea.EMBEDDINGS, opea.RERANKING"
        )
    return native


def _versions(native: Native, keywords: dict[str, Any], *, is_async: bool) -> Versions | None:
    if keywords.get("version") != "server":
        return None
    del keywords["version"]
    if native.server is None:
        raise UsageError(f'version="server": {native.name}\'s servers do not tell which model they have; name one')
    return Versions(native.server.path, native.server.read, is_async=is_async, in_turn=True)


class CachedSend:
    """The `send` of a wrapped client."""

    def __init__(self, client: Any, native: Native, answers: Answers, versions: Versions | None) -> None:
        self.native, self.answers, self.versions = native, answers, versions
        self.library = importlib.import_module(str(library_of(client)))
        self.real, self.build, self.base = client.send, client.build_request, client.base_url.path
        self.is_async = hasattr(client, "aclose")
        self.refused = _refused(self.library)

    def flow(self, request: Any, *, stream: bool = False, **options: Any) -> Flow:
        """What `send` does in the place of the client's own (`real`)."""
        question = question_of(self.native, request, self.base, self.library, is_async=self.is_async)
        if question is not None and self.versions is not None:
            question = yield from self._versioned(question, self.versions)
        if question is None:
            return (yield CallOrigin(origin=functools.partial(self.real, request, stream=stream, **options))).value

        def fetch(request: Any) -> Any:
            return driven(self._fetched(question, stream, options, request), is_async=self.is_async)

        answer = self._answered(question, fetch)
        outcome = yield CallOrigin(self.refused, lambda: driven(answer, is_async=self.is_async))
        if isinstance(outcome, Failed):
            refused: Any = outcome.error
            return again(refused.response, question.asked, whole=not stream)
        response = outcome.value
        if stream and response.is_closed:
            return again(response, question.asked, whole=False)
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
        asked, native = question.asked, self.native
        if question.divisible:
            sending = Sending(native, asked)
            outcome = yield from divided(
                *(self.answers, question.identity, native.parts, asked.path, asked.body),
                lambda body: fetch(sending.request(body)),
                form=sending.form(),
                scope=question.scope,
            )
            return sending.response(outcome)
        streamed, sampled = native.streams(asked.path, asked.body), native.sampled(asked.path, asked.body)
        wanted = Wanted(streamed, asked, question.scope, sampled, self.is_async)
        value = yield from self.answers.asking(question.identity, functools.partial(fetch, asked.request), wanted)
        return value.response if isinstance(value, Came) else value

    def _fetched(self, question: Question, stream: bool, options: dict[str, Any], request: Any) -> Flow:
        """What the server says to a request. Raises `refused` for what is no 200."""
        asked = question.asked
        expected = self.native.streams(asked.path, asked.body)
        origin = functools.partial(self.real, request, stream=stream or expected, **options)
        response = (yield CallOrigin(origin=origin)).value
        if response.status_code != 200:
            yield from self._read(response)
            raise self.refused("not a 200", request=response.request, response=response)
        # A stream where none was expected goes on to who asked; anything else is wanted whole.
        if not expected and kind_of(response) != EVENTS:
            yield from self._read(response)
        return Came(response, asked)

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
